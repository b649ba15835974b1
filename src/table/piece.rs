//! A stretch of rows, made ready for grouping: filtered, keys found, numbers as f64.
//!
//! In: the arrays of the needed columns. Out: a [`Piece`]: where in it a new key (or, with lists, a new curve) begins,
//! the keys there, the numbers. Works on one stretch alone, so that all stretches can be made ready in parallel.

use super::filter::Filter;
use super::keys::{KeySchema, starts};
use super::numbers::{Lists, to_f64, to_labels, to_lists};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{filter, prep_null_mask_filter};
use arrow::error::ArrowError;
use arrow::row::Rows;
use std::path::Path;

/// What is wanted of the needed columns, which are named by their index among them.
#[derive(Debug)]
pub(super) struct Wanted {
    pub needed: Vec<String>,
    pub keys: Vec<usize>,
    pub numbers: Vec<Number>,
    pub filter: Option<Filter>,
    pub schema: KeySchema,
}

/// A numeric column, or one of labels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Number {
    /// Index among the needed columns.
    pub column: usize,
    pub list: bool,
    /// See [`to_labels`].
    pub label: bool,
}

impl Number {
    fn read(self, columns: &[ArrayRef]) -> std::result::Result<ScalarBuffer<f64>, ArrowError> {
        let column = &columns[self.column];
        if self.label { to_labels(column) } else { to_f64(column) }
    }
}

impl Wanted {
    /// Whether each row is a curve.
    pub fn lists(&self) -> bool {
        self.numbers.iter().any(|number| number.list)
    }
}

/// Rows made ready.
#[derive(Debug)]
pub(super) struct Piece {
    /// Rows before the filter.
    pub rows_read: usize,
    /// Rows that the filter left out.
    pub rows_left_out: usize,
    /// The first row of every run of one key (with lists: of every curve).
    pub starts: Vec<usize>,
    /// How many rows there are; with lists: numbers.
    pub rows: usize,
    /// The key of every run.
    pub keys: Rows,
    /// A hash of every key.
    pub hashes: Vec<u64>,
    /// Whether every key is greater than the one before, as their encodings compare.
    pub rising: bool,
    /// One per numeric column, `rows` long.
    pub columns: Vec<ScalarBuffer<f64>>,
}

/// Makes the rows of a stretch ready; `file` and `first_row` are for messages.
pub(super) fn prepare(
    wanted: &Wanted,
    file: &Path,
    first_row: u64,
    rows: usize,
    mut columns: Vec<ArrayRef>,
) -> Result<Piece> {
    let failed = |error: ArrowError| Error::Input { file: file.to_path_buf(), message: error.to_string() };
    let rows_read = rows;
    let mut kept: Option<BooleanArray> = None;
    let mut rows = rows;
    if let Some(condition) = &wanted.filter {
        let column = |name: &str| {
            let index = wanted.needed.iter().position(|needed| needed == name);
            columns[index.expect("the filter's columns are among the needed ones")].clone()
        };
        let mut keep = condition.keep(rows, &column).map_err(failed)?;
        if keep.null_count() > 0 {
            keep = prep_null_mask_filter(&keep);
        }
        rows = keep.true_count();
        if rows < rows_read {
            for index in wanted.keys.iter().copied().chain(wanted.numbers.iter().map(|number| number.column)) {
                // A column can be key and number at once.
                if columns[index].len() == rows_read {
                    columns[index] = filter(&columns[index], &keep).map_err(failed)?;
                }
            }
            kept = Some(keep);
        }
    }
    let keys: Vec<ArrayRef> = wanted.keys.iter().map(|&index| columns[index].clone()).collect();
    let rows_left_out = rows_read - rows;
    if wanted.lists() {
        let at = (0..rows as u32).collect();
        let (keys, hashes) = wanted.encode(&keys, at).map_err(failed)?;
        let row_of = |row: usize| {
            let within = kept.as_ref().and_then(|kept| kept.values().set_indices().nth(row)).unwrap_or(row);
            first_row + within as u64 + 1
        };
        let describe = |row: usize| {
            let decoded = wanted.schema.decode(&keys, rows, 0).ok().filter(|_| !wanted.keys.is_empty());
            let key = decoded.map_or(String::new(), |decoded| format!(" ({})", decoded.describe(row)));
            format!("row {}{key}", row_of(row))
        };
        let (starts, length, columns) = flatten(wanted, file, rows, &columns, &describe)?;
        return Ok(Piece { rows_read, rows_left_out, starts, rows: length, keys, hashes, rising: false, columns });
    }
    let starts = starts(&keys, rows).map_err(failed)?;
    let (keys, hashes) = wanted.encode(&keys, starts.clone()).map_err(failed)?;
    let numbers = wanted.numbers.iter().map(|number| number.read(&columns));
    let columns = numbers.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?;
    let starts = starts.into_iter().map(|start| start as usize).collect();
    let rising = (1..keys.num_rows()).all(|run| keys.row(run - 1) < keys.row(run));
    Ok(Piece { rows_read, rows_left_out, starts, rows, keys, hashes, rising, columns })
}

impl Wanted {
    fn encode(&self, keys: &[ArrayRef], at: Vec<u32>) -> std::result::Result<(Rows, Vec<u64>), ArrowError> {
        if keys.is_empty() {
            return Ok((self.schema.no_keys(), Vec::new()));
        }
        self.schema.encode(keys, at)
    }
}

/// Rows of lists to one curve per row: starts, how many numbers, the numbers of every column.
fn flatten(
    wanted: &Wanted,
    file: &Path,
    rows: usize,
    columns: &[ArrayRef],
    describe: &dyn Fn(usize) -> String,
) -> Result<(Vec<usize>, usize, Vec<ScalarBuffer<f64>>)> {
    enum Column {
        Lists(Lists),
        Scalars(ScalarBuffer<f64>),
    }
    let failed = |error: ArrowError| Error::Input { file: file.to_path_buf(), message: error.to_string() };
    let mut taken = Vec::with_capacity(wanted.numbers.len());
    for number in &wanted.numbers {
        taken.push(if number.list {
            Column::Lists(to_lists(&columns[number.column]).map_err(failed)?)
        } else {
            Column::Scalars(number.read(columns).map_err(failed)?)
        });
    }
    let mut starts = Vec::with_capacity(rows);
    let mut lengths = Vec::with_capacity(rows);
    let mut total = 0;
    for row in 0..rows {
        // A null list beside lists is a curve without points, as a null list alone is.
        let mut length: Option<(usize, usize)> = None;
        let mut missing = false;
        for (index, column) in taken.iter().enumerate() {
            let Column::Lists(lists) = column else { continue };
            let Some(range) = &lists.rows[row] else {
                missing = true;
                continue;
            };
            match length {
                None => length = Some((index, range.len())),
                Some((first, length)) if length != range.len() => {
                    let name = |index: usize| &wanted.needed[wanted.numbers[index].column];
                    return Err(Error::Input {
                        file: file.to_path_buf(),
                        message: format!(
                            "{}: \"{}\" holds {length} numbers and \"{}\" holds {}; the lists of one row must be \
                             equally long (leave the row out with --where, or mend it)",
                            describe(row),
                            name(first),
                            name(index),
                            range.len()
                        ),
                    });
                }
                Some(_) => {}
            }
        }
        let length = if missing { 0 } else { length.map_or(0, |(_, length)| length) };
        starts.push(total);
        lengths.push(length);
        total += length;
    }
    let columns = taken.iter().map(|column| {
        let mut flat = Vec::with_capacity(total);
        for (row, &length) in lengths.iter().enumerate() {
            match column {
                Column::Scalars(values) => flat.extend(std::iter::repeat_n(values[row], length)),
                Column::Lists(lists) => {
                    if let Some(range) = lists.rows[row].as_ref().filter(|_| length > 0) {
                        flat.extend_from_slice(&lists.values[range.clone()]);
                    }
                }
            }
        }
        ScalarBuffer::from(flat)
    });
    Ok((starts, total, columns.collect()))
}
