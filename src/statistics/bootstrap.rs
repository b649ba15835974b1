//! The bootstrap: every curve is fitted again under random weights or on random responses, searched anew each time.
//!
//! In: a problem, its verdicts, and a device. Out: for every curve the parameters of its replicates, and from them percentile
//! intervals and standard errors. A replicate depends on the seed, the index of its curve in the run and its own index
//! alone, never on threads, batches or the law. A device that makes replicates itself ([`Backend::replicate`]) fits them in
//! f32, and of these a sample is judged in f64: a curve whose sample shows a difference that an interval could notice has all
//! its replicates judged. Elsewhere they are made, judged and dropped by the hundred thousand rows, as curves of one more
//! problem.

use super::forecast::percentiles;
use super::student::{Quantiles, upper_tail};
use super::surface::by_rows;
use crate::error::Result;
use crate::evaluate::tape::map_columns;
use crate::fit::judge::{Verdicts, judge};
use crate::fit::problem::Problem;
use crate::fit::replicates::Replication;
use crate::fit::spell::Spelling;
use crate::fit::symmetry::canonical;
use crate::fit::{Backend, Proposals, Replicated};
use crate::random::Stream;
use rayon::prelude::*;

pub use crate::fit::replicates::Scheme;

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
    /// What each curve's replicates are drawn from, rows or clusters, and how many more of them there are than estimated
    /// parameters.
    pub groups: Vec<u32>,
    pub freedom: Vec<f64>,
    /// How many replicates of each curve were judged in f64.
    pub judged: Vec<u32>,
    /// How far a device's ends lie from those that were judged, where not all were: root of the mean square, in standard
    /// deviations of the replicates, of the worst parameter; NaN elsewhere.
    pub apart: Vec<f64>,
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
/// Of a device's replicates one in so many is judged, and at least so many of a curve.
const SAMPLED: u32 = 16;
const FEWEST_SAMPLED: u32 = 16;
/// Distance of a device's ends from the judged ones, root of the mean square in standard deviations of the replicates, up to
/// which they stand: it widens a distribution by one part in 800.
const STANDS: f64 = 0.05;

/// Degrees of freedom at which Student's t is the normal distribution to eight digits.
const NORMAL: f64 = 1e8;

/// A replicate: its curve and its index.
type Owner = (usize, u32);

/// Fits the replicates of every curve that has a fit. `clusters` holds the label of every row of the problem, or nothing where
/// rows stand for themselves; `first` is the index in the run of the problem's first curve. The replicates come in each of
/// the `spellings` (None: as they were searched). `propose` searches where `backend` makes no replicates of its own.
///
/// # Errors
/// What the device refuses.
#[allow(clippy::too_many_arguments, reason = "the stages of a run meet here")]
pub fn resample(
    problem: &Problem,
    verdicts: &Verdicts,
    clusters: &[f64],
    first: u64,
    bootstrap: &Bootstrap,
    spellings: &[Option<&Spelling>],
    backend: &dyn Backend,
    propose: &dyn Fn(&mut Problem) -> Result<Proposals>,
) -> Result<Vec<Replicates>> {
    let (p, b) = (problem.model.len(), bootstrap.replicates);
    let optima = optima(problem, verdicts);
    let key = |curve: usize| {
        let bits = Stream::new(bootstrap.seed, first + curve as u64).bits();
        [(bits >> 32) as u32, bits as u32]
    };
    let freedom = |curve: usize| {
        let estimated = p as f64 - f64::from(verdicts.pinned[curve].count_ones());
        verdicts.status[curve].has_parameters().then_some(problem.points(curve) as f64 - estimated)
    };
    let replication = Replication::new(
        problem,
        bootstrap.scheme,
        b,
        (0..problem.len()).map(key).collect(),
        clusters,
        &(0..problem.len()).map(freedom).collect::<Vec<_>>(),
        if bootstrap.scheme.moves_responses() { fitted_values(problem, &optima) } else { Vec::new() },
    );
    let mut all = vec![Replicates::none(problem.len(), b, p); spellings.len()];
    for (curve, &groups) in replication.groups.iter().enumerate() {
        let estimated = p as f64 - f64::from(verdicts.pinned[curve].count_ones());
        for all in &mut all {
            (all.groups[curve], all.freedom[curve]) = (groups, f64::from(groups) - estimated);
        }
    }
    let resampled = (0..problem.len()).filter(|&curve| replication.groups[curve] > 0);
    let owners: Vec<Owner> = resampled.flat_map(|curve| (0..b).map(move |replicate| (curve, replicate))).collect();
    let mut take = |owners: &[Owner], found: &Verdicts, judged: bool| {
        for (spelling, all) in spellings.iter().zip(&mut all) {
            match spelling {
                Some(spelling) => all.take(owners, &spelling.spell(found), b, judged),
                None => all.take(owners, found, b, judged),
            }
        }
    };
    // What is searched above its floor the host proposes to as well: a device alone would be another search.
    let device = bootstrap.search && problem.model.above.is_none();
    let replicated = if device { backend.replicate(&replication)? } else { None };
    let apart = match replicated {
        Some(replicated) => Sampling { replication: &replication, replicated }.fit(&owners, propose, &mut take)?,
        None => {
            let from = |chunk: &mut Problem, owners: &[Owner]| match bootstrap.search {
                true => propose(chunk),
                false => Ok(starts(owners, &optima, p)),
            };
            judge_replicates(&replication, &owners, bootstrap.search, &from, &mut |o, found| take(o, found, true))?;
            vec![f64::NAN; problem.len()]
        }
    };
    all.iter_mut().for_each(|all| all.apart.clone_from(&apart));
    Ok(all)
}

/// Every replicate's proposal: its curve's optimum.
fn starts(owners: &[Owner], optima: &[f64], p: usize) -> Proposals {
    let own = |&(curve, _): &Owner| optima[curve * p..(curve + 1) * p].iter().copied();
    Proposals { offsets: (0..=owners.len()).collect(), coordinates: owners.iter().flat_map(own).collect() }
}

/// Makes replicates on the host and judges them, some hundred thousand rows at a time.
fn judge_replicates(
    replication: &Replication,
    owners: &[Owner],
    search: bool,
    propose: &dyn Fn(&mut Problem, &[Owner]) -> Result<Proposals>,
    take: &mut dyn FnMut(&[Owner], &Verdicts),
) -> Result<()> {
    let empty = || Problem {
        given: if search { replication.problem.given } else { &[] },
        robust_errors: false,
        ..replication.problem.emptied()
    };
    let (mut chunk, mut from) = (empty(), 0);
    for (at, &(curve, replicate)) in owners.iter().enumerate() {
        replication.push(curve, replicate, &mut chunk);
        if chunk.response.len() >= ROWS || at + 1 == owners.len() {
            let own = &owners[from..=at];
            let proposals = propose(&mut chunk, own)?;
            take(own, &judge(&chunk, &proposals, false));
            (chunk, from) = (empty(), at + 1);
        }
    }
    Ok(())
}

/// A device's replicates, of which some are judged.
struct Sampling<'a> {
    replication: &'a Replication<'a>,
    replicated: Replicated,
}

impl Sampling<'_> {
    /// Judges the sample, what the device did not settle, and every replicate of a curve whose sample disagrees; takes the
    /// rest as the device left them. Returns how far apart the sample is, per curve whose ends stand.
    fn fit(
        &self,
        owners: &[Owner],
        propose: &dyn Fn(&mut Problem) -> Result<Proposals>,
        take: &mut dyn FnMut(&[Owner], &Verdicts, bool),
    ) -> Result<Vec<f64>> {
        let step = (self.replication.replicates / (self.replication.replicates / SAMPLED).max(FEWEST_SAMPLED)).max(1);
        let (known, unknown): (Vec<Owner>, Vec<Owner>) = owners.iter().partition(|owner| self.has_proposals(owner));
        let (sample, rest): (Vec<Owner>, Vec<Owner>) = known.into_iter().partition(|(_, r)| r % step == 0);
        let ours = |_: &mut Problem, owners: &[Owner]| Ok(self.proposals(owners));
        let mut compared: Vec<Vec<Pair>> = vec![Vec::new(); self.replication.problem.len()];
        judge_replicates(self.replication, &sample, true, &ours, &mut |owners, found| {
            take(owners, found, true);
            for (at, owner) in owners.iter().enumerate() {
                compared[owner.0].push(self.pair(owner, found, at));
            }
        })?;
        let apart: Vec<f64> = compared.par_iter().map(|pairs| self.apart(pairs)).collect();
        // Not written as `>`: NaN fails.
        let stands = |owner: &Owner| apart[owner.0] <= STANDS && self.replicated.settled[self.place(owner)];
        let (left, judged): (Vec<Owner>, Vec<Owner>) = rest.into_iter().partition(stands);
        judge_replicates(self.replication, &judged, true, &ours, &mut |owners, found| take(owners, found, true))?;
        let theirs = |chunk: &mut Problem, _: &[Owner]| propose(chunk);
        judge_replicates(self.replication, &unknown, true, &theirs, &mut |owners, found| take(owners, found, true))?;
        let ends: Vec<(Vec<f64>, u64)> = left.par_iter().map(|owner| self.end(owner)).collect();
        let (parameters, pinned): (Vec<Vec<f64>>, Vec<u64>) = ends.into_iter().unzip();
        if !left.is_empty() {
            take(&left, &Verdicts::unjudged(parameters.concat(), pinned), false);
        }
        Ok(apart.into_iter().map(|apart| if apart <= STANDS { apart } else { f64::NAN }).collect())
    }

    fn place(&self, &(curve, replicate): &Owner) -> usize {
        curve * self.replication.replicates as usize + replicate as usize
    }

    fn has_proposals(&self, owner: &Owner) -> bool {
        let (offsets, place) = (&self.replicated.proposals.offsets, self.place(owner));
        offsets[place] < offsets[place + 1]
    }

    fn proposals(&self, owners: &[Owner]) -> Proposals {
        let p = self.replication.problem.model.len();
        let Proposals { offsets, coordinates } = &self.replicated.proposals;
        let mut own = Proposals { offsets: vec![0], coordinates: Vec::new() };
        for owner in owners {
            let place = self.place(owner);
            own.coordinates.extend_from_slice(&coordinates[offsets[place] * p..offsets[place + 1] * p]);
            own.offsets.push(own.coordinates.len() / p);
        }
        own
    }

    /// The free parameters of the device's best end, and which of them are held by their box.
    fn end(&self, owner: &Owner) -> (Vec<f64>, u64) {
        let problem = self.replication.problem;
        let (p, inputs, place) = (problem.model.len(), problem.model.inputs.len(), self.place(owner));
        let Proposals { offsets, coordinates } = &self.replicated.proposals;
        let mut z = coordinates[offsets[place] * p..][..p].to_vec();
        let mut pinned = self.replicated.pinned[place];
        canonical(problem.symmetries, &mut z, &mut pinned);
        (problem.model.decode(&z, &problem.centres[owner.0 * inputs..(owner.0 + 1) * inputs]), pinned)
    }

    /// A replicate of the sample twice: judged, and as the device left it; each None where there is no end.
    fn pair(&self, owner: &Owner, found: &Verdicts, at: usize) -> Pair {
        let p = self.replication.problem.model.len();
        let judged = found.status[at].has_parameters().then(|| found.parameters[at * p..(at + 1) * p].to_vec());
        let settled = self.replicated.settled[self.place(owner)];
        (judged, settled.then(|| self.end(owner).0))
    }

    /// The worst parameter's distance; NaN where fewer than half of the pairs can be compared, or one was judged to be no fit
    /// that the device takes for one.
    fn apart(&self, pairs: &[Pair]) -> f64 {
        let both: Vec<(&Vec<f64>, &Vec<f64>)> =
            pairs.iter().filter_map(|(judged, end)| judged.as_ref().zip(end.as_ref())).collect();
        let refused = pairs.iter().any(|(judged, end)| judged.is_none() && end.is_some());
        if refused || both.len() < 2 || 2 * both.len() < pairs.len() {
            return f64::NAN;
        }
        let n = both.len() as f64;
        let distance = |j: usize| {
            let mean = both.iter().map(|(judged, _)| judged[j]).sum::<f64>() / n;
            let scatter = both.iter().map(|(judged, _)| (judged[j] - mean).powi(2)).sum::<f64>() / n;
            let off = both.iter().map(|(judged, end)| (judged[j] - end[j]).powi(2)).sum::<f64>() / n;
            // A parameter that never moves, being held, is not apart.
            if off == 0.0 { 0.0 } else { (off / scatter).sqrt() }
        };
        (0..both[0].0.len())
            .map(distance)
            .fold(0.0, |worst, own| if own <= worst || worst.is_nan() { worst } else { own })
    }
}

/// The parameters of one replicate, as judged and as a device left them.
type Pair = (Option<Vec<f64>>, Option<Vec<f64>>);

impl Replicates {
    fn none(curves: usize, replicates: u32, p: usize) -> Replicates {
        Replicates {
            draws: vec![f64::NAN; curves * replicates as usize * p],
            fitted: vec![None; curves],
            pinned: vec![0; curves],
            groups: vec![0; curves],
            freedom: vec![0.0; curves],
            judged: vec![0; curves],
            apart: vec![f64::NAN; curves],
        }
    }

    /// Takes replicates in.
    fn take(&mut self, owners: &[Owner], found: &Verdicts, replicates: u32, judged: bool) {
        let p = found.parameters.len() / found.status.len();
        for (at, &(curve, replicate)) in owners.iter().enumerate() {
            self.judged[curve] += u32::from(judged);
            let fitted = self.fitted[curve].get_or_insert(0);
            if found.status[at].has_parameters() {
                *fitted += 1;
                self.pinned[curve] += u32::from(found.pinned[at] != 0);
                let own = &found.parameters[at * p..(at + 1) * p];
                self.draws[(curve * replicates as usize + replicate as usize) * p..][..p].copy_from_slice(own);
            }
        }
    }

    /// Intervals of `level` between percentiles, and standard deviations; null for a curve of which fewer than half of the
    /// replicates could be fitted, since the others would have their say in either tail. `expanded` percentiles lie further
    /// out, by what Student's t differs from the normal distribution and, where weights are random, by √(n/(n − p)), which
    /// residuals have in themselves (Hesterberg 2015); their intervals are null where there are no more groups than parameters.
    pub fn spread(&self, bootstrap: &Bootstrap, level: f64, expanded: bool) -> Spread {
        let (curves, replicates, b) = (self.fitted.len(), bootstrap.replicates, bootstrap.replicates as usize);
        let mut quantiles = Quantiles::new(level);
        let mut level_of = |curve: usize| {
            let freedom = self.freedom[curve];
            let narrow = if bootstrap.scheme.moves_responses() { 1.0 } else { f64::from(self.groups[curve]) / freedom };
            1.0 - 2.0 * upper_tail(narrow.sqrt() * quantiles.two_sided(freedom), NORMAL)
        };
        let levels: Vec<f64> = (0..curves).map(|curve| if expanded { level_of(curve) } else { level }).collect();
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
            let ends = if levels[curve].is_nan() { None } else { percentiles(own, levels[curve]) };
            let [low, high] = ends.unwrap_or([f64::NAN; 2]);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_null_where_fewer_than_half_of_the_replicates_could_be_fitted() {
        let nan = f64::NAN;
        let replicates = Replicates {
            draws: vec![1.0, 2.0, 3.0, 4.0, 1.0, nan, nan, nan],
            fitted: vec![Some(4), Some(1)],
            pinned: vec![0, 0],
            groups: vec![9, 9],
            freedom: vec![6.0, 6.0],
            judged: vec![4, 4],
            apart: vec![nan, nan],
        };
        let bootstrap = Bootstrap { replicates: 4, scheme: Scheme::Pairs, seed: 0, search: true };
        let spread = replicates.spread(&bootstrap, 0.5, false);
        assert_eq!((spread.low[0], spread.high[0]), (1.75, 3.25));
        assert!((spread.error[0] - (5.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert!(spread.low[1].is_nan() && spread.high[1].is_nan() && spread.error[1].is_nan());
    }

    #[test]
    fn expanded_percentiles_lie_where_students_t_does() {
        let replicates = Replicates {
            draws: (0..10_001).map(f64::from).collect(),
            fitted: vec![Some(10_001)],
            pinned: vec![0],
            groups: vec![16],
            freedom: vec![13.0],
            judged: vec![10_001],
            apart: vec![f64::NAN],
        };
        let low = |scheme: Scheme| {
            let bootstrap = Bootstrap { replicates: 10_001, scheme, seed: 0, search: true };
            replicates.spread(&bootstrap, 0.95, true).low[0] / 10_000.0
        };
        // SciPy: norm.cdf(-t.ppf(0.975, 13)) and norm.cdf(-sqrt(16/13) t.ppf(0.975, 13)).
        assert!((low(Scheme::Residual) - 0.0153721).abs() < 1e-6, "{}", low(Scheme::Residual));
        assert!((low(Scheme::Pairs) - 0.0082714).abs() < 1e-6, "{}", low(Scheme::Pairs));
        let mut few = replicates.clone();
        few.freedom[0] = 0.0;
        let bootstrap = Bootstrap { replicates: 10_001, scheme: Scheme::Pairs, seed: 0, search: true };
        assert!(few.spread(&bootstrap, 0.95, true).low[0].is_nan());
    }
}
