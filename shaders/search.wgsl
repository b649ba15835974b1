// One invocation is one grid point of one curve, points fastest, so that neighbours read the same rows. It writes the
// projected objective there, or the fit's own where that is another and the grid's neighbours tell its basins.
@compute @workgroup_size(WORKGROUP)
fn search(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = invocation(group, groups, local);
    if item >= chunk.curves * POINTS {
        return;
    }
    let curve = curves[item / POINTS];
    var z: Coordinates;
    place(curve.frame, item % POINTS, &z);
    var solved = solve(curve, z);
    if LOOKED_AT {
        solved = solve_exactly(curve, z, solved);
    }
    let usable = solved.trusted & (curve.rows > 0u);
    // A perfect fit must not look like a point that was not written.
    scratch[item] = select(REFUSED, max(solved.objective, 1e-37), usable);
}
