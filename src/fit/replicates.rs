//! Replicates: the curves of a problem once more, under random weights or on random responses.
//!
//! In: a problem, a scheme, and a key per curve. Out: a replicate's rows in f64, or what a device needs to make the same rows
//! by itself. Every random number is one word of a counter-based generator, a function of the curve's key, the replicate's
//! index and its own alone, computed in whole numbers: host and device draw alike, in any order, and nothing random is ever
//! stored or sent. `shaders/random.wgsl` is the device's face of [`word`], [`fn@unit`] and [`below`].

use super::problem::Problem;
use std::collections::HashMap;

/// What is resampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Rows with replacement (Efron 1979).
    Pairs,
    /// Every row weighted by a draw from the exponential distribution (Rubin 1981; Xu et al. 2020): no row is ever lost.
    Fractional,
    /// The fitted law plus each row's own residual, its sign at random (Wu 1986; Davidson and Flachaire 2008).
    Wild,
    /// The fitted law plus residuals drawn from all rows, centred, in units of their standard deviations (Efron 1979).
    Residual,
}

impl Scheme {
    /// Every scheme.
    pub const ALL: [Scheme; 4] = [Scheme::Pairs, Scheme::Fractional, Scheme::Wild, Scheme::Residual];

    /// As the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Pairs => "pairs",
            Scheme::Fractional => "fractional",
            Scheme::Wild => "wild",
            Scheme::Residual => "residual",
        }
    }

    /// Whether responses are random; else weights are.
    pub fn moves_responses(self) -> bool {
        matches!(self, Scheme::Wild | Scheme::Residual)
    }
}

/// Threefry-2x32 of 20 rounds (Salmon et al. 2011): two random words for every key and counter, by additions, rotations and
/// exclusive ors of 32 bits, which every device has.
fn threefry(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    const ROTATIONS: [u32; 8] = [13, 15, 26, 6, 17, 29, 16, 24];
    let keys = [key[0], key[1], 0x1bd1_1bda ^ key[0] ^ key[1]];
    let mut x = [counter[0].wrapping_add(keys[0]), counter[1].wrapping_add(keys[1])];
    for round in 0..20 {
        x[0] = x[0].wrapping_add(x[1]);
        x[1] = x[1].rotate_left(ROTATIONS[round % 8]) ^ x[0];
        if round % 4 == 3 {
            let injection = round / 4 + 1;
            x[0] = x[0].wrapping_add(keys[injection % 3]);
            x[1] = x[1].wrapping_add(keys[(injection + 1) % 3]).wrapping_add(injection as u32);
        }
    }
    x
}

/// Word `index` of a replicate.
pub fn word(key: [u32; 2], replicate: u32, index: u32) -> u32 {
    threefry(key, [replicate, index / 2])[index as usize % 2]
}

/// Uniform on (0, 1), never an end: the middles of 2²³ cells, each a number of f32.
pub fn unit(word: u32) -> f64 {
    (f64::from(word >> 9) + 0.5) / f64::from(1 << 23)
}

/// Uniform on 0..count: the high half of a product, biased by at most count/2³².
pub fn below(word: u32, count: u32) -> u32 {
    ((u64::from(word) * u64::from(count)) >> 32) as u32
}

/// How the replicates of a problem's curves are made.
#[derive(Debug)]
pub struct Replication<'a> {
    pub problem: &'a Problem<'a>,
    pub scheme: Scheme,
    /// Replicates of each curve.
    pub replicates: u32,
    /// The generator's key of every curve.
    pub keys: Vec<[u32; 2]>,
    /// What is drawn as a whole, for every row of the problem: its cluster, or itself, counted in its curve.
    pub group: Vec<u32>,
    /// Groups of every curve; 0 where there is nothing to resample.
    pub groups: Vec<u32>,
    /// What the law predicts for every row, and what is left: scaled, and under [`Scheme::Residual`] centred and of unit
    /// weight. Empty where weights are random.
    pub fitted: Vec<f64>,
    pub residual: Vec<f64>,
}

impl<'a> Replication<'a> {
    /// Prepares the curves that `freedom` has a value for: points less estimated parameters. `clusters` holds the label of
    /// every row, or nothing where rows stand for themselves; `fitted` the law's value for every row, or nothing where
    /// weights are random.
    pub fn new(
        problem: &'a Problem<'a>,
        scheme: Scheme,
        replicates: u32,
        keys: Vec<[u32; 2]>,
        clusters: &[f64],
        freedom: &[Option<f64>],
        fitted: Vec<f64>,
    ) -> Replication<'a> {
        let mut group = vec![0; problem.response.len()];
        let mut groups = vec![0; problem.len()];
        let mut residual = vec![f64::NAN; fitted.len()];
        for (curve, freedom) in freedom.iter().enumerate() {
            let rows = problem.rows(curve);
            let (own, count) = in_groups(clusters.get(rows.clone()), rows.len());
            group[rows.clone()].copy_from_slice(&own);
            let Some(freedom) = freedom.filter(|&freedom| count > 1 && (freedom > 0.0 || !scheme.moves_responses()))
            else {
                continue;
            };
            groups[curve] = count;
            if scheme.moves_responses() {
                let left = &mut residual[rows.clone()];
                // Fitted residuals are smaller than errors, on average by this factor.
                let scale = (rows.len() as f64 / freedom).sqrt();
                for (row, left) in rows.clone().zip(left.iter_mut()) {
                    *left = scale * (problem.response[row] - fitted[row]);
                }
                if scheme == Scheme::Residual {
                    left.iter_mut()
                        .zip(&problem.weight[rows.clone()])
                        .for_each(|(left, weight)| *left *= weight.sqrt());
                    let mean = left.iter().sum::<f64>() / left.len() as f64;
                    left.iter_mut().for_each(|left| *left -= mean);
                }
            }
        }
        Replication { problem, scheme, replicates, keys, group, groups, fitted, residual }
    }

    /// Appends one replicate to a problem: rows that it gives no weight are left out; box, grid and centres stay the curve's.
    pub fn push(&self, curve: usize, replicate: u32, into: &mut Problem) {
        let problem = self.problem;
        let (key, rows) = (self.keys[curve], problem.rows(curve));
        let draw = |index: usize| word(key, replicate, index as u32);
        let groups = self.groups[curve];
        let mut counts = vec![0.0; if self.scheme == Scheme::Pairs { groups as usize } else { 0 }];
        for index in 0..counts.len() {
            counts[below(draw(index), groups) as usize] += 1.0;
        }
        for row in rows.clone() {
            let group = self.group[row] as usize;
            let (t, w) = (problem.response[row], problem.weight[row]);
            let (t, w) = match self.scheme {
                Scheme::Pairs if counts[group] == 0.0 => continue,
                Scheme::Pairs => (t, w * counts[group]),
                // Exponential draws are Dirichlet(1, …, 1) but for their sum, on which no optimum depends.
                Scheme::Fractional => (t, w * -unit(draw(group)).ln()),
                Scheme::Wild => (self.fitted[row] + sign(draw(group)) * self.residual[row], w),
                Scheme::Residual => {
                    let other = rows.start + below(draw(row - rows.start), rows.len() as u32) as usize;
                    (self.fitted[row] + self.residual[other] / w.sqrt(), w)
                }
            };
            into.response.push(t);
            into.weight.push(w);
            for (target, source) in into.inputs.iter_mut().zip(&problem.inputs) {
                target.push(source[row]);
            }
        }
        into.close(problem, curve);
    }
}

/// −1 or 1, by the word's highest bit.
fn sign(word: u32) -> f64 {
    if word >> 31 == 0 { 1.0 } else { -1.0 }
}

/// The group of every row by its label, in order of appearance, and how many there are; without labels a group each.
fn in_groups(labels: Option<&[f64]>, rows: usize) -> (Vec<u32>, u32) {
    let Some(labels) = labels else { return ((0..rows as u32).collect(), rows as u32) };
    let mut known: HashMap<u64, u32> = HashMap::new();
    let group = labels.iter().map(|label| {
        let next = known.len() as u32;
        *known.entry(label.to_bits()).or_insert(next)
    });
    let group = group.collect();
    (group, known.len() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curves::CurveBatch;
    use crate::fit::pack::{Plan, Weighting};
    use crate::fit::{Loss, Objective, Space};
    use crate::law::{Law, Mapping};

    #[test]
    fn words_are_those_of_the_published_generator() {
        // Known answers of Random123 1.14: counter, key, words.
        for (counter, key, words) in [
            ([0, 0], [0, 0], [0x6b20_0159, 0x99ba_4efe]),
            ([u32::MAX; 2], [u32::MAX; 2], [0x1cb9_96fc, 0xbb00_2be7]),
            ([0x243f_6a88, 0x85a3_08d3], [0x1319_8a2e, 0x0370_7344], [0xc492_3a9c, 0x483d_f7a0]),
        ] {
            assert_eq!(threefry(key, counter), words, "{counter:x?} under {key:x?}");
        }
        assert_eq!([word([5, 6], 7, 16), word([5, 6], 7, 17)], threefry([5, 6], [7, 8]));
    }

    #[test]
    fn words_become_numbers_that_reach_both_ends_and_not_beyond() {
        assert_eq!((unit(0), unit(u32::MAX)), (2f64.powi(-24), 1.0 - 2f64.powi(-24)));
        assert_eq!((below(0, 7), below(u32::MAX, 7), below(u32::MAX, 1)), (0, 6, 0));
        assert!(unit(u32::MAX) as f32 as f64 == unit(u32::MAX), "f32 holds every one of them");
    }

    /// Eight points off a line, the row index as weight where asked.
    fn with_replication(scheme: Scheme, replicates: u32, check: impl Fn(&Replication, Problem)) {
        let columns = ["x", "y"].map(String::from);
        let law = Law::bind("power", &columns, Mapping { x: &columns[..1], y: Some("y") }).expect("a law");
        let objective = Objective { space: Space::Log, loss: Loss::Squares };
        let plan = Plan::new(law, objective, &[], Weighting::Even, false, &columns).expect("a plan");
        let x: Vec<f64> = (1..=8).map(f64::from).collect();
        let y = vec![8.1, 3.9, 2.8, 1.9, 1.62, 1.31, 1.16, 0.98];
        let packed = plan.pack(&CurveBatch { offsets: vec![0, 8], columns: vec![x, y] });
        let problem = &packed.problem;
        let fitted = if scheme.moves_responses() { vec![0.5; 8] } else { Vec::new() };
        let replication = Replication::new(problem, scheme, replicates, vec![[3, 4]], &[], &[Some(6.0)], fitted);
        check(&replication, problem.emptied());
    }

    #[test]
    fn draws_have_the_moments_of_their_schemes() {
        // Over many replicates: mean, variance and covariance of two rows' factors. Five standard errors of 20,000.
        const REPLICATES: u32 = 20_000;
        const TOLERANCE: f64 = 0.08;
        let n = 8.0;
        for (scheme, mean, variance, covariance) in [
            (Scheme::Pairs, 1.0, 1.0 - 1.0 / n, -1.0 / n),
            (Scheme::Fractional, 1.0, 1.0, 0.0),
            (Scheme::Wild, 0.0, 1.0, 0.0),
        ] {
            with_replication(scheme, REPLICATES, |replication, mut into| {
                let x = &replication.problem.inputs[0];
                let factors = |replicate: u32, into: &mut Problem| -> Vec<f64> {
                    let first = into.response.len();
                    replication.push(0, replicate, into);
                    let place = |x: f64| (first..into.response.len()).find(|&row| into.inputs[0][row] == x);
                    let factor = |row: usize| match place(x[row]) {
                        None => 0.0,
                        Some(at) if scheme == Scheme::Wild => {
                            (into.response[at] - replication.fitted[row]) / replication.residual[row]
                        }
                        Some(at) => into.weight[at],
                    };
                    (0..8).map(factor).collect()
                };
                let draws: Vec<Vec<f64>> = (0..REPLICATES).map(|replicate| factors(replicate, &mut into)).collect();
                let average =
                    |of: &dyn Fn(&[f64]) -> f64| draws.iter().map(|d| of(d)).sum::<f64>() / f64::from(REPLICATES);
                let found = [
                    average(&|d| d[2]),
                    average(&|d| (d[2] - mean) * (d[2] - mean)),
                    average(&|d| (d[2] - mean) * (d[5] - mean)),
                ];
                for (found, expected) in found.into_iter().zip([mean, variance, covariance]) {
                    assert!((found - expected).abs() < TOLERANCE, "{scheme:?}: {found}, expected {expected}");
                }
                if scheme == Scheme::Pairs {
                    assert!(draws.iter().all(|d| d.iter().sum::<f64>() == n), "as many rows as there are");
                }
            });
        }
    }

    #[test]
    fn exchanged_residuals_come_from_every_row_alike() {
        const REPLICATES: u32 = 4000;
        with_replication(Scheme::Residual, REPLICATES, |replication, mut into| {
            let mut seen = [0u32; 8];
            for replicate in 0..REPLICATES {
                let at = into.response.len();
                replication.push(0, replicate, &mut into);
                let drawn = into.response[at] - replication.fitted[0];
                let from = replication.residual.iter().position(|&r| (r - drawn).abs() < 1e-12);
                seen[from.expect("one of the residuals")] += 1;
            }
            // 500 each, with a standard deviation of 21.
            assert!(seen.iter().all(|count| count.abs_diff(500) < 105), "{seen:?}");
        });
    }

    #[test]
    fn rows_of_one_label_are_one_group() {
        assert_eq!(in_groups(Some(&[7.0, 3.0, 7.0, f64::NAN, f64::NAN]), 5), (vec![0, 1, 0, 2, 2], 3));
        assert_eq!(in_groups(None, 3), (vec![0, 1, 2], 3));
    }
}
