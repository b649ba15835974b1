// One invocation is one basin of one curve, curves fastest. It carries Levenberg-Marquardt on the exact objective inside the
// box on from where the dispatch before left it, for at most `chunk.passes` passes over the curve's rows.

// Marquardt's damping: where it starts, how it moves, where a step has become too short to matter.
const DAMPING_LOWEST: f32 = 1e-7;
const DAMPING_HIGHEST: f32 = 1e7;
const DAMPING_EASED: f32 = 0.1;
const DAMPING_RAISED: f32 = 6.0;
// Predicted decrease, as a share of the objective, below which the judge may take over.
const NEGLIGIBLE: f32 = 1e-8;
// The same for a step whose outcome drowns in the rounding of the sum.
const SETTLED: f32 = 1e-6;
// The same while Huber's threshold is still being lowered.
const NEGLIGIBLE_ON_THE_WAY: f32 = 1e-2;
// An increase that rounding of the sum explains.
const SLACK: f32 = 1e-6;
const ROUNDING: f32 = 1.2e-7;
// Smallest pivot of a matrix with a unit diagonal.
const SINGULAR: f32 = 1e-9;

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
        accumulate(&found, g, scale, first_order * r, second_order);
    }
    found.trusted = trusted & is_tame(found.objective);
    return found;
}

struct Step {
    // In scaled coordinates
    direction: Coordinates,
    // Decrease of the objective that the quadratic model promises
    predicted: f32,
    solved: bool,
}

@compute @workgroup_size(WORKGROUP)
fn refine(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = invocation(group, groups, local);
    if item >= chunk.curves * MOST_BASINS || results[item * RESULT_WORDS] != RUNNING {
        return;
    }
    let curve = curves[item % chunk.curves];
    var state = read_state(item);
    var z = read_coordinates(item);
    var at = measure(curve, z, state.scale, state.delta);
    var status = RUNNING;
    for (var passes = 1u; passes < chunk.passes; passes++) {
        var free: array<bool, COORDINATES>;
        for (var j = 0u; j < COORDINATES; j++) {
            let box = (curve.frame * COORDINATES + j) * 2u;
            let downhill = at.slope[j];
            let held = (z[j] <= bounds[box] && downhill < 0.0) || (z[j] >= bounds[box + 1u] && downhill > 0.0);
            free[j] = !held;
            state.largest[j] = max(state.largest[j], at.curvature[j * (j + 1u) / 2u + j]);
        }
        let step = damped_step(at, free, state.largest, state.damping);
        let on_the_way = HUBER && state.delta > curve.delta;
        let negligible = select(NEGLIGIBLE, NEGLIGIBLE_ON_THE_WAY, on_the_way) * at.objective + at.rounding;
        let stuck = state.damping > DAMPING_HIGHEST;
        if stuck || (step.solved && state.damping <= DAMPING_START && step.predicted <= negligible) {
            if !on_the_way {
                status = CONVERGED;
                break;
            }
            state.delta = max(curve.delta, 0.25 * state.delta);
            at = measure(curve, z, state.scale, state.delta);
            state.damping = DAMPING_START;
            state.largest = Coordinates();
            continue;
        }
        if !step.solved {
            state.damping *= DAMPING_RAISED;
            continue;
        }
        var trial = z;
        for (var j = 0u; j < COORDINATES; j++) {
            trial[j] += step.direction[j] * state.scale[j];
        }
        trial = inside(curve.frame, trial);
        let there = measure(curve, trial, state.scale, state.delta);
        let settled = !on_the_way && state.damping <= DAMPING_START && step.predicted <= SETTLED * at.objective;
        let decreased = at.objective - there.objective;
        if there.trusted && there.objective <= at.objective * (1.0 + SLACK) {
            z = trial;
            at = there;
            state.damping = max(state.damping * DAMPING_EASED, DAMPING_LOWEST);
        } else {
            state.damping *= DAMPING_RAISED;
        }
        if settled && decreased <= SETTLED * at.objective {
            status = CONVERGED;
            break;
        }
    }
    keep_state(item, state);
    keep_result(item, at.objective, z);
    results[item * RESULT_WORDS] = status;
}
