//! The bootstrap: every curve is fitted again under random weights or on random responses, searched anew each time.
//!
//! In: a problem, its verdicts, and a way to search. Out: for every curve the parameters of its replicates, and from them
//! percentile intervals and standard errors. A replicate depends on the seed, the index of its curve in the run and its own
//! index alone, never on threads, batches or the law. Replicates are made, fitted and dropped by the hundred thousand rows,
//! as curves of one more problem, so that every backend fits them as it fits curves.

use super::forecast::percentiles;
use super::surface::by_rows;
use crate::error::Result;
use crate::evaluate::tape::map_columns;
use crate::fit::Proposals;
use crate::fit::judge::{Verdicts, judge};
use crate::fit::problem::{Grid, Problem};
use crate::fit::spell::Spelling;
use crate::random::Stream;
use rayon::prelude::*;
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
}

/// What is asked of a bootstrap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    pub replicates: u32,
    pub scheme: Scheme,
    pub seed: u64,
    /// Whether every replicate is searched from the start; else it is descended from the curve's own optimum.
    pub search: bool,
}

/// The replicates of some curves under one law.
#[derive(Debug, Clone, PartialEq)]
pub struct Replicates {
    /// Free parameter j of replicate r of curve i at `(i * replicates + r) * p + j`; NaN where it could not be fitted.
    pub draws: Vec<f64>,
    /// Replicates of each curve that were fitted; None where the curve itself was not, or has nothing to resample.
    pub fitted: Vec<Option<u32>>,
    /// How many of those have a parameter that is held by its box.
    pub pinned: Vec<u32>,
}

/// Percentile intervals and standard errors, parameter j of curve i at `i * p + j`; NaN where they are not known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spread {
    pub low: Vec<f64>,
    pub high: Vec<f64>,
    pub error: Vec<f64>,
}

/// Rows of replicates in memory at a time: 4 MiB per column.
const ROWS: usize = 512 * 1024;

/// Fits the replicates of every curve that has a fit. `clusters` holds the label of every row of the problem, or nothing where
/// rows stand for themselves; `indices` holds the index in the run of every curve. The replicates come in each of
/// the `spellings` (None: as they were searched).
///
/// # Errors
/// What `propose` refuses.
pub fn resample<'a>(
    problem: &Problem<'a>,
    verdicts: &Verdicts,
    clusters: &[f64],
    indices: &[u64],
    bootstrap: &Bootstrap,
    spellings: &[Option<&Spelling>],
    propose: &dyn Fn(&mut Problem) -> Result<Proposals>,
) -> Result<Vec<Replicates>> {
    let (p, b) = (problem.model.len(), bootstrap.replicates as usize);
    let empty = Replicates {
        draws: vec![f64::NAN; problem.len() * b * p],
        fitted: vec![None; problem.len()],
        pinned: vec![0; problem.len()],
    };
    let mut all = vec![empty; spellings.len()];
    let known = Known::new(problem, verdicts, bootstrap.scheme);
    let mut chunk = Chunk::new(problem, bootstrap.search);
    let mut finish = |chunk: &mut Chunk<'a>| -> Result<()> {
        let proposals = if bootstrap.search { propose(&mut chunk.problem)? } else { chunk.optima() };
        let found = judge(&chunk.problem, &proposals, false);
        for (spelling, all) in spellings.iter().zip(&mut all) {
            match spelling {
                Some(spelling) => all.take(&chunk.owners, &spelling.spell(&found), b),
                None => all.take(&chunk.owners, &found, b),
            }
        }
        *chunk = Chunk::new(problem, bootstrap.search);
        Ok(())
    };
    for curve in (0..problem.len()).filter(|&curve| verdicts.status[curve].has_parameters()) {
        let Some(resampler) = Resampler::new(problem, &known, clusters, curve, bootstrap.scheme) else { continue };
        let seed = Stream::new(bootstrap.seed, indices[curve]).bits();
        for replicate in 0..b {
            resampler.push(problem, Stream::new(seed, replicate as u64), &mut chunk.problem);
            chunk.owners.push((curve, replicate));
            if !bootstrap.search {
                chunk.starts.extend_from_slice(&known.optima[curve * p..(curve + 1) * p]);
            }
            if chunk.problem.response.len() >= ROWS {
                finish(&mut chunk)?;
            }
        }
    }
    if !chunk.owners.is_empty() {
        finish(&mut chunk)?;
    }
    Ok(all)
}

impl Replicates {
    /// Takes replicates in, each of a curve and an index.
    fn take(&mut self, owners: &[(usize, usize)], found: &Verdicts, replicates: usize) {
        let p = found.parameters.len() / found.status.len();
        for (at, &(curve, replicate)) in owners.iter().enumerate() {
            let fitted = self.fitted[curve].get_or_insert(0);
            if found.status[at].has_parameters() {
                *fitted += 1;
                self.pinned[curve] += u32::from(found.pinned[at] != 0);
                let own = &found.parameters[at * p..(at + 1) * p];
                self.draws[(curve * replicates + replicate) * p..][..p].copy_from_slice(own);
            }
        }
    }

    /// Intervals of `level` between percentiles, and standard deviations; null for a curve of which fewer than half of the
    /// replicates could be fitted, since the others would have their say in either tail.
    pub fn spread(&self, replicates: u32, level: f64) -> Spread {
        let (curves, b) = (self.fitted.len(), replicates as usize);
        let p = self.draws.len().checked_div(curves * b).unwrap_or(0);
        let one = |place: usize| {
            let (curve, j) = (place / p, place % p);
            if self.fitted[curve].is_none_or(|fitted| fitted < 2 || 2 * fitted < replicates) {
                return (f64::NAN, f64::NAN, f64::NAN);
            }
            let own = self.draws[curve * b * p..(curve + 1) * b * p].iter().skip(j).step_by(p);
            let own: Vec<f64> = own.copied().filter(|value| value.is_finite()).collect();
            let mean = own.iter().sum::<f64>() / own.len() as f64;
            let squares: f64 = own.iter().map(|value| (value - mean).powi(2)).sum();
            let error = (squares / (own.len() - 1) as f64).sqrt();
            let [low, high] = percentiles(own, level).unwrap_or([f64::NAN; 2]);
            (low, high, error)
        };
        let spread: Vec<(f64, f64, f64)> = (0..curves * p).into_par_iter().map(one).collect();
        Spread {
            low: spread.iter().map(|one| one.0).collect(),
            high: spread.iter().map(|one| one.1).collect(),
            error: spread.iter().map(|one| one.2).collect(),
        }
    }
}

/// Replicates that are fitted together.
struct Chunk<'a> {
    problem: Problem<'a>,
    /// The curve of each, and its index among that curve's.
    owners: Vec<(usize, usize)>,
    /// The coordinates that each is descended from, where it is not searched.
    starts: Vec<f64>,
}

impl<'a> Chunk<'a> {
    fn new(problem: &Problem<'a>, search: bool) -> Chunk<'a> {
        Chunk {
            problem: Problem {
                offsets: vec![0],
                inputs: vec![Vec::new(); problem.inputs.len()],
                centres: Vec::new(),
                response: Vec::new(),
                weight: Vec::new(),
                status: Vec::new(),
                lower: Vec::new(),
                upper: Vec::new(),
                grid: Grid {
                    cells: problem.grid.cells.clone(),
                    values: Vec::new(),
                    listed: problem.grid.listed.clone(),
                },
                given: if search { problem.given } else { &[] },
                robust_errors: false,
                ..*problem
            },
            owners: Vec::new(),
            starts: Vec::new(),
        }
    }

    fn optima(&self) -> Proposals {
        Proposals { offsets: (0..=self.owners.len()).collect(), coordinates: self.starts.clone() }
    }
}

/// What is known of the curves before any is resampled.
struct Known {
    /// Coordinates of the optimum of curve i at `i * p`; NaN without a fit.
    optima: Vec<f64>,
    /// Points less estimated parameters, of every curve.
    freedom: Vec<f64>,
    /// What the law predicts for every row; empty where only weights are random.
    fitted: Vec<f64>,
}

impl Known {
    fn new(problem: &Problem, verdicts: &Verdicts, scheme: Scheme) -> Known {
        let p = problem.model.len() as f64;
        let freedom =
            |curve: usize| problem.points(curve) as f64 - (p - f64::from(verdicts.pinned[curve].count_ones()));
        let optima = optima(problem, verdicts);
        let fitted = match scheme {
            Scheme::Pairs | Scheme::Fractional => Vec::new(),
            Scheme::Wild | Scheme::Residual => fitted_values(problem, &optima),
        };
        Known { optima, freedom: (0..problem.len()).map(freedom).collect(), fitted }
    }
}

/// Coordinates, in the charts of a problem's curves, of what `verdicts` found: coordinate j of curve i at `i * p + j`; NaN
/// without a fit.
pub(super) fn optima(problem: &Problem, verdicts: &Verdicts) -> Vec<f64> {
    let (model, p, inputs) = (problem.model, problem.model.len(), problem.model.inputs.len());
    let mut optima = vec![f64::NAN; problem.len() * p];
    for curve in (0..problem.len()).filter(|&curve| verdicts.status[curve].has_parameters()) {
        let centres = &problem.centres[curve * inputs..(curve + 1) * inputs];
        let own = model.encode(&verdicts.parameters[curve * p..(curve + 1) * p], centres);
        optima[curve * p..(curve + 1) * p].copy_from_slice(&own);
    }
    optima
}

/// What the law predicts for every row, in the fitting space, at the coordinates of its curve.
pub(super) fn fitted_values(problem: &Problem, optima: &[f64]) -> Vec<f64> {
    let (model, p) = (problem.model, problem.model.len());
    let mut graph = model.graph.clone();
    let numbered: Vec<usize> = (0..model.inputs.len()).collect();
    let tape = by_rows(&mut graph, &[model.prediction], &numbered);
    let expand = |j: usize| {
        let rows = |curve: usize| std::iter::repeat_n(optima[curve * p + j], problem.points(curve));
        (0..problem.len()).flat_map(rows).collect()
    };
    let coordinates: Vec<Vec<f64>> = (0..p).map(expand).collect();
    let columns: Vec<&[f64]> = problem.inputs.iter().chain(&coordinates).map(Vec::as_slice).collect();
    map_columns(&tape, &columns, problem.response.len()).pop().expect("the tape has one output")
}

/// One curve, ready to be resampled.
struct Resampler<'a> {
    curve: usize,
    scheme: Scheme,
    /// The group of every row, and how many groups there are.
    group: Vec<usize>,
    groups: usize,
    /// What the law predicts for every row, and what is left; empty where only weights are random.
    fitted: &'a [f64],
    /// Under [`Scheme::Residual`] centred and of unit weight.
    residual: Vec<f64>,
}

impl<'a> Resampler<'a> {
    /// None where there is nothing to resample: a single group, or residuals without a degree of freedom.
    fn new(
        problem: &Problem,
        known: &'a Known,
        clusters: &[f64],
        curve: usize,
        scheme: Scheme,
    ) -> Option<Resampler<'a>> {
        let rows = problem.rows(curve);
        let (group, groups) = groups(clusters.get(rows.clone()), rows.len());
        if groups < 2 {
            return None;
        }
        let mut resampler = Resampler { curve, scheme, group, groups, fitted: &[], residual: Vec::new() };
        if matches!(scheme, Scheme::Pairs | Scheme::Fractional) {
            return Some(resampler);
        }
        let (n, freedom) = (rows.len() as f64, known.freedom[curve]);
        if freedom <= 0.0 {
            return None;
        }
        resampler.fitted = &known.fitted[rows.clone()];
        // Fitted residuals are smaller than errors, on average by this factor.
        let scale = (n / freedom).sqrt();
        let left = problem.response[rows.clone()].iter().zip(resampler.fitted);
        resampler.residual = left.map(|(response, fitted)| scale * (response - fitted)).collect();
        if scheme == Scheme::Residual {
            for (residual, weight) in resampler.residual.iter_mut().zip(&problem.weight[rows]) {
                *residual *= weight.sqrt();
            }
            let mean = resampler.residual.iter().sum::<f64>() / n;
            resampler.residual.iter_mut().for_each(|residual| *residual -= mean);
        }
        Some(resampler)
    }

    /// Appends one replicate: rows that it gives no weight are left out; box, grid and centres stay the curve's.
    fn push(&self, problem: &Problem, mut stream: Stream, into: &mut Problem) {
        let rows = problem.rows(self.curve);
        let factors = self.factors(&mut stream);
        for (k, row) in rows.enumerate() {
            let factor = factors.as_ref().map_or(1.0, |factors| factors[self.group[k]]);
            let (t, w) = (problem.response[row], problem.weight[row]);
            let (t, w) = match self.scheme {
                Scheme::Pairs if factor == 0.0 => continue,
                Scheme::Pairs | Scheme::Fractional => (t, w * factor),
                Scheme::Wild => (self.fitted[k] + factor * self.residual[k], w),
                Scheme::Residual => {
                    let drawn = stream.integer(0, self.residual.len() as u64 - 1) as usize;
                    (self.fitted[k] + self.residual[drawn] / w.sqrt(), w)
                }
            };
            into.response.push(t);
            into.weight.push(w);
            for (target, source) in into.inputs.iter_mut().zip(&problem.inputs) {
                target.push(source[row]);
            }
        }
        let (p, inputs, stride) = (problem.model.len(), problem.model.inputs.len(), problem.grid.stride());
        let copy = |target: &mut Vec<f64>, source: &[f64], each: usize| {
            target.extend_from_slice(&source[self.curve * each..(self.curve + 1) * each]);
        };
        copy(&mut into.centres, &problem.centres, inputs);
        copy(&mut into.lower, &problem.lower, p);
        copy(&mut into.upper, &problem.upper, p);
        copy(&mut into.grid.values, &problem.grid.values, stride);
        into.offsets.push(into.response.len());
        let status = into.unfittable(into.rows(into.status.len()));
        into.status.push(status);
    }

    /// A factor for every group: how often it was drawn, its weight, or its sign; none under [`Scheme::Residual`].
    fn factors(&self, stream: &mut Stream) -> Option<Vec<f64>> {
        let groups = self.groups;
        match self.scheme {
            Scheme::Pairs => {
                let mut counts = vec![0.0; groups];
                for _ in 0..groups {
                    counts[stream.integer(0, groups as u64 - 1) as usize] += 1.0;
                }
                Some(counts)
            }
            Scheme::Fractional => {
                // Exponential draws over their mean are Dirichlet(1, …, 1) times their number.
                let mut draws: Vec<f64> = (0..groups).map(|_| -(1.0 - stream.unit()).ln()).collect();
                let mean = draws.iter().sum::<f64>() / groups as f64;
                // A weight of exactly zero would be a row less.
                draws.iter_mut().for_each(|draw| *draw = (*draw / mean).max(f64::MIN_POSITIVE));
                Some(draws)
            }
            Scheme::Wild => Some((0..groups).map(|_| if stream.unit() < 0.5 { -1.0 } else { 1.0 }).collect()),
            Scheme::Residual => None,
        }
    }
}

/// The group of every row by its label, in order of appearance, and how many there are; without labels a group each.
fn groups(labels: Option<&[f64]>, rows: usize) -> (Vec<usize>, usize) {
    let Some(labels) = labels else { return ((0..rows).collect(), rows) };
    let mut known: HashMap<u64, usize> = HashMap::new();
    let group = labels.iter().map(|label| {
        let next = known.len();
        *known.entry(label.to_bits()).or_insert(next)
    });
    let group = group.collect();
    (group, known.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(scheme: Scheme, groups: usize, replicate: u64) -> Vec<f64> {
        let (group, fitted) = ((0..groups).collect(), &[][..]);
        let resampler = Resampler { curve: 0, scheme, group, groups, fitted, residual: Vec::new() };
        resampler.factors(&mut Stream::new(3, replicate)).expect("factors")
    }

    #[test]
    fn factors_have_the_moments_of_their_schemes() {
        // Over many replicates: mean, variance and the covariance of two rows. Five standard errors of 20,000.
        const REPLICATES: u64 = 20_000;
        const TOLERANCE: f64 = 0.08;
        let n = 8.0;
        for (scheme, mean, variance, covariance) in [
            (Scheme::Pairs, 1.0, 1.0 - 1.0 / n, -1.0 / n),
            (Scheme::Fractional, 1.0, (n - 1.0) / (n + 1.0), -1.0 / (n + 1.0)),
            (Scheme::Wild, 0.0, 1.0, 0.0),
        ] {
            let draws: Vec<Vec<f64>> = (0..REPLICATES).map(|replicate| factors(scheme, 8, replicate)).collect();
            let average = |of: &dyn Fn(&[f64]) -> f64| draws.iter().map(|d| of(d)).sum::<f64>() / REPLICATES as f64;
            let found = [
                average(&|d| d[2]),
                average(&|d| (d[2] - mean) * (d[2] - mean)),
                average(&|d| (d[2] - mean) * (d[5] - mean)),
            ];
            for (found, expected) in found.into_iter().zip([mean, variance, covariance]) {
                assert!((found - expected).abs() < TOLERANCE, "{scheme:?}: {found}, expected {expected}");
            }
        }
        assert_eq!(factors(Scheme::Pairs, 8, 1).iter().sum::<f64>(), 8.0);
        assert!((factors(Scheme::Fractional, 8, 1).iter().sum::<f64>() - 8.0).abs() < 1e-12);
    }

    #[test]
    fn rows_of_one_label_are_one_group() {
        assert_eq!(groups(Some(&[7.0, 3.0, 7.0, f64::NAN, f64::NAN]), 5), (vec![0, 1, 0, 2, 2], 3));
        assert_eq!(groups(None, 3), (vec![0, 1, 2], 3));
    }

    #[test]
    fn intervals_are_null_where_fewer_than_half_of_the_replicates_could_be_fitted() {
        let nan = f64::NAN;
        let replicates = Replicates {
            draws: vec![1.0, 2.0, 3.0, 4.0, 1.0, nan, nan, nan],
            fitted: vec![Some(4), Some(1)],
            pinned: vec![0, 0],
        };
        let spread = replicates.spread(4, 0.5);
        assert_eq!((spread.low[0], spread.high[0]), (1.75, 3.25));
        assert!((spread.error[0] - (5.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert!(spread.low[1].is_nan() && spread.high[1].is_nan() && spread.error[1].is_nan());
    }
}
