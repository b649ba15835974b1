//! The pipeline: read → pack → search → judge → write, one direction, streaming.
//!
//! In: a [`Request`]. Out: the table of fits under its name, and a [`Report`]. The reader has a thread of its own, batches
//! are fitted side by side on a rayon pool, and the caller's thread writes them in the order in which they were read. A
//! fixed number of batches is in flight, so that the size of the input never sets the memory. Only this file knows all the
//! stages; it knows no formulas and no formats of files.

pub mod apart;
mod batch;
mod card;
mod carried;
mod changes;
mod columns;
mod identity;
mod ledger;
mod line;
mod lock;
mod outputs;
mod request;
mod watch;
mod work;

pub use batch::search;
pub use card::{LawReport, Report, Stages, Tally};
pub use changes::Changes;
pub use columns::{Extras, Intervals, Resampling, parameter_column};
pub(crate) use columns::{covariance, freedom};
pub use ledger::Ledger;
pub use request::{Device, Fit, Request, Rerun};
pub use watch::{Broken, Watch, Watched};

use columns::Columns;
use line::{At, Event, Fitted, Line, WAITING_THREADS, pool};
use lock::Lock;
use outputs::Writers;
use work::Work;

use crate::error::{Error, Result};
use crate::table::{self, DEVICE_BATCH, HOST_BATCH, Past, ReadOptions, Reader, Source, Spool};
use crate::verify::{self, Sample, Verification};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// How far a run is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows of the input that were read for the curves written so far.
    pub rows_read: u64,
    /// Curves written.
    pub curves: u64,
}

/// Fits every law to every curve and writes the table; `watch` hears of every batch written.
///
/// # Errors
/// What the input, the output or the device refuse. No output appears then, and one that existed is left as it was.
pub fn run(request: Request, watch: &mut dyn FnMut(Progress)) -> Result<Report> {
    Run::open(request)?.finish(watch)
}

/// A run whose input and output are open and agree with what is asked; nothing is fitted yet.
pub struct Run {
    request: Arc<Request>,
    columns: Arc<Columns>,
    reader: Reader,
    writers: Writers,
    ledger: Option<Ledger>,
    past: Option<Arc<Past>>,
    /// Why nothing is gone on from, where something might have been.
    anew: Vec<String>,
    /// Held until the end: no other run may write these outputs.
    _locks: Vec<Lock>,
}

impl Run {
    /// Opens both ends.
    ///
    /// # Errors
    /// Columns that are missing or of the wrong type, names that would stand twice in the output, an output that cannot
    /// be written or that another run is writing, a ledger or earlier fits of another run.
    pub fn open(request: Request) -> Result<Run> {
        let columns = Columns::new(&request.fits, &request.extras);
        let ledger = request.rerun.ledger.as_ref().map(|ledger| ledger.display().to_string());
        // Beside the output a ledger is that output's own; elsewhere two outputs could name one.
        let elsewhere = ledger.filter(|ledger| Path::new(ledger) != Ledger::path_of(Path::new(&request.out)));
        let outputs = std::iter::once(request.out.as_str()).chain(request.draws()).chain(elsewhere.as_deref());
        let locks = outputs.filter_map(|output| Lock::take(output).transpose()).collect::<Result<_>>()?;
        let mut anew = request.rerun.anew.clone();
        let ledger = match &request.rerun.ledger {
            Some(path) => {
                let this = identity::of(&request)?;
                let opened = Ledger::open(path, &this);
                let opened = unless_anew(opened.map(Some), &request.rerun, &mut anew)?;
                Some(opened.map_or_else(|| Ledger::begin(path, &this), Ok)?)
            }
            None => None,
        };
        let options = ReadOptions {
            batch_rows: if request.on_cpu() { HOST_BATCH } else { DEVICE_BATCH },
            threads: request.threads,
            interrupted: request.interrupted.clone(),
            memory: request.memory.clone(),
            scattered: ledger.as_ref().and_then(|ledger| ledger.scattered().map(String::from)),
        };
        let cluster = request.extras.resampling.iter().flat_map(|resampling| resampling.cluster.clone());
        let labels: Vec<String> = cluster.collect();
        let reader = table::read_with_labels(&request.source, &request.selection, &labels, &options)?;
        let writers = Writers::create(&request, &columns, reader.key_schema())?;
        let past = match &request.rerun.since {
            Some(since) => {
                let opened = open_past(&request, since, &reader, &writers);
                unless_anew(opened.map(Some), &request.rerun, &mut anew)?.map(Arc::new)
            }
            None => None,
        };
        let (request, columns) = (Arc::new(request), Arc::new(columns));
        Ok(Run { request, columns, reader, writers, ledger, past, anew, _locks: locks })
    }

    /// Looks whether [`Run::open`] would succeed, and leaves ledger and outputs as they are. Why the run would begin anew.
    ///
    /// # Errors
    /// As [`Run::open`].
    pub fn check(mut request: Request) -> Result<Vec<String>> {
        let mut anew = Vec::new();
        if let Some(path) = request.rerun.ledger.take() {
            let looked = Ledger::look(&path, &identity::of(&request)?);
            unless_anew(looked.map(Some), &request.rerun, &mut anew)?;
        }
        anew.extend(Run::open(request)?.anew);
        Ok(anew)
    }

    /// Why nothing is gone on from, where something might have been.
    pub fn anew(&self) -> &[String] {
        &self.anew
    }

    /// Reads, fits and writes; `watch` hears of every batch written.
    ///
    /// # Errors
    /// As [`run`].
    pub fn finish(self, watch: &mut dyn FnMut(Progress)) -> Result<Report> {
        let start = Instant::now();
        let Run { request, columns, reader, mut writers, mut ledger, past, anew, _locks } = self;
        let schema = reader.key_schema().clone();
        let layouts = writers.layouts();
        let mut report = Report::new(&request, &columns);
        // What is watched is adjusted at the end: until then the rows wait.
        let folder = lock::folder_of(&request.out);
        let new_spool = || request.rerun.watch.as_ref().map(|_| Spool::create(&folder, &layouts.fits)).transpose();
        let mut spool = new_spool()?;
        // Batches since the input began, and how many of them are in the ledger.
        let (mut batches, mut known) = (0, ledger.as_ref().map_or(0, Ledger::batches));
        let at =
            At { request: request.clone(), columns: columns.clone(), layouts: layouts.clone(), past: past.clone() };
        let mut line = Line::start(reader, at, known as u64)?;
        loop {
            match line.next()? {
                Event::Fitted(fitted) => {
                    let Fitted { keys, content, work, counts, _token, .. } = *fitted;
                    let started = Instant::now();
                    let work = match (work, &mut ledger) {
                        (Some(work), None) => work,
                        (Some(work), Some(ledger)) => {
                            ledger.keep(&work.encode(content, &layouts)?)?;
                            work
                        }
                        (None, Some(ledger)) => {
                            let work = Work::decode(&ledger.read(batches)?, content, &keys, &layouts)?;
                            work.ok_or_else(|| ledger.foreign(batches))?
                        }
                        (None, None) => unreachable!("only batches in a ledger come without their work"),
                    };
                    batches += 1;
                    match &mut spool {
                        Some(spool) => spool.push(&work.fits)?,
                        None => writers.append(&work)?,
                    }
                    report.take(keys.len(), work);
                    report.stages.write += started.elapsed();
                    if batches == known {
                        report.taken_over = report.curves;
                    }
                    watch(Progress { rows_read: counts.rows_read, curves: report.curves });
                }
                Event::Restarted(note) => {
                    if let Some(ledger) = &mut ledger {
                        ledger.restart(&note)?;
                    }
                    spool = new_spool()?;
                    (batches, known) = (0, 0);
                    // The old ones go first: they have the names of the new ones.
                    drop(writers);
                    writers = Writers::create(&request, &columns, &schema)?;
                    report = Report::new(&request, &columns);
                }
                Event::End(end) => {
                    report.end(end);
                    report.anew = anew;
                    if let Some(past) = &past {
                        report.vanished = past.vanished()?;
                    }
                    report.verifications = verified(&request, &report.sample)?;
                    let started = Instant::now();
                    if let (Some(spool), Some(watch)) = (spool.take(), &request.rerun.watch) {
                        let law = &request.fits[watch.law].law().name;
                        let watched = Watched::of(watch, law, std::mem::take(&mut report.tested));
                        let mut row = 0;
                        spool.replay(|block| {
                            if request.interrupted.load(Ordering::Relaxed) {
                                return Err(Error::Interrupted);
                            }
                            let first = row;
                            row += block.rows() as u64;
                            writers.fits.append(&watched.adjust(&block, first))
                        })?;
                        report.watched = Some(watched);
                    }
                    writers.finish(&report.metadata())?;
                    // The output is complete: what led to it has served.
                    ledger.map_or(Ok(()), Ledger::remove)?;
                    report.stages.write += started.elapsed();
                    report.seconds = start.elapsed().as_secs_f64();
                    return Ok(report);
                }
            }
        }
    }
}

/// What an earlier run left; nothing where it is of no use and the run may do without, which is noted.
fn unless_anew<T>(opened: Result<Option<T>>, rerun: &Rerun, anew: &mut Vec<String>) -> Result<Option<T>> {
    match opened {
        Err(Error::Earlier { file, message, .. }) if rerun.or_begin_anew => {
            anew.push(format!("{} {message}", file.display()));
            Ok(None)
        }
        other => other,
    }
}

/// The fits of an earlier run, which have to be those of this job.
fn open_past(request: &Request, since: &Source, reader: &Reader, writers: &Writers) -> Result<Past> {
    if request.draws().is_some() {
        return Err(Error::Usage(
            "--draws cannot be written with --since: a table of fits does not hold the replicates of the curves that are \
             carried over; leave one of them out"
                .into(),
        ));
    }
    changes::refuse_another_job(since, &card::methods(request))?;
    let laws: Vec<String> = request.fits.iter().map(|fit| fit.law().name.clone()).collect();
    let (layout, unique) = (writers.fits.layout(), reader.keys_are_unique());
    let read = || Past::open(since, reader.key_schema(), layout, &laws, unique, &request.interrupted);
    pool(request.threads.max(1))?.install(read)
}

/// Fits the sample again by brute force.
fn verified(request: &Request, sample: &Sample) -> Result<Vec<Verification>> {
    if request.verify == 0 {
        return Ok(Vec::new());
    }
    let fits: Vec<verify::Fitted> =
        request.fits.iter().map(|fit| verify::Fitted { law: fit.law(), plan: &fit.plan }).collect();
    pool(request.threads.max(1))?
        .install(|| verify::verify(&fits, &request.selection.numbers, sample, &request.interrupted))
}
