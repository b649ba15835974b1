// One invocation is one replicate of one curve. It draws its random numbers and writes its rows and its record, so that search
// and descent find it as any other curve.

// A curve that has replicates.
struct Parent {
    // First of its rows among the sources
    source: u32,
    rows: u32,
    // What is drawn: rows, or clusters of them
    groups: u32,
    // Huber's delta
    delta: f32,
    key: vec2<u32>,
    // First row of its replicate 0, modulo 2^32: a chunk may begin amid a curve's replicates
    base: u32,
    spare: u32,
}

@group(0) @binding(0) var<uniform> chunk: Chunk;
@group(0) @binding(1) var<storage, read> parents: array<Parent>;
// SOURCE_STRIDE numbers a row: those of a row, its group, what the law predicts for it, and its residual
@group(0) @binding(2) var<storage, read> sources: array<f32>;
@group(0) @binding(3) var<storage, read_write> curves: array<Curve>;
@group(0) @binding(4) var<storage, read_write> rows: array<f32>;
// How often each group was drawn, from the replicate's first row on
@group(0) @binding(5) var<storage, read_write> counts: array<u32>;

fn draw_groups(parent: Parent, replicate: u32, first: u32) {
    for (var group = 0u; group < parent.groups; group++) {
        counts[first + group] = 0u;
    }
    for (var index = 0u; index < parent.groups; index++) {
        counts[first + below(word(parent.key, replicate, index), parent.groups)]++;
    }
}

// The response that a row has under a scheme that moves responses.
fn moved_response(parent: Parent, replicate: u32, k: u32) -> f32 {
    let source = (parent.source + k) * SOURCE_STRIDE;
    let predicted = sources[source + STRIDE + 1u];
    if SCHEME == WILD {
        let drawn = word(parent.key, replicate, u32(sources[source + STRIDE]));
        let residual = sources[source + STRIDE + 2u];
        return select(predicted + residual, predicted - residual, (drawn >> 31u) == 1u);
    }
    let other = (parent.source + below(word(parent.key, replicate, k), parent.rows)) * SOURCE_STRIDE;
    return predicted + sources[other + STRIDE + 2u] / sources[source + INPUTS + 1u];
}

// The root of what a row's weight is multiplied by.
fn root_factor(parent: Parent, replicate: u32, first: u32, group: u32) -> f32 {
    if SCHEME == PAIRS {
        return sqrt(f32(counts[first + group]));
    }
    if SCHEME == FRACTIONAL {
        return sqrt(-operator_log(unit(word(parent.key, replicate, group))));
    }
    return 1.0;
}

@compute @workgroup_size(WORKGROUP)
fn resample(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = invocation(group, groups, local);
    if item >= chunk.curves {
        return;
    }
    let place = chunk.first + item;
    let frame = place / chunk.replicates;
    let replicate = place % chunk.replicates;
    let parent = parents[frame];
    let first = parent.base + replicate * parent.rows;
    if SCHEME == PAIRS {
        draw_groups(parent, replicate, first);
    }
    var kept = 0u;
    var possible = true;
    for (var k = 0u; k < parent.rows; k++) {
        let source = (parent.source + k) * SOURCE_STRIDE;
        let factor = root_factor(parent, replicate, first, u32(sources[source + STRIDE]));
        if factor == 0.0 {
            continue;
        }
        let row = (first + kept) * STRIDE;
        for (var number = 0u; number < STRIDE; number++) {
            rows[row + number] = sources[source + number];
        }
        let root = factor * sources[source + INPUTS + 1u];
        rows[row + INPUTS + 1u] = root;
        if SCHEME == WILD || SCHEME == RESIDUAL {
            let t = moved_response(parent, replicate, k);
            rows[row + INPUTS] = t;
            possible = possible & is_tame(t);
            if PROXY > 0u && IN_LOG_SPACE {
                let y = operator_exp(t);
                rows[row + INPUTS + PROXY] = y;
                rows[row + INPUTS + PROXY + 1u] = root / y;
            } else if PROXY > 0u {
                possible = possible & is_tame_positive(t);
                rows[row + INPUTS + PROXY] = operator_log(max(t, 1.2e-38));
                rows[row + INPUTS + PROXY + 1u] = root * t;
            }
        } else if PROXY > 0u {
            rows[row + INPUTS + PROXY + 1u] *= factor;
        }
        kept++;
    }
    // Fewer distinct rows than parameters: the host says what becomes of it.
    possible = possible & (kept >= COORDINATES);
    curves[item] = Curve(first, select(0u, kept, possible), parent.delta, frame);
}
