// What the kernels of the descent share: its state between two dispatches, and the box.

const DAMPING_START: f32 = 1e-4;

struct State {
    damping: f32,
    // Huber's threshold on its way down
    delta: f32,
    // Columns of the Jacobian times this are of size 1 at the start
    scale: Coordinates,
    // Largest diagonal of the curvature so far (Moré)
    largest: Coordinates,
}

fn keep_state(item: u32, state: State) {
    let at = item * STATE_WORDS;
    scratch[at] = state.damping;
    scratch[at + 1u] = state.delta;
    for (var j = 0u; j < COORDINATES; j++) {
        scratch[at + 2u + j] = state.scale[j];
        scratch[at + 2u + COORDINATES + j] = state.largest[j];
    }
}

fn read_state(item: u32) -> State {
    let at = item * STATE_WORDS;
    var state: State;
    state.damping = scratch[at];
    state.delta = scratch[at + 1u];
    for (var j = 0u; j < COORDINATES; j++) {
        state.scale[j] = scratch[at + 2u + j];
        state.largest[j] = scratch[at + 2u + COORDINATES + j];
    }
    return state;
}

fn keep_result(item: u32, objective: f32, z: Coordinates) {
    let at = item * RESULT_WORDS + 1u;
    results[at] = bitcast<u32>(objective);
    for (var j = 0u; j < COORDINATES; j++) {
        results[at + 1u + j] = bitcast<u32>(z[j]);
    }
}

fn read_coordinates(item: u32) -> Coordinates {
    var z: Coordinates;
    for (var j = 0u; j < COORDINATES; j++) {
        z[j] = bitcast<f32>(results[item * RESULT_WORDS + 2u + j]);
    }
    return z;
}

fn inside(frame: u32, z: Coordinates) -> Coordinates {
    var clamped = z;
    for (var j = 0u; j < COORDINATES; j++) {
        let at = (frame * COORDINATES + j) * 2u;
        clamped[j] = clamp(z[j], bounds[at], bounds[at + 1u]);
    }
    return clamped;
}
