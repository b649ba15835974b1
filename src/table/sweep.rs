//! Writes a table of one string key and some numbers to Parquet, batch by batch: generated sweeps and their truth.
//!
//! In: keys with the rows that each owns, columns of f64. Out: a zstd Parquet file that appears under its name only when it
//! is complete. Memory is bounded by one row group, encoded, whatever the size of the file.

use crate::error::{Error, Result};
use arrow::array::{ArrayRef, Float64Array, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

/// An unfinished file; dropped before [`SweepWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct SweepWriter {
    path: PathBuf,
    schema: Arc<Schema>,
    writer: ArrowWriter<NamedTempFile>,
}

impl SweepWriter {
    /// Opens `path` for a string column `key` and f64 columns `numbers`, in row groups of `row_group` rows.
    ///
    /// # Errors
    /// [`Error::Output`] where a file cannot be made beside `path`.
    pub fn create(
        path: &Path,
        key: &str,
        numbers: &[String],
        row_group: usize,
        metadata: &[(String, String)],
    ) -> Result<Self> {
        let mut fields = vec![Field::new(key, DataType::Utf8, false)];
        fields.extend(numbers.iter().map(|name| Field::new(name, DataType::Float64, false)));
        let schema = Arc::new(Schema::new(fields));
        let metadata = metadata.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(Default::default()))
            .set_max_row_group_row_count(Some(row_group))
            .set_key_value_metadata(Some(metadata))
            .build();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".sweepfit-").suffix(".tmp");
        #[cfg(unix)]
        {
            // A temporary file is private by default; this one becomes the user's ordinary file (their umask applies).
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(folder).map_err(|error| unwritable(path, &error))?;
        let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties)).map_err(|e| unwritable(path, &e))?;
        Ok(SweepWriter { path: path.to_path_buf(), schema, writer })
    }

    /// Appends rows: key `i` stands in rows `offsets[i]..offsets[i + 1]` of every column.
    ///
    /// # Errors
    /// [`Error::Output`] where the disk is full or the file is gone.
    pub fn write(&mut self, keys: &[String], offsets: &[usize], columns: Vec<Vec<f64>>) -> Result<()> {
        let mut key = StringBuilder::new();
        for (name, rows) in keys.iter().zip(offsets.windows(2)) {
            (rows[0]..rows[1]).for_each(|_| key.append_value(name));
        }
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(key.finish())];
        arrays.extend(columns.into_iter().map(|column| Arc::new(Float64Array::from(column)) as ArrayRef));
        let batch =
            RecordBatch::try_new(self.schema.clone(), arrays).map_err(|error| unwritable(&self.path, &error))?;
        self.writer.write(&batch).map_err(|error| unwritable(&self.path, &error))
    }

    /// Completes the file and gives it its name, replacing what stood there.
    ///
    /// # Errors
    /// [`Error::Output`] where the last bytes or the name cannot be written.
    pub fn finish(self) -> Result<()> {
        let file = self.writer.into_inner().map_err(|error| unwritable(&self.path, &error))?;
        file.persist(&self.path).map_err(|error| unwritable(&self.path, &error.error))?;
        Ok(())
    }
}

fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> Error {
    let message = format!("cannot be written ({error}): choose another path with -o, or free the disk");
    Error::Output { file: path.to_path_buf(), message }
}
