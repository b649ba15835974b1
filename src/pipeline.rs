//! The pipeline: read → pack → search → judge → write, one direction, streaming.
//!
//! In: a [`Request`]. Out: the table of fits under its name, and a [`Report`]. The reader has a thread of its own, batches
//! are fitted side by side on a rayon pool, and the caller's thread writes them in the order in which they were read. A
//! fixed number of batches is in flight, so that the size of the input never sets the memory. Only this file knows all the
//! stages; it knows no formulas and no formats of files.

pub mod apart;
mod card;
mod changes;
mod columns;
mod identity;
mod ledger;
mod lock;
mod watch;
mod work;

pub use card::{LawReport, Report, Stages, Tally};
pub use changes::Changes;
pub use columns::{Extras, Intervals, Resampling, parameter_column};
pub(crate) use columns::{covariance, freedom};
pub use ledger::Ledger;
pub use watch::{Broken, Watch, Watched};

use columns::{Beyond, Columns};
use lock::Lock;
use work::{Layouts, Work};

use crate::curves::CurveBatch;
use crate::error::{Error, Result};
use crate::fingerprint;
use crate::fit::above;
use crate::fit::cpu::Cpu;
use crate::fit::judge::{Verdicts, judge};
use crate::fit::pack::{NamedControl, Packed, Plan, Weighting};
use crate::fit::problem::Problem;
use crate::fit::spell::Spelling;
use crate::fit::{Backend, Proposals, Status};
use crate::law::Law;
use crate::law::catalogue::CATALOGUE;
use crate::statistics::bootstrap::{Replicates, resample};
use crate::statistics::selection::{Contestant, Criterion, Score, criterion_scores, divide, holdout_scores, rank};
use crate::table::{
    self, Batch, Block, Care, Counts, DEVICE_BATCH, HOST_BATCH, KeySchema, Keys, Layout, Memory, Parting, PartsWriter,
    Past, ReadOptions, Reader, Selection, Source, Spool, Writer,
};
use crate::verify::{self, Sample, Verification};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// All that is asked of a run.
#[derive(Debug)]
pub struct Request {
    /// The input.
    pub source: Source,
    /// The columns that the plans were made for, in their order, the keys and the filter.
    pub selection: Selection,
    /// In the order in which a curve's rows shall come.
    pub fits: Vec<Fit>,
    /// Columns beyond the usual ones.
    pub extras: Extras,
    /// A path, or `-` for CSV on standard output.
    pub out: String,
    /// Where `out` is to be a folder of parts: how they are made.
    pub parts: Option<Parting>,
    /// How many random curves are fitted again by brute force, for every law.
    pub verify: usize,
    /// What rows may take that do not lie together; none: as much as they need.
    pub memory: Option<Memory>,
    /// How the run stands to those before it.
    pub rerun: Rerun,
    /// Threads that fit, and as many that decode; the result does not depend on it.
    pub threads: usize,
    /// Set from outside, ends the run with [`Error::Interrupted`] within a fraction of a second.
    pub interrupted: Arc<AtomicBool>,
}

/// How a run stands to those before it.
#[derive(Debug, Clone, Default)]
pub struct Rerun {
    /// Keep a [`Ledger`] of finished work beside the output, and go on behind the one that an earlier run left there.
    pub resume: bool,
    /// The fits of an earlier run: curves whose rows are what they were are carried over, the others are fitted.
    pub since: Option<Source>,
    /// Test the new points of curves that had a fit then against that fit.
    pub watch: Option<Watch>,
}

/// Parameters of replicates in memory at a time, for each batch in flight: 8 MiB.
const DRAWS: usize = 1 << 20;

impl Request {
    /// How many curves of a batch are fitted together: all of them, but few where each has many replicates.
    fn curves_at_once(&self) -> usize {
        let Some(resampling) = &self.extras.resampling else { return usize::MAX };
        let parameters: usize = self.fits.iter().map(|fit| fit.plan.model.len()).sum();
        (DRAWS / (parameters * resampling.bootstrap.replicates as usize)).max(1)
    }

    fn on_cpu(&self) -> bool {
        self.fits.iter().all(|fit| fit.device.name == "cpu")
    }

    /// Where the parameters of every replicate are written, where that is asked for.
    fn draws(&self) -> Option<&str> {
        self.extras.resampling.as_ref().and_then(|resampling| resampling.draws.as_deref())
    }

    /// The laws as a tournament sees them.
    fn contestants(&self) -> Vec<Contestant> {
        let contestant = |fit: &Fit| {
            let law = fit.law();
            let place = CATALOGUE.iter().position(|entry| law.entry.is_some_and(|own| own.name == entry.name));
            Contestant {
                family: law.family().to_string(),
                parameters: fit.plan.model.len(),
                place: place.unwrap_or(CATALOGUE.len()),
            }
        };
        self.fits.iter().map(contestant).collect()
    }
}

/// A law and the device that searches for it.
#[derive(Debug)]
pub struct Fit {
    /// The law that is searched, ready to fit any batch; laws of one family that share it are searched once.
    pub plan: Arc<Plan>,
    /// How the law is reported, where that is another spelling of the one searched.
    pub spelling: Option<Spelling>,
    /// Where its search runs.
    pub device: Device,
}

impl Fit {
    /// Plans the search for every law, one for each family where no control names a parameter of its members. `plan` makes
    /// one law's plan under the controls given.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn plan(
        laws: Vec<Law>,
        controls: &[NamedControl],
        plan: impl Fn(Law, &[NamedControl]) -> Result<Plan>,
    ) -> Result<Vec<(Arc<Plan>, Option<Spelling>)>> {
        let named = |law: &Law| controls.iter().any(|control| law.parameters.contains(&control.parameter));
        let mut shared: Vec<Arc<Plan>> = Vec::new();
        let mut plan_of = |law: Law| {
            if named(&law) {
                return Ok((Arc::new(plan(law, controls)?), None));
            }
            let (searched, spelling) = match Spelling::of(&law) {
                Some((searched, spelling)) => (searched, Some(spelling)),
                None => (law, None),
            };
            if let Some(known) = shared.iter().find(|known| known.law.name == searched.name) {
                return Ok((known.clone(), spelling));
            }
            // Controls on names that only the family's searched law has are not meant for its other spellings.
            shared.push(Arc::new(plan(searched, &[])?));
            Ok((shared[shared.len() - 1].clone(), spelling))
        };
        laws.into_iter().map(&mut plan_of).collect()
    }

    /// The law as reported.
    pub fn law(&self) -> &Law {
        self.spelling.as_ref().map_or(&self.plan.law, |spelling| &spelling.law)
    }

    /// The default box of free parameter `j` of [`Fit::law`] in words.
    pub fn describe_box(&self, j: usize) -> String {
        match &self.spelling {
            Some(spelling) => spelling.describe_box(j, &self.plan),
            None => self.plan.describe_box(j),
        }
    }
}

/// A backend that is open, and how it is called in reports.
#[derive(Clone)]
pub struct Device {
    /// What searches.
    pub backend: Arc<dyn Backend + Send + Sync>,
    /// `cpu` or `gpu`.
    pub name: &'static str,
    /// The GPU's name.
    pub adapter: Option<String>,
}

impl Device {
    /// The CPU.
    pub fn cpu() -> Device {
        Device { backend: Arc::new(Cpu), name: "cpu", adapter: None }
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Device({}, {:?})", self.name, self.adapter)
    }
}

/// How far a run is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows of the input that were read for the curves written so far.
    pub rows_read: u64,
    /// Curves written.
    pub curves: u64,
}

/// How often the caller's thread looks whether it was told to stop.
const GLANCE: Duration = Duration::from_millis(50);
/// Batches in flight beyond one per thread: one that is being written, one that waits to be fitted.
const SPARE_BATCHES: usize = 2;
/// More batches in flight than these cost memory and keep no core busy: a batch is shared among cores by itself.
const MOST_BATCHES: usize = 10;
/// Threads beyond those asked for where a GPU searches: so many may sleep while they wait for it.
const WAITING_THREADS: usize = 1;

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
    /// Held until the end: no other run may write these outputs.
    _locks: Vec<Lock>,
}

/// The table of fits, and that of draws where it is asked for.
struct Writers {
    fits: Fits,
    draws: Option<Writer>,
}

/// The table of fits in one file or in parts.
enum Fits {
    Whole(Box<Writer>),
    Parts(Box<PartsWriter>),
}

impl Fits {
    fn layout(&self) -> &Layout {
        match self {
            Fits::Whole(writer) => writer.layout(),
            Fits::Parts(writer) => writer.layout(),
        }
    }

    fn append(&mut self, block: &Block) -> Result<()> {
        match self {
            Fits::Whole(writer) => writer.append(block),
            Fits::Parts(writer) => writer.append(block),
        }
    }

    fn finish(self, metadata: &[(String, String)]) -> Result<()> {
        match self {
            Fits::Whole(writer) => writer.finish(metadata),
            Fits::Parts(writer) => writer.finish(metadata),
        }
    }
}

impl Writers {
    fn create(request: &Request, columns: &Columns, keys: &KeySchema) -> Result<Writers> {
        let care = Care { alone: true, durable: request.rerun.resume };
        let create = |path: &str, columns: &[_]| Writer::create_with(path, keys, columns, care);
        let columns_of_fits = columns.announced();
        let fits = match &request.parts {
            None => Fits::Whole(Box::new(create(&request.out, columns_of_fits)?)),
            Some(parting) => {
                Fits::Parts(Box::new(PartsWriter::create(&request.out, parting, keys, columns_of_fits, care)?))
            }
        };
        Ok(Writers { fits, draws: request.draws().map(|path| create(path, &columns.announced_draws())).transpose()? })
    }

    fn layouts(&self) -> Layouts {
        Layouts { fits: self.fits.layout().clone(), draws: self.draws.as_ref().map(|draws| draws.layout().clone()) }
    }

    fn append(&mut self, work: &Work) -> Result<()> {
        if let (Some(draws), Some(block)) = (&mut self.draws, &work.draws) {
            draws.append(block)?;
        }
        self.fits.append(&work.fits)
    }

    fn finish(self, metadata: &[(String, String)]) -> Result<()> {
        if let Some(draws) = self.draws {
            draws.finish(metadata)?;
        }
        self.fits.finish(metadata)
    }
}

impl Run {
    /// Opens both ends.
    ///
    /// # Errors
    /// Columns that are missing or of the wrong type, names that would stand twice in the output, an output that cannot
    /// be written, that another run is writing, or whose ledger is another run's.
    pub fn open(request: Request) -> Result<Run> {
        let columns = Columns::new(&request.fits, &request.extras);
        let outputs = std::iter::once(request.out.as_str()).chain(request.draws());
        let locks: Vec<Option<Lock>> = outputs.map(Lock::take).collect::<Result<_>>()?;
        let ledger = match request.rerun.resume {
            true if locks[0].is_none() => {
                return Err(Error::Usage(format!(
                    "--resume keeps a ledger beside the output, and {} is no file: name one with -o",
                    request.out
                )));
            }
            true => Some(Ledger::open(Path::new(&request.out), &identity::of(&request)?)?),
            false => None,
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
            Some(since) => Some(Arc::new(open_past(&request, since, reader.key_schema(), &writers)?)),
            None => None,
        };
        let (request, columns) = (Arc::new(request), Arc::new(columns));
        Ok(Run { request, columns, reader, writers, ledger, past, _locks: locks.into_iter().flatten().collect() })
    }

    /// Reads, fits and writes; `watch` hears of every batch written.
    ///
    /// # Errors
    /// As [`run`].
    pub fn finish(self, watch: &mut dyn FnMut(Progress)) -> Result<Report> {
        let start = Instant::now();
        let Run { request, columns, reader, mut writers, mut ledger, past, _locks } = self;
        let schema = reader.key_schema().clone();
        let layouts = writers.layouts();
        let mut report = Report::new(&request, &columns);
        // What is watched is adjusted at the end: until then the rows wait.
        let folder = lock::folder_of(Path::new(&request.out));
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

/// A batch on its way out.
struct Fitted {
    index: u64,
    keys: Keys,
    /// The fingerprint of its curves, where a ledger is kept.
    content: u64,
    /// None where the ledger holds it.
    work: Option<Work>,
    /// What the reader had read when it handed the batch over.
    counts: Counts,
    /// Given back when the batch has been written or thrown away.
    _token: Token,
}

/// What the reader knows at its end.
struct End {
    counts: Counts,
    notes: Vec<String>,
    /// Time spent on waiting for the reader.
    read: Duration,
}

/// What comes off the line, in input order.
enum Event {
    Fitted(Box<Fitted>),
    /// All batches so far are void; why, for the user.
    Restarted(String),
    End(End),
}

/// What the threads say, in any order.
enum Message {
    Fitted(Box<Fitted>),
    /// Batches before this index are void; why, for the user.
    Restarted(u64, String),
    /// How many batches there were.
    End(u64, End),
    Failed(Error),
    /// A mistake of this program on another thread; goes on on the caller's.
    Panicked(Box<dyn Any + Send>),
}

/// The right to have one batch in flight.
struct Token(Receiver<()>);

impl Drop for Token {
    fn drop(&mut self) {
        // The queue holds one entry per token, so there is one to take, unless the feeding thread is gone with it.
        let _ = self.0.try_recv();
    }
}

/// The threads at work and the way to their batches in input order.
struct Line {
    messages: Receiver<Message>,
    /// Batches that came before their turn.
    early: BTreeMap<u64, Box<Fitted>>,
    next: u64,
    end: Option<(u64, End)>,
    interrupted: Arc<AtomicBool>,
    /// Tells batches that wait in the pool that nobody wants them any more.
    abandoned: Arc<AtomicBool>,
}

impl Line {
    /// The first `known` batches are in the ledger.
    fn start(reader: Reader, at: At, known: u64) -> Result<Line> {
        let request = at.request.clone();
        let threads = request.threads.max(1) + if request.on_cpu() { 0 } else { WAITING_THREADS };
        let no_thread = |error: &dyn std::fmt::Display| {
            Error::Usage(format!("cannot start {threads} threads ({error}); try fewer with --threads"))
        };
        let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|index| format!("fit {index}"));
        let pool = pool.build().map_err(|error| no_thread(&error))?;
        let (sender, messages) = unbounded();
        let abandoned = Arc::new(AtomicBool::new(false));
        let feeder = Feeder {
            pool,
            at,
            known,
            messages: sender,
            tokens: bounded((threads + SPARE_BATCHES).min(MOST_BATCHES)),
            abandoned: abandoned.clone(),
        };
        let thread = std::thread::Builder::new().name("feed".into());
        thread.spawn(move || feeder.feed(reader)).map_err(|error| no_thread(&error))?;
        let interrupted = request.interrupted.clone();
        Ok(Line { messages, early: BTreeMap::new(), next: 0, end: None, interrupted, abandoned })
    }

    fn next(&mut self) -> Result<Event> {
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if let Some(fitted) = self.early.remove(&self.next) {
                self.next += 1;
                return Ok(Event::Fitted(fitted));
            }
            if let Some((_, end)) = self.end.take_if(|(batches, _)| *batches == self.next) {
                return Ok(Event::End(end));
            }
            match self.messages.recv_timeout(GLANCE) {
                Ok(Message::Fitted(fitted)) if fitted.index < self.next => {}
                Ok(Message::Fitted(fitted)) => drop(self.early.insert(fitted.index, fitted)),
                Ok(Message::Restarted(first, note)) => {
                    self.next = first;
                    self.early = self.early.split_off(&first);
                    return Ok(Event::Restarted(note));
                }
                Ok(Message::End(batches, end)) => self.end = Some((batches, end)),
                Ok(Message::Failed(error)) => return Err(error),
                Ok(Message::Panicked(payload)) => resume_unwind(payload),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the feeding thread says goodbye before it goes"),
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Nobody waits for the threads: after an interruption a batch of dear fits would take too long.
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

/// All that the work on a batch needs to know.
#[derive(Clone)]
struct At {
    request: Arc<Request>,
    columns: Arc<Columns>,
    layouts: Layouts,
    past: Option<Arc<Past>>,
}

impl At {
    /// The work on a batch, whose first curve has index `first` in the run.
    fn work(&self, first: u64, batch: &Batch) -> Result<Work> {
        let At { request, columns, layouts, past } = self;
        match past {
            Some(past) => changes::fit_changed(request, columns, layouts, past, first, batch),
            None => {
                let indices: Vec<u64> = (first..).take(batch.curves.len()).collect();
                fit(request, columns, layouts, &indices, batch)
            }
        }
    }

    /// What is left to do where a ledger holds the work.
    fn known(&self, first: u64, batch: &Batch) -> Result<Option<Work>> {
        self.past.as_ref().map_or(Ok(()), |past| changes::mark(past, first, batch))?;
        Ok(None)
    }
}

/// The reading thread: takes batches in and spawns their fits.
struct Feeder {
    pool: ThreadPool,
    at: At,
    /// How many of the first batches are in the ledger.
    known: u64,
    messages: Sender<Message>,
    /// Holds an entry for every batch in flight, and so bounds their number.
    tokens: (Sender<()>, Receiver<()>),
    abandoned: Arc<AtomicBool>,
}

impl Feeder {
    fn feed(self, reader: Reader) {
        let last = match catch_unwind(AssertUnwindSafe(|| self.read(reader))) {
            Ok(Ok(last)) => last,
            Ok(Err(error)) => Message::Failed(error),
            Err(payload) => Message::Panicked(payload),
        };
        let messages = self.messages.clone();
        // Whoever hears the last word may leave at once: by then nothing here may hold a device any more.
        drop(self);
        // Nobody listens after an interruption.
        let _ = messages.send(last);
    }

    fn read(&self, mut reader: Reader) -> Result<Message> {
        let mut index = 0;
        let mut known = self.known;
        // How many curves went before, in the input as it is read now.
        let mut curves = 0;
        let mut read = Duration::ZERO;
        loop {
            let started = Instant::now();
            let event = reader.next();
            read += started.elapsed();
            if self.abandoned.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            match event.transpose()? {
                None => {
                    let end = End { counts: reader.counts(), notes: reader.notes().to_vec(), read };
                    return Ok(Message::End(index, end));
                }
                Some(table::Event::Restarted) => {
                    (curves, known) = (0, 0);
                    let note = reader.notes().last().cloned().unwrap_or_default();
                    self.say(Message::Restarted(index, note));
                }
                Some(table::Event::Batch(batch)) => {
                    for part in batch.split(self.at.request.curves_at_once()) {
                        let first = curves;
                        curves += part.curves.len() as u64;
                        self.spawn(index, first, part, reader.counts(), index < known);
                        index += 1;
                    }
                }
            }
        }
    }

    /// Waits until a batch may start, and starts it; what is `known` needs no fit.
    fn spawn(&self, index: u64, first: u64, batch: Batch, counts: Counts, known: bool) {
        self.tokens.0.send(()).expect("this thread holds the receiver, too");
        let token = Token(self.tokens.1.clone());
        let at = self.at.clone();
        let (messages, abandoned) = (self.messages.clone(), self.abandoned.clone());
        self.pool.spawn(move || {
            if abandoned.load(Ordering::Relaxed) {
                return;
            }
            let work = || {
                let content = if at.request.rerun.resume { fingerprint::of_batch(&batch.curves) } else { 0 };
                Ok((content, if known { at.known(first, &batch)? } else { Some(at.work(first, &batch)?) }))
            };
            let message = match catch_unwind(AssertUnwindSafe(work)) {
                Ok(Ok((content, work))) => {
                    Message::Fitted(Box::new(Fitted { index, keys: batch.keys, content, work, counts, _token: token }))
                }
                Ok(Err(error)) => Message::Failed(error),
                Err(payload) => Message::Panicked(payload),
            };
            drop(at);
            // Nobody listens after an interruption.
            let _ = messages.send(message);
        });
    }

    fn say(&self, message: Message) {
        // Nobody listens after an interruption.
        let _ = self.messages.send(message);
    }
}

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

/// The fits of an earlier run, which have to be those of this job.
fn open_past(request: &Request, since: &Source, keys: &KeySchema, writers: &Writers) -> Result<Past> {
    if request.draws().is_some() {
        return Err(Error::Usage(
            "--draws cannot be written with --since: a table of fits does not hold the replicates of the curves that are \
             carried over; leave one of them out"
                .into(),
        ));
    }
    changes::refuse_another_job(since, &card::methods(request))?;
    let laws: Vec<String> = request.fits.iter().map(|fit| fit.law().name.clone()).collect();
    Past::open(since, keys, writers.fits.layout(), &laws)
}

/// Pack, search, judge and resample: every law on one batch, whose curves have these `indices` in the run.
fn fit(request: &Request, columns: &Columns, layouts: &Layouts, indices: &[u64], batch: &Batch) -> Result<Work> {
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

/// Fits the sample again by brute force, on as many threads as the fits had.
fn verified(request: &Request, sample: &Sample) -> Result<Vec<Verification>> {
    if request.verify == 0 {
        return Ok(Vec::new());
    }
    let fits: Vec<verify::Fitted> =
        request.fits.iter().map(|fit| verify::Fitted { law: fit.law(), plan: &fit.plan }).collect();
    let pool = ThreadPoolBuilder::new().num_threads(request.threads.max(1)).build();
    let pool = pool.map_err(|error| Error::Usage(format!("cannot start threads to verify with: {error}")))?;
    pool.install(|| verify::verify(&fits, &request.selection.numbers, sample, &request.interrupted))
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
    if let Some(above) = &problem.model.above {
        proposals = joined(&proposals, &above::propose(problem, above), parameters);
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
    Ok(joined(&proposals, &more?, parameters))
}

/// Both sets of proposals, curve by curve.
fn joined(one: &Proposals, other: &Proposals, parameters: usize) -> Proposals {
    let mut all = Proposals { offsets: vec![0], coordinates: Vec::new() };
    for curve in 0..one.offsets.len() - 1 {
        for part in [one, other] {
            let range = part.offsets[curve] * parameters..part.offsets[curve + 1] * parameters;
            all.coordinates.extend_from_slice(&part.coordinates[range]);
        }
        all.offsets.push(all.coordinates.len() / parameters);
    }
    all
}
