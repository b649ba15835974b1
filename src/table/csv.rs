//! CSV: a header line, then rows; types are inferred from all values.
//!
//! A column is integer, float, boolean, date or timestamp where every value reads as one, else text. An empty field is
//! null; in columns that are not text so are `NA`, `N/A`, `null`, `NULL` and `None` (as other programs write them).

use super::content::{Content, Stream};
use super::guard::decoding;
use super::source::Format;
use crate::error::{Error, Result};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampNanosecondArray, UInt64Array, new_null_array,
};
use arrow::compute::kernels::cast_utils::{Parser, string_to_timestamp_nanos};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format as ArrowFormat;
use arrow::datatypes::{DataType, Date32Type, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

/// How a CSV file is laid out.
#[derive(Debug, Clone, Copy)]
pub(super) struct CsvFormat {
    delimiter: u8,
    /// Bytes before the header: a byte order mark.
    skip: u64,
}

/// Rows per batch: enough to spread the cost of a batch, few enough to overlap reading with what follows.
const ROWS: usize = 32 * 1024;

/// Reads the header; all columns are text until [`typed_schema`].
pub(super) fn open(file: &Content) -> Result<(Format, SchemaRef)> {
    file.copy_here()?;
    let path = &file.name;
    let delimiter = match path.extension().and_then(|extension| extension.to_str()) {
        Some(extension) if extension.eq_ignore_ascii_case("tsv") => b'\t',
        _ => b',',
    };
    let mut format = CsvFormat { delimiter, skip: 0 };
    let schema = decoding(path, || -> std::result::Result<_, ArrowError> {
        let mut mark = Vec::new();
        file.stream()?.take(3).read_to_end(&mut mark)?;
        if mark == [0xef, 0xbb, 0xbf] {
            format.skip = 3;
        }
        let (header, _) = ArrowFormat::default()
            .with_header(true)
            .with_delimiter(delimiter)
            .infer_schema(content(file, &format)?, Some(0))?;
        Ok(header)
    })?;
    if schema.fields().is_empty() {
        return Err(Error::Input {
            file: path.to_path_buf(),
            message: "has no header line; the first line must name the columns".to_string(),
        });
    }
    let texts = schema.fields().iter().map(|field| Field::new(field.name().trim(), DataType::Utf8, true));
    Ok((Format::Csv(format), Arc::new(Schema::new(texts.collect::<Vec<_>>()))))
}

fn content(file: &Content, format: &CsvFormat) -> std::io::Result<BufReader<Stream>> {
    let mut file = file.stream()?;
    file.seek(SeekFrom::Start(format.skip))?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

/// The rows of a file as text, only the columns of `projection`.
fn texts(
    file: &Content,
    format: &CsvFormat,
    schema: &SchemaRef,
    projection: Vec<usize>,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let texts = schema.fields().iter().map(|field| Field::new(field.name(), DataType::Utf8, true));
    let schema = Arc::new(Schema::new(texts.collect::<Vec<_>>()));
    let path = file.name.clone();
    let mut reader = decoding(&path, || {
        let builder = ReaderBuilder::new(schema).with_header(true).with_delimiter(format.delimiter);
        builder.with_batch_size(ROWS).with_projection(projection).build_buffered(content(file, format)?)
    })?;
    let mut failed = false;
    let mut rows = 0;
    Ok(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let batch = decoding(&path, || {
            let batch = reader.next().transpose()?;
            if let Some(batch) = &batch {
                refuse_torn_characters(batch, rows)?;
                rows += batch.num_rows();
            }
            Ok::<_, ArrowError>(batch)
        });
        failed = batch.is_err();
        batch.transpose()
    }))
}

/// The reader looks whether the fields are UTF-8 one behind the other, without the delimiters: a character whose bytes stand
/// partly in one field and partly in the next escapes it. `before`: rows of the file before these.
fn refuse_torn_characters(batch: &RecordBatch, before: usize) -> std::result::Result<(), ArrowError> {
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let texts = column.as_string::<i32>();
        if texts.value_data().is_ascii() {
            continue;
        }
        let torn = |ends: &[i32]| std::str::from_utf8(&texts.value_data()[ends[0] as usize..ends[1] as usize]).is_err();
        if let Some(row) = texts.value_offsets().windows(2).position(torn) {
            let (line, name) = (before + row + 2, field.name());
            return Err(ArrowError::CsvError(format!("invalid UTF-8 in line {line}, column \"{name}\"")));
        }
    }
    Ok(())
}

/// What the values of a column could still be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guess {
    seen: bool,
    integer: bool,
    unsigned: bool,
    float: bool,
    truth: bool,
    date: bool,
    /// Timestamps without and with a zone; never both in one column.
    local: bool,
    zoned: bool,
}

impl Guess {
    const ANY: Guess = Guess {
        seen: false,
        integer: true,
        unsigned: true,
        float: true,
        truth: true,
        date: true,
        local: true,
        zoned: true,
    };

    fn is_text(&self) -> bool {
        let Guess { integer, unsigned, float, truth, date, local, zoned, .. } = *self;
        self.seen && !(integer || unsigned || float || truth || date || local || zoned)
    }

    fn narrow(&mut self, text: &str) {
        self.seen = true;
        self.integer = self.integer && text.parse::<i64>().is_ok();
        self.unsigned = self.unsigned && text.parse::<u64>().is_ok();
        self.float = self.float && text.parse::<f64>().is_ok();
        self.truth = self.truth && truth(text).is_some();
        self.date = self.date && date(text).is_some();
        let instant = if self.local || self.zoned { timestamp(text) } else { None };
        self.local = self.local && instant.is_some() && !has_zone(text);
        self.zoned = self.zoned && instant.is_some() && has_zone(text);
    }

    fn data_type(&self) -> DataType {
        match self {
            Guess { seen: false, .. } => DataType::Null,
            Guess { integer: true, .. } => DataType::Int64,
            Guess { unsigned: true, .. } => DataType::UInt64,
            Guess { float: true, .. } => DataType::Float64,
            Guess { truth: true, .. } => DataType::Boolean,
            Guess { date: true, .. } => DataType::Date32,
            Guess { local: true, .. } => DataType::Timestamp(TimeUnit::Nanosecond, None),
            Guess { zoned: true, .. } => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            _ => DataType::Utf8,
        }
    }
}

/// A word for "no value"; in a column of text it is text.
fn is_missing(text: &str) -> bool {
    matches!(text, "" | "NA" | "N/A" | "null" | "NULL" | "None")
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn looks_like_a_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 10 && bytes[4] == b'-' && bytes[7] == b'-' && bytes[0].is_ascii_digit()
}

fn date(text: &str) -> Option<i32> {
    (text.len() == 10 && looks_like_a_date(text)).then(|| Date32Type::parse(text)).flatten()
}

fn timestamp(text: &str) -> Option<i64> {
    (text.len() > 10 && looks_like_a_date(text)).then(|| string_to_timestamp_nanos(text).ok()).flatten()
}

fn has_zone(text: &str) -> bool {
    text.ends_with('Z') || text.get(10..).is_some_and(|time| time.contains(['+', '-']))
}

/// Narrows the guesses of a file's columns by all its values.
pub(super) fn infer(
    file: &Content,
    format: &CsvFormat,
    schema: &SchemaRef,
    guesses: &mut BTreeMap<String, Guess>,
) -> Result<()> {
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    for batch in texts(file, format, schema, all)? {
        let batch = batch?;
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let guess = guesses.entry(field.name().clone()).or_insert(Guess::ANY);
            if guess.is_text() {
                continue;
            }
            for text in column.as_string::<i32>().iter().flatten().map(str::trim).filter(|text| !is_missing(text)) {
                guess.narrow(text);
            }
        }
    }
    Ok(())
}

/// The first value of a column that is no number, and its row, counted from 1 behind the header; None where all are.
pub(super) fn first_text(
    file: &Content,
    format: &CsvFormat,
    schema: &SchemaRef,
    column: usize,
) -> Result<Option<(usize, String)>> {
    let mut before = 0;
    for batch in texts(file, format, schema, vec![column])? {
        let batch = batch?;
        let values = batch.column(0).as_string::<i32>();
        let is_text = |text: &&str| !is_missing(text.trim()) && text.trim().parse::<f64>().is_err();
        let found = values.iter().enumerate().find_map(|(row, text)| Some((row, text.filter(is_text)?)));
        if let Some((row, text)) = found {
            return Ok(Some((before + row + 1, text.to_string())));
        }
        before += batch.num_rows();
    }
    Ok(None)
}

/// The schema with the types that were inferred.
pub(super) fn typed_schema(schema: &SchemaRef, guesses: &BTreeMap<String, Guess>) -> SchemaRef {
    let typed = schema.fields().iter().map(|field| {
        let guess = guesses.get(field.name()).copied().unwrap_or(Guess::ANY);
        Field::new(field.name(), guess.data_type(), true)
    });
    Arc::new(Schema::new(typed.collect::<Vec<_>>()))
}

/// The rows of a file in the types of `schema`, only the columns of `projection`, in its order.
pub(super) fn read(
    file: &Content,
    format: &CsvFormat,
    schema: &SchemaRef,
    projection: &[usize],
) -> Result<impl Iterator<Item = Result<Vec<ArrayRef>>> + use<>> {
    let batches = texts(file, format, schema, projection.to_vec())?;
    let fields: Vec<_> = projection.iter().map(|&index| schema.fields()[index].clone()).collect();
    let path = file.name.clone();
    Ok(batches.map(move |batch| {
        let batch = batch?;
        let columns = fields.iter().zip(batch.columns());
        columns.map(|(field, column)| convert(&path, field, column.as_string::<i32>())).collect()
    }))
}

fn convert(path: &Path, field: &Field, texts: &StringArray) -> Result<ArrayRef> {
    /// `None` for null, an error for what the type that was inferred cannot take.
    fn values<'a, T>(
        texts: &'a StringArray,
        parse: impl Fn(&str) -> Option<T> + 'a,
    ) -> impl Iterator<Item = std::result::Result<Option<T>, String>> + 'a {
        texts.iter().map(move |text| match text.map(str::trim) {
            None => Ok(None),
            Some(text) if is_missing(text) => Ok(None),
            Some(text) => parse(text).map(Some).ok_or_else(|| text.to_string()),
        })
    }
    let converted: std::result::Result<ArrayRef, String> = match field.data_type() {
        DataType::Null => Ok(new_null_array(&DataType::Null, texts.len())),
        DataType::Int64 => values(texts, |text| text.parse().ok())
            .collect::<std::result::Result<Int64Array, _>>()
            .map(|array| Arc::new(array) as ArrayRef),
        DataType::UInt64 => values(texts, |text| text.parse().ok())
            .collect::<std::result::Result<UInt64Array, _>>()
            .map(|array| Arc::new(array) as ArrayRef),
        DataType::Float64 => values(texts, |text| text.parse().ok())
            .collect::<std::result::Result<Float64Array, _>>()
            .map(|array| Arc::new(array) as ArrayRef),
        DataType::Boolean => values(texts, truth)
            .collect::<std::result::Result<BooleanArray, _>>()
            .map(|array| Arc::new(array) as ArrayRef),
        DataType::Date32 => values(texts, date)
            .collect::<std::result::Result<Date32Array, _>>()
            .map(|array| Arc::new(array) as ArrayRef),
        DataType::Timestamp(_, zone) => values(texts, timestamp)
            .collect::<std::result::Result<TimestampNanosecondArray, _>>()
            .map(|array| Arc::new(array.with_timezone_opt(zone.clone())) as ArrayRef),
        _ => Ok(Arc::new(texts.clone()) as ArrayRef),
    };
    converted.map_err(|text| Error::Input {
        file: path.to_path_buf(),
        message: format!("changed while it was read: column \"{}\" now holds '{text}'; run again", field.name()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> (Vec<DataType>, Vec<ArrayRef>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.csv");
        std::fs::write(&path, text).expect("a file");
        let file = Content::open(&path, &Default::default()).expect("a file");
        let (format, schema) = open(&file).expect("a header");
        let Format::Csv(format) = format else { panic!("not CSV") };
        let mut guesses = BTreeMap::new();
        infer(&file, &format, &schema, &mut guesses).expect("types");
        let schema = typed_schema(&schema, &guesses);
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let mut batches = read(&file, &format, &schema, &all).expect("a reader");
        let columns = batches.next().expect("a batch").expect("columns");
        (schema.fields().iter().map(|field| field.data_type().clone()).collect(), columns)
    }

    #[test]
    fn types_are_inferred_from_all_values() {
        let (types, columns) = typed(
            "\u{feff}i,u,f,b,d,t,z,s,n\n\
             1,18446744073709551615,1e21,true,2024-01-02,2024-01-02T03:04:05,2024-01-02T03:04:05Z,NA,\n\
             -2,7,NA,FALSE,,2024-01-02 03:04:05.5,2024-01-02T03:04:05+01:00,\"a,b\",\n",
        );
        let expected = [
            DataType::Int64,
            DataType::UInt64,
            DataType::Float64,
            DataType::Boolean,
            DataType::Date32,
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            DataType::Utf8,
            DataType::Null,
        ];
        assert_eq!(types, expected);
        assert!(columns[2].is_null(1) && columns[4].is_null(1));
        let words: Vec<_> = columns[7].as_string::<i32>().iter().collect();
        assert_eq!(words, [Some("NA"), Some("a,b")]);
    }

    #[test]
    fn integers_beyond_64_bits_become_floats() {
        let (types, columns) = typed("flops\n1000000000000000000000000\n5\n");
        assert_eq!(types, [DataType::Float64]);
        assert_eq!(super::super::numbers::to_f64(&columns[0]).expect("numbers")[0], 1e24);
    }

    #[test]
    fn a_character_that_a_delimiter_tears_is_an_error_that_names_line_and_column() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.csv");
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("a file");
            super::super::Source::open(&[path.display().to_string()]).map(|_| ()).map_err(|error| error.to_string())
        };
        let torn = refused(b"k,x\na,1\n\xef\xbb,\xb7\n").expect_err("half a character");
        assert!(torn.contains("t.csv") && torn.contains("line 3, column \"k\""), "{torn}");
        // Across the end of a line; both halves are invalid, and the first column is looked at first.
        let torn = refused(b"k,x\na,\xc3\n\xbc,1\n").expect_err("half a character");
        assert!(torn.contains("line 3, column \"k\""), "{torn}");
        refused("k,x\nü,1\nö,ä\n".as_bytes()).expect("whole characters");
    }

    #[test]
    fn a_row_with_too_few_fields_is_an_error_that_names_the_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.csv");
        std::fs::write(&path, "a,b\n1,2\n3\n").expect("a file");
        let error = super::super::Source::open(&[path.display().to_string()]).expect_err("a short row").to_string();
        assert!(error.contains("t.csv") && error.contains("line"), "{error}");
    }
}
