//! The stages of a run, each measured alone: what `sweepfit bench` shows beside the whole.
//!
//! In: a [`Request`] of one law. Out: [`Apart`]: the time of every stage on all threads while no other stage runs, and the
//! answers of some curves to judge by. In a run the stages overlap; here each waits for the one before. The input is read
//! twice, once for the time of reading and once in loads that bound the memory.

use super::columns::{Beyond, Columns};
use super::{Fit, Report, Request, Tally, WAITING_THREADS, pool, search, verified};
use crate::error::{Error, Result};
use crate::fit::Proposals;
use crate::fit::judge::{Verdicts, judge};
use crate::fit::pack::{Packed, Weighting};
use crate::fit::problem::Problem;
use crate::table::{self, Batch, Counts, Event, KeySchema, ReadOptions, Reader, Writer};
use crate::verify::{Sample, Verification};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// What each stage took, alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// Decoding and grouping.
    pub read: Duration,
    /// Raw columns to problems.
    pub pack: Duration,
    /// The backend's proposals; on a GPU with the refinement in f32.
    pub search: Duration,
    /// The descents in f64: the judge's time from the proposals less its time from the answers.
    pub refine: Duration,
    /// The judge's time from the answers themselves: the verdict and the statistics.
    pub judge: Duration,
    /// Filling columns, encoding and writing.
    pub write: Duration,
}

/// A run, stage by stage.
#[derive(Debug, Clone)]
pub struct Apart {
    /// Where the time went.
    pub stages: Stages,
    /// The whole measurement: more than all stages, since it reads twice and judges twice.
    pub seconds: f64,
    /// What was read.
    pub counts: Counts,
    /// Points that entered the fits.
    pub points: u64,
    /// What became of the curves.
    pub tally: Tally,
    /// How many random curves were fitted again by brute force: at most [`Request::verify`].
    pub sampled: usize,
    /// How the run's answers compare with those; none where none were asked for.
    pub verification: Option<Verification>,
}

/// Batches in memory at a time for a device, where there are not more threads than half of it.
const DEVICE_LOAD: usize = 32;

/// Runs stage by stage.
///
/// # Errors
/// As [`super::run`]; also [`Error::Usage`] where more than one law is asked for.
pub fn measure(request: &Request) -> Result<Apart> {
    let [fit] = &request.fits[..] else {
        return Err(Error::Usage("stages are measured for one law at a time".into()));
    };
    let started = Instant::now();
    let pool = pool(request.threads.max(1) + if request.on_cpu() { 0 } else { WAITING_THREADS })?;
    let (counts, read) = read(request)?;
    let mut reader = open(request)?;
    let schema = reader.key_schema().clone();
    let mut line = Line::open(request, fit, &schema)?;
    // On the CPU one a thread, so that they stay in the caches from stage to stage, as in a run.
    let most = if request.on_cpu() { request.threads.max(1) } else { DEVICE_LOAD.max(2 * request.threads) };
    loop {
        match load(&mut reader, most)? {
            Load::Batches(batches) if batches.is_empty() => break,
            Load::Batches(batches) => line.take(&pool, &batches)?,
            Load::Void => line = Line::open(request, fit, &schema)?,
        }
    }
    let Line { mut stages, points, tally, sample, writer, columns, .. } = line;
    let report = Report::new(request, &columns);
    time(&mut stages.write, || writer.finish(&report.metadata()))?;
    stages.read = read;
    let seconds = started.elapsed().as_secs_f64();
    let verification = verified(request, &sample)?.pop();
    Ok(Apart { stages, seconds, counts, points, tally, sampled: sample.len(), verification })
}

fn time<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *spent += started.elapsed();
    result
}

fn open(request: &Request) -> Result<Reader> {
    let (threads, interrupted) = (request.threads, request.interrupted.clone());
    let options = ReadOptions { threads, interrupted, ..ReadOptions::default() };
    table::read(&request.source, &request.selection, &options)
}

/// Reads everything and keeps nothing.
fn read(request: &Request) -> Result<(Counts, Duration)> {
    let mut spent = Duration::ZERO;
    let counts = time(&mut spent, || {
        let mut reader = open(request)?;
        while reader.next().transpose()?.is_some() {}
        Ok::<Counts, Error>(reader.counts())
    })?;
    Ok((counts, spent))
}

/// What the reader handed over.
enum Load {
    /// None at the end.
    Batches(Vec<Batch>),
    /// Everything so far is void.
    Void,
}

fn load(reader: &mut Reader, most: usize) -> Result<Load> {
    let mut batches = Vec::new();
    while batches.len() < most {
        match reader.next().transpose()? {
            Some(Event::Batch(batch)) => batches.push(batch),
            Some(Event::Restarted) => return Ok(Load::Void),
            None => break,
        }
    }
    Ok(Load::Batches(batches))
}

/// The stages behind the reader.
struct Line<'a> {
    fit: &'a Fit,
    columns: Columns,
    writer: Writer,
    stages: Stages,
    curves: u64,
    points: u64,
    tally: Tally,
    /// Curves to sample.
    most: usize,
    sample: Sample,
}

impl<'a> Line<'a> {
    fn open(request: &'a Request, fit: &'a Fit, schema: &KeySchema) -> Result<Line<'a>> {
        let columns = Columns::new(&request.fits, &request.extras);
        let writer = Writer::create(&request.out, schema, columns.announced())?;
        Ok(Line {
            fit,
            columns,
            writer,
            stages: Stages::default(),
            curves: 0,
            points: 0,
            tally: Tally::default(),
            most: request.verify,
            sample: Sample::default(),
        })
    }

    fn take(&mut self, pool: &ThreadPool, batches: &[Batch]) -> Result<()> {
        let Fit { plan, spelling, device } = self.fit;
        let unit_weights = matches!(plan.weighting, Weighting::Sigma(_));
        let mut packed: Vec<Packed> = time(&mut self.stages.pack, || {
            pool.install(|| batches.par_iter().map(|batch| plan.pack(&batch.curves)).collect())
        });
        let proposals: Vec<Proposals> = time(&mut self.stages.search, || {
            pool.install(|| {
                packed.par_iter_mut().map(|packed| search(&*device.backend, &mut packed.problem)).collect::<Result<_>>()
            })
        })?;
        let verdicts = |proposals: &[Proposals]| -> Vec<Verdicts> {
            let judge = |(packed, proposals): (&Packed, &Proposals)| judge(&packed.problem, proposals, unit_weights);
            pool.install(|| packed.par_iter().zip(proposals).map(judge).collect())
        };
        let (mut judged, mut again) = (Duration::ZERO, Duration::ZERO);
        let verdict = time(&mut judged, || verdicts(&proposals));
        let answers: Vec<Proposals> =
            packed.iter().zip(&verdict).map(|(packed, verdict)| answers(&packed.problem, verdict)).collect();
        time(&mut again, || verdicts(&answers));
        self.stages.refine += judged.saturating_sub(again);
        self.stages.judge += judged.min(again);
        let searched = verdict;
        let verdict: Vec<Verdicts> = time(&mut self.stages.judge, || match spelling {
            Some(spelling) => searched.iter().map(|searched| spelling.spell(searched)).collect(),
            None => searched.clone(),
        });
        for ((batch, verdict), searched) in batches.iter().zip(&verdict).zip(&searched) {
            let indices: Vec<u64> = (self.curves..).take(batch.curves.len()).collect();
            let sample = Sample::of(self.most, &indices, batch, &[(verdict, searched)]);
            self.sample.merge(self.most, sample);
            self.curves += batch.curves.len() as u64;
        }
        time(&mut self.stages.write, || {
            let fits = std::slice::from_ref(self.fit);
            for (batch, verdict) in batches.iter().zip(&verdict) {
                let values = self.columns.fill(fits, std::slice::from_ref(verdict), &Beyond::default());
                self.writer.write(&batch.keys, 1, values)?;
            }
            Ok::<(), Error>(())
        })?;
        for ((batch, packed), verdict) in batches.iter().zip(&packed).zip(&verdict) {
            self.tally.add(&Tally::of(packed, verdict, &batch.keys));
            self.points += packed.problem.response.len() as u64;
        }
        Ok(())
    }
}

/// The answers as proposals.
fn answers(problem: &Problem, verdict: &Verdicts) -> Proposals {
    let (p, inputs) = (problem.model.len(), problem.model.inputs.len());
    let mut proposals = Proposals { offsets: vec![0], coordinates: Vec::new() };
    for (curve, status) in verdict.status.iter().enumerate() {
        if status.has_parameters() {
            let theta = &verdict.parameters[curve * p..(curve + 1) * p];
            let centres = &problem.centres[curve * inputs..(curve + 1) * inputs];
            proposals.coordinates.extend(problem.model.encode(theta, centres));
        }
        proposals.offsets.push(proposals.coordinates.len() / p);
    }
    proposals
}
