//! Files to arrays: the parts that can be decoded on their own, and the decoding of one part.
//!
//! In: a file of the [`Source`](super::Source) and the names of the columns that are needed. Out: stretches of rows, in
//! the order of the file, as one array per needed column. A Parquet row group is one part, a large one several; the
//! other formats are one part per file. Only needed columns are read.

use super::content::Content;
use super::csv;
use super::guard::decoding;
use super::source::{Format, Partition, Place, TableFile};
use crate::error::Result;
use arrow::array::{ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use parquet::basic::Encoding;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use std::io::BufReader;
use std::ops::Range;
use std::sync::Arc;

/// Rows per decoded stretch, at most: its columns stay in the second-level cache until they were filtered and grouped, and are
/// small enough for the allocator to hand the same memory out again; fresh memory costs the system more than the decoding.
pub(super) const ROWS: usize = 16 * 1024;

/// Row groups above this are split, so that a file of one row group is still decoded by all threads. Pages of skipped
/// rows are passed over without being decompressed, so a part costs little more than its rows.
const ROWS_OF_A_PART: u64 = 1 << 20;

/// More parts than these in one row group only a damaged count of rows can mean.
const MOST_PARTS: u64 = 1 << 16;

/// A part of a file that can be decoded on its own.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Task {
    /// Index among the files of the source.
    pub file: usize,
    part: Part,
    /// How many rows of the file come before, as far as known.
    pub first_row: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    WholeFile,
    RowGroup { index: usize, rows: Range<u64>, whole: bool },
}

/// The parts of a file in their order.
pub(super) fn tasks(index: usize, file: &TableFile, lists: bool) -> Vec<Task> {
    let Format::Parquet(metadata) = &file.format else {
        return vec![Task { file: index, part: Part::WholeFile, first_row: 0 }];
    };
    let mut tasks = Vec::new();
    let mut first_row = 0u64;
    for (group, metadata) in metadata.metadata().row_groups().iter().enumerate() {
        let rows = u64::try_from(metadata.num_rows()).unwrap_or(0);
        // In a column of lists the rows of a page are found by decoding it, so a skipped row costs as much as a read one.
        // From a store a row group comes as a whole.
        let split =
            !file.content.is_remote() && !lists && rows > ROWS_OF_A_PART * 3 / 2 && rows / ROWS_OF_A_PART < MOST_PARTS;
        let parts = if split { rows.div_ceil(ROWS_OF_A_PART) } else { 1 };
        for part in 0..parts {
            let range = rows * part / parts..rows * (part + 1) / parts;
            let first_row = first_row.saturating_add(range.start);
            let part = Part::RowGroup { index: group, rows: range, whole: parts == 1 };
            tasks.push(Task { file: index, part, first_row });
        }
        first_row = first_row.saturating_add(rows);
    }
    tasks
}

/// Decodes a part and hands over its rows, stretch by stretch: number of rows, then one array per place of `places`.
/// Ends early where `sink` returns false.
pub(super) fn decode(
    task: &Task,
    file: &TableFile,
    places: &[Place],
    sink: &mut dyn FnMut(usize, Vec<ArrayRef>) -> Result<bool>,
) -> Result<()> {
    let mut projection: Vec<usize> =
        places.iter().filter_map(|place| if let Place::Column(index) = place { Some(*index) } else { None }).collect();
    projection.sort_unstable();
    projection.dedup();
    if projection.is_empty() {
        // All that is needed comes from the folders; some column must still say how many rows there are.
        projection.push(0);
    }
    let mut hand_over = |rows: usize, columns: &[ArrayRef]| -> Result<bool> {
        let arrays = places.iter().map(|place| match place {
            // Found: the projection was made of these places.
            Place::Column(index) => columns[projection.binary_search(index).expect("a projected column")].clone(),
            Place::Partition(index) => constant(&file.partitions[*index], rows),
        });
        sink(rows, arrays.collect())
    };
    match (&file.format, &task.part) {
        (Format::Parquet(metadata), Part::RowGroup { index, rows, whole }) => {
            let range = (!whole).then(|| rows.clone());
            let mut reader =
                decoding(&file.path, || open_row_group(&file.content, metadata, *index, range, &projection))?;
            while let Some(batch) = decoding(&file.path, || reader.next().transpose())? {
                if !hand_over(batch.num_rows(), batch.columns())? {
                    break;
                }
            }
        }
        (Format::Csv(format), _) => {
            for columns in csv::read(&file.content, format, &file.schema, &projection)? {
                let columns = columns?;
                if !hand_over(columns[0].len(), &columns)? {
                    break;
                }
            }
        }
        (Format::ArrowFile, _) => {
            let bytes = decoding(&file.path, || file.content.stream())?;
            let reader = decoding(&file.path, || FileReader::try_new(BufReader::new(bytes), Some(projection.clone())))?;
            in_stretches(file, reader, &mut hand_over)?;
        }
        (Format::ArrowStream, _) => {
            let bytes = BufReader::with_capacity(1 << 20, decoding(&file.path, || file.content.stream())?);
            let reader = decoding(&file.path, || StreamReader::try_new(bytes, Some(projection.clone())))?;
            in_stretches(file, reader, &mut hand_over)?;
        }
        (Format::Parquet(_), Part::WholeFile) => {}
    }
    Ok(())
}

/// Hands over the batches of a reader; those of other writers may be as large as their file.
fn in_stretches(
    file: &TableFile,
    mut reader: impl Iterator<Item = std::result::Result<RecordBatch, ArrowError>>,
    sink: &mut dyn FnMut(usize, &[ArrayRef]) -> Result<bool>,
) -> Result<()> {
    while let Some(batch) = decoding(&file.path, || reader.next().transpose())? {
        for start in (0..batch.num_rows()).step_by(ROWS) {
            let rows = ROWS.min(batch.num_rows() - start);
            if !sink(rows, batch.slice(start, rows).columns())? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Where a column of a row group lies in its file.
pub(super) fn byte_range(column: &ColumnChunkMetaData) -> Range<u64> {
    let (start, length) = column.byte_range();
    start..start.saturating_add(length)
}

/// A value for all rows, in the space of one and an index per row.
pub(super) fn constant(partition: &Partition, rows: usize) -> ArrayRef {
    let Some(value) = &partition.value else {
        return new_null_array(&partition.data_type(), rows);
    };
    match value.parse::<i64>() {
        Ok(integer) if partition.integer => Arc::new(Int64Array::from_value(integer, rows)),
        _ => {
            let values = Arc::new(StringArray::from(vec![value.as_str()]));
            let text = DictionaryArray::<Int32Type>::try_new(Int32Array::from_value(0, rows), values);
            Arc::new(text.expect("every index is that of the only value"))
        }
    }
}

fn open_row_group(
    content: &Content,
    metadata: &ArrowReaderMetadata,
    index: usize,
    range: Option<Range<u64>>,
    projection: &[usize],
) -> std::result::Result<ParquetRecordBatchReader, ParquetError> {
    let group = metadata.metadata().row_group(index);
    let schema = text_as_decoded_fastest(metadata, index, projection);
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    let typed = ArrowReaderMetadata::try_new(metadata.metadata().clone(), options)?;
    let mask = ProjectionMask::roots(metadata.parquet_schema(), projection.iter().copied());
    // Lists: as many rows as give about as many numbers as other columns have rows.
    let leaves: Vec<usize> = (0..group.num_columns()).filter(|&leaf| mask.leaf_included(leaf)).collect();
    let values = leaves.iter().map(|&leaf| group.column(leaf).num_values().max(0)).max().unwrap_or(0);
    let rows = group.num_rows().max(1);
    let per_row = usize::try_from(values / rows).unwrap_or(1).max(1);
    let batch_size = (4 * ROWS / per_row).clamp(1, ROWS);
    let ranges: Vec<Range<u64>> = leaves.iter().map(|&leaf| byte_range(group.column(leaf))).collect();
    let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(content.chunks(&ranges)?, typed)
        .with_row_groups(vec![index])
        .with_projection(mask)
        .with_batch_size(batch_size);
    if let Some(range) = range {
        let skipped = usize::try_from(range.start).unwrap_or(usize::MAX);
        let taken = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let selection = RowSelection::from(vec![RowSelector::skip(skipped), RowSelector::select(taken)]);
        builder = builder.with_row_selection(selection);
    }
    builder.build()
}

/// The file's schema with needed text as dictionaries where every page of the row group is an index into one (most
/// rows repeat the key of the row before, so nothing but indices is touched), else as views into the decoded pages.
fn text_as_decoded_fastest(metadata: &ArrowReaderMetadata, group: usize, projection: &[usize]) -> Schema {
    fn is_text(data_type: &DataType) -> bool {
        match data_type {
            DataType::Dictionary(_, value) => is_text(value),
            other => matches!(other, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        }
    }
    let group = metadata.metadata().row_group(group);
    let fields = metadata.schema().fields().iter().enumerate().map(|(root, field)| {
        if !is_text(field.data_type()) || projection.binary_search(&root).is_err() {
            return field.clone();
        }
        let leaf = (0..group.num_columns()).find(|&leaf| metadata.parquet_schema().get_column_root_idx(leaf) == root);
        let indexed = leaf
            .and_then(|leaf| group.column(leaf).page_encoding_stats_mask())
            .is_some_and(|pages| pages.is_only(Encoding::RLE_DICTIONARY) || pages.is_only(Encoding::PLAIN_DICTIONARY));
        let data_type = if indexed {
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
        } else {
            DataType::Utf8View
        };
        Arc::new(Field::clone(field).with_data_type(data_type))
    });
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), metadata.schema().metadata().clone())
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::super::testing::*;
    use super::*;
    use arrow::array::{Array, AsArray, Float64Array};
    use arrow::compute::cast;
    use arrow::datatypes::Float64Type;

    #[test]
    fn a_large_row_group_is_decoded_in_parts_that_join_without_a_seam() {
        let rows = (ROWS_OF_A_PART * 2 + 12_345) as usize;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        let values: Vec<Option<f64>> = (0..rows).map(|row| (row % 7 != 3).then_some(row as f64)).collect();
        let texts: StringArray = (0..rows).map(|row| Some(format!("k{}", row / 1_000))).collect();
        write_parquet_in_groups(
            &path,
            &table(vec![("k", Arc::new(texts)), ("x", Arc::new(Float64Array::from(values.clone())))]),
            10 * rows,
        );
        let source = Source::open(&[path.display().to_string()]).expect("a source");
        let file = &source.tables()[0];
        let tasks = tasks(0, file, false);
        assert_eq!(tasks.len(), 3);
        let mut read = Vec::new();
        for task in &tasks {
            assert_eq!(task.first_row, read.len() as u64);
            decode(task, file, &[Place::Column(1), Place::Column(0)], &mut |_, columns| {
                let texts = cast(&columns[1], &DataType::Utf8).expect("text");
                let numbers = columns[0].as_primitive::<Float64Type>();
                for row in 0..texts.len() {
                    assert_eq!(texts.as_string::<i32>().value(row), format!("k{}", read.len() / 1_000));
                    read.push(numbers.is_valid(row).then(|| numbers.value(row)));
                }
                Ok(true)
            })
            .expect("rows");
        }
        assert!(read == values);
    }
}
