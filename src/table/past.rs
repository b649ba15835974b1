//! The table of fits of an earlier run: which of its curves come again, and their rows, to be carried over as they are.
//!
//! In: Parquet of this program with a column `fingerprint`, in one file or in parts, here or in a store; the keys of this run,
//! the layout of its output. Out: for the curves of a batch where they stood ([`Found`]), and blocks in which old and new rows
//! lie in the batch's order. Keys and fingerprints are in memory; the other columns are read a row group at a time, when they
//! are wanted.

use super::decode::{byte_range, constant};
use super::guard::{damaged, decoding};
use super::index::AsIs;
use super::keys::{KeySchema, Keys, data_type_compared};
use super::source::{Format, Place, Source, TableFile};
use super::write::{Block, Layout};
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_empty_array, new_null_array};
use arrow::compute::{cast, concat};
use arrow::datatypes::{Float64Type, UInt32Type, UInt64Type};
use arrow::error::ArrowError;
use arrow::row::{Row, Rows};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The name of the column of fingerprints.
pub const FINGERPRINT: &str = "fingerprint";

/// The p-value of a curve's new points under the fit of an earlier run, and the same adjusted for all curves tested.
pub const BROKE: &str = "broke";
pub const BROKE_ADJUSTED: &str = "broke_adjusted";

/// Columns that speak of one run's new points alone: never carried over.
const TONIGHT: [&str; 2] = [BROKE, BROKE_ADJUSTED];

/// Row groups that are kept decoded: batches in flight lie beside one another, and so do their rows.
const GROUPS_KEPT: usize = 8;

/// What became of a curve since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Its rows are those of the curve at this place of the table.
    Same(u32),
    /// It stood at this place, and its rows have changed.
    Changed(u32),
    /// It was not there.
    New,
}

type Places = HashMap<u64, u32, BuildHasherDefault<AsIs>>;

/// What may be done about fits that are of no use.
pub const UNFIT: &str =
    "fit everything once without --since, with --fingerprint, or let such runs begin anew with --or-begin-anew";

/// The fits of an earlier run.
pub struct Past {
    source: Source,
    schema: KeySchema,
    layout: Layout,
    /// Rows of a curve.
    laws: usize,
    /// Whether a key is that of one curve at most.
    unique: bool,
    /// Row groups in their order: file of the source and place in it.
    groups: Vec<(usize, usize)>,
    /// One per curve.
    keys: Rows,
    fingerprints: Vec<u64>,
    /// Where keys, and keys with their fingerprints, stand; made when curves come in another order than they stood.
    places: OnceLock<[Places; 2]>,
    /// Which curves came again.
    seen: Vec<AtomicBool>,
    /// The first row of every row group and, last, the number of rows.
    starts: Vec<usize>,
    kept: Mutex<VecDeque<(usize, Group)>>,
    /// Curves of every row group that were not dealt with yet: those whose first row lies there.
    left: Vec<AtomicUsize>,
}

/// A row group that is decoded by whoever wants it first.
type Group = Arc<OnceLock<std::result::Result<RecordBatch, String>>>;

impl Past {
    /// Reads the keys and fingerprints of the fits in `source`, which have rows for the laws `laws` of every curve; `unique`
    /// says that a key is that of one curve at most.
    ///
    /// # Errors
    /// A table that is not Parquet, has no fingerprints, has other columns than `layout`, or whose rows are not one for
    /// every law of every curve; [`Error::Interrupted`] soon after `interrupted` is set.
    pub fn open(
        source: &Source,
        schema: &KeySchema,
        layout: &Layout,
        laws: &[String],
        unique: bool,
        interrupted: &AtomicBool,
    ) -> Result<Past> {
        let mut past = Past {
            source: source.clone(),
            schema: schema.clone(),
            layout: layout.clone(),
            laws: laws.len(),
            unique,
            groups: Vec::new(),
            keys: schema.no_keys(),
            fingerprints: Vec::new(),
            places: OnceLock::new(),
            seen: Vec::new(),
            starts: vec![0],
            kept: Mutex::default(),
            left: Vec::new(),
        };
        for (index, file) in source.tables().iter().enumerate() {
            past.refuse_other_columns(file)?;
            let Format::Parquet(metadata) = &file.format else {
                return Err(unfit(&file.path, "is not Parquet, and --since takes no other format".into()));
            };
            for (group, metadata) in metadata.metadata().row_groups().iter().enumerate() {
                let rows = usize::try_from(metadata.num_rows()).unwrap_or(0);
                past.starts.push(past.starts[past.starts.len() - 1] + rows);
                past.groups.push((index, group));
            }
        }
        past.read_keys(laws, interrupted)?;
        let before = |group: usize| past.starts[group].div_ceil(laws.len());
        past.left = (0..past.groups.len()).map(|group| AtomicUsize::new(before(group + 1) - before(group))).collect();
        past.seen = past.fingerprints.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(past)
    }

    fn refuse_other_columns(&self, file: &TableFile) -> Result<()> {
        if file.schema.index_of(FINGERPRINT).is_err() {
            let message = "has no column \"fingerprint\", by which --since knows curves again";
            return Err(unfit(&file.path, message.into()));
        }
        for field in self.layout.schema.fields().iter().filter(|field| !TONIGHT.contains(&field.name().as_str())) {
            let Some(place) = file.place(field.name())? else {
                let message = format!("has no column \"{}\", which this run writes", field.name());
                return Err(unfit(&file.path, message));
            };
            let found = file.data_type(place);
            // What a folder's name holds is text, of whatever it was made.
            let own = matches!(place, Place::Column(_));
            if own && data_type_compared(&found) != data_type_compared(field.data_type()) {
                let (name, writes) = (field.name(), field.data_type());
                return Err(unfit(
                    &file.path,
                    format!("column \"{name}\" is {found} here, and this run writes {writes}"),
                ));
            }
        }
        Ok(())
    }

    /// The file of a row group.
    fn file(&self, group: usize) -> &TableFile {
        &self.source.tables()[self.groups[group].0]
    }

    /// As messages call the table: its only file, or the first.
    fn path(&self) -> &Path {
        self.source.files().first().map_or(Path::new("--since"), PathBuf::as_path)
    }

    fn failed(&self, error: &ArrowError) -> Error {
        damaged(self.path(), &error.to_string())
    }

    fn read_keys(&mut self, laws: &[String], interrupted: &AtomicBool) -> Result<()> {
        let rows = self.starts[self.starts.len() - 1];
        let torn = |path: &Path| {
            let message = "does not hold one row for every law of every curve, in the order in which they were written (parts \
                           by law or status tear them apart)";
            unfit(path, message.into())
        };
        if !rows.is_multiple_of(laws.len()) {
            return Err(torn(self.path()));
        }
        let mut columns: Vec<&str> = self.schema.names().iter().map(String::as_str).collect();
        let keys = columns.len();
        columns.extend(["law", FINGERPRINT]);
        let mut row = 0;
        let mut all = self.schema.no_keys();
        let mut fingerprints = Vec::with_capacity(rows / laws.len());
        for group in 0..self.groups.len() {
            if interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            let batch = self.decode(group, &columns)?;
            let own_laws = texts(&batch[keys]).map_err(|error| self.failed(&error))?;
            let own_laws = own_laws.as_string::<i32>();
            let prints = batch[keys + 1].as_primitive::<UInt64Type>().values();
            let mut firsts = Vec::with_capacity(prints.len() / laws.len() + 1);
            for at in 0..prints.len() {
                let law = (row + at) % laws.len();
                if own_laws.value(at) != laws[law] {
                    return Err(torn(&self.file(group).path));
                }
                if law == 0 {
                    firsts.push(at as u32);
                    fingerprints.push(prints[at]);
                } else if fingerprints.last() != Some(&prints[at]) {
                    return Err(torn(&self.file(group).path));
                }
            }
            row += prints.len();
            if keys > 0 {
                let encoded =
                    self.schema.encode_unhashed(&batch[..keys], firsts).map_err(|error| self.failed(&error))?;
                if all.num_rows() == 0 {
                    // Keys of a table are alike: room for the first group's, so many times.
                    let groups = (rows / laws.len()).div_ceil(encoded.num_rows().max(1));
                    all = self.schema.room_for(rows / laws.len(), groups * encoded.size());
                }
                encoded.iter().for_each(|key| all.push(key));
            }
        }
        (self.keys, self.fingerprints) = (all, fingerprints);
        Ok(())
    }

    /// These columns of a row group, in the types of the layout where they stand in folders' names, else of the file.
    fn decode(&self, group: usize, columns: &[&str]) -> Result<Vec<ArrayRef>> {
        let file = self.file(group);
        let Format::Parquet(metadata) = &file.format else { unreachable!("checked on opening") };
        let rows = self.starts[group + 1] - self.starts[group];
        let mut places = Vec::with_capacity(columns.len());
        for name in columns {
            places.push(file.place(name)?.expect("checked on opening"));
        }
        let roots: Vec<usize> =
            places.iter().filter_map(|place| if let Place::Column(at) = place { Some(*at) } else { None }).collect();
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots.iter().copied());
        let batch = decoding(&file.path, || {
            let own = metadata.metadata().row_group(self.groups[group].1);
            let leaves = (0..own.num_columns()).filter(|&leaf| mask.leaf_included(leaf));
            let ranges: Vec<Range<u64>> = leaves.map(|leaf| byte_range(own.column(leaf))).collect();
            let mut reader =
                ParquetRecordBatchReaderBuilder::new_with_metadata(file.content.chunks(&ranges)?, metadata.clone())
                    .with_row_groups(vec![self.groups[group].1])
                    .with_batch_size(rows.max(1))
                    .with_projection(mask)
                    .build()?;
            reader.next().transpose().map_err(parquet::errors::ParquetError::from)
        })?;
        let column = |(name, place): (&&str, &Place)| match *place {
            Place::Column(at) => {
                let name = file.schema.field(at).name();
                let found = batch.as_ref().and_then(|batch| batch.column_by_name(name));
                Ok(found.map_or_else(|| new_empty_array(file.schema.field(at).data_type()), Arc::clone))
            }
            Place::Partition(at) => {
                let field = self.layout.schema.field_with_name(name)?;
                cast(&constant(&file.partitions[at], rows), field.data_type())
            }
        };
        let columns = columns.iter().zip(&places).map(column).collect::<std::result::Result<Vec<_>, ArrowError>>();
        columns.map_err(|error| damaged(&file.path, &error.to_string()))
    }

    /// How many curves there were.
    pub fn len(&self) -> usize {
        self.fingerprints.len()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.fingerprints.is_empty()
    }

    /// What became of every curve of a batch; `first` is the index in the run of the batch's first curve.
    ///
    /// # Errors
    /// Keys that cannot be compared.
    pub fn find(&self, keys: &Keys, fingerprints: &[u64], first: u64) -> Result<Vec<Found>> {
        let encoded = match keys.columns() {
            [] => None,
            columns => {
                let at = (0..keys.len() as u32).collect();
                Some(self.schema.encode_unhashed(columns, at).map_err(|error| self.failed(&error))?)
            }
        };
        // Most curves come again in the order in which they stood.
        let mut next = usize::try_from(first).unwrap_or(usize::MAX);
        let found = fingerprints.iter().enumerate().map(|(curve, &fingerprint)| {
            let key = encoded.as_ref().map(|rows| rows.row(curve));
            let found = self.find_one(key, fingerprint, next);
            if let Found::Same(at) | Found::Changed(at) = found {
                self.seen[at as usize].store(true, Ordering::Relaxed);
                next = at as usize + 1;
            }
            found
        });
        Ok(found.collect())
    }

    fn find_one(&self, key: Option<Row>, fingerprint: u64, next: usize) -> Found {
        let is = |at: usize| match key {
            _ if at >= self.len() => false,
            Some(key) => self.keys.row(at).data() == key.data(),
            None => true,
        };
        if is(next) && self.fingerprints[next] == fingerprint {
            return Found::Same(next as u32);
        }
        // A key of its own names the curve, whatever became of it.
        if self.unique && key.is_some() && is(next) {
            return Found::Changed(next as u32);
        }
        let hash = key.map_or(0, |key| super::keys::hash(key.data()));
        let [by_key, by_content] = self.places.get_or_init(|| self.places());
        let same = match self.unique {
            true => by_key.get(&hash).copied(),
            false => by_content.get(&mixed(hash, fingerprint)).copied(),
        };
        if let Some(at) = same.filter(|&at| self.fingerprints[at as usize] == fingerprint && is(at as usize)) {
            return Found::Same(at);
        }
        // Without keys every row is a curve of its own, and has no name by which it could be another one's successor.
        let changed = key.and_then(|_| by_key.get(&hash).copied());
        changed.filter(|&at| is(at as usize)).map_or(Found::New, Found::Changed)
    }

    fn places(&self) -> [Places; 2] {
        let mut places = [Places::default(), Places::default()];
        let wanted = if self.unique { &mut places[..1] } else { &mut places[..] };
        wanted.iter_mut().for_each(|places| places.reserve(self.len()));
        for (at, &fingerprint) in self.fingerprints.iter().enumerate().rev() {
            let hash = match self.keys.num_rows() {
                0 => 0,
                _ => super::keys::hash(self.keys.row(at).data()),
            };
            places[0].insert(hash, at as u32);
            if !self.unique {
                places[1].insert(mixed(hash, fingerprint), at as u32);
            }
        }
        places
    }

    /// The keys of curves that did not come again, in their old order.
    ///
    /// # Errors
    /// Keys that cannot be shown.
    pub fn vanished(&self) -> Result<Vec<String>> {
        let gone = self.seen.iter().enumerate().filter(|(_, seen)| !seen.load(Ordering::Relaxed));
        let gone: Vec<usize> = gone.map(|(at, _)| at).collect();
        if self.keys.num_rows() == 0 {
            return Ok(gone.into_iter().map(|at| format!("curve {}", at + 1)).collect());
        }
        let mut keys = self.schema.no_keys();
        gone.iter().for_each(|&at| keys.push(self.keys.row(at)));
        let keys = self.schema.decode(&keys, gone.len(), 0).map_err(|error| self.failed(&error))?;
        Ok((0..gone.len()).map(|index| keys.describe(index)).collect())
    }

    /// Says that the rows of these curves are not wanted any more: a row group of which none is need not be kept.
    pub fn done(&self, found: &[Found]) {
        for found in found {
            let (Found::Same(place) | Found::Changed(place)) = *found else { continue };
            let group = self.group_of(place as usize * self.laws);
            // Rows of lists may find one curve twice; then the group is kept until others take its place.
            if self.left[group].fetch_sub(1, Ordering::Relaxed) == 1 {
                self.kept.lock().unwrap_or_else(PoisonError::into_inner).retain(|(own, _)| *own != group);
            }
        }
    }

    /// The row group in which a row lies.
    fn group_of(&self, row: usize) -> usize {
        self.starts.partition_point(|&start| start <= row) - 1
    }

    fn group(&self, group: usize) -> Result<RecordBatch> {
        let cell = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            match kept.iter().find(|(own, _)| *own == group) {
                Some((_, cell)) => cell.clone(),
                None => {
                    if kept.len() == GROUPS_KEPT {
                        kept.pop_front();
                    }
                    kept.push_back((group, Group::default()));
                    kept[kept.len() - 1].1.clone()
                }
            }
        };
        let decoded = cell.get_or_init(|| {
            let names = self.layout.schema.fields().iter().map(|field| field.name().as_str());
            let names: Vec<&str> = names.filter(|name| !TONIGHT.contains(name)).collect();
            let mut batch = self.decode(group, &names).map_err(|error| error.to_string())?.into_iter();
            let rows = self.starts[group + 1] - self.starts[group];
            let columns = self.layout.schema.fields().iter().map(|field| {
                if TONIGHT.contains(&field.name().as_str()) {
                    return Ok(new_null_array(field.data_type(), rows));
                }
                let column = batch.next().expect("as many as were asked for");
                if column.data_type() == field.data_type() { Ok(column) } else { cast(&column, field.data_type()) }
            });
            let columns = columns.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
            RecordBatch::try_new(self.layout.schema.clone(), columns).map_err(|error| error.to_string())
        });
        decoded.clone().map_err(|message| Error::Input { file: self.file(group).path.clone(), message })
    }

    /// The rows of a curve: the row group's table and the rows in it; a curve's rows may lie in two groups.
    fn rows(&self, place: u32, laws: usize) -> Result<(RecordBatch, usize)> {
        let row = place as usize * self.laws + laws;
        let group = self.group_of(row);
        Ok((self.group(group)?, row - self.starts[group]))
    }

    /// The rows of a batch in its order: of a curve that is the same the old ones, of any other the next of `fitted`.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub fn join(&self, found: &[Found], fitted: Option<&Block>) -> Result<Block> {
        // Runs of rows that lie side by side: where they lie, the first, how many.
        let mut tables: Vec<RecordBatch> = fitted.iter().map(|block| block.0.clone()).collect();
        let fresh = tables.len();
        let mut groups: Vec<(usize, usize)> = Vec::new();
        let mut runs: Vec<(usize, usize, usize)> = Vec::new();
        let mut taken = 0;
        let mut push = |table: usize, row: usize, rows: usize| match runs.last_mut() {
            Some((last, start, length)) if *last == table && *start + *length == row => *length += rows,
            _ => runs.push((table, row, rows)),
        };
        for found in found {
            let Found::Same(place) = *found else {
                push(0, taken, self.laws);
                taken += self.laws;
                continue;
            };
            for law in 0..self.laws {
                let row = place as usize * self.laws + law;
                let group = self.group_of(row);
                let table = match groups.iter().find(|(own, _)| *own == group) {
                    Some((_, table)) => *table,
                    None => {
                        tables.push(self.group(group)?);
                        groups.push((group, tables.len() - 1));
                        tables.len() - 1
                    }
                };
                push(table, row - self.starts[group], 1);
            }
        }
        debug_assert!(taken == 0 || fresh == 1, "rows were fitted for every curve that is not the same");
        let column = |index: usize| -> std::result::Result<ArrayRef, ArrowError> {
            let parts: Vec<ArrayRef> =
                runs.iter().map(|&(table, row, rows)| tables[table].column(index).slice(row, rows)).collect();
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            match parts[..] {
                [] => Ok(new_empty_array(self.layout.schema.field(index).data_type())),
                _ => concat(&parts),
            }
        };
        let columns = (0..self.layout.schema.fields().len()).map(column);
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| self.failed(&error))?;
        let batch = RecordBatch::try_new(self.layout.schema.clone(), columns);
        Ok(Block(batch.map_err(|error| self.failed(&error))?))
    }

    /// What the table says about a curve under a law: a text, numbers and counts of columns that every table of fits has.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub fn told(&self, place: u32, law: usize) -> Result<Told> {
        let (batch, row) = self.rows(place, law)?;
        let column = |name: &str| batch.column_by_name(name).expect("every table of fits has these columns").clone();
        let (objective, points, pinned) = (column("objective"), column("points"), column("at_bound"));
        let objective = objective.as_primitive::<Float64Type>();
        Ok(Told {
            status: column("status").as_string::<i32>().value(row).to_string(),
            points: points.as_primitive::<UInt32Type>().value(row),
            objective: if objective.is_valid(row) { objective.value(row) } else { f64::NAN },
            pinned: pinned.as_list::<i32>().value(row).len(),
        })
    }

    /// The fingerprint that a curve had.
    pub fn fingerprint(&self, place: u32) -> u64 {
        self.fingerprints[place as usize]
    }
}

/// What a table of fits says about one fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub status: String,
    pub points: u32,
    /// NaN for null.
    pub objective: f64,
    /// Parameters at a bound.
    pub pinned: usize,
}

/// The error for fits that cannot be carried over.
fn unfit(path: &Path, message: String) -> Error {
    Error::Earlier { file: path.to_path_buf(), message, repair: UNFIT }
}

fn mixed(hash: u64, fingerprint: u64) -> u64 {
    let mut mixed = Fingerprint::default();
    mixed.add(hash);
    mixed.add(fingerprint);
    mixed.value()
}

fn texts(column: &ArrayRef) -> std::result::Result<ArrayRef, ArrowError> {
    cast(column, &arrow::datatypes::DataType::Utf8)
}
