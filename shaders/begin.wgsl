// One invocation is one basin of one curve, curves fastest. It solves for the linear coordinates at the basin's grid point,
// makes sure that every prediction has a value, and writes the start of the descent.

// What the first look at a start tells: 1/largest of every column of the Jacobian and the mean |r|; not trusted where some
// prediction has no value.
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
        widen(&largest, g, root_weight(row));
    }
    var scale: Coordinates;
    for (var j = 0u; j < COORDINATES; j++) {
        scale[j] = select(1.0, 1.0 / largest[j], largest[j] > 1e-30);
    }
    return Inspected(scale, spread / f32(curve.rows), trusted & is_tame(spread));
}

// Makes every prediction possible by leaning on the constant part of the law; not trusted where that does not help.
fn become_feasible(curve: Curve, start: Coordinates, z: ptr<function, Coordinates>) -> Inspected {
    var inspected: Inspected;
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
        candidate = inside(curve.frame, candidate);
        inspected = inspect(curve, candidate);
        if inspected.trusted {
            *z = candidate;
            break;
        }
    }
    return inspected;
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
fn begin(
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
    if rank + 1u >= basins[index * BASIN_WORDS] {
        return;
    }
    let curve = curves[index];
    var start: Coordinates;
    place(curve.frame, basins[index * BASIN_WORDS + 1u + rank], &start);
    let solved = solve_exactly(curve, start, solve(curve, start));
    set_linear(solved.coefficients, &start);
    var status = INFEASIBLE;
    if solved.trusted {
        var z: Coordinates;
        let inspected = become_feasible(curve, start, &z);
        if inspected.trusted {
            status = select(RUNNING, CONVERGED, CLOSED_FORM);
            // The robust objective is approached from one that is quadratic almost everywhere: with its own small
            // threshold the first steps would see no curvature.
            let delta = select(0.0, max(curve.delta, inspected.spread), HUBER);
            keep_state(item, State(DAMPING_START, delta, inspected.scale, Coordinates()));
            keep_result(item, solved.objective, z);
        }
    }
    results[item * RESULT_WORDS] = status;
}
