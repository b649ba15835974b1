//! The conveyor: parts of files are decoded in parallel and handed over in input order, batches of curves come out.
//!
//! In: a source and a selection of its columns. Out: a [`Reader`], an iterator of [`Event`]s. Queues are bounded, so the
//! size of the input does not set the memory, as long as the rows of a curve lie together. Where they do not, the reader
//! says so by [`Event::Restarted`], reads from the start once more and groups in memory.

use super::Batch;
use super::csv;
use super::decode::{self, Task, decode, tasks};
use super::filter::Filter;
use super::group::{Gather, Identity, Sorted, Stream, Streamed};
use super::keys::KeySchema;
use super::piece::{Number, Piece, Wanted, prepare};
use super::source::{ColumnKind, Format, Place, Source, TableFile, kind_of};
use super::spill::{Census, Gathered, Memory, Scatter};
use crate::error::{Error, Result};
use crate::formula::parse::Expression;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Which columns of the input are wanted.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Key columns; none: the whole input is one curve, or with lists every row.
    pub keys: Vec<String>,
    /// Numeric columns, in the order in which batches shall hold them.
    pub numbers: Vec<String>,
    /// The rows to keep: the text of the filter and its tree.
    pub filter: Option<(String, Expression)>,
}

/// How to read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Threads that decode.
    pub threads: usize,
    /// Set from outside to end the reading with [`Error::Interrupted`].
    pub interrupted: Arc<AtomicBool>,
    /// The note of an earlier reading that had to restart: the rows of curves are known not to lie together.
    pub scattered: Option<String>,
    /// What rows may take that do not lie together; none: as much as they need.
    pub memory: Option<Memory>,
    /// A batch ends with the curve that brings it to so many rows.
    pub batch_rows: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        ReadOptions {
            threads,
            interrupted: Arc::new(AtomicBool::new(false)),
            scattered: None,
            memory: None,
            batch_rows: HOST_BATCH,
        }
    }
}

/// What comes out of a [`Reader`].
#[derive(Debug)]
pub enum Event {
    /// Whole curves, in the order in which their keys first appear.
    Batch(Batch),
    /// Rows of an earlier curve came later: all batches so far are void, and all curves come again, whole. Happens at
    /// most once.
    Restarted,
}

/// What was read so far (since the restart, if there was one).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows of the input.
    pub rows_read: u64,
    /// Rows that the filter did not keep.
    pub rows_left_out: u64,
    /// Curves handed out.
    pub curves: u64,
    /// Rows (with lists: numbers per column) of the curves handed out.
    pub rows: u64,
}

/// Rows of a batch for the CPU: all that a fit makes of them, 128 KiB a column, stays in the cache of the core that fits them.
pub const HOST_BATCH: usize = 16 * 1024;
/// Rows of a batch for a device, which wants many curves at once.
pub const DEVICE_BATCH: usize = 64 * 1024;
/// More decoding threads than these only fill memory: reading is then limited elsewhere.
const MOST_THREADS: usize = 8;
/// Rows that may wait, decoded, in all queues together, for each thread: 1 MiB per column.
const ROWS_WAITING: usize = 128 * 1024;
/// A filter may nest deeply, and is evaluated by recursion.
const STACK: usize = 16 << 20;

/// Starts to read.
///
/// # Errors
/// Columns that are missing, have the wrong type or differ between files; a filter whose types are wrong.
pub fn read(source: &Source, selection: &Selection, options: &ReadOptions) -> Result<Reader> {
    read_with_labels(source, selection, &[], options)
}

/// As [`read`]; behind the numbers, batches hold the columns `labels`, which may be of any type that tells rows apart: equal
/// values become equal numbers, different ones different numbers.
///
/// # Errors
/// As [`read`].
pub fn read_with_labels(
    source: &Source,
    selection: &Selection,
    labels: &[String],
    options: &ReadOptions,
) -> Result<Reader> {
    let plan = Arc::new(plan(source, selection, labels)?);
    let identity = match (plan.wanted.lists(), plan.wanted.keys.is_empty()) {
        (true, _) => Identity::Run,
        (false, true) => Identity::Whole,
        (false, false) => Identity::Key,
    };
    let mut notes = source.notes().to_vec();
    let (conveyor, state) = match &options.scattered {
        None => {
            let stream = Stream::new(&plan.wanted.schema, identity, plan.wanted.numbers.len(), options.batch_rows);
            (Some(Conveyor::start(&plan, options)?), State::Streaming(Box::new(stream)))
        }
        Some(note) => {
            notes.push(note.clone());
            (None, State::Restarting)
        }
    };
    let (ready, counts) = (VecDeque::new(), Counts::default());
    Ok(Reader { selection: selection.clone(), plan, options: options.clone(), conveyor, state, ready, counts, notes })
}

impl Reader {
    /// Whether every key is that of one curve: not where each row of lists is one, whatever its key.
    pub fn keys_are_unique(&self) -> bool {
        !self.plan.wanted.lists()
    }
}

/// All that the decoding threads need to know.
#[derive(Debug)]
struct Plan {
    source: Source,
    wanted: Wanted,
    /// For every file, where its needed columns are.
    places: Vec<Vec<Place>>,
    tasks: Vec<Task>,
}

fn plan(source: &Source, selection: &Selection, labels: &[String]) -> Result<Plan> {
    let filter = selection.filter.as_ref().map(|(text, tree)| Filter::new(text, tree));
    if let Some(filter) = &filter {
        check_filter(source, filter)?;
    }
    let schema = KeySchema::new(source, &selection.keys)?;
    let lists = list_columns(source, &selection.numbers, false)?;
    let mut needed: Vec<String> = Vec::new();
    let mut index_of = |name: &String| {
        needed.iter().position(|known| known == name).unwrap_or_else(|| {
            needed.push(name.clone());
            needed.len() - 1
        })
    };
    let keys = selection.keys.iter().map(&mut index_of).collect();
    let numbers = selection.numbers.iter().zip(lists);
    let mut numbers: Vec<Number> =
        numbers.map(|(name, list)| Number { column: index_of(name), list, label: false }).collect();
    for (name, list) in labels.iter().zip(list_columns(source, labels, true)?) {
        numbers.push(Number { column: index_of(name), list, label: true });
    }
    for name in filter.iter().flat_map(Filter::columns) {
        index_of(&name);
    }
    let wanted = Wanted { needed, keys, numbers, filter, schema };
    let mut places = Vec::with_capacity(source.tables().len());
    let mut parts = Vec::new();
    for (index, file) in source.tables().iter().enumerate() {
        let found = wanted.needed.iter().map(|name| file.place(name)?.ok_or_else(|| source.missing(name)));
        places.push(found.collect::<Result<Vec<_>>>()?);
        parts.extend(tasks(index, file, wanted.lists()));
    }
    Ok(Plan { source: source.clone(), wanted, places, tasks: parts })
}

fn check_filter(source: &Source, filter: &Filter) -> Result<()> {
    let names: Vec<&str> = source.columns().iter().map(|column| column.name.as_str()).collect();
    for (index, file) in source.tables().iter().enumerate() {
        let mut wrong = None;
        for name in filter.columns() {
            // The first file's lack is the filter's mistake, and told with a caret; a later one's is the file's.
            if file.place(&name)?.is_none() && index > 0 {
                wrong.get_or_insert(name);
            }
        }
        if let Some(name) = wrong {
            return Err(Error::Input {
                file: file.path.clone(),
                message: format!("has no column \"{name}\", which --where uses and other files of the input have"),
            });
        }
        let data_type = |name: &str| file.place(name).ok().flatten().map(|place| file.data_type(place));
        filter.check(&names, &data_type).map_err(|error| match error {
            Error::Formula(message) if index > 0 => Error::Formula(format!("in {}: {message}", file.path.display())),
            other => other,
        })?;
    }
    Ok(())
}

/// What is wrong with a column that should hold numbers: of text that was read from CSV, the value that makes it text.
fn no_number(source: &Source, file: &TableFile, name: &str, place: Place, data_type: &DataType) -> Result<Error> {
    let among = if source.files().len() > 1 { format!(" in {}", file.path.display()) } else { String::new() };
    let (mut what, mut mend) = (format!("is {data_type}{among}"), "convert it");
    if let (Format::Csv(format), Place::Column(column)) = (&file.format, place)
        && let Some((row, text)) = csv::first_text(&file.content, format, &file.schema, column)?
    {
        what = format!("holds \"{text}\" in row {row} of {}", file.path.display());
        mend = "mend the file: a number has a decimal point, and nothing between its digits";
    }
    let message = format!("{what}; expected a number (choose another with --x, --y, --weight or --sigma, or {mend})");
    Ok(Error::Column { column: name.to_string(), message })
}

/// For every column, numeric or of labels, whether it holds lists.
fn list_columns(source: &Source, names: &[String], labels: bool) -> Result<Vec<bool>> {
    let mut lists = Vec::with_capacity(names.len());
    for name in names {
        source.column(name)?;
        let mut list = None;
        for file in source.tables() {
            let Some(place) = file.place(name)? else {
                return Err(Error::Input {
                    file: file.path.clone(),
                    message: format!("has no column \"{name}\", which other files of the input have"),
                });
            };
            let data_type = file.data_type(place);
            let this = match kind_of(&data_type) {
                ColumnKind::Number => false,
                ColumnKind::ListOfNumbers => true,
                _ if labels && !data_type.is_nested() => false,
                _ => return Err(no_number(source, file, name, place, &data_type)?),
            };
            if *list.get_or_insert(this) != this {
                return Err(Error::Input {
                    file: file.path.clone(),
                    message: format!(
                        "column \"{name}\" is {data_type} here and not so in {}; write both in one type",
                        source.files()[0].display()
                    ),
                });
            }
        }
        lists.push(list.unwrap_or(false));
    }
    Ok(lists)
}

/// What a decoding thread hands over; `None`: the part is at its end.
type Parcel = Result<Option<Piece>>;

/// The decoding threads and the way to the pieces in input order.
struct Conveyor {
    /// One queue of pieces per part, in the order of the parts.
    queues: Option<Receiver<(usize, Receiver<Parcel>)>>,
    /// The part that is being taken in.
    current: Option<(usize, Receiver<Parcel>)>,
    /// How many parts were taken in.
    done: usize,
    threads: Vec<JoinHandle<()>>,
}

/// Gives out the parts, and lays out their queues in the same order.
struct Dispatch {
    next: usize,
    queues: Sender<(usize, Receiver<Parcel>)>,
}

impl Conveyor {
    fn start(plan: &Arc<Plan>, options: &ReadOptions) -> Result<Conveyor> {
        let threads = options.threads.clamp(1, MOST_THREADS).min(plan.tasks.len());
        // While one part is taken in, others wait: `threads` in this queue and one that is about to enter it.
        let (sender, receiver) = bounded(threads);
        let most = ROWS_WAITING * threads;
        let waiting = options.memory.as_ref().map_or(most, |memory| memory.rows_waiting().min(most));
        let room = (waiting / decode::ROWS / (threads + 2)).max(2);
        let dispatch = Arc::new(Mutex::new(Dispatch { next: 0, queues: sender }));
        let mut conveyor = Conveyor { queues: Some(receiver), current: None, done: 0, threads: Vec::new() };
        for _ in 0..threads {
            let (plan, dispatch, stop) = (plan.clone(), dispatch.clone(), options.interrupted.clone());
            let thread = std::thread::Builder::new()
                .name("read".to_string())
                .stack_size(STACK)
                .spawn(move || work(&plan, &dispatch, room, &stop))
                .map_err(|error| Error::Usage(format!("cannot start a thread ({error}); try fewer with --threads")))?;
            conveyor.threads.push(thread);
        }
        Ok(conveyor)
    }

    /// The next piece in input order; `None` at the end.
    fn next(&mut self, plan: &Plan, interrupted: &AtomicBool) -> Result<Option<Piece>> {
        loop {
            if interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if self.current.is_none() {
                self.current = self.queues.as_ref().and_then(|queues| queues.recv().ok());
            }
            let Some((task, queue)) = &self.current else {
                if self.done == plan.tasks.len() {
                    return Ok(None);
                }
                return Err(lost(plan, self.done, interrupted));
            };
            match queue.recv() {
                Ok(Ok(Some(piece))) => return Ok(Some(piece)),
                Ok(Ok(None)) => {
                    self.current = None;
                    self.done += 1;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(lost(plan, *task, interrupted)),
            }
        }
    }
}

/// A part ended without saying that it did: the thread was told to stop, or died of a mistake of this program.
fn lost(plan: &Plan, task: usize, interrupted: &AtomicBool) -> Error {
    if interrupted.load(Ordering::Relaxed) {
        return Error::Interrupted;
    }
    let file = plan.tasks.get(task).map_or(0, |task| task.file);
    Error::Input {
        file: plan.source.files().get(file).cloned().unwrap_or_default(),
        message: "was not read to its end because of a mistake in this program (see above); please report it"
            .to_string(),
    }
}

impl Drop for Conveyor {
    fn drop(&mut self) {
        // A thread whose queue is dropped stops at its next piece. Queues are taken off until the last thread has gone and
        // with it the way by which more could come: a queue that stayed behind would let its thread wait for ever.
        self.current = None;
        for queue in self.queues.take().iter().flat_map(Receiver::iter) {
            drop(queue);
        }
        for thread in self.threads.drain(..) {
            // A thread that died has said why on its own.
            let _ = thread.join();
        }
    }
}

/// A decoding thread: takes the next part, lays out its queue, fills it.
fn work(plan: &Plan, dispatch: &Mutex<Dispatch>, room: usize, stop: &AtomicBool) {
    loop {
        let (index, sender) = {
            let mut dispatch = dispatch.lock().unwrap_or_else(PoisonError::into_inner);
            let index = dispatch.next;
            if index == plan.tasks.len() {
                return;
            }
            dispatch.next += 1;
            let (sender, receiver) = bounded(room);
            if dispatch.queues.send((index, receiver)).is_err() {
                return;
            }
            (index, sender)
        };
        let task = &plan.tasks[index];
        let file = &plan.source.tables()[task.file];
        let mut row = task.first_row;
        let outcome = decode(task, file, &plan.places[task.file], &mut |rows, columns| {
            let piece = prepare(&plan.wanted, &file.path, row, rows, columns)?;
            row += rows as u64;
            Ok(sender.send(Ok(Some(piece))).is_ok() && !stop.load(Ordering::Relaxed))
        });
        if stop.load(Ordering::Relaxed) || sender.send(outcome.map(|()| None)).is_err() {
            return;
        }
    }
}

enum State {
    Streaming(Box<Stream>),
    /// Told that it restarts; has not begun to.
    Restarting,
    HandingOut(Box<Sorted>),
    /// The same, by way of a file.
    Spilled(Box<Gathered>),
    Done,
}

/// Batches of curves, in input order.
pub struct Reader {
    selection: Selection,
    plan: Arc<Plan>,
    options: ReadOptions,
    conveyor: Option<Conveyor>,
    state: State,
    ready: VecDeque<Batch>,
    counts: Counts,
    notes: Vec<String>,
}

impl Reader {
    /// The names and types of the key columns, for the [`Writer`](super::Writer).
    pub fn key_schema(&self) -> &KeySchema {
        &self.plan.wanted.schema
    }

    /// What was read so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What the user should know about how the input was taken; complete once the reader is at its end.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn advance(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                self.counts.curves += batch.curves.len() as u64;
                self.counts.rows += batch.curves.rows() as u64;
                return Ok(Some(Event::Batch(batch)));
            }
            match &mut self.state {
                State::Done => return Ok(None),
                State::Streaming(stream) => {
                    let Some(piece) = next_piece(&self.plan, &self.options, &mut self.conveyor, &mut self.counts)?
                    else {
                        self.ready.extend(stream.finish().map_err(ungroupable)?);
                        self.state = State::Done;
                        continue;
                    };
                    if let Streamed::CameBack(key) = stream.push(piece, &mut self.ready).map_err(ungroupable)? {
                        let how = match self.spills() {
                            None => "read once more and grouped in memory".to_string(),
                            Some(memory) => {
                                format!("read twice more and grouped by way of {}", memory.folder.display())
                            }
                        };
                        self.notes.push(format!(
                            "the rows of a curve do not lie together (rows of {key} come again later): {how}"
                        ));
                        self.ready.clear();
                        self.counts = Counts::default();
                        self.conveyor = None;
                        self.state = State::Restarting;
                        return Ok(Some(Event::Restarted));
                    }
                }
                State::Restarting => {
                    self.state = match self.spills() {
                        None => State::HandingOut(Box::new(self.gather()?)),
                        Some(memory) => State::Spilled(Box::new(self.spill(&memory)?)),
                    };
                }
                State::Spilled(gathered) => match gathered.next(self.options.batch_rows)? {
                    Some(batch) => self.ready.push_back(batch),
                    None => self.state = State::Done,
                },
                State::HandingOut(sorted) => match sorted.next(self.options.batch_rows).map_err(ungroupable)? {
                    Some(batch) => self.ready.push_back(batch),
                    None => self.state = State::Done,
                },
            }
            if self.options.interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Where rows go that are to be grouped, if not into memory.
    fn spills(&self) -> Option<Memory> {
        let columns = self.plan.wanted.numbers.len();
        let rows: Option<u64> = self.plan.source.rows();
        let memory = self.options.memory.as_ref();
        memory.filter(|memory| rows.is_none_or(|rows| !memory.holds(rows, columns))).cloned()
    }

    /// Reads everything again, twice: which curves there are, and their rows by way of a file.
    fn spill(&mut self, memory: &Memory) -> Result<Gathered> {
        let keys = Selection { numbers: Vec::new(), ..self.selection.clone() };
        let mut keys = plan(&self.plan.source, &keys, &[])?;
        // Keys of one converter alone can be told equal.
        keys.wanted.schema = self.plan.wanted.schema.clone();
        let (keys, schema) = (Arc::new(keys), &self.plan.wanted.schema);
        let mut census = Census::new(schema, memory)?;
        let mut conveyor = Some(Conveyor::start(&keys, &self.options)?);
        let mut uncounted = Counts::default();
        while let Some(piece) = next_piece(&keys, &self.options, &mut conveyor, &mut uncounted)? {
            if !census.push(&piece)? {
                return Err(Error::Usage(
                    "the rows of a curve do not lie together, and there are more than 4 billion curves, or rows of one; \
                     sort the input by the key columns, or split it with --where"
                        .to_string(),
                ));
            }
        }
        let mut scatter = Scatter::new(census, schema, self.plan.wanted.numbers.len(), self.options.batch_rows)?;
        self.conveyor = Some(Conveyor::start(&self.plan, &self.options)?);
        while let Some(piece) = next_piece(&self.plan, &self.options, &mut self.conveyor, &mut self.counts)? {
            scatter.push(&piece)?;
        }
        scatter.finish()
    }

    /// Reads everything again, into memory.
    fn gather(&mut self) -> Result<Sorted> {
        let expected: Option<u64> = self.plan.source.tables().iter().map(|file| file.rows()).sum();
        let expected = expected.filter(|_| self.plan.wanted.filter.is_none());
        let expected = expected.and_then(|rows| usize::try_from(rows).ok()).unwrap_or(0);
        let wanted = &self.plan.wanted;
        let mut gather = Gather::new(&wanted.schema, wanted.numbers.len(), expected);
        self.conveyor = Some(Conveyor::start(&self.plan, &self.options)?);
        while let Some(piece) = next_piece(&self.plan, &self.options, &mut self.conveyor, &mut self.counts)? {
            if !gather.push(&piece) {
                return Err(Error::Usage(
                    "the input has more than 4 billion rows and the rows of a curve do not lie together; sort it by the \
                     key columns, or split it with --where"
                        .to_string(),
                ));
            }
        }
        Ok(gather.sort())
    }
}

fn next_piece(
    plan: &Plan,
    options: &ReadOptions,
    conveyor: &mut Option<Conveyor>,
    counts: &mut Counts,
) -> Result<Option<Piece>> {
    let Some(running) = conveyor else { return Ok(None) };
    let piece = running.next(plan, &options.interrupted)?;
    match &piece {
        Some(piece) => {
            counts.rows_read += piece.rows_read as u64;
            counts.rows_left_out += piece.rows_left_out as u64;
        }
        None => *conveyor = None,
    }
    Ok(piece)
}

/// Keys that cannot be turned back into columns of their type.
fn ungroupable(error: ArrowError) -> Error {
    Error::Usage(format!("the key columns of --by cannot be grouped: {error}"))
}

impl Iterator for Reader {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        let event = self.advance();
        if event.is_err() {
            self.state = State::Done;
            self.ready.clear();
            self.conveyor = None;
        }
        event.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use arrow::array::{
        ArrayRef, Float64Array, Int32Array, Int64Array, LargeListArray, ListArray, RecordBatch, StringArray,
    };
    use arrow::datatypes::Int64Type;
    use std::path::{Path, PathBuf};

    /// Curves of 0 to 6 rows under a text and an integer key; a curve's rows lie together.
    fn sweep(curves: usize) -> RecordBatch {
        let (mut name, mut seed, mut x, mut y) = (vec![], vec![], vec![], vec![]);
        for curve in 0..curves {
            for row in 0..(curve * 7) % 5 + 1 {
                name.push(if curve % 11 == 3 { None } else { Some(format!("run-{}", curve / 3)) });
                seed.push(if curve % 11 == 3 { curve as i32 } else { (curve % 3) as i32 });
                x.push((row % 3 != 2).then_some(row as i64));
                y.push(curve as f64 + row as f64 / 8.0);
            }
        }
        table(vec![
            ("name", Arc::new(StringArray::from(name)) as ArrayRef),
            ("seed", Arc::new(Int32Array::from(seed))),
            ("x", Arc::new(Int64Array::from(x))),
            ("y", Arc::new(Float64Array::from(y))),
        ])
    }

    /// Comparable, NaN included.
    fn exact(batches: &[Batch]) -> Vec<(String, Vec<Vec<u64>>)> {
        let bits = |columns: Vec<Vec<f64>>| {
            columns.iter().map(|column| column.iter().map(|v| v.to_bits()).collect()).collect()
        };
        curves(batches).into_iter().map(|(key, columns)| (key, bits(columns))).collect()
    }

    #[test]
    fn neither_row_groups_nor_files_nor_formats_nor_threads_change_the_curves() {
        let folder = tempfile::tempdir().expect("a folder");
        let all = sweep(400);
        let at = |name: &str| folder.path().join(name);
        let selection = selection(&["name", "seed"], &["y", "x"], "");
        write_parquet(&at("whole.parquet"), &all);
        let (expected, restarted) = read_all(&[&at("whole.parquet")], &selection, 1).expect("curves");
        assert!(!restarted);
        let expected = exact(&expected);
        assert_eq!(expected.len(), 400);
        assert_eq!(expected[4].0, "name=run-1, seed=1");
        assert_eq!(expected[3].0, "name=null, seed=3");

        for rows in [1, 7, 100] {
            let path = at(&format!("groups-{rows}.parquet"));
            write_parquet_in_groups(&path, &all, rows);
            for threads in [1, 2, 7] {
                let (batches, restarted) = read_all(&[&path], &selection, threads).expect("curves");
                assert!(exact(&batches) == expected && !restarted, "{rows} rows, {threads} threads");
            }
        }
        let (first, second) = (at("a.parquet"), at("b.parquet"));
        write_parquet(&first, &all.slice(0, 501));
        write_parquet(&second, &all.slice(501, all.num_rows() - 501));
        assert!(exact(&read_all(&[&first, &second], &selection, 2).expect("curves").0) == expected);
        write_arrow_file(&at("t.arrow"), &all);
        write_arrow_stream(&at("t.arrows"), &all);
        assert!(exact(&read_all(&[&at("t.arrow")], &selection, 2).expect("curves").0) == expected);
        assert!(exact(&read_all(&[&at("t.arrows")], &selection, 2).expect("curves").0) == expected);
        write_csv(&at("t.csv"), &all);
        assert!(exact(&read_all(&[&at("t.csv")], &selection, 2).expect("curves").0) == expected);
    }

    fn write_csv(path: &Path, table: &RecordBatch) {
        let mut writer = arrow::csv::Writer::new(std::fs::File::create(path).expect("a file"));
        writer.write(table).expect("rows");
    }

    #[test]
    fn batches_are_cut_at_the_same_curves_whatever_the_pieces() {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = 700_000;
        let key: Int64Array =
            (0..rows as i64).map(|row| Some(if row < 300_000 { row / 3 } else { row / 70_000 })).collect();
        let y: Float64Array = (0..rows).map(|row| Some(row as f64)).collect();
        let all = table(vec![("k", Arc::new(key) as ArrayRef), ("y", Arc::new(y))]);
        // Long curves have the keys 4 to 9, which short ones had before: grouped in memory. With a filter they stream.
        let mut cuts = Vec::new();
        for filter in ["", "k > 9 or y >= 300000"] {
            for rows in [100_000, 4_999_999] {
                let path = folder.path().join(format!("{rows}.parquet"));
                write_parquet_in_groups(&path, &all, rows);
                let (batches, restarted) = read_all(&[&path], &selection(&["k"], &["y"], filter), 2).expect("curves");
                assert_eq!(restarted, filter.is_empty());
                cuts.push(batches.iter().map(|batch| batch.curves.offsets.clone()).collect::<Vec<_>>());
            }
        }
        assert!(cuts[0] == cuts[1] && cuts[2] == cuts[3] && cuts[0] != cuts[2]);
        assert!(cuts[2].len() > 6);
    }

    #[test]
    fn a_curve_that_comes_back_is_noticed_and_made_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        let rows = 10_000i64;
        let key: Int64Array = (0..rows).map(|row| Some((row * 7919) % 100)).collect();
        let y: Float64Array = (0..rows).map(|row| Some(row as f64)).collect();
        write_parquet_in_groups(&path, &table(vec![("k", Arc::new(key) as ArrayRef), ("y", Arc::new(y))]), 999);
        let source = Source::open(&[path.display().to_string()]).expect("a source");
        let mut reader = read(&source, &selection(&["k"], &["y"], ""), &ReadOptions::default()).expect("a reader");
        let mut batches = Vec::new();
        let mut restarts = 0;
        for event in &mut reader {
            match event.expect("no error") {
                Event::Batch(batch) => batches.push(batch),
                Event::Restarted => {
                    batches.clear();
                    restarts += 1;
                }
            }
        }
        assert_eq!(restarts, 1);
        assert!(reader.notes()[0].contains("grouped in memory"), "{:?}", reader.notes());
        assert_eq!(reader.counts(), Counts { rows_read: 10_000, rows_left_out: 0, curves: 100, rows: 10_000 });
        for (index, (key, columns)) in curves(&batches).into_iter().enumerate() {
            assert_eq!(key, format!("k={}", (index as i64 * 7919) % 100));
            let expected: Vec<f64> = (0..100).map(|row| (row * 100 + index) as f64).collect();
            assert_eq!(columns, [expected]);
        }
    }

    #[test]
    fn rows_that_do_not_fit_into_memory_come_out_as_if_they_did() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        // Curves of very different lengths, of which the longest fills a batch alone; the order of rows is random.
        let rows = 1_200_000u64;
        let mut stream = crate::random::Stream::new(3, 0);
        let keys = (0..rows).map(|_| match stream.bits() % 4 {
            0 => "long".to_string(),
            1 => format!("k{}", stream.bits() % 7),
            _ => format!("key number {}", stream.bits() % 40_000),
        });
        let key = StringArray::from_iter_values(keys);
        let x: Float64Array = (0..rows).map(|row| Some(row as f64)).collect();
        let y: Float64Array = (0..rows).map(|row| (row % 11 != 5).then_some(1.0 / row as f64)).collect();
        let all = table(vec![("k", Arc::new(key) as ArrayRef), ("x", Arc::new(x)), ("y", Arc::new(y))]);
        write_parquet_in_groups(&path, &all, 100_000);
        let source = Source::open(&[path.display().to_string()]).expect("a source");
        let memory = Memory { bytes: 8 << 20, folder: folder.path().to_path_buf() };
        assert!(!memory.holds(rows, 2));
        for filter in ["", "x < 1150000 and x != 77"] {
            let selection = selection(&["k"], &["y", "x"], filter);
            let read_with = |memory: Option<Memory>, scattered: Option<String>| {
                let options = ReadOptions { threads: 3, memory, scattered, ..ReadOptions::default() };
                let mut reader = read(&source, &selection, &options).expect("a reader");
                let mut batches = Vec::new();
                for event in &mut reader {
                    match event.expect("no error") {
                        Event::Batch(batch) => batches.push(batch),
                        Event::Restarted => batches.clear(),
                    }
                }
                (batches, reader.counts(), reader.notes().to_vec())
            };
            let (expected, counts, _) = read_with(None, None);
            assert!(expected.len() > 3);
            let borders =
                |batches: &[Batch]| batches.iter().map(|batch| batch.curves.offsets.clone()).collect::<Vec<_>>();
            for scattered in [None, Some("known before".to_string())] {
                let (batches, own, notes) = read_with(Some(memory.clone()), scattered.clone());
                assert!(exact(&batches) == exact(&expected) && own == counts);
                assert!(borders(&batches) == borders(&expected));
                let note = scattered.unwrap_or("grouped by way of".to_string());
                assert!(notes[0].contains(&note), "{notes:?}");
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("entries").count(), 1, "a file of its own was left behind");
        let gone = Memory { folder: folder.path().join("none"), ..memory };
        let options = ReadOptions { memory: Some(gone), ..ReadOptions::default() };
        let reader = read(&source, &selection(&["k"], &["y", "x"], ""), &options).expect("a reader");
        let message = reader.filter_map(std::result::Result::err).next().expect("no folder").to_string();
        assert!(message.contains("cannot be spilled here") && message.contains("--spill"), "{message}");
    }

    #[test]
    fn without_keys_the_whole_input_is_one_curve() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        write_parquet_in_groups(&path, &numbers_table(&[("y", &[1.0, 2.0, 3.0])]), 2);
        let (batches, _) = read_all(&[&path], &selection(&[], &["y"], ""), 2).expect("a curve");
        assert_eq!(curves(&batches), [("curve 1".to_string(), vec![vec![1.0, 2.0, 3.0]])]);
        assert!(read_all(&[&path], &selection(&[], &["y"], "y > 9"), 2).expect("none").0.is_empty());
    }

    /// Three rows: a list each of x and y, a number w, a key.
    fn lists(broken: bool) -> RecordBatch {
        let x = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
            Some(vec![Some(1), Some(2)]),
            None,
            Some(vec![Some(3), None, Some(5)]),
        ]);
        let y = LargeListArray::from_iter_primitive::<arrow::datatypes::Float64Type, _, _>(vec![
            Some(vec![Some(0.5), Some(0.25)]),
            Some(vec![Some(7.0)]),
            Some(vec![Some(1.0), Some(2.0), Some(3.0)][..if broken { 2 } else { 3 }].to_vec()),
        ]);
        table(vec![
            ("k", Arc::new(StringArray::from(vec!["a", "b", "a"])) as ArrayRef),
            ("x", Arc::new(x)),
            ("y", Arc::new(y)),
            ("w", Arc::new(Float64Array::from(vec![10.0, 20.0, 30.0]))),
        ])
    }

    #[test]
    fn each_row_of_lists_is_a_curve_whatever_its_key() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["t.parquet", "t.arrow"] {
            let path = folder.path().join(name);
            if name.ends_with("parquet") {
                write_parquet(&path, &lists(false))
            } else {
                write_arrow_file(&path, &lists(false))
            }
            let (batches, restarted) = read_all(&[&path], &selection(&["k"], &["x", "w"], ""), 2).expect("curves");
            assert!(!restarted);
            let read = curves(&batches);
            assert_eq!(read[0], ("k=a".to_string(), vec![vec![1.0, 2.0], vec![10.0, 10.0]]));
            assert_eq!(read[1], ("k=b".to_string(), vec![vec![], vec![]]));
            assert!(read[2].0 == "k=a" && read[2].1[0][1].is_nan() && read[2].1[1] == [30.0; 3]);
            let (batches, _) = read_all(&[&path], &selection(&[], &["x", "y"], "w > 15"), 2).expect("curves");
            let read = curves(&batches);
            assert_eq!(read[0], ("curve 1".to_string(), vec![vec![], vec![]]));
            assert_eq!((read[1].0.as_str(), &read[1].1[1][..]), ("curve 2", &[1.0, 2.0, 3.0][..]));
        }
    }

    #[test]
    fn lists_of_different_lengths_are_an_error_that_names_the_row_and_its_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        write_parquet(&path, &lists(true));
        let error = read_all(&[&path], &selection(&["k"], &["x", "y"], "w != 20"), 1).expect_err("lengths").to_string();
        assert!(error.contains("row 3 (k=a): \"x\" holds 3 numbers and \"y\" holds 2"), "{error}");
        assert!(read_all(&[&path], &selection(&["k"], &["x", "y"], "w < 25"), 1).is_ok());
    }

    #[test]
    fn columns_of_folders_serve_as_keys_numbers_and_in_filters() {
        let folder = tempfile::tempdir().expect("a folder");
        for (size, family) in [(10, "a"), (200, "b"), (3000, "a")] {
            let inner = folder.path().join(format!("size={size}/family={family}"));
            std::fs::create_dir_all(&inner).expect("folders");
            write_parquet(&inner.join("t.parquet"), &numbers_table(&[("y", &[1.0, size as f64])]));
        }
        let selection = selection(&["family", "size"], &["y", "size"], "family == 'a' and size > 5");
        let (batches, _) = read_all(&[folder.path()], &selection, 2).expect("curves");
        let expected = [
            ("family=a, size=10".to_string(), vec![vec![1.0, 10.0], vec![10.0, 10.0]]),
            ("family=a, size=3000".to_string(), vec![vec![1.0, 3000.0], vec![3000.0, 3000.0]]),
        ];
        assert_eq!(curves(&batches), expected);
    }

    #[test]
    fn columns_that_cannot_be_used_are_named_with_the_repair() {
        let folder = tempfile::tempdir().expect("a folder");
        let (good, other) = (folder.path().join("good.parquet"), folder.path().join("other.parquet"));
        write_parquet(&good, &sweep(3));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let number: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        write_parquet(&other, &table(vec![("name", number.clone()), ("y", text), ("z", number)]));
        let both: [&Path; 2] = [&good, &other];
        for (paths, selection, expected) in [
            (&both[..1], selection(&[], &["name"], ""), "column \"name\" is Utf8; expected a number"),
            (&both[..1], selection(&[], &["yy"], ""), "column \"yy\" is not in the input; did you mean \"y\"?"),
            (&both[..1], selection(&["nam"], &["y"], ""), "did you mean \"name\"?"),
            (&both[..1], selection(&["seed", "seed"], &["y"], ""), "--by names \"seed\" twice"),
            (&both[..1], selection(&[], &["y"], "sead > 1"), "did you mean `seed`?"),
            (&both, selection(&[], &["y"], ""), "column \"y\" is Utf8 in"),
            (&both, selection(&[], &["x"], ""), "other.parquet: has no column \"x\""),
            (&both, selection(&["name"], &["y"], ""), "other.parquet: column \"name\" is Float64 here and Utf8 in"),
            (&both, selection(&[], &["y"], "x > 1"), "other.parquet: has no column \"x\", which --where uses"),
        ] {
            let error = read_all(paths, &selection, 1).expect_err(expected).to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn text_among_the_numbers_of_a_csv_is_shown_with_its_row() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.csv");
        for text in ["oops", "\"1,000\"", "2.1%", "-", "0x10", "true"] {
            std::fs::write(&path, format!("run,y\na,1.5\nb,NA\nc, \nd,{text}\ne,nope\n")).expect("a file");
            let error = read_all(&[&path], &selection(&["run"], &["y"], ""), 1).expect_err("text").to_string();
            let told = format!("column \"y\" holds \"{}\" in row 4 of ", text.trim_matches('"'));
            assert!(error.contains(&told) && error.contains("t.csv; expected a number"), "{error}");
        }
    }

    /// Regression: a thread could wait for ever on a queue that nobody had taken yet.
    #[test]
    fn a_reader_that_is_dropped_half_way_ends_its_threads() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        let y: Float64Array = (0..4_200_000).map(|row| Some((row % 5) as f64)).collect();
        write_parquet_in_groups(&path, &table(vec![("y", Arc::new(y) as ArrayRef)]), 1_400_000);
        let source = Source::open(&[path.display().to_string()]).expect("a source");
        let options = ReadOptions { threads: 2, ..ReadOptions::default() };
        for wait in [0, 10, 50] {
            let mut reader = read(&source, &selection(&["y"], &["y"], ""), &options).expect("a reader");
            // Until the threads have filled their queues.
            std::thread::sleep(std::time::Duration::from_millis(wait));
            assert!(matches!(reader.next(), Some(Ok(Event::Restarted))));
            drop(reader);
        }
    }

    #[test]
    fn an_interruption_ends_the_reading() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        write_parquet_in_groups(&path, &sweep(1000), 10);
        let source = Source::open(&[path.display().to_string()]).expect("a source");
        let options = ReadOptions::default();
        let mut reader = read(&source, &selection(&["name", "seed"], &["y"], ""), &options).expect("a reader");
        options.interrupted.store(true, Ordering::Relaxed);
        assert!(matches!(reader.next(), Some(Err(Error::Interrupted))));
        assert!(reader.next().is_none());
    }

    /// A small generator of its own (xorshift): the same mutations in every run.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound.max(1) as u64) as usize
        }
    }

    /// Changes, removes, doubles or inserts some bytes; favours the ends, where formats keep their structure.
    fn mutated(original: &[u8], chance: &mut Chance) -> Vec<u8> {
        let mut bytes = original.to_vec();
        for _ in 0..1 + chance.below(4) {
            let near_end = chance.below(2) == 0;
            let at = if near_end {
                bytes.len() - 1 - chance.below(bytes.len().min(1500))
            } else {
                chance.below(bytes.len())
            };
            match chance.below(6) {
                0 => bytes[at] ^= 1 << chance.below(8),
                1 => bytes[at] = chance.below(256) as u8,
                2 => bytes[at] = [0, 0x7f, 0x80, 0xff][chance.below(4)],
                3 => bytes.truncate(at + 1),
                4 => {
                    let end = (at + chance.below(16)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                _ => {
                    let end = (at + 1 + chance.below(8)).min(bytes.len());
                    if bytes.len() > end - at {
                        bytes.drain(at..end);
                    }
                }
            }
        }
        bytes
    }

    #[test]
    fn damaged_files_of_every_format_give_errors_and_never_panics() {
        const MUTATIONS: usize = 800;
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| -> PathBuf { folder.path().join(name) };
        let small = sweep(30);
        write_parquet_in_groups(&at("t.parquet"), &small, 40);
        write_parquet(&at("l.parquet"), &lists(false));
        write_csv(&at("t.csv"), &small);
        write_arrow_file(&at("t.arrow"), &small);
        write_arrow_stream(&at("t.arrows"), &small);
        write_arrow_file(&at("l.arrow"), &lists(false));
        let mut chance = Chance(0x5eed_0f5e_ed0f_5eed);
        for name in ["t.parquet", "l.parquet", "t.csv", "t.arrow", "t.arrows", "l.arrow"] {
            let original = std::fs::read(at(name)).expect("bytes");
            let path = at(&format!("m-{name}"));
            let mut refused = 0;
            for mutation in 0..=MUTATIONS {
                let bytes = if mutation == 0 { original.clone() } else { mutated(&original, &mut chance) };
                std::fs::write(&path, bytes).expect("a file");
                let selection = if name.starts_with('l') {
                    selection(&["k"], &["x", "y", "w"], "")
                } else {
                    selection(&["name", "seed"], &["x", "y"], "seed >= 0 and name != 'q'")
                };
                match read_all(&[&path], &selection, 2) {
                    Err(error) => {
                        assert!(mutation > 0, "{name}: {error}");
                        refused += 1;
                        let message = error.to_string();
                        assert!(!message.contains("mistake in this program"), "{name}: {message}");
                    }
                    Ok((batches, _)) => {
                        for batch in &batches {
                            assert_eq!(batch.keys.len(), batch.curves.len());
                            assert!(batch.curves.columns.iter().all(|column| column.len() == batch.curves.rows()));
                        }
                    }
                }
            }
            // Text has few bytes that make it unreadable; the other formats notice most of what is done to them.
            let least = if name.ends_with("csv") { MUTATIONS / 20 } else { MUTATIONS / 3 };
            assert!(refused > least, "{name}: only {refused} of {MUTATIONS} mutations were noticed");
        }
    }
}
