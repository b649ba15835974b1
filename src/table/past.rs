//! The table of fits of an earlier run: which of its curves come again, and their rows, to be carried over as they are.
//!
//! In: Parquet of this program with a column `fingerprint`, in one file or in parts, here or in a store; the keys of this run,
//! the layout of its output. Out: for the curves of a batch where they stood ([`Found`]), and blocks in which old and new rows
//! lie in the batch's order. Keys and fingerprints are in memory (`known`); the other columns are read a row group at a time,
//! when they are wanted.

use super::decode::{byte_range, constant};
use super::guard::{damaged, decoding};
use super::keys::{KeySchema, Keys, data_type_compared};
use super::known::{Found, Known};
use super::source::{Format, Place, Source, TableFile};
use super::write::{Block, Layout};
use crate::error::{Error, Result};
use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, MutableArrayData, RecordBatch, make_array, new_empty_array, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{FieldRef, Float64Type, UInt32Type};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::VecDeque;
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

/// What may be done about fits that are of no use.
pub const UNFIT: &str =
    "fit everything once without --since, with --fingerprint, or let such runs begin anew with --or-begin-anew";

/// The fits of an earlier run.
pub struct Past {
    source: Source,
    layout: Layout,
    /// Rows of a curve.
    laws: usize,
    /// Row groups in their order: file of the source and place in it.
    groups: Vec<(usize, usize)>,
    curves: Known,
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
        let mut groups = Vec::new();
        let mut starts = vec![0];
        for (index, file) in source.tables().iter().enumerate() {
            refuse_other_columns(file, layout)?;
            let Format::Parquet(metadata) = &file.format else {
                return Err(unfit(&file.path, "is not Parquet, and --since takes no other format".into()));
            };
            for (group, metadata) in metadata.metadata().row_groups().iter().enumerate() {
                let rows = usize::try_from(metadata.num_rows()).unwrap_or(0);
                starts.push(starts[starts.len() - 1] + rows);
                groups.push((index, group));
            }
        }
        let curves = Known::read(source, schema, laws, unique, interrupted)?;
        let laws = laws.len();
        let before = |group: usize| starts[group].div_ceil(laws);
        let left = (0..groups.len()).map(|group| AtomicUsize::new(before(group + 1) - before(group))).collect();
        let (source, layout, kept) = (source.clone(), layout.clone(), Mutex::default());
        Ok(Past { source, layout, laws, groups, curves, starts, kept, left })
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
        self.curves.len()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What became of every curve of a batch; `first` is the index in the run of the batch's first curve.
    ///
    /// # Errors
    /// Keys that cannot be compared.
    pub fn find(&self, keys: &Keys, fingerprints: &[u64], first: u64) -> Result<Vec<Found>> {
        self.curves.find(keys, fingerprints, first)
    }

    /// The keys of curves that did not come again, in their old order.
    ///
    /// # Errors
    /// Keys that cannot be shown.
    pub fn vanished(&self) -> Result<Vec<String>> {
        self.curves.vanished()
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
        let rows = runs.iter().map(|(.., rows)| rows).sum();
        let column = |(index, field): (usize, &FieldRef)| -> std::result::Result<ArrayRef, ArrowError> {
            if rows == 0 {
                return Ok(new_empty_array(field.data_type()));
            }
            let parts: Vec<ArrayData> = tables.iter().map(|table| table.column(index).to_data()).collect();
            let mut joined = MutableArrayData::new(parts.iter().collect(), false, rows);
            runs.iter().try_for_each(|&(table, row, rows)| joined.try_extend(table, row, row + rows))?;
            Ok(make_array(joined.freeze()))
        };
        let columns = self.layout.schema.fields().iter().enumerate().map(column);
        let columns = columns.collect::<std::result::Result<_, _>>().map_err(|error| self.failed(&error))?;
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
        self.curves.fingerprint(place)
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

fn refuse_other_columns(file: &TableFile, layout: &Layout) -> Result<()> {
    if file.schema.index_of(FINGERPRINT).is_err() {
        let message = "has no column \"fingerprint\", by which --since knows curves again";
        return Err(unfit(&file.path, message.into()));
    }
    for field in layout.schema.fields().iter().filter(|field| !TONIGHT.contains(&field.name().as_str())) {
        let Some(place) = file.place(field.name())? else {
            let message = format!("has no column \"{}\", which this run writes", field.name());
            return Err(unfit(&file.path, message));
        };
        let found = file.data_type(place);
        // What a folder's name holds is text, of whatever it was made.
        let own = matches!(place, Place::Column(_));
        if own && data_type_compared(&found) != data_type_compared(field.data_type()) {
            let (name, writes) = (field.name(), field.data_type());
            return Err(unfit(&file.path, format!("column \"{name}\" is {found} here, and this run writes {writes}")));
        }
    }
    Ok(())
}

/// The error for fits that cannot be carried over.
pub(super) fn unfit(path: &Path, message: String) -> Error {
    Error::Earlier { file: path.to_path_buf(), message, repair: UNFIT }
}
