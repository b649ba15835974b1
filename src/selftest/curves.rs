//! Curves of any law of the catalogue, made without knowing it: parameters are drawn as their roles suggest.
//!
//! In: a law's plan, whose columns are the law's inputs and the response. Out: a batch of curves on which the law can be
//! told from the noise.

use crate::curves::CurveBatch;
use crate::evaluate::reference::{Precision, Reference};
use crate::fit::pack::Plan;
use crate::generate::typical::Typical;
use crate::random::Stream;

/// Points of a curve of one input, and of several.
const POINTS: (usize, usize) = (32, 64);
/// Every input covers four decades from here on.
const FIRST: f64 = 10.0;
const DECADES: f64 = 4.0;
/// Relative noise of the response.
const NOISE: f64 = 0.01;
/// A curve's largest response is within these factors of its smallest: less would be noise, more would be one point's fit.
const CONTRAST: (f64, f64) = (1.3, 1e4);
/// Draws that are tried for one curve.
const DRAWS: u64 = 20_000;

/// `count` curves of the plan's law.
pub fn curves(plan: &Plan, count: usize, seed: u64) -> CurveBatch {
    let inputs = plan.law.columns.len() - 1;
    let mut law = Reference::new(&plan.law.graph, &[plan.law.prediction], Precision::Double);
    let mut typical = Typical::new(&plan.law);
    let open = vec![None; plan.law.parameters.len()];
    let mut batch = CurveBatch { offsets: vec![0], columns: vec![Vec::new(); inputs + 1] };
    for curve in 0..count {
        let columns = columns(inputs, seed, curve);
        let points = columns[0].len();
        let (mut stream, response) = (0..DRAWS)
            .find_map(|draw| {
                let mut stream = Stream::new(seed, curve as u64 * DRAWS + draw);
                let truth = typical.draw(&open, &columns, points, &mut stream);
                law.evaluate(&columns, &truth, points);
                is_telling(law.output(0)).then(|| (stream, law.output(0).to_vec()))
            })
            .expect("typical parameters of every law of the catalogue give telling curves");
        batch.offsets.push(batch.offsets[curve] + points);
        for (column, values) in batch.columns.iter_mut().zip(&columns[..inputs]) {
            column.extend(values);
        }
        batch.columns[inputs].extend(response.iter().map(|f| f * (NOISE * stream.normal()).exp()));
    }
    batch
}

/// Inputs, evenly spread in the logarithm, no two of them moving together, and a stand-in for the response.
fn columns(inputs: usize, seed: u64, curve: usize) -> Vec<Vec<f64>> {
    // Square roots of primes: badly approximable, pairwise independent.
    const PRIMES: [f64; 4] = [0.0, 2.0, 3.0, 5.0];
    let points = if inputs == 1 { POINTS.0 } else { POINTS.1 };
    let mut stream = Stream::new(seed, u64::MAX - curve as u64);
    let mut columns: Vec<Vec<f64>> = (0..inputs)
        .map(|k| {
            let shift = stream.unit();
            let position = |point: usize| match k {
                0 => point as f64 / (points - 1) as f64,
                _ => (point as f64 * PRIMES[k % PRIMES.len()].sqrt() + shift).fract(),
            };
            (0..points).map(|point| FIRST * 10f64.powf(DECADES * position(point))).collect()
        })
        .collect();
    columns.push((0..points).map(|point| 1.0 + point as f64).collect());
    columns
}

fn is_telling(response: &[f64]) -> bool {
    let lowest = response.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = response.iter().copied().fold(0.0, f64::max);
    let contrast = highest / lowest;
    response.iter().all(|f| f.is_finite() && *f > 0.0) && contrast > CONTRAST.0 && contrast < CONTRAST.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::catalogue::CATALOGUE;
    use crate::selftest::laws::plan;

    #[test]
    fn every_law_gets_curves_that_it_can_be_told_by() {
        for entry in CATALOGUE {
            let plan = plan(entry, crate::fit::Space::Log);
            let batch = curves(&plan, 3, 1);
            assert_eq!(batch.len(), 3, "{}", entry.name);
            let packed = plan.pack(&batch);
            assert_eq!(packed.problem.status, [None; 3], "{}", entry.name);
            assert_eq!(batch, curves(&plan, 3, 1), "{}: not the same twice", entry.name);
        }
    }
}
