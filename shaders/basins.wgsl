// One invocation is one curve. It lists the grid points that are lower than all their neighbours, best first.

fn precedes(value: f32, point: u32, other: f32, other_point: u32) -> bool {
    return value < other || (value == other && point < other_point);
}

@compute @workgroup_size(WORKGROUP)
fn basins_of_curve(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation(group, groups, local);
    if index >= chunk.curves {
        return;
    }
    let first = index * POINTS;
    var values: array<f32, MOST_BASINS>;
    var kept: array<u32, MOST_BASINS>;
    var count = 0u;
    for (var point = 0u; point < POINTS; point++) {
        let value = scratch[first + point];
        if value == 0.0 {
            // The search did not come here: leave the curve marked as not run.
            return;
        }
        if value >= REFUSED || !is_basin(first, point, value) {
            continue;
        }
        if count == MOST_BASINS && value >= values[MOST_BASINS - 1u] {
            continue;
        }
        count = min(count + 1u, MOST_BASINS);
        var k = count - 1u;
        while k > 0u && values[k - 1u] > value {
            values[k] = values[k - 1u];
            kept[k] = kept[k - 1u];
            k--;
        }
        values[k] = value;
        kept[k] = point;
    }
    if ENDS == 1u && count > 0u {
        // The ends of the one axis, where a proxy may hide a valley.
        let level = PLAUSIBLE * values[0];
        for (var end = 0u; end < POINTS; end += max(POINTS - 1u, 1u)) {
            var known = scratch[first + end] > level || count == MOST_BASINS;
            for (var k = 0u; k < count; k++) {
                known = known || kept[k] == end;
            }
            if !known {
                kept[count] = end;
                count++;
            }
        }
    }
    for (var k = 0u; k < count; k++) {
        basins[index * BASIN_WORDS + 1u + k] = kept[k];
    }
    basins[index * BASIN_WORDS] = count + 1u;
}
