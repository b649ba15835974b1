//! What the tests of the shipped binary share: running it, small tables in files, tables read back.

#![allow(dead_code, reason = "every test crate uses a part of this")]

pub mod nist;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

/// The sweep that the project ships: 500 ragged curves of `run`, `tokens`, `loss`.
pub const SWEEP: &str = "datasets/sweep.parquet";
/// How that sweep is fitted.
pub const SWEEP_FIT: [&str; 8] = ["--law", "saturating_power", "--x", "tokens", "--y", "loss", "--by", "run"];

/// What a run of the binary left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The binary, in the project's folder, without a terminal.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sweepfit"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command
}

/// Runs the binary.
pub fn run(arguments: &[&str]) -> Ran {
    command(arguments).output().expect("the binary starts").into()
}

/// A folder for one test, removed with it.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path of a file in it, as an argument.
    pub fn file(&self, name: &str) -> String {
        self.path(name).to_str().expect("temporary folders have names in UTF-8").to_string()
    }

    /// A text file in it, as an argument.
    pub fn text(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("a file");
        self.file(name)
    }

    /// The names of what lies in it, in order.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("the folder");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// Fits `input` by `arguments` and reads the table.
pub fn fit(input: &str, arguments: &[&str]) -> Table {
    let folder = Folder::new();
    let out = folder.file("fits.parquet");
    let ran = run(&[&["fit", input], arguments, &["-o", &out]].concat());
    assert_eq!(ran.code, 0, "{arguments:?}\n{}", ran.stderr);
    Table::read(Path::new(&out))
}

/// Runs a command that has to succeed, and reads the table that it writes.
pub fn made(folder: &Folder, name: &str, arguments: &[&str]) -> Table {
    let out = folder.file(name);
    let ran = run(&[arguments, &["-o", &out]].concat());
    assert_eq!(ran.code, 0, "{arguments:?}\n{}", ran.stderr);
    Table::read(Path::new(&out))
}

/// Splits a line of arguments.
pub fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// A line of arguments that has to succeed; OUT is the file `name`.
pub fn generated(folder: &Folder, name: &str, line: &str) -> String {
    let out = folder.file(name);
    let ran = run(&[&["generate", "-q"][..], &words(line), &["-o", &out]].concat());
    assert_eq!(ran.code, 0, "{line}\n{}", ran.stderr);
    out
}

/// Gadre et al. 2024: loss with over-training, fitted to the five small runs that [`gadre_filter`] keeps.
pub const GADRE_LAW: &str = "loss ~ E + a*params^b + c*6^(b/2)*(token_multiplier*params)^b";

/// Four models at 20 tokens per parameter, and the smallest at 320.
pub fn gadre_filter() -> String {
    let tied: Vec<String> = ["d=96_l=8_h=4", "d=512_l=8_h=4", "d=576_l=24_h=8", "d=1024_l=24_h=8"]
        .iter()
        .map(|model| format!("(model == '{model}' and token_multiplier == 20)"))
        .collect();
    format!("eval_set == 'c4_val' and ({} or (model == 'd=96_l=8_h=4' and token_multiplier == 320))", tied.join(" or "))
}

/// A column of a table: numbers with NaN for null, or texts.
#[derive(Debug, Clone)]
pub enum Column {
    Numbers(Vec<f64>),
    Texts(Vec<String>),
}

/// A whole table in memory.
#[derive(Debug, Clone)]
pub struct Table {
    pub names: Vec<String>,
    pub columns: HashMap<String, Column>,
    pub rows: usize,
    pub metadata: HashMap<String, String>,
}

impl Table {
    /// Reads a Parquet file.
    pub fn read(path: &Path) -> Table {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("a Parquet file");
        let schema = reader.schema().clone();
        let pairs = reader.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
        let metadata = pairs.into_iter().map(|pair| (pair.key, pair.value.unwrap_or_default())).collect();
        let batches: Vec<RecordBatch> = reader.build().expect("a reader").map(|batch| batch.expect("rows")).collect();
        let batch = arrow::compute::concat_batches(&schema, &batches).expect("batches of one schema");
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let columns = names.iter().cloned().zip(batch.columns().iter().map(column)).collect();
        Table { names, columns, rows: batch.num_rows(), metadata }
    }

    pub fn numbers(&self, name: &str) -> &[f64] {
        match &self.columns.get(name) {
            Some(Column::Numbers(values)) => values,
            other => panic!("{name}: {other:?}"),
        }
    }

    pub fn texts(&self, name: &str) -> &[String] {
        match &self.columns.get(name) {
            Some(Column::Texts(values)) => values,
            other => panic!("{name}: {other:?}"),
        }
    }

    pub fn number(&self, name: &str) -> f64 {
        assert_eq!(self.rows, 1, "one row was expected");
        self.numbers(name)[0]
    }

    /// The key of every row as one text.
    pub fn keys(&self, names: &[&str]) -> Vec<String> {
        let part = |name: &str, row: usize| match &self.columns[name] {
            Column::Numbers(values) => values[row].to_string(),
            Column::Texts(values) => values[row].clone(),
        };
        (0..self.rows).map(|row| names.iter().map(|name| part(name, row)).collect::<Vec<_>>().join("|")).collect()
    }

    /// Rows by key.
    pub fn index(&self, names: &[&str]) -> HashMap<String, usize> {
        self.keys(names).into_iter().enumerate().map(|(row, key)| (key, row)).collect()
    }

    /// How many rows have each status.
    pub fn statuses(&self) -> HashMap<&str, usize> {
        let mut counts = HashMap::new();
        for status in self.texts("status") {
            *counts.entry(status.as_str()).or_insert(0) += 1;
        }
        counts
    }

    /// The rows at `order`, in that order.
    pub fn take(&self, order: &[usize]) -> Table {
        let take = |column: &Column| match column {
            Column::Numbers(values) => Column::Numbers(order.iter().map(|&row| values[row]).collect()),
            Column::Texts(values) => Column::Texts(order.iter().map(|&row| values[row].clone()).collect()),
        };
        let columns = self.columns.iter().map(|(name, column)| (name.clone(), take(column))).collect();
        Table { names: self.names.clone(), columns, rows: order.len(), metadata: HashMap::new() }
    }

    /// Writes a Parquet file of row groups of `group` rows.
    pub fn write(&self, path: &Path, group: usize) {
        let array = |name: &String| -> ArrayRef {
            match &self.columns[name] {
                Column::Numbers(values) => {
                    Arc::new(Float64Array::from_iter(values.iter().map(|v| (!v.is_nan()).then_some(*v))))
                }
                Column::Texts(values) => Arc::new(StringArray::from_iter_values(values)),
            }
        };
        let batch =
            RecordBatch::try_from_iter_with_nullable(self.names.iter().map(|name| (name.as_str(), array(name), true)))
                .expect("columns of one length");
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
        let file = File::create(path).expect("a file");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a writer");
        writer.write(&batch).expect("rows");
        writer.close().expect("a footer");
    }
}

fn column(array: &ArrayRef) -> Column {
    if array.data_type().is_numeric() {
        let numbers = cast(array, &DataType::Float64).expect("numbers");
        return Column::Numbers(numbers.as_primitive::<Float64Type>().iter().map(|v| v.unwrap_or(f64::NAN)).collect());
    }
    let format = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array.as_ref(), &format).expect("a printable column");
    Column::Texts((0..array.len()).map(|row| formatter.value(row).to_string()).collect())
}

/// A file among the published data.
pub fn shared(name: &str) -> String {
    format!("{}/../shared/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// |a − b| as a share of |b|.
pub fn relative(a: f64, b: f64) -> f64 {
    ((a - b) / b).abs()
}

/// The largest of `values`, NaN being larger than all.
pub fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, |worst, value| if value <= worst || worst.is_nan() { worst } else { value })
}
