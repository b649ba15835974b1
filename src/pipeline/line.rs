//! The threads of a run: one that reads, many that fit, and the way back into input order.
//!
//! In: a reader. Out: [`Event`]s: fitted batches in the order in which they were read. A fixed number of batches is in
//! flight, so that the size of the input never sets the memory.

use super::columns::Columns;
use super::work::{Layouts, Work};
use super::{Request, batch, changes};
use crate::error::{Error, Result};
use crate::fingerprint;
use crate::table::{self, Batch, Counts, Keys, Past, Reader};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the caller's thread looks whether it was told to stop.
const GLANCE: Duration = Duration::from_millis(50);
/// Batches in flight beyond one per thread: one that is being written, one that waits to be fitted.
const SPARE_BATCHES: usize = 2;
/// More batches in flight than these cost memory and keep no core busy: a batch is shared among cores by itself.
const MOST_BATCHES: usize = 10;
/// The CPU's batches are small, and a row group that is being encoded takes as long as a dozen of them: so many beyond two per
/// thread keep the cores busy meanwhile. Those of replicates are large whatever their rows.
const SPARE_HOST_BATCHES: usize = 24;
/// Threads beyond those asked for where a GPU searches: so many may sleep while they wait for it.
pub(super) const WAITING_THREADS: usize = 1;

/// A batch on its way out.
pub(super) struct Fitted {
    pub index: u64,
    pub keys: Keys,
    /// The fingerprint of its curves, where a ledger is kept.
    pub content: u64,
    /// None where the ledger holds it.
    pub work: Option<Work>,
    /// What the reader had read when it handed the batch over.
    pub counts: Counts,
    /// Given back when the batch has been written or thrown away.
    pub _token: Token,
}

/// What the reader knows at its end.
pub(super) struct End {
    pub counts: Counts,
    pub notes: Vec<String>,
    /// Time spent on waiting for the reader.
    pub read: Duration,
}

/// What comes off the line, in input order.
pub(super) enum Event {
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
pub(super) struct Token(Receiver<()>);

impl Drop for Token {
    fn drop(&mut self) {
        // The queue holds one entry per token, so there is one to take, unless the feeding thread is gone with it.
        let _ = self.0.try_recv();
    }
}

/// The threads at work and the way to their batches in input order.
pub(super) struct Line {
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
    pub fn start(reader: Reader, at: At, known: u64) -> Result<Line> {
        let request = at.request.clone();
        let threads = request.threads.max(1) + if request.on_cpu() { 0 } else { WAITING_THREADS };
        let pool = pool(threads)?;
        let (sender, messages) = unbounded();
        let abandoned = Arc::new(AtomicBool::new(false));
        let feeder = Feeder {
            pool,
            at,
            known,
            messages: sender,
            tokens: bounded(in_flight(&request, threads)),
            abandoned: abandoned.clone(),
        };
        let thread = std::thread::Builder::new().name("feed".into());
        thread.spawn(move || feeder.feed(reader)).map_err(|error| no_thread(threads, &error))?;
        let interrupted = request.interrupted.clone();
        Ok(Line { messages, early: BTreeMap::new(), next: 0, end: None, interrupted, abandoned })
    }

    pub fn next(&mut self) -> Result<Event> {
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
pub(super) struct At {
    pub request: Arc<Request>,
    pub columns: Arc<Columns>,
    pub layouts: Layouts,
    pub past: Option<Arc<Past>>,
}

impl At {
    /// The work on a batch, whose first curve has index `first` in the run.
    fn work(&self, first: u64, batch: &Batch) -> Result<Work> {
        let At { request, columns, layouts, past } = self;
        match past {
            Some(past) => changes::fit_changed(request, columns, layouts, past, first, batch),
            None => {
                let indices: Vec<u64> = (first..).take(batch.curves.len()).collect();
                batch::fit(request, columns, layouts, &indices, batch)
            }
        }
    }

    /// What is left to do where a ledger holds the work.
    fn known(&self, first: u64, batch: &Batch) -> Result<Option<Work>> {
        self.past.as_ref().map_or(Ok(()), |past| changes::mark(past, first, batch))?;
        Ok(None)
    }
}

/// A pool of so many threads.
///
/// # Errors
/// [`Error::Usage`] where the system has none.
pub(super) fn pool(threads: usize) -> Result<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|index| format!("fit {index}"));
    pool.build().map_err(|error| no_thread(threads, &error))
}

fn no_thread(threads: usize, error: &dyn std::fmt::Display) -> Error {
    Error::Usage(format!("cannot start {threads} threads ({error}); try fewer with --threads"))
}

/// How many batches are read, fitted or waiting to be written at a time.
fn in_flight(request: &Request, threads: usize) -> usize {
    match request.on_cpu() && request.extras.resampling.is_none() {
        true => 2 * threads + SPARE_HOST_BATCHES,
        false => (threads + SPARE_BATCHES).min(MOST_BATCHES),
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
                let content = if at.request.rerun.ledger.is_some() { fingerprint::of_batch(&batch.curves) } else { 0 };
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
