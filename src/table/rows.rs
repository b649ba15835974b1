//! Plain rows: tables whose rows stand for themselves, such as fits, draws of parameters and points to predict at.
//!
//! In: a source and the columns wanted of it, by what they hold. Out: a [`RowReader`], an iterator of [`Rows`] in the order
//! of the files; its queue is bounded, so that the size of the table does not set the memory. A [`Joiner`] tells which rows
//! of two tables have the same key.

use super::decode::{decode, tasks};
use super::keys::{KeySchema, Keys, data_type_compared};
use super::numbers::{to_f64, to_lists};
use super::source::{ColumnKind, Format, Source};
use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, concat};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use crossbeam_channel::{Receiver, bounded};
use std::collections::BTreeMap;
use std::path::Path;

/// Which columns of a table are wanted, by what they hold.
#[derive(Debug, Clone, Default)]
pub struct RowSelection {
    /// Columns that name a row.
    pub keys: Vec<String>,
    /// Columns of text.
    pub texts: Vec<String>,
    /// Columns of numbers.
    pub numbers: Vec<String>,
    /// Columns of lists of numbers.
    pub lists: Vec<String>,
    /// Rows come in whole groups of so many, the last ones excepted; 0 counts as 1.
    pub group: usize,
}

/// Some consecutive rows.
#[derive(Debug, Clone)]
pub struct Rows {
    pub keys: Keys,
    /// Null is the empty text.
    pub texts: Vec<Vec<String>>,
    /// Null is NaN.
    pub numbers: Vec<Vec<f64>>,
    /// Null is an empty list.
    pub lists: Vec<Vec<Vec<f64>>>,
}

/// Batches of rows in the order of the table.
pub struct RowReader {
    schema: KeySchema,
    batches: Receiver<Result<Rows>>,
}

/// Batches that wait, decoded.
const WAITING: usize = 2;

/// The key–value metadata of the first file; empty where its format has none.
pub fn metadata(source: &Source) -> BTreeMap<String, String> {
    let Some(Format::Parquet(metadata)) = source.tables().first().map(|file| &file.format) else {
        return BTreeMap::new();
    };
    let pairs = metadata.metadata().file_metadata().key_value_metadata().into_iter().flatten();
    pairs.map(|pair| (pair.key.clone(), pair.value.clone().unwrap_or_default())).collect()
}

impl RowReader {
    /// Starts to read.
    ///
    /// # Errors
    /// Columns that are missing or hold something else than is wanted of them.
    pub fn open(source: &Source, selection: &RowSelection) -> Result<RowReader> {
        let schema = KeySchema::new(source, &selection.keys)?;
        let kinds = [
            (&selection.texts, ColumnKind::Text, "text"),
            (&selection.numbers, ColumnKind::Number, "numbers"),
            (&selection.lists, ColumnKind::ListOfNumbers, "lists of numbers"),
        ];
        for (names, kind, what) in kinds {
            for name in names {
                let column = source.column(name)?;
                if column.kind != kind {
                    let message = format!("is {}; expected {what}", column.type_name);
                    return Err(Error::Column { column: name.clone(), message });
                }
            }
        }
        let names = [&selection.keys, &selection.texts, &selection.numbers, &selection.lists];
        let needed: Vec<String> = names.into_iter().flatten().cloned().collect();
        let (sender, batches) = bounded(WAITING);
        let work = Work { source: source.clone(), schema: schema.clone(), selection: selection.clone(), needed };
        let thread = std::thread::Builder::new().name("read".to_string()).spawn(move || {
            // The receiver is gone where the caller has failed and says so itself.
            let mut send = |rows| sender.send(rows).is_ok();
            if let Err(error) = work.read(&mut send) {
                send(Err(error));
            }
        });
        thread.map_err(|error| Error::Usage(format!("cannot start a thread: {error}")))?;
        Ok(RowReader { schema, batches })
    }

    /// The names and types of the key columns.
    pub fn key_schema(&self) -> &KeySchema {
        &self.schema
    }
}

impl Iterator for RowReader {
    type Item = Result<Rows>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batches.recv().ok()
    }
}

/// What the reading thread knows.
struct Work {
    source: Source,
    schema: KeySchema,
    selection: RowSelection,
    needed: Vec<String>,
}

impl Work {
    /// Decodes all files; `send` says whether anybody still listens.
    fn read(&self, send: &mut dyn FnMut(Result<Rows>) -> bool) -> Result<()> {
        let group = self.selection.group.max(1);
        let mut first = 0;
        let mut rest: Option<Vec<ArrayRef>> = None;
        for (index, file) in self.source.tables().iter().enumerate() {
            let mut places = Vec::with_capacity(self.needed.len());
            for name in &self.needed {
                places.push(file.place(name)?.ok_or_else(|| self.source.missing(name))?);
            }
            for task in tasks(index, file, !self.selection.lists.is_empty()) {
                let mut listens = true;
                decode(&task, file, &places, &mut |rows, columns| {
                    let joined = match rest.take() {
                        Some(rest) => rest
                            .iter()
                            .zip(&columns)
                            .map(|(a, b)| concat(&[&cast(a, b.data_type())?, b]))
                            .collect::<std::result::Result<Vec<_>, ArrowError>>()
                            .map_err(|error| damaged(&file.path, &error))?,
                        None => columns,
                    };
                    let length = joined.first().map_or(rows, |column| column.len());
                    let whole = length / group * group;
                    let part = |start: usize, length: usize| -> Vec<ArrayRef> {
                        joined.iter().map(|column| column.slice(start, length)).collect()
                    };
                    if whole < length {
                        rest = Some(part(whole, length - whole));
                    }
                    if whole > 0 {
                        listens = send(self.rows(&file.path, whole, first, part(0, whole)));
                        first += whole as u64;
                    }
                    Ok(listens)
                })?;
                if !listens {
                    return Ok(());
                }
            }
        }
        if let (Some(rest), Some(file)) = (rest, self.source.files().last()) {
            send(self.rows(file, rest[0].len(), first, rest));
        }
        Ok(())
    }

    fn rows(&self, file: &Path, rows: usize, first: u64, mut columns: Vec<ArrayRef>) -> Result<Rows> {
        let failed = |error: ArrowError| damaged(file, &error);
        let selection = &self.selection;
        let mut rest = columns.split_off(selection.keys.len()).into_iter();
        let encoded = if columns.is_empty() {
            self.schema.no_keys()
        } else {
            self.schema.encode(&columns, (0..rows as u32).collect()).map_err(failed)?.0
        };
        let keys = self.schema.decode(&encoded, rows, first).map_err(failed)?;
        let mut texts = Vec::with_capacity(selection.texts.len());
        for column in rest.by_ref().take(selection.texts.len()) {
            let column = cast(&column, &DataType::Utf8).map_err(failed)?;
            texts.push(column.as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_string()).collect());
        }
        let mut numbers = Vec::with_capacity(selection.numbers.len());
        for column in rest.by_ref().take(selection.numbers.len()) {
            numbers.push(to_f64(&column).map_err(failed)?.to_vec());
        }
        let mut lists = Vec::with_capacity(selection.lists.len());
        for column in rest {
            let column = to_lists(&column).map_err(failed)?;
            let list = |range: &Option<std::ops::Range<usize>>| {
                range.as_ref().map_or(Vec::new(), |range| column.values[range.clone()].to_vec())
            };
            lists.push(column.rows.iter().map(list).collect());
        }
        Ok(Rows { keys, texts, numbers, lists })
    }
}

fn damaged(file: &Path, error: &ArrowError) -> Error {
    Error::Input { file: file.to_path_buf(), message: error.to_string() }
}

/// What is equal for equal keys.
pub type Identity = Box<[u8]>;

/// Tells equal keys of two tables.
#[derive(Debug, Clone)]
pub struct Joiner(KeySchema);

impl Joiner {
    /// Joins on the columns `names` of both tables.
    ///
    /// # Errors
    /// A column that is missing in either, or has types that cannot be equal.
    pub fn new(one: &Source, other: &Source, names: &[String]) -> Result<Joiner> {
        let (schema, theirs) = (KeySchema::new(one, names)?, KeySchema::new(other, names)?);
        for ((name, a), b) in names.iter().zip(schema.types()).zip(theirs.types()) {
            let integers = a.is_integer() && b.is_integer();
            if data_type_compared(a) != data_type_compared(b) && !integers {
                return Err(Error::Column {
                    column: name.clone(),
                    message: format!("is {a} in one table and {b} in the other; write both in one type"),
                });
            }
        }
        Ok(Joiner(schema))
    }

    /// What is equal for equal keys, one per row.
    ///
    /// # Errors
    /// An integer of one table that the other's type cannot hold.
    pub fn identities(&self, keys: &Keys) -> Result<Vec<Identity>> {
        let column = |name: &String| {
            let position = keys.schema().names().iter().position(|known| known == name);
            keys.columns()[position.expect("both tables were asked for these keys")].clone()
        };
        let columns: Vec<ArrayRef> = self.0.names().iter().map(column).collect();
        if columns.is_empty() {
            return Ok(vec![Box::default(); keys.len()]);
        }
        let encoded = self.0.encode(&columns, (0..keys.len() as u32).collect());
        let (rows, _) = encoded.map_err(|error| Error::Usage(format!("keys cannot be compared: {error}")))?;
        Ok(rows.iter().map(|row| row.data().into()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use arrow::array::{Float64Array, Int32Array, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Float64Type;
    use std::sync::Arc;

    fn source(path: &Path) -> Source {
        Source::open(&[path.display().to_string()]).expect("a source")
    }

    #[test]
    fn rows_come_in_whole_groups_across_row_groups() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        let lists = (0..10).map(|i| (i != 4).then(|| vec![Some(f64::from(i)); 3]));
        let batch = table(vec![
            ("k", Arc::new(Int64Array::from_iter_values(0..10))),
            ("law", Arc::new(StringArray::from_iter_values((0..10).map(|i| format!("law {}", i % 2))))),
            ("x", Arc::new(Float64Array::from_iter((0..10).map(|i| (i != 7).then_some(f64::from(i)))))),
            ("c", Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(lists))),
        ]);
        write_parquet_in_groups(&path, &batch, 3);
        let selection = RowSelection {
            keys: names(&["k"]),
            texts: names(&["law"]),
            numbers: names(&["x"]),
            lists: names(&["c"]),
            group: 2,
        };
        let batches: Vec<Rows> =
            RowReader::open(&source(&path), &selection).expect("a reader").map(|rows| rows.expect("rows")).collect();
        let lengths: Vec<usize> = batches.iter().map(|rows| rows.keys.len()).collect();
        assert_eq!((lengths.iter().sum::<usize>(), lengths.iter().all(|length| length % 2 == 0)), (10, true));
        let x: Vec<f64> = batches.iter().flat_map(|rows| rows.numbers[0].clone()).collect();
        assert!(x[7].is_nan() && x[8] == 8.0);
        let c: Vec<Vec<f64>> = batches.iter().flat_map(|rows| rows.lists[0].clone()).collect();
        assert_eq!((c[4].len(), c[9].as_slice()), (0, &[9.0; 3][..]));
        assert_eq!(batches.last().expect("a batch").texts[0].last().map(String::as_str), Some("law 1"));
    }

    #[test]
    fn keys_of_two_tables_are_equal_whatever_the_width_of_their_integers_and_never_across_kinds() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, other, text] = ["a", "b", "c"].map(|name| folder.path().join(format!("{name}.parquet")));
        write_parquet(&one, &table(vec![("k", Arc::new(Int64Array::from(vec![1, 2])))]));
        write_parquet(&other, &table(vec![("k", Arc::new(Int32Array::from(vec![2, 1])))]));
        write_parquet(&text, &table(vec![("k", Arc::new(StringArray::from(vec!["1"])))]));
        let keys = names(&["k"]);
        let joiner = Joiner::new(&source(&one), &source(&other), &keys).expect("a join");
        let read = |path: &Path| {
            let selection = RowSelection { keys: keys.clone(), ..RowSelection::default() };
            let rows = RowReader::open(&source(path), &selection).expect("a reader").next();
            joiner.identities(&rows.expect("a batch").expect("rows").keys).expect("identities")
        };
        let (a, b) = (read(&one), read(&other));
        assert_eq!((&a[0], &a[1]), (&b[1], &b[0]));
        let message = Joiner::new(&source(&one), &source(&text), &keys).expect_err("two kinds").to_string();
        assert!(message.contains("column \"k\"") && message.contains("one type"), "{message}");
    }
}
