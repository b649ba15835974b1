//! Dense algebra of a fixed small size as straight-line WGSL: streaming orthogonalisation, normal equations, Cholesky.
//!
//! In: numbers of coordinates. Out: text. Loops over three or five elements would leave it to each driver whether arrays
//! become registers, and lavapipe stops an invocation for good after 65,535 rounds of all its loops together: the only
//! loops in the kernels run over rows, points and steps. Knows no model.

use std::fmt::Write;

/// Position of entry (i, j), j ≤ i, of a symmetric matrix kept as its lower triangle by rows.
fn lower(i: usize, j: usize) -> usize {
    i * (i + 1) / 2 + j
}

/// The inputs of a row.
pub fn row_inputs(inputs: usize) -> String {
    let mut text = String::from("fn read_inputs(row: u32) -> Inputs {\n    var u: Inputs;\n");
    for k in 0..inputs {
        let _ = writeln!(text, "    u[{k}] = rows[row * STRIDE + {k}u];");
    }
    text.push_str("    return u;\n}\n");
    text
}

/// Functions over the linear coordinates.
pub fn orthogonalisation(linear: usize) -> String {
    let mut text = String::from("fn combine(coefficients: Linear, basis: Linear) -> f32 {\n    var sum = 0.0;\n");
    for l in 0..linear {
        let _ = writeln!(text, "    sum += coefficients[{l}] * basis[{l}];");
    }
    text.push_str("    return sum;\n}\n\n");

    text.push_str(
        "// Rotates one row, times the root of its weight, into the triangle. What is left of the response after all\n\
         // rotations is the row's part of the residual.\n\
         fn absorb(triangle: ptr<function, Triangle>, row: Linear, root: f32, response: f32) {\n    \
         var left = root * response;\n    var above = 0.0;\n",
    );
    for l in 0..linear {
        let _ = writeln!(text, "    var x{l} = root * row[{l}];");
    }
    for k in 0..linear {
        let at = |l: usize| format!("(*triangle).r[{}]", lower(l, k));
        let _ = writeln!(text, "    let turn{k} = rotation({}, x{k});", at(k));
        for l in k..linear {
            let r = at(l);
            let _ = write!(
                text,
                "    above = {r};\n    {r} = turn{k}.x * above + turn{k}.y * x{l};\n    \
                 x{l} = turn{k}.x * x{l} - turn{k}.y * above;\n"
            );
        }
        let q = format!("(*triangle).q[{k}]");
        let _ = write!(
            text,
            "    above = {q};\n    {q} = turn{k}.x * above + turn{k}.y * left;\n    \
             left = turn{k}.x * left - turn{k}.y * above;\n"
        );
    }
    text.push_str("    (*triangle).rest += left * left;\n}\n\n");

    text.push_str(
        "// R coefficients = Q'y. A column that depends on those before it gets the coefficient 0, and what it might have\n\
         // explained stays in the residual.\n\
         fn substitute_back(triangle: ptr<function, Triangle>) -> Linear {\n    var coefficients: Linear;\n    \
         var value = 0.0;\n    var largest = 0.0;\n",
    );
    for k in (0..linear).rev() {
        let _ = writeln!(text, "    value = (*triangle).q[{k}];");
        for l in k + 1..linear {
            let _ = writeln!(text, "    value -= (*triangle).r[{}] * coefficients[{l}];", lower(l, k));
        }
        text.push_str("    largest = 0.0;\n");
        for l in 0..=k {
            let _ = writeln!(text, "    largest = max(largest, abs((*triangle).r[{}]));", lower(k, l));
        }
        let pivot = format!("(*triangle).r[{}]", lower(k, k));
        let _ = write!(
            text,
            "    if abs({pivot}) > INDEPENDENT * largest {{\n        coefficients[{k}] = value / {pivot};\n    }} else {{\n        \
             (*triangle).rest += value * value;\n    }}\n"
        );
    }
    text.push_str("    return coefficients;\n}\n\n");

    text.push_str("fn halfway(one: Linear, other: Linear) -> Linear {\n    var between: Linear;\n");
    for l in 0..linear {
        let _ = writeln!(text, "    between[{l}] = 0.5 * (one[{l}] + other[{l}]);");
    }
    text.push_str("    return between;\n}\n\n");

    text.push_str("fn are_tame(coefficients: Linear) -> bool {\n    var tame = true;\n");
    for l in 0..linear {
        let _ = writeln!(text, "    tame = tame & is_tame(coefficients[{l}]);");
    }
    text.push_str("    return tame;\n}\n");
    text
}

/// The largest entry of every column of the Jacobian.
pub fn column_sizes(coordinates: usize) -> String {
    let mut text = String::from("fn widen(largest: ptr<function, Coordinates>, gradient: Coordinates, root: f32) {\n");
    for j in 0..coordinates {
        let _ = writeln!(text, "    (*largest)[{j}] = max((*largest)[{j}], root * abs(gradient[{j}]));");
    }
    text.push_str("}\n");
    text
}

/// The refinement's sums over rows and its step.
pub fn normal_equations(coordinates: usize) -> String {
    let n = coordinates;
    let mut text = String::from(
        "// Adds one row: g scaled, `pull` = weight psi(r), `stiffness` = the row's part in the curvature.\n\
         fn accumulate(found: ptr<function, Measured>, gradient: Coordinates, scale: Coordinates, pull: f32, stiffness: f32) {\n",
    );
    for j in 0..n {
        let _ = writeln!(text, "    let g{j} = gradient[{j}] * scale[{j}];");
        let _ = writeln!(text, "    (*found).slope[{j}] += pull * g{j};");
        let _ = writeln!(text, "    let s{j} = stiffness * g{j};");
        for i in 0..=j {
            let _ = writeln!(text, "    (*found).curvature[{}] += s{j} * g{i};", lower(j, i));
        }
    }
    text.push_str("}\n\n");

    text.push_str(
        "// (curvature + damping · diagonal) direction = slope over the coordinates that may move, by Cholesky on unit columns.\n\
         fn damped_step(at: Measured, free: array<bool, COORDINATES>, largest: Coordinates, damping: f32) -> Step {\n    \
         var step: Step;\n    var sum = 0.0;\n",
    );
    for j in 0..n {
        let _ = write!(
            text,
            "    let may{j} = free[{j}] & (largest[{j}] > 1e-30);\n    \
             let unit{j} = select(0.0, inverseSqrt(max(largest[{j}], 1e-30)), may{j});\n    \
             let slope{j} = at.slope[{j}] * unit{j};\n"
        );
    }
    for j in 0..n {
        for i in 0..=j {
            let _ = write!(text, "    sum = at.curvature[{}] * unit{j} * unit{i}", lower(j, i));
            if i == j {
                let _ = write!(text, " + select(1.0, damping, may{j})");
            }
            for k in 0..i {
                let _ = write!(text, " - f{j}_{k} * f{i}_{k}");
            }
            text.push_str(";\n");
            if i == j {
                let _ = write!(
                    text,
                    "    if sum < SINGULAR {{\n        return step;\n    }}\n    let inverse{j} = inverseSqrt(sum);\n"
                );
            } else {
                let _ = writeln!(text, "    let f{j}_{i} = sum * inverse{i};");
            }
        }
        let _ = write!(text, "    let forward{j} = (slope{j}");
        for k in 0..j {
            let _ = write!(text, " - f{j}_{k} * forward{k}");
        }
        let _ = writeln!(text, ") * inverse{j};");
    }
    for j in (0..n).rev() {
        let _ = write!(text, "    let solution{j} = (forward{j}");
        for k in j + 1..n {
            let _ = write!(text, " - f{k}_{j} * solution{k}");
        }
        let _ = write!(
            text,
            ") * inverse{j};\n    step.direction[{j}] = solution{j} * unit{j};\n    \
             step.predicted += 0.5 * solution{j} * (slope{j} + damping * solution{j});\n"
        );
    }
    text.push_str("    step.solved = true;\n    return step;\n}\n");
    text
}
