// Variable projection: the linear coordinates that fit best while the others stand still.

const REFUSED: f32 = 3e38;

// Part of a column's norm that must be left after orthogonalisation for its coefficient to mean anything in f32.
const INDEPENDENT: f32 = 1e-6;

// The upper triangle of R and Q'y of the rows seen so far, R[k][l] at k * LINEAR_SLOTS + l.
struct Triangle {
    r: array<f32, LINEAR_SLOTS * LINEAR_SLOTS>,
    q: Linear,
    rest: f32,
}

// Rotates one weighted row into the triangle (Givens). Ratios first, squares later: a basis of 1e30 must not overflow.
// What is left of the response after all rotations is the row's part of the residual.
fn absorb(triangle: ptr<function, Triangle>, row: ptr<function, Linear>, response: f32) {
    var left = response;
    for (var k = 0u; k < LINEAR; k++) {
        let a = (*triangle).r[k * LINEAR_SLOTS + k];
        let b = (*row)[k];
        if b == 0.0 {
            continue;
        }
        var c = 0.0;
        var s = 1.0;
        if abs(b) > abs(a) {
            let ratio = a / b;
            s = inverseSqrt(1.0 + ratio * ratio);
            c = s * ratio;
        } else {
            let ratio = b / a;
            c = inverseSqrt(1.0 + ratio * ratio);
            s = c * ratio;
        }
        for (var l = k; l < LINEAR; l++) {
            let above = (*triangle).r[k * LINEAR_SLOTS + l];
            let below = (*row)[l];
            (*triangle).r[k * LINEAR_SLOTS + l] = c * above + s * below;
            (*row)[l] = c * below - s * above;
        }
        let above = (*triangle).q[k];
        (*triangle).q[k] = c * above + s * left;
        left = c * left - s * above;
    }
    (*triangle).rest += left * left;
}

// R coefficients = Q'y. A column that depends on those before it gets the coefficient 0, and what it might have explained
// stays in the residual.
fn substitute_back(triangle: ptr<function, Triangle>, coefficients: ptr<function, Linear>) {
    for (var step = 0u; step < LINEAR; step++) {
        let k = LINEAR - 1u - step;
        var value = (*triangle).q[k];
        for (var l = k + 1u; l < LINEAR; l++) {
            value -= (*triangle).r[k * LINEAR_SLOTS + l] * (*coefficients)[l];
        }
        let pivot = (*triangle).r[k * LINEAR_SLOTS + k];
        var largest = 0.0;
        for (var l = 0u; l <= k; l++) {
            largest = max(largest, abs((*triangle).r[l * LINEAR_SLOTS + k]));
        }
        if abs(pivot) > INDEPENDENT * largest {
            (*coefficients)[k] = value / pivot;
        } else {
            (*coefficients)[k] = 0.0;
            (*triangle).rest += value * value;
        }
    }
}

struct Solved {
    coefficients: Linear,
    // ½ Σ w r² or Σ w huber(r), in the fit's units to first order
    objective: f32,
    // Σ |r| over the rows
    spread: f32,
    trusted: bool,
}

// What is left of one row at given coefficients, in the fit's own units: a proxy's residual times root_v/root_w.
fn left_over(row: u32, z: Coordinates, coefficients: Linear, trusted: ptr<function, bool>) -> f32 {
    var basis: Linear;
    var value = project(read_inputs(row), z, &basis, trusted);
    for (var l = 0u; l < LINEAR; l++) {
        value += coefficients[l] * basis[l];
    }
    return (projected_response(row) - value) * (projected_root_weight(row) / root_weight(row));
}

// One weighted least-squares solution; under Huber `delta` < LARGEST_DELTA weighs rows down by the residuals of `before`.
fn solve_once(curve: Curve, z: Coordinates, before: Linear, delta: f32) -> Solved {
    var triangle: Triangle;
    var trusted = true;
    for (var row = curve.first_row; row < curve.first_row + curve.rows; row++) {
        var basis: Linear;
        let offset = project(read_inputs(row), z, &basis, &trusted);
        var root = projected_root_weight(row);
        if HUBER && delta < LARGEST_DELTA {
            let r = abs(left_over(row, z, before, &trusted));
            root *= sqrt(min(1.0, delta / max(r, 1e-37)));
        }
        for (var l = 0u; l < LINEAR; l++) {
            basis[l] *= root;
        }
        absorb(&triangle, &basis, root * (projected_response(row) - offset));
    }
    var coefficients: Linear;
    substitute_back(&triangle, &coefficients);
    return Solved(coefficients, 0.5 * triangle.rest, 0.0, trusted);
}

const LARGEST_DELTA: f32 = 1e30;

// The linear coordinates at the searched coordinates of `z`. Under Huber a few reweighted solutions with a threshold
// that falls with the residuals: a start near the robust optimum, not the optimum itself.
fn solve(curve: Curve, z: Coordinates) -> Solved {
    var solved = solve_once(curve, z, Linear(), LARGEST_DELTA);
    if HUBER {
        var delta = LARGEST_DELTA;
        for (var pass_number = 0u; pass_number < HUBER_PASSES; pass_number++) {
            measure_solution(curve, z, &solved);
            delta = max(curve.delta, 0.5 * solved.spread / f32(curve.rows));
            solved = solve_once(curve, z, solved.coefficients, delta);
        }
        measure_solution(curve, z, &solved);
    }
    solved.trusted = solved.trusted & is_tame(solved.objective);
    for (var l = 0u; l < LINEAR; l++) {
        solved.trusted = solved.trusted & is_tame(solved.coefficients[l]);
    }
    return solved;
}

// Huber's objective and the spread of the residuals at a solution.
fn measure_solution(curve: Curve, z: Coordinates, solved: ptr<function, Solved>) {
    var sum = 0.0;
    var spread = 0.0;
    var trusted = (*solved).trusted;
    for (var row = curve.first_row; row < curve.first_row + curve.rows; row++) {
        let r = abs(left_over(row, z, (*solved).coefficients, &trusted));
        let w = root_weight(row) * root_weight(row);
        sum += w * select(curve.delta * (r - 0.5 * curve.delta), 0.5 * r * r, r <= curve.delta);
        spread += r;
    }
    (*solved).objective = sum;
    (*solved).trusted = trusted;
    (*solved).spread = spread;
}
