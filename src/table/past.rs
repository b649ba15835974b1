//! The table of fits of an earlier run: which of its curves come again, and their rows, to be carried over as they are.
//!
//! In: a Parquet file of this program with a column `fingerprint`, the keys of this run, the layout of its output. Out: for
//! the curves of a batch where they stood ([`Found`]), and blocks in which old and new rows lie in the batch's order. Keys
//! and fingerprints are in memory; the other columns are read a row group at a time, when they are wanted.

use super::guard::{damaged, decoding};
use super::index::AsIs;
use super::keys::{KeySchema, Keys, data_type_compared};
use super::source::{Format, Source, TableFile};
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
use std::fs::File;
use std::hash::BuildHasherDefault;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// The fits of an earlier run.
pub struct Past {
    source: Source,
    path: PathBuf,
    schema: KeySchema,
    layout: Layout,
    /// Rows of a curve.
    laws: usize,
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
}

/// A row group that is decoded by whoever wants it first.
type Group = Arc<OnceLock<std::result::Result<RecordBatch, String>>>;

impl Past {
    /// Reads the keys and fingerprints of the fits in `source`, which have rows for the laws `laws` of every curve.
    ///
    /// # Errors
    /// A table that is not Parquet, has no fingerprints, has other columns than `layout`, or whose rows are not one for
    /// every law of every curve.
    pub fn open(source: &Source, schema: &KeySchema, layout: &Layout, laws: &[String]) -> Result<Past> {
        let (Some(path), Some(file)) = (source.files().first().cloned(), source.tables().first()) else {
            return Err(Error::Usage("--since names no file".into()));
        };
        let unfit = |message: String| Error::Input { file: path.clone(), message };
        let Format::Parquet(metadata) = &file.format else {
            return Err(unfit("is not Parquet, and --since takes no other format".into()));
        };
        if file.schema.index_of(FINGERPRINT).is_err() {
            let message =
                "has no column \"fingerprint\", by which --since knows curves again: write it with --fingerprint";
            return Err(unfit(message.into()));
        }
        for field in layout.schema.fields().iter().filter(|field| !TONIGHT.contains(&field.name().as_str())) {
            let found = file.schema.field_with_name(field.name());
            let found =
                found.map_err(|_| unfit(format!("has no column \"{}\", which this run writes", field.name())))?;
            if data_type_compared(found.data_type()) != data_type_compared(field.data_type()) {
                return Err(unfit(format!(
                    "column \"{}\" is {} here, and this run writes {}",
                    field.name(),
                    found.data_type(),
                    field.data_type()
                )));
            }
        }
        let groups = metadata.metadata().row_groups();
        let mut starts = vec![0];
        for group in groups {
            starts.push(starts[starts.len() - 1] + usize::try_from(group.num_rows()).unwrap_or(0));
        }
        let mut past = Past {
            source: source.clone(),
            path: path.clone(),
            schema: schema.clone(),
            layout: layout.clone(),
            laws: laws.len(),
            keys: schema.no_keys(),
            fingerprints: Vec::new(),
            places: OnceLock::new(),
            seen: Vec::new(),
            starts,
            kept: Mutex::default(),
        };
        past.read_keys(laws)?;
        past.seen = past.fingerprints.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(past)
    }

    fn file(&self) -> &TableFile {
        &self.source.tables()[0]
    }

    fn failed(&self, error: &ArrowError) -> Error {
        damaged(&self.path, &error.to_string())
    }

    fn read_keys(&mut self, laws: &[String]) -> Result<()> {
        let rows = self.starts[self.starts.len() - 1];
        let torn = || Error::Input {
            file: self.path.clone(),
            message: "does not hold one row for every law of every curve, in the order in which they were written; \
                      --since takes fits as they were written"
                .to_string(),
        };
        if !rows.is_multiple_of(laws.len()) {
            return Err(torn());
        }
        let mut columns: Vec<&str> = self.schema.names().iter().map(String::as_str).collect();
        let keys = columns.len();
        columns.extend(["law", FINGERPRINT]);
        let mut row = 0;
        let mut all = self.schema.no_keys();
        let mut fingerprints = Vec::with_capacity(rows / laws.len());
        for group in 0..self.starts.len() - 1 {
            let batch = self.decode(group, Some(&columns))?;
            let own_laws = texts(&batch.columns()[keys]).map_err(|error| self.failed(&error))?;
            let own_laws = own_laws.as_string::<i32>();
            let prints = batch.columns()[keys + 1].as_primitive::<UInt64Type>().values();
            let mut firsts = Vec::with_capacity(batch.num_rows() / laws.len() + 1);
            for at in 0..batch.num_rows() {
                let law = (row + at) % laws.len();
                if own_laws.value(at) != laws[law] {
                    return Err(torn());
                }
                if law == 0 {
                    firsts.push(at as u32);
                    fingerprints.push(prints[at]);
                } else if fingerprints.last() != Some(&prints[at]) {
                    return Err(torn());
                }
            }
            row += batch.num_rows();
            if keys > 0 {
                let (encoded, _) =
                    self.schema.encode(&batch.columns()[..keys], firsts).map_err(|error| self.failed(&error))?;
                encoded.iter().for_each(|key| all.push(key));
            }
        }
        (self.keys, self.fingerprints) = (all, fingerprints);
        Ok(())
    }

    /// A row group, whole or of some columns, in that order, in the types of the file.
    fn decode(&self, group: usize, columns: Option<&[&str]>) -> Result<RecordBatch> {
        let file = self.file();
        let Format::Parquet(metadata) = &file.format else { unreachable!("checked on opening") };
        let rows = (self.starts[group + 1] - self.starts[group]).max(1);
        let batch = decoding(&self.path, || {
            let bytes = File::open(&self.path)?;
            let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata.clone())
                .with_row_groups(vec![group])
                .with_batch_size(rows);
            if let Some(columns) = columns {
                let roots = columns.iter().filter_map(|name| file.schema.index_of(name).ok());
                builder = builder.with_projection(ProjectionMask::roots(metadata.parquet_schema(), roots));
            }
            let mut reader = builder.build()?;
            let first = reader.next().transpose()?.unwrap_or_else(|| RecordBatch::new_empty(file.schema.clone()));
            Ok::<_, parquet::errors::ParquetError>(first)
        })?;
        let ordered = |columns: &[&str]| {
            let at: std::result::Result<Vec<usize>, ArrowError> =
                columns.iter().map(|name| batch.schema().index_of(name)).collect();
            batch.project(&at?)
        };
        match columns {
            Some(columns) => ordered(columns).map_err(|error| self.failed(&error)),
            None => Ok(batch),
        }
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
                Some(self.schema.encode(columns, at).map_err(|error| self.failed(&error))?)
            }
        };
        // Most curves come again in the order in which they stood.
        let mut next = usize::try_from(first).unwrap_or(usize::MAX);
        let found = fingerprints.iter().enumerate().map(|(curve, &fingerprint)| {
            let key = encoded.as_ref().map(|(rows, hashes)| (rows.row(curve), hashes[curve]));
            let found = self.find_one(key, fingerprint, next);
            if let Found::Same(at) | Found::Changed(at) = found {
                self.seen[at as usize].store(true, Ordering::Relaxed);
                next = at as usize + 1;
            }
            found
        });
        Ok(found.collect())
    }

    fn find_one(&self, key: Option<(Row, u64)>, fingerprint: u64, next: usize) -> Found {
        let is = |at: usize| match key {
            _ if at >= self.len() => false,
            Some((key, _)) => self.keys.row(at).data() == key.data(),
            None => true,
        };
        if is(next) && self.fingerprints[next] == fingerprint {
            return Found::Same(next as u32);
        }
        let hash = key.map_or(0, |(_, hash)| hash);
        let [by_key, by_content] = self.places.get_or_init(|| self.places());
        let same = by_content.get(&mixed(hash, fingerprint)).copied();
        if let Some(at) = same.filter(|&at| self.fingerprints[at as usize] == fingerprint && is(at as usize)) {
            return Found::Same(at);
        }
        // Without keys every row is a curve of its own, and has no name by which it could be another one's successor.
        let changed = key.and_then(|_| by_key.get(&hash).copied());
        changed.filter(|&at| is(at as usize)).map_or(Found::New, Found::Changed)
    }

    fn places(&self) -> [Places; 2] {
        let mut places = [Places::default(), Places::default()];
        for (at, &fingerprint) in self.fingerprints.iter().enumerate().rev() {
            let hash = match self.keys.num_rows() {
                0 => 0,
                _ => super::keys::hash(self.keys.row(at).data()),
            };
            places[0].insert(hash, at as u32);
            places[1].insert(mixed(hash, fingerprint), at as u32);
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
            let batch = self.decode(group, None).map_err(|error| error.to_string())?;
            let columns = self.layout.schema.fields().iter().map(|field| {
                if TONIGHT.contains(&field.name().as_str()) {
                    return Ok(new_null_array(field.data_type(), batch.num_rows()));
                }
                let column = batch.column_by_name(field.name()).expect("checked on opening");
                if column.data_type() == field.data_type() {
                    Ok(column.clone())
                } else {
                    cast(column, field.data_type())
                }
            });
            let columns = columns.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
            RecordBatch::try_new(self.layout.schema.clone(), columns).map_err(|error| error.to_string())
        });
        decoded.clone().map_err(|message| Error::Input { file: self.path.clone(), message })
    }

    /// The rows of a curve: the row group's table and the rows in it; a curve's rows may lie in two groups.
    fn rows(&self, place: u32, laws: usize) -> Result<(RecordBatch, usize)> {
        let row = place as usize * self.laws + laws;
        let group = self.starts.partition_point(|&start| start <= row) - 1;
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
                let group = self.starts.partition_point(|&start| start <= row) - 1;
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

fn mixed(hash: u64, fingerprint: u64) -> u64 {
    let mut mixed = Fingerprint::default();
    mixed.add(hash);
    mixed.add(fingerprint);
    mixed.value()
}

fn texts(column: &ArrayRef) -> std::result::Result<ArrayRef, ArrowError> {
    cast(column, &arrow::datatypes::DataType::Utf8)
}
