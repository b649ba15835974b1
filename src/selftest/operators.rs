//! Each operator on the device against the standard library in f64, over dense and extreme arguments.

use super::bound::{TINY, ULP, binary_tolerance, unary_absolute, unary_tolerance};
use super::{Check, Measure, Worst};
use crate::error::Result;
use crate::evaluate::reference::Precision;
use crate::fit::gpu::Gpu;
use crate::formula::graph::{Binary, Graph, Unary};
use crate::random::Stream;

/// Checks every operator.
pub fn run(gpu: &Gpu, take: &mut dyn FnMut(Check)) -> Result<()> {
    let numbers = arguments();
    for operator in Unary::ALL {
        take(unary(gpu, operator, &numbers)?);
    }
    let few: Vec<f32> = numbers.into_iter().step_by(BINARY_STEP).collect();
    for operator in Binary::ALL {
        take(binary(gpu, operator, &few)?);
    }
    Ok(())
}

/// Every so many of the arguments are paired with one another.
const BINARY_STEP: usize = 61;
/// Arguments of random bits.
const RANDOM: u64 = 4096;

/// Both signs, all magnitudes, and many numbers where the operators bend.
fn arguments() -> Vec<f32> {
    let mut numbers = vec![0.0, 1.0, 0.5, 2.0, 0.41, 0.29, 0.35, 87.0, 88.0, 104.0, 8192.0, 65536.0];
    numbers.extend([f32::MIN_POSITIVE, f32::MAX, 1e37, f32::EPSILON]);
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
    let mut stream = Stream::new(0, 0);
    numbers.extend((0..RANDOM).map(|_| f32::from_bits(stream.bits() as u32)));
    let negative: Vec<f32> = numbers.iter().map(|z| -z).collect();
    numbers.extend(negative);
    numbers.retain(|z: &f32| z.is_normal() || *z == 0.0);
    numbers
}

/// Where a device may refuse: outside the domain, or beyond the stated range.
fn may_refuse_unary(operator: Unary, z: f64) -> bool {
    let domain = match operator {
        Unary::Log => z < 1.2e-38,
        Unary::Log1p => z + 1.0 < 6e-8,
        Unary::Sqrt => z < 0.0,
        Unary::Sin | Unary::Cos | Unary::Tan => z.abs() > 8192.0,
        _ => false,
    };
    domain || is_beyond(operator.apply(z)) || z.abs() >= LARGEST
}

fn may_refuse_binary(operator: Binary, a: f64, b: f64) -> bool {
    let divisor = operator == Binary::Divide && (b.abs() < 1.2e-38 || b.abs() >= LARGEST);
    divisor || is_beyond(operator.apply(a, b)) || a.abs() >= LARGEST || b.abs() >= LARGEST
}

/// Where a device need not follow any more: a tenth below f32's trusted range, since it judges rounded values.
const LARGEST: f64 = 0.9e37;

fn is_beyond(value: f64) -> bool {
    value.is_nan() || value.abs() >= LARGEST
}

/// An error in units in the last place, beside an absolute one that is allowed in any case.
fn ulps(found: f64, expected: f64, absolute: f64) -> f64 {
    let beyond = (found - expected).abs() - absolute;
    // NaN compares false and goes through.
    if beyond <= 0.0 { 0.0 } else { beyond / (ULP * expected.abs()) }
}

fn unary(gpu: &Gpu, operator: Unary, numbers: &[f32]) -> Result<Check> {
    let mut graph = Graph::default();
    let z = graph.input(0);
    let node = graph.unary(operator, z);
    // A coordinate that is carried along unused: there has to be one of each kind.
    let points: Vec<f32> = numbers.iter().flat_map(|&z| [z, 0.0]).collect();
    let found = gpu.evaluate(&graph, &[node], (1, 1), &points)?;
    let mut worst = Worst::default();
    for ((&z, value), trusted) in numbers.iter().zip(found.values).zip(found.trusted) {
        let z = f64::from(z);
        let expected = operator.apply(z);
        let place = || format!("{}({z:e}) = {value:e}, in f64 {expected:e}", name_unary(operator));
        let absolute = unary_absolute(operator, expected);
        if trusted {
            worst.take(ulps(f64::from(value), expected, absolute), place);
            worst.take_single(ulps(Precision::Single.round(expected), expected, absolute));
        } else if !may_refuse_unary(operator, z) {
            worst.take(f64::INFINITY, || format!("{}({z:e}) is refused, in f64 {expected:e}", name_unary(operator)));
        }
    }
    Ok(worst.check(Measure::Operator, &name_unary(operator), true, unary_tolerance(operator)))
}

fn binary(gpu: &Gpu, operator: Binary, numbers: &[f32]) -> Result<Check> {
    let mut graph = Graph::default();
    let (a, b) = (graph.input(0), graph.input(1));
    let node = graph.binary(operator, a, b);
    let points: Vec<f32> = numbers.iter().flat_map(|&a| numbers.iter().flat_map(move |&b| [a, b, 0.0])).collect();
    let found = gpu.evaluate(&graph, &[node], (2, 1), &points)?;
    let name = format!("{operator:?}").to_lowercase();
    let mut worst = Worst::default();
    for ((point, value), trusted) in points.chunks_exact(3).zip(found.values).zip(found.trusted) {
        let (a, b) = (f64::from(point[0]), f64::from(point[1]));
        let expected = operator.apply(a, b);
        if trusted {
            let place = || format!("{name}({a:e}, {b:e}) = {value:e}, in f64 {expected:e}");
            worst.take(ulps(f64::from(value), expected, TINY), place);
            worst.take_single(ulps(Precision::Single.round(expected), expected, TINY));
        } else if !may_refuse_binary(operator, a, b) {
            worst.take(f64::INFINITY, || format!("{name}({a:e}, {b:e}) is refused, in f64 {expected:e}"));
        }
    }
    Ok(worst.check(Measure::Operator, &name, true, binary_tolerance(operator)))
}

fn name_unary(operator: Unary) -> String {
    format!("{operator:?}").to_lowercase()
}
