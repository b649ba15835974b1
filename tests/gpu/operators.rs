//! Each operator on the device against the standard library in f64.

use libtest_mimic::Failed;
use sweepfit::evaluate::wgsl::OPERATORS;
use sweepfit::fit::gpu::Gpu;
use sweepfit::formula::graph::{Binary, Graph, Unary};

/// Spacing of f32 numbers relative to their size, at most.
const ULP: f64 = f32::EPSILON as f64;
/// What a driver may flush to zero, and the rounding of subnormal results.
const TINY: f64 = 2.4e-38;

/// Error of an angle after whole quarter turns are taken off it.
const ANGLE: f64 = 1e-11;

/// Largest error in units in the last place. `exp`, `log` and the divisions that the others are made of take about two
/// each (WGSL allows a division 2.5).
fn tolerance(operator: Unary) -> f64 {
    match operator {
        Unary::Negate | Unary::Abs | Unary::Step => 0.0,
        Unary::Exp | Unary::Log | Unary::Sqrt => 3.0,
        Unary::Log1p | Unary::Atan | Unary::Sin | Unary::Cos => 4.0,
        Unary::Expm1 | Unary::Softplus | Unary::Sigmoid | Unary::Tanh => 6.0,
        Unary::Tan => 8.0,
    }
}

/// Where the device may refuse: outside the domain, or beyond the stated range.
fn may_refuse(operator: Unary, z: f64) -> bool {
    let value = operator.apply(z);
    let domain = match operator {
        Unary::Log => z < 1.2e-38,
        Unary::Log1p => z + 1.0 < 6e-8,
        Unary::Sqrt => z < 0.0,
        Unary::Sin | Unary::Cos | Unary::Tan => z.abs() > 8192.0,
        _ => false,
    };
    domain || value.is_nan() || value.abs() >= 1e37 || z.abs() >= 1e37
}

/// Both signs, all magnitudes, and many numbers where the operators bend.
fn arguments() -> Vec<f32> {
    let mut numbers = vec![0.0, 1.0, 0.5, 2.0, 0.41, 0.29, 0.35, 87.0, 88.0, 104.0, 8192.0, 65536.0];
    for k in -1200..=1200 {
        numbers.push(10f64.powf(f64::from(k) / 32.5) as f32);
    }
    for k in 0..4000 {
        numbers.push(k as f32 * 0.0251);
    }
    // Around 1, where a logarithm vanishes, and around multiples of pi/2, where sines do.
    for k in 0..400 {
        numbers.push(1.0 + (k as f32 - 200.0) * 1e-5);
        numbers.push(k as f32 * std::f32::consts::FRAC_PI_2);
    }
    let negative: Vec<f32> = numbers.iter().map(|z| -z).collect();
    numbers.extend(negative);
    numbers.retain(|z: &f32| z.is_normal() || *z == 0.0);
    numbers
}

/// The worst error of an operator as a share of its tolerance; a message where it exceeds it.
fn worst_unary(gpu: &Gpu, operator: Unary, operators: &str) -> Result<f64, String> {
    let mut graph = Graph::default();
    // No parameter: a coordinate that is carried along unused keeps the layout simple.
    let z = graph.input(0);
    let node = graph.unary(operator, z);
    let numbers = arguments();
    let points: Vec<f32> = numbers.iter().flat_map(|&z| [z, 0.0]).collect();
    let found = gpu.evaluate(&graph, node, (1, 1), &points, operators).map_err(|error| error.to_string())?;
    let mut worst: f64 = 0.0;
    for (&z, found) in numbers.iter().zip(found) {
        let z = f64::from(z);
        let expected = operator.apply(z);
        if !found.trusted {
            if may_refuse(operator, z) {
                continue;
            }
            return Err(format!("{operator:?}({z:e}) is refused, it is {expected:e}"));
        }
        let value = f64::from(found.value);
        let allowed = match operator {
            // The reduction of the argument leaves an absolute error of the angle, which shows near zeros and poles.
            Unary::Sin | Unary::Cos => tolerance(operator) * ULP * expected.abs() + ANGLE,
            Unary::Tan => tolerance(operator) * ULP * expected.abs() + ANGLE * (1.0 + expected * expected),
            _ => tolerance(operator) * ULP * expected.abs() + TINY,
        };
        let error = (value - expected).abs();
        if error > allowed || error.is_nan() {
            return Err(format!(
                "{operator:?}({z:e}) is {value:e}, expected {expected:e}: {:.1} ulp, {} allowed",
                error / (ULP * expected.abs()),
                tolerance(operator)
            ));
        }
        worst = worst.max(error / allowed);
    }
    Ok(worst)
}

pub fn every_unary_operator_is_accurate(gpu: &Gpu) -> Result<(), Failed> {
    let mut failures = Vec::new();
    for operator in Unary::ALL {
        if let Err(failure) = worst_unary(gpu, operator, OPERATORS) {
            failures.push(failure);
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

fn worst_binary(gpu: &Gpu, operator: Binary) -> Result<(), String> {
    /// WGSL allows a division 2.5 ulp, the others are rounded correctly.
    const TOLERANCE: f64 = 3.0;
    let mut graph = Graph::default();
    let (a, b) = (graph.input(0), graph.input(1));
    let node = graph.binary(operator, a, b);
    let numbers: Vec<f32> = arguments().into_iter().step_by(61).collect();
    let mut points = Vec::new();
    for &a in &numbers {
        for &b in &numbers {
            points.extend([a, b, 0.0]);
        }
    }
    let found = gpu.evaluate(&graph, node, (2, 1), &points, OPERATORS).map_err(|error| error.to_string())?;
    for (point, found) in points.chunks_exact(3).zip(found) {
        let (a, b) = (f64::from(point[0]), f64::from(point[1]));
        let expected = operator.apply(a, b);
        if !found.trusted {
            if expected.abs() < 0.9e37 && expected.is_finite() && a.abs() < 1e37 && b.abs() < 1e37 {
                return Err(format!("{operator:?}({a:e}, {b:e}) is refused, it is {expected:e}"));
            }
            continue;
        }
        let allowed = TOLERANCE * ULP * expected.abs() + TINY;
        let error = (f64::from(found.value) - expected).abs();
        if error > allowed || error.is_nan() {
            return Err(format!("{operator:?}({a:e}, {b:e}) is {:e}, expected {expected:e}", found.value));
        }
    }
    Ok(())
}

pub fn every_binary_operator_is_accurate(gpu: &Gpu) -> Result<(), Failed> {
    let failures: Vec<String> =
        Binary::ALL.into_iter().filter_map(|operator| worst_binary(gpu, operator).err()).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

/// Changes that a typing slip could make; the comparison has to see each.
pub fn sabotaged_operators_are_found_out(gpu: &Gpu) -> Result<(), Failed> {
    let naive = [
        (Unary::Exp, "1.6666665459e-1", "1.6667665459e-1"),
        (Unary::Log, "k * 90851", "k * 90852"),
        (Unary::Log1p, "z > -0.29 && z < 0.41", "false"),
        (Unary::Expm1, "abs(z) < 0.35", "false"),
        (Unary::Tanh, "operator_expm1(-2.0 * abs(z))", "operator_exp(-2.0 * abs(z)) - 1.0"),
        (Unary::Softplus, "max(z, 0.0) + operator_log1p(operator_exp(-abs(z)))", "operator_log(1.0 + operator_exp(z))"),
        (Unary::Sigmoid, "select(e, 1.0, z >= 0.0)", "select(1.0, e, z >= 0.0)"),
        (Unary::Sin, "quarters * 2029", "quarters * 2028"),
        (Unary::Step, "z > 0.0", "z >= 0.0"),
        (Unary::Atan, "a > 2.414213562373095", "a > 1e38"),
    ];
    for (operator, from, to) in naive {
        let sabotaged = OPERATORS.replacen(from, to, 1);
        if sabotaged == OPERATORS {
            return Err(format!("{operator:?}: `{from}` is not in the text, the sabotage does nothing").into());
        }
        if let Ok(worst) = worst_unary(gpu, operator, &sabotaged) {
            return Err(format!("{operator:?} sabotaged by `{to}` passes ({worst:.2} of its tolerance)").into());
        }
    }
    Ok(())
}
