// What all kernels share: records and the number of an invocation. Sizes and codes (INPUTS, COORDINATES, STRIDE, …) are
// written before this by the host.

alias Inputs = array<f32, INPUT_SLOTS>;
alias Coordinates = array<f32, COORDINATES>;
alias Linear = array<f32, LINEAR_SLOTS>;

struct Chunk {
    curves: u32,
    // Passes over a curve's rows that one refinement dispatch may make
    passes: u32,
    // Replicates of each parent, and where this chunk begins among those of its first; 0 where curves are the user's own
    replicates: u32,
    first: u32,
}

struct Curve {
    first_row: u32,
    rows: u32,
    // Huber's delta in the curve's own units; 0 under squares
    delta: f32,
    // Whose grid and bounds it has
    frame: u32,
}

fn invocation(group: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return (group.y * groups.x + group.x) * WORKGROUP + local;
}
