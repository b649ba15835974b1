//! One batch through pack, search, judge and resample, every law of the request.
//!
//! In: the curves of a batch and their places in the run. Out: the [`Work`] on them. Knows no threads and no order.

use super::Request;
use super::card::{Stages, Tally};
use super::columns::{Beyond, Columns, Resampling};
use super::request::Fit;
use super::work::{Layouts, Work};
use crate::curves::CurveBatch;
use crate::error::Result;
use crate::fingerprint;
use crate::fit::cpu::Cpu;
use crate::fit::judge::{Verdicts, judge};
use crate::fit::pack::{Packed, Plan, Weighting};
use crate::fit::problem::Problem;
use crate::fit::spell::Spelling;
use crate::fit::{Backend, Proposals, Status};
use crate::statistics::bootstrap::{Replicates, resample};
use crate::statistics::selection::{Criterion, Score, criterion_scores, divide, holdout_scores, rank};
use crate::table::Batch;
use crate::verify::Sample;
use std::sync::Arc;
use std::time::Instant;

/// What was searched: laws of one family share it.
struct Searched<'a> {
    plan: &'a Arc<Plan>,
    packed: Packed<'a>,
    verdicts: Verdicts,
    /// For each law of the request that is a spelling of this one; empty where nothing is resampled.
    replicates: Vec<Replicates>,
    /// Empty where nothing is held out.
    held_out: Vec<Score>,
}

/// Pack, search, judge and resample: every law on one batch, whose curves have these `indices` in the run.
pub(super) fn fit(
    request: &Request,
    columns: &Columns,
    layouts: &Layouts,
    indices: &[u64],
    batch: &Batch,
) -> Result<Work> {
    let mut stages = Stages::default();
    let held_out = holdout(request, batch);
    let mut searches = Vec::with_capacity(request.fits.len());
    let mut tallies = Vec::with_capacity(request.fits.len());
    let mut verdicts = Vec::with_capacity(request.fits.len());
    let mut beyond = Beyond::default();
    let mut scores = Vec::new();
    let mut searched: Vec<Searched> = Vec::new();
    for Fit { plan, spelling, .. } in &request.fits {
        let known = searched.iter().position(|known| Arc::ptr_eq(known.plan, plan));
        let at = match known {
            Some(at) => at,
            None => {
                searched.push(search_and_judge(request, plan, indices, batch, held_out.as_ref(), &mut stages)?);
                searched.len() - 1
            }
        };
        let known = &mut searched[at];
        let started = Instant::now();
        let verdict =
            spelling.as_ref().map_or_else(|| known.verdicts.clone(), |spelling| spelling.spell(&known.verdicts));
        stages.judge += started.elapsed();
        let mut tally = Tally::of(&known.packed, &verdict, &batch.keys);
        if let Some(resampling) = &request.extras.resampling {
            let own = known.replicates.remove(0);
            tally.resampled(&verdict, &own, resampling.bootstrap.replicates);
            beyond.replicates.push(own);
        }
        match request.extras.select {
            Some(Criterion::Holdout { .. }) => {
                tally.held_out(&verdict, &known.held_out);
                beyond.held_out.push(known.held_out.clone());
            }
            Some(criterion) => scores.push(criterion_scores(criterion, &known.packed, &verdict)),
            None => {}
        }
        tallies.push(tally);
        verdicts.push(verdict);
        searches.push(at);
    }
    if let Some(criterion) = request.extras.select {
        let scores = if held_out.is_some() { &beyond.held_out } else { &scores };
        let ranking = rank(criterion, &request.contestants(), scores);
        for (law, tally) in tallies.iter_mut().enumerate() {
            tally.ranked(ranking.best.iter().skip(law).step_by(request.fits.len()), ranking.incomparable);
        }
        beyond.ranking = Some(ranking);
    }
    let started = Instant::now();
    let laws = request.fits.len();
    beyond.fingerprints = request.extras.fingerprint.then(|| fingerprint::of_curves(&batch.curves));
    let fits = layouts.fits.rows(&batch.keys, laws, columns.fill(&request.fits, &verdicts, &beyond))?;
    let draws = match (&request.extras.resampling, &layouts.draws) {
        (Some(Resampling { bootstrap, .. }), Some(layout)) => {
            let replicates = bootstrap.replicates as usize;
            let values = columns.fill_draws(&request.fits, &beyond.replicates, replicates);
            Some(layout.rows(&batch.keys, laws * replicates, values)?)
        }
        _ => None,
    };
    stages.write += started.elapsed();
    let pairs: Vec<_> =
        verdicts.iter().zip(searches).map(|(own, at): (_, usize)| (own, &searched[at].verdicts)).collect();
    let sample = Sample::of(request.verify, indices, batch, &pairs);
    let lost = request.fits.iter().find_map(|fit| fit.device.backend.lost()).map(String::from);
    Ok(Work { fits, draws, tallies, sample, stages, changes: None, tested: Vec::new(), untested: 0, lost })
}

/// One law on one batch: the fits, and what was asked beyond them.
fn search_and_judge<'a>(
    request: &'a Request,
    plan: &'a Arc<Plan>,
    indices: &[u64],
    batch: &Batch,
    held_out: Option<&[CurveBatch; 2]>,
    stages: &mut Stages,
) -> Result<Searched<'a>> {
    let sharing = || request.fits.iter().filter(|fit| Arc::ptr_eq(&fit.plan, plan));
    let device = &sharing().next().expect("the plan is one of the request's").device;
    // With known standard deviations the scatter of the residuals does not scale the errors.
    let unit_weights = matches!(plan.weighting, Weighting::Sigma(_));
    let mut fit = |curves: &CurveBatch| -> Result<(Packed<'a>, Verdicts)> {
        let started = Instant::now();
        let mut packed = plan.pack(curves);
        stages.pack += started.elapsed();
        let started = Instant::now();
        let proposals = search(&*device.backend, &mut packed.problem)?;
        stages.search += started.elapsed();
        let started = Instant::now();
        let verdicts = judge(&packed.problem, &proposals, unit_weights);
        stages.judge += started.elapsed();
        Ok((packed, verdicts))
    };
    let (packed, verdicts) = fit(&batch.curves)?;
    let scores = match held_out {
        Some([smaller, largest]) => holdout_scores(&plan.pack(largest), &fit(smaller)?.1),
        None => Vec::new(),
    };
    let started = Instant::now();
    let replicates = match &request.extras.resampling {
        Some(Resampling { bootstrap, .. }) => {
            let spellings: Vec<Option<&Spelling>> = sharing().map(|fit| fit.spelling.as_ref()).collect();
            let propose = |problem: &mut Problem| search(&*device.backend, problem);
            let backend = &*device.backend;
            resample(&packed.problem, &verdicts, &packed.carried, indices, bootstrap, &spellings, backend, &propose)?
        }
        None => Vec::new(),
    };
    stages.resample += started.elapsed();
    Ok(Searched { plan, packed, verdicts, replicates, held_out: scores })
}

/// The batch without and with only the points that are held out, where any are.
fn holdout(request: &Request, batch: &Batch) -> Option<[CurveBatch; 2]> {
    let Some(Criterion::Holdout { fraction }) = request.extras.select else { return None };
    let numbers = &request.selection.numbers;
    let places = |names: &mut dyn Iterator<Item = &str>| {
        let mut places: Vec<usize> = names.filter_map(|name| numbers.iter().position(|n| n == name)).collect();
        places.sort_unstable();
        places.dedup();
        places
    };
    let laws = || request.fits.iter().map(|fit| &fit.plan.law);
    let scale = places(&mut laws().flat_map(|law| law.inputs()));
    let mut needed = places(&mut laws().flat_map(|law| law.columns.iter().map(String::as_str)));
    let (weight, extra) = match request.fits[0].plan.weighting {
        Weighting::Even => (None, None),
        Weighting::Weight(column) => (Some(column), Some(column)),
        Weighting::Sigma(column) => (None, Some(column)),
    };
    needed.extend(extra);
    Some(divide(&batch.curves, &scale, &needed, weight, fraction))
}

/// Proposals for every open curve. What a device leaves without any (a curve too long for it, values that f32 cannot
/// carry) the CPU searches; to a device's proposals for a law that is searched above its floor it adds its own.
///
/// # Errors
/// What the device refuses.
pub fn search(backend: &dyn Backend, problem: &mut Problem) -> Result<Proposals> {
    // Asked first: a device may be lost on the way, and what it has left without a proposal is made up for either way.
    let on_host = backend.is_host();
    let mut proposals = backend.propose(problem)?;
    if on_host {
        return Ok(proposals);
    }
    let parameters = problem.model.len();
    if problem.model.above.is_some() {
        proposals = proposals.joined(&Cpu.propose(problem)?, parameters);
    }
    let none = |curve: usize| proposals.offsets[curve] == proposals.offsets[curve + 1];
    let left: Vec<bool> = (0..problem.len()).map(|curve| problem.status[curve].is_none() && none(curve)).collect();
    if !left.contains(&true) {
        return Ok(proposals);
    }
    let known = problem.status.clone();
    for (status, left) in problem.status.iter_mut().zip(&left) {
        // Any status keeps a curve out of the search.
        *status = if *left { None } else { Some(Status::Converged) };
    }
    let more = Cpu.propose(problem);
    problem.status = known;
    Ok(proposals.joined(&more?, parameters))
}
