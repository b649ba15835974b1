// One invocation is one basin of one curve, curves fastest. It starts at the basin's grid point and its best linear
// coordinates, runs Levenberg-Marquardt on the exact objective inside the box, and writes one result.

// What one pass over a curve's rows tells. Columns of the Jacobian are divided by `scale`, so that their squares fit.
struct Measured {
    objective: f32,
    // The part of the objective that rounding alone would leave
    rounding: f32,
    // JᵀWJ, lower triangle by rows
    curvature: array<f32, TRIANGLE>,
    // JᵀW psi(r): downhill
    slope: Coordinates,
    trusted: bool,
}

// Marquardt's damping: where it starts, how it moves, where a step has become too short to matter.
const DAMPING_START: f32 = 1e-3;
const DAMPING_LOWEST: f32 = 1e-7;
const DAMPING_HIGHEST: f32 = 1e7;
const DAMPING_EASED: f32 = 0.1;
const DAMPING_RAISED: f32 = 6.0;
// Predicted decrease, as a share of the objective, below which the judge may take over.
const NEGLIGIBLE: f32 = 1e-8;
// The same while Huber's threshold is still being lowered.
const NEGLIGIBLE_ON_THE_WAY: f32 = 1e-2;
// An increase that rounding of the sum explains.
const SLACK: f32 = 1e-6;
const ROUNDING: f32 = 1.2e-7;

fn measure(curve: Curve, z: Coordinates, scale: Coordinates, delta: f32) -> Measured {
    var found: Measured;
    var trusted = true;
    for (var row = curve.first_row; row < curve.first_row + curve.rows; row++) {
        var g: Coordinates;
        let h = predict_with_gradient(read_inputs(row), z, &g, &trusted);
        let t = response(row);
        let w = root_weight(row) * root_weight(row);
        let r = t - h;
        let e = ROUNDING * (abs(t) + abs(h));
        found.rounding += 0.5 * w * e * e;
        var first_order = w;
        var second_order = w;
        if HUBER && abs(r) > delta {
            // Newton's curvature is 0 out here and steps too far, the reweighted one is w delta/|r| and too short.
            found.objective += w * delta * (abs(r) - 0.5 * delta);
            first_order = w * delta / abs(r);
            second_order = OUTLIER_CURVATURE * first_order;
        } else {
            found.objective += 0.5 * w * r * r;
        }
        var index = 0u;
        for (var j = 0u; j < COORDINATES; j++) {
            g[j] *= scale[j];
            found.slope[j] += first_order * r * g[j];
            for (var i = 0u; i <= j; i++) {
                found.curvature[index] += second_order * g[j] * g[i];
                index++;
            }
        }
    }
    found.trusted = trusted & is_tame(found.objective);
    return found;
}

// Where refinement begins: 1/scale and the mean |r|; not trusted where some prediction has no value.
struct Inspected {
    scale: Coordinates,
    spread: f32,
    trusted: bool,
}

fn inspect(curve: Curve, z: Coordinates) -> Inspected {
    var largest: Coordinates;
    var spread = 0.0;
    var trusted = true;
    for (var row = curve.first_row; row < curve.first_row + curve.rows; row++) {
        var g: Coordinates;
        let h = predict_with_gradient(read_inputs(row), z, &g, &trusted);
        spread += abs(response(row) - h);
        for (var j = 0u; j < COORDINATES; j++) {
            largest[j] = max(largest[j], abs(g[j]) * root_weight(row));
        }
    }
    var scale: Coordinates;
    for (var j = 0u; j < COORDINATES; j++) {
        scale[j] = select(1.0, 1.0 / largest[j], largest[j] > 1e-30);
    }
    return Inspected(scale, spread / f32(curve.rows), trusted & is_tame(spread));
}

fn inside(index: u32, z: Coordinates) -> Coordinates {
    var clamped = z;
    for (var j = 0u; j < COORDINATES; j++) {
        let at = (index * COORDINATES + j) * 2u;
        clamped[j] = clamp(z[j], bounds[at], bounds[at + 1u]);
    }
    return clamped;
}

struct Step {
    // In scaled coordinates
    direction: Coordinates,
    // Decrease of the objective that the quadratic model promises
    predicted: f32,
    solved: bool,
}

// (curvature + damping · diagonal) direction = slope over the coordinates that may move, by Cholesky on unit columns.
fn damped_step(at: Measured, free: array<bool, COORDINATES>, largest: Coordinates, damping: f32) -> Step {
    var step: Step;
    var factor: array<f32, TRIANGLE>;
    var unit: Coordinates;
    for (var j = 0u; j < COORDINATES; j++) {
        unit[j] = select(0.0, inverseSqrt(largest[j]), free[j] && largest[j] > 1e-30);
    }
    var solution: Coordinates;
    var row_start = 0u;
    for (var j = 0u; j < COORDINATES; j++) {
        var value = at.slope[j] * unit[j];
        var column_start = 0u;
        for (var i = 0u; i <= j; i++) {
            var sum = at.curvature[row_start + i] * unit[j] * unit[i];
            if i == j {
                sum += select(1.0, damping, unit[j] > 0.0);
            }
            for (var k = 0u; k < i; k++) {
                sum -= factor[row_start + k] * factor[column_start + k];
            }
            if i == j {
                if sum < 1e-9 {
                    step.solved = false;
                    return step;
                }
                factor[row_start + j] = sqrt(sum);
            } else {
                let entry = sum / factor[column_start + i];
                factor[row_start + i] = entry;
                value -= entry * solution[i];
            }
            column_start += i + 1u;
        }
        solution[j] = value / factor[row_start + j];
        row_start += j + 1u;
    }
    for (var back = 0u; back < COORDINATES; back++) {
        let j = COORDINATES - 1u - back;
        var value = solution[j];
        for (var k = j + 1u; k < COORDINATES; k++) {
            value -= factor[k * (k + 1u) / 2u + j] * solution[k];
        }
        solution[j] = value / factor[j * (j + 1u) / 2u + j];
    }
    for (var j = 0u; j < COORDINATES; j++) {
        step.direction[j] = solution[j] * unit[j];
        step.predicted += 0.5 * solution[j] * (at.slope[j] * unit[j] + damping * solution[j]);
    }
    step.solved = true;
    return step;
}

// Makes every prediction possible by leaning on the constant part of the law; false where that does not help.
fn become_feasible(curve: Curve, index: u32, start: Coordinates, z: ptr<function, Coordinates>) -> bool {
    for (var attempt = 0u; attempt < BLENDS; attempt++) {
        var candidate = start;
        // 0, 1/16, 1/8, … 1 of the constant solution
        let share = select(exp2(f32(attempt) - f32(BLENDS - 1u)), 0.0, attempt == 0u);
        if attempt > 0u {
            blend(&candidate, mean_response(curve), share);
        }
        if !change_chart(&candidate) {
            continue;
        }
        candidate = inside(index, candidate);
        if inspect(curve, candidate).trusted {
            *z = candidate;
            return true;
        }
    }
    return false;
}

// Weighted mean of what the projection fits.
fn mean_response(curve: Curve) -> f32 {
    var sum = 0.0;
    var weights = 0.0;
    for (var row = curve.first_row; row < curve.first_row + curve.rows; row++) {
        let w = root_weight(row) * root_weight(row);
        sum += w * projected_response(row);
        weights += w;
    }
    return sum / weights;
}

@compute @workgroup_size(WORKGROUP)
fn refine(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = invocation(group, groups, local);
    if item >= chunk.curves * MOST_BASINS {
        return;
    }
    let index = item % chunk.curves;
    let rank = item / chunk.curves;
    let found = basins[index * BASIN_WORDS];
    if rank + 1u >= found {
        return;
    }
    let curve = curves[index];
    var start: Coordinates;
    place(index, basins[index * BASIN_WORDS + 1u + rank], &start);
    let solved = solve(curve, start);
    set_linear(solved.coefficients, &start);
    var z: Coordinates;
    var objective = solved.objective;
    var status = INFEASIBLE;
    if solved.trusted && become_feasible(curve, index, start, &z) {
        status = CONVERGED;
        if !CLOSED_FORM {
            status = descend(curve, index, &z, &objective);
        }
    }
    let at = item * RESULT_WORDS;
    results[at + 1u] = bitcast<u32>(objective);
    for (var j = 0u; j < COORDINATES; j++) {
        results[at + 2u + j] = bitcast<u32>(z[j]);
    }
    results[at] = status;
}

fn descend(curve: Curve, index: u32, z: ptr<function, Coordinates>, objective: ptr<function, f32>) -> u32 {
    let inspected = inspect(curve, *z);
    let scale = inspected.scale;
    // The robust objective is approached from one that is quadratic almost everywhere: with its own small threshold
    // the first steps would see no curvature.
    var delta = select(0.0, max(curve.delta, inspected.spread), HUBER);
    var at = measure(curve, *z, scale, delta);
    var largest: Coordinates;
    var damping = DAMPING_START;
    var status = ITERATION_LIMIT;
    for (var iteration = 0u; iteration < ITERATIONS; iteration++) {
        var free: array<bool, COORDINATES>;
        for (var j = 0u; j < COORDINATES; j++) {
            let box = (index * COORDINATES + j) * 2u;
            let downhill = at.slope[j];
            let held = ((*z)[j] <= bounds[box] && downhill < 0.0) || ((*z)[j] >= bounds[box + 1u] && downhill > 0.0);
            free[j] = !held;
            largest[j] = max(largest[j], at.curvature[j * (j + 1u) / 2u + j]);
        }
        let step = damped_step(at, free, largest, damping);
        let on_the_way = HUBER && delta > curve.delta;
        let negligible = select(NEGLIGIBLE, NEGLIGIBLE_ON_THE_WAY, on_the_way) * at.objective + at.rounding;
        let stuck = damping > DAMPING_HIGHEST;
        if stuck || (step.solved && damping <= DAMPING_START && step.predicted <= negligible) {
            if !on_the_way {
                status = CONVERGED;
                break;
            }
            delta = max(curve.delta, 0.25 * delta);
            at = measure(curve, *z, scale, delta);
            damping = DAMPING_START;
            largest = Coordinates();
            continue;
        }
        if !step.solved {
            damping = max(damping, DAMPING_LOWEST) * DAMPING_RAISED;
            continue;
        }
        var trial = *z;
        for (var j = 0u; j < COORDINATES; j++) {
            trial[j] += step.direction[j] * scale[j];
        }
        trial = inside(index, trial);
        let there = measure(curve, trial, scale, delta);
        if there.trusted && there.objective <= at.objective * (1.0 + SLACK) {
            *z = trial;
            at = there;
            damping = max(damping * DAMPING_EASED, DAMPING_LOWEST);
        } else {
            damping *= DAMPING_RAISED;
        }
    }
    *objective = at.objective;
    return status;
}
