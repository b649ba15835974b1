// What lies in the buffers of search and descent.

@group(0) @binding(0) var<uniform> chunk: Chunk;
@group(0) @binding(1) var<storage, read> curves: array<Curve>;
// STRIDE numbers a row: inputs, response, root of the weight [, target, root of its weight in the projection's space]
@group(0) @binding(2) var<storage, read> rows: array<f32>;
// GRID_STRIDE cell values a curve, axis by axis
@group(0) @binding(3) var<storage, read> grid: array<f32>;
// Listed points only: AXES cells a point
@group(0) @binding(4) var<storage, read> listed: array<u32>;
// Lowest, then highest value of every coordinate
@group(0) @binding(5) var<storage, read> bounds: array<f32>;
// First the objective of every grid point (0 is "not written", REFUSED "cannot be evaluated"), then STATE_WORDS an item:
// damping, delta, scale and largest curvature of every coordinate
@group(0) @binding(6) var<storage, read_write> scratch: array<f32>;
// BASIN_WORDS a curve: 1 + the number of basins (0 is "not written"), then their grid points, best first
@group(0) @binding(7) var<storage, read_write> basins: array<u32>;
// RESULT_WORDS an item: status, objective, coordinates
@group(0) @binding(8) var<storage, read_write> results: array<u32>;

fn response(row: u32) -> f32 {
    return rows[row * STRIDE + INPUTS];
}

fn root_weight(row: u32) -> f32 {
    return rows[row * STRIDE + INPUTS + 1u];
}

// The response and root weight that the projection sees; PROXY is 2 where they differ from the fit's, else 0.
fn projected_response(row: u32) -> f32 {
    return rows[row * STRIDE + INPUTS + PROXY];
}

fn projected_root_weight(row: u32) -> f32 {
    return rows[row * STRIDE + INPUTS + PROXY + 1u];
}
