//! What the tests of this module share: small tables and the files made of them.

use super::{Batch, Event, ReadOptions, Selection, Source, read};
use crate::error::Result;
use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use arrow::ipc::writer::{FileWriter, StreamWriter};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// A table of named columns.
pub fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .expect("columns of one length")
}

/// A table of f64 columns.
pub fn numbers_table(columns: &[(&str, &[f64])]) -> RecordBatch {
    table(columns.iter().map(|(name, values)| (*name, Arc::new(Float64Array::from(values.to_vec())) as _)).collect())
}

/// A Parquet file of one row group.
pub fn write_parquet(path: &Path, table: &RecordBatch) {
    write_parquet_in_groups(path, table, table.num_rows().max(1));
}

/// A Parquet file of row groups of `rows` rows.
pub fn write_parquet_in_groups(path: &Path, table: &RecordBatch, rows: usize) {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(rows)).build();
    let file = File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, table.schema(), Some(properties)).expect("a writer");
    writer.write(table).expect("rows");
    writer.close().expect("a footer");
}

/// An Arrow IPC file.
pub fn write_arrow_file(path: &Path, table: &RecordBatch) {
    let mut writer = FileWriter::try_new(File::create(path).expect("a file"), &table.schema()).expect("a writer");
    writer.write(table).expect("rows");
    writer.finish().expect("a footer");
}

/// An Arrow IPC stream.
pub fn write_arrow_stream(path: &Path, table: &RecordBatch) {
    let mut writer = StreamWriter::try_new(File::create(path).expect("a file"), &table.schema()).expect("a writer");
    writer.write(table).expect("rows");
    writer.finish().expect("an end");
}

/// Names as owned texts.
pub fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// A selection of columns, with a filter where `filter` is not empty.
pub fn selection(keys: &[&str], numbers: &[&str], filter: &str) -> Selection {
    let tree = (!filter.is_empty()).then(|| crate::formula::parse::parse_filter(filter).expect("a filter"));
    Selection { keys: names(keys), numbers: names(numbers), filter: tree.map(|tree| (filter.to_string(), tree)) }
}

/// All that a file gives after restarts, and whether there was one.
pub fn read_all(paths: &[&Path], selection: &Selection, threads: usize) -> Result<(Vec<Batch>, bool)> {
    let inputs: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let source = Source::open(&inputs)?;
    let options = ReadOptions { threads, ..ReadOptions::default() };
    let mut batches = Vec::new();
    let mut restarted = false;
    for event in read(&source, selection, &options)? {
        match event? {
            Event::Batch(batch) => batches.push(batch),
            Event::Restarted => {
                batches.clear();
                restarted = true;
            }
        }
    }
    Ok((batches, restarted))
}

/// Every curve as its key's description and its columns.
pub fn curves(batches: &[Batch]) -> Vec<(String, Vec<Vec<f64>>)> {
    let mut curves = Vec::new();
    for batch in batches {
        for curve in 0..batch.curves.len() {
            let rows = batch.curves.offsets[curve]..batch.curves.offsets[curve + 1];
            let columns = batch.curves.columns.iter().map(|column| column[rows.clone()].to_vec()).collect();
            curves.push((batch.keys.describe(curve), columns));
        }
    }
    curves
}
