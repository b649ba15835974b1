// Variable projection: the linear coordinates that fit best while the others stand still.

// Part of a column's norm that must be left after orthogonalisation for its coefficient to mean anything in f32.
const INDEPENDENT: f32 = 1e-6;

// R of the rows seen so far, its columns one behind the other (R[k][l] at l (l + 1)/2 + k), and Q'y.
struct Triangle {
    r: array<f32, LINEAR_TRIANGLE>,
    q: Linear,
    rest: f32,
}

// Cosine and sine that turn b into a (Givens). Ratios first, squares later: a basis of 1e30 must not overflow.
fn rotation(a: f32, b: f32) -> vec2<f32> {
    if abs(b) > abs(a) {
        let ratio = a / b;
        let sine = inverseSqrt(1.0 + ratio * ratio);
        return vec2<f32>(sine * ratio, sine);
    }
    let ratio = b / select(a, 1.0, a == 0.0);
    let cosine = inverseSqrt(1.0 + ratio * ratio);
    return vec2<f32>(cosine, cosine * ratio);
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
    let offset = project(read_inputs(row), z, &basis, trusted);
    let value = offset + combine(coefficients, basis);
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
        absorb(&triangle, basis, root, projected_response(row) - offset);
    }
    let coefficients = substitute_back(&triangle);
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
    solved.trusted = solved.trusted & is_tame(solved.objective) & are_tame(solved.coefficients);
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

// Where the fit is of the logarithm of what is projected as it stands: the linear coordinates that fit that best, by a few
// damped Gauss-Newton steps from those of the projection, and the objective there. A grid point's own objective is off by a
// share of the order of the residuals, which on noisy curves hides valleys; the host's face of this is src/fit/exact.rs.
fn solve_exactly(curve: Curve, z: Coordinates, projected: Solved) -> Solved {
    var best = projected;
    if !BEHIND_PROXY || !projected.trusted {
        return best;
    }
    best.objective = REFUSED;
    var trial = projected.coefficients;
    for (var step = 0u; step < EXACT_STEPS; step++) {
        var triangle: Triangle;
        var sum = 0.0;
        var trusted = true;
        for (var row = curve.first_row; row < curve.first_row + curve.rows; row++) {
            var basis: Linear;
            let offset = project(read_inputs(row), z, &basis, &trusted);
            let value = offset + combine(trial, basis);
            let y = projected_response(row);
            // Below a share of y the logarithm is continued as a straight line.
            let clipped = max(value, CLIPPED * y);
            let left = operator_log(y / clipped) - (value - clipped) / clipped;
            let w = root_weight(row);
            sum += 0.5 * w * w * left * left;
            absorb(&triangle, basis, w / clipped, value + clipped * left - offset);
        }
        if trusted & is_tame(sum) & (sum < best.objective) {
            best.objective = sum;
            best.coefficients = trial;
            trial = substitute_back(&triangle);
            if !are_tame(trial) || sum - 0.5 * triangle.rest <= EXACT_NEGLIGIBLE * sum {
                break;
            }
        } else {
            trial = halfway(trial, best.coefficients);
        }
    }
    best.trusted = best.objective < REFUSED;
    return best;
}
