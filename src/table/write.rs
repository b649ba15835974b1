//! Results to a table: key columns first, then one column per result, one row per curve and law.
//!
//! In: batches of keys and values in output order. Out: Parquet (text with zstd, numbers as they are), or CSV or Arrow IPC where the name says so, or
//! CSV on standard output for `-`. The file is written under a temporary name beside its place and renamed when it is
//! complete; dropping the writer removes it. Knows no laws and no fits.
//!
//! Rows are laid out as a [`Block`] first, on any thread, by the writer's [`Layout`]; `block` keeps blocks as bytes.
//!
//! Standard output is spooled through a temporary file too: a reader that restarts makes void what was written before.

use super::keys::{KeySchema, Keys};
use super::store::{self, Upload, is_url};
use crate::error::{Error, Result};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Float64Builder, ListBuilder, RecordBatch, StringArray,
    StringBuilder, UInt32Array, UInt64Array, make_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Float64Type, Metadata, Schema, SchemaRef, UInt32Type};
use arrow::error::ArrowError;
use arrow::ipc::writer::FileWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowWriter, encode_arrow_schema};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

/// Rows of a row group, which a reader can take in parallel with others: some ten megabytes.
const ROWS_OF_A_GROUP: usize = 128 * 1024;
/// Bytes of a dictionary of text: some thousand keys.
const DICTIONARY: usize = 64 * 1024;

/// The type of a result column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// Strings.
    Text,
    /// f64; NaN is written as null.
    Number,
    /// u32.
    Count,
    /// u64, all bits of which mean something.
    Fingerprint,
    /// Booleans.
    Flag,
    /// Joined by `;` in CSV.
    TextList,
    /// f64 each; joined by `;` in CSV.
    NumberList,
}

/// The values of a result column, for each curve and in it for each law.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Strings, never null.
    Text(Vec<Arc<str>>),
    /// Strings, never null: of every row the position of its own among a few words.
    Word { words: Vec<Arc<str>>, which: Vec<u16> },
    /// NaN is written as null.
    Number(Vec<f64>),
    /// `None` is null.
    Count(Vec<Option<u32>>),
    /// Never null.
    Fingerprint(Vec<u64>),
    /// Never null.
    Flag(Vec<bool>),
    /// Lists of strings, never null.
    TextList(Vec<Vec<Arc<str>>>),
    /// Lists of numbers; an empty one is written as null.
    NumberList(Vec<Vec<f64>>),
}

impl Values {
    fn kind(&self) -> OutputKind {
        match self {
            Values::Text(_) | Values::Word { .. } => OutputKind::Text,
            Values::Number(_) => OutputKind::Number,
            Values::Count(_) => OutputKind::Count,
            Values::Fingerprint(_) => OutputKind::Fingerprint,
            Values::Flag(_) => OutputKind::Flag,
            Values::TextList(_) => OutputKind::TextList,
            Values::NumberList(_) => OutputKind::NumberList,
        }
    }

    fn into_array(self) -> ArrayRef {
        match self {
            Values::Text(texts) => Arc::new(StringArray::from_iter_values(texts)),
            Values::Word { words, which } => {
                Arc::new(StringArray::from_iter_values(which.iter().map(|&word| &words[usize::from(word)])))
            }
            Values::Number(numbers) => {
                let known = BooleanBuffer::collect_bool(numbers.len(), |row| !numbers[row].is_nan());
                Arc::new(Float64Array::new(numbers.into(), Some(NullBuffer::new(known))))
            }
            Values::Count(counts) => Arc::new(UInt32Array::from(counts)),
            Values::Fingerprint(prints) => Arc::new(UInt64Array::from(prints)),
            Values::Flag(flags) => Arc::new(BooleanArray::from(flags)),
            Values::TextList(lists) => {
                let mut builder = ListBuilder::new(StringBuilder::new());
                for list in lists {
                    list.iter().for_each(|text| builder.values().append_value(text));
                    builder.append(true);
                }
                Arc::new(builder.finish())
            }
            Values::NumberList(lists) => {
                let mut builder = ListBuilder::new(Float64Builder::new());
                for list in lists {
                    builder.values().append_slice(&list);
                    builder.append(!list.is_empty());
                }
                Arc::new(builder.finish())
            }
        }
    }
}

impl OutputKind {
    fn data_type(self) -> DataType {
        match self {
            OutputKind::Text => DataType::Utf8,
            OutputKind::Number => DataType::Float64,
            OutputKind::Count => DataType::UInt32,
            OutputKind::Fingerprint => DataType::UInt64,
            OutputKind::Flag => DataType::Boolean,
            OutputKind::TextList => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
            OutputKind::NumberList => DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true))),
        }
    }
}

/// The columns of a table of results: how its rows are laid out. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Layout {
    out: Arc<Path>,
    pub(super) schema: SchemaRef,
    /// Of the columns behind the keys.
    kinds: Arc<[OutputKind]>,
    keys: usize,
}

/// Rows of a table of results, laid out as columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Block(pub(super) RecordBatch);

/// Writes a table of results.
pub struct Writer {
    layout: Layout,
    format: Format,
    durable: bool,
}

/// What a writer may take for granted, and what is asked of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Care {
    /// Nobody else writes this table: its temporary file has a name of its own, `.NAME.part`, so that one that a killed
    /// process left behind is replaced and not added to.
    pub alone: bool,
    /// The finished table has to survive a power cut.
    pub durable: bool,
}

enum Format {
    Parquet(ArrowWriter<Place>),
    Csv(BufWriter<Place>),
    Arrow(FileWriter<BufWriter<Place>>),
}

/// Where the bytes go before the table is complete.
enum Place {
    /// Renamed to the second.
    Beside(NamedTempFile, PathBuf),
    /// Copied to standard output.
    Spool(File),
    /// Appears in its store when it is complete.
    Upload(Box<Upload>),
    /// Where they shall stay: what is no file and cannot be replaced, as `/dev/null`, and parts of a table, whose folder is
    /// not in its place yet.
    Plain(File),
}

impl Write for Place {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Place::Beside(file, _) => file.write(bytes),
            Place::Upload(upload) => upload.write(bytes),
            Place::Spool(file) | Place::Plain(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Place::Beside(file, _) => file.flush(),
            Place::Upload(upload) => upload.flush(),
            Place::Spool(file) | Place::Plain(file) => file.flush(),
        }
    }
}

impl Writer {
    /// Prepares an output: `out` is a path, or `-` for CSV on standard output; `columns` are the result columns behind
    /// the keys. A path that ends in `.csv` is written as CSV, one in `.arrow`, `.feather` or `.ipc` as Arrow IPC (its
    /// dictionaries as the values that they stand for), any other as Parquet.
    ///
    /// # Errors
    /// A place that cannot be written to; two columns of one name.
    pub fn create(out: &str, keys: &KeySchema, columns: &[(String, OutputKind)]) -> Result<Writer> {
        Writer::create_with(out, keys, columns, Care::default())
    }

    /// As [`Writer::create`], with more or less care.
    ///
    /// # Errors
    /// As [`Writer::create`].
    pub fn create_with(out: &str, keys: &KeySchema, columns: &[(String, OutputKind)], care: Care) -> Result<Writer> {
        let path = PathBuf::from(out);
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        let arrow = matches!(ending.as_str(), "arrow" | "feather" | "ipc");
        let layout = Layout::new(&path, keys, columns, arrow)?;
        let schema = &layout.schema;
        let failed = |message: String| Error::Output { file: path.clone(), message };
        let place = place_of(out, care.alone)?;
        let format = if out == "-" || ending == "csv" {
            let mut csv = BufWriter::new(place);
            let names = schema.fields().iter().map(|field| quoted(field.name())).collect::<Vec<_>>();
            writeln!(csv, "{}", names.join(",")).map_err(|error| failed(format!("cannot be written: {error}")))?;
            Format::Csv(csv)
        } else if arrow {
            let writer = FileWriter::try_new(BufWriter::new(place), schema);
            Format::Arrow(writer.map_err(|error| failed(format!("cannot be written: {error}")))?)
        } else {
            parquet(&layout, place)?
        };
        Ok(Writer { layout, format, durable: care.durable })
    }

    /// A Parquet file that is a part of a table: `path` lies in a folder that is not in its place yet.
    pub(super) fn part(path: &Path, layout: &Layout, care: Care) -> Result<Writer> {
        let file = File::create_new(path).map_err(|error| layout.failed(&error))?;
        let format = parquet(layout, Place::Plain(file))?;
        Ok(Writer { layout: layout.clone(), format, durable: care.durable })
    }

    /// Bytes of rows that wait, encoded, for their row group to be complete.
    pub(super) fn waiting(&self) -> usize {
        match &self.format {
            Format::Parquet(writer) => writer.in_progress_size(),
            Format::Csv(_) | Format::Arrow(_) => 0,
        }
    }

    /// Ends the row group, so that nothing waits.
    pub(super) fn flush_rows(&mut self) -> Result<()> {
        match &mut self.format {
            Format::Parquet(writer) => writer.flush().map_err(|error| self.layout.failed(&error)),
            Format::Csv(_) | Format::Arrow(_) => Ok(()),
        }
    }

    /// How rows are laid out for this table.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Lays rows out and appends them: see [`Layout::rows`] and [`Writer::append`].
    ///
    /// # Errors
    /// [`Error::Output`]: a full disk, for example.
    pub fn write<'a>(&mut self, keys: &Keys, laws: usize, values: impl Into<Cow<'a, [Values]>>) -> Result<()> {
        let block = self.layout.rows(keys, laws, values)?;
        self.append(&block)
    }

    /// Appends rows that were laid out for this table.
    ///
    /// # Errors
    /// [`Error::Output`]: a full disk, for example.
    pub fn append(&mut self, block: &Block) -> Result<()> {
        let written = match &mut self.format {
            Format::Parquet(writer) => writer.write(&block.0).map_err(|error| error.to_string()),
            Format::Arrow(writer) => writer.write(&block.0).map_err(|error| error.to_string()),
            Format::Csv(writer) => write_csv(writer, &block.0, self.layout.keys),
        };
        written.map_err(|error| self.layout.failed(&error))
    }

    /// Completes the table and puts it in its place. `metadata` goes into the file where the format has room for it
    /// (Parquet and Arrow IPC).
    pub fn finish(self, metadata: &[(String, String)]) -> Result<()> {
        let Writer { layout, format, durable } = self;
        let failed = |message: String| layout.failed(&message);
        let place = match format {
            Format::Parquet(mut writer) => {
                for (key, value) in metadata {
                    writer.append_key_value_metadata(KeyValue::new(key.clone(), value.clone()));
                }
                // Readers such as pyarrow show the metadata of this schema, where there is one, and not the file's.
                let metadata: Metadata = metadata.iter().cloned().collect();
                let schema = Schema::clone(&layout.schema).with_metadata(metadata);
                let encoded = encode_arrow_schema(&schema);
                writer.append_key_value_metadata(KeyValue::new(ARROW_SCHEMA_META_KEY.to_string(), encoded));
                writer.into_inner().map_err(|error| failed(error.to_string()))?
            }
            Format::Arrow(mut writer) => {
                for (key, value) in metadata {
                    writer.write_metadata(key, value);
                }
                let buffered = writer.into_inner().map_err(|error| failed(error.to_string()))?;
                buffered.into_inner().map_err(|error| failed(error.error().to_string()))?
            }
            Format::Csv(writer) => writer.into_inner().map_err(|error| failed(error.error().to_string()))?,
        };
        match place {
            Place::Beside(file, path) => {
                if durable {
                    file.as_file().sync_all().map_err(|error| failed(error.to_string()))?;
                }
                file.persist(path).map_err(|error| failed(error.error.to_string()))?;
            }
            Place::Spool(mut file) => {
                let mut stdout = std::io::stdout().lock();
                let copied = file.seek(SeekFrom::Start(0)).and_then(|_| std::io::copy(&mut file, &mut stdout));
                match copied.and_then(|_| stdout.flush()) {
                    // A reader that has seen enough, as `head`, is no error.
                    Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                        return Err(Error::Output {
                            file: "standard output".into(),
                            message: format!("cannot be written: {error}"),
                        });
                    }
                    _ => {}
                }
            }
            Place::Upload(upload) => upload.finish()?,
            Place::Plain(mut file) => {
                let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
                let kept = if durable && regular { file.sync_all() } else { file.flush() };
                kept.map_err(|error| failed(error.to_string()))?;
            }
        }
        Ok(())
    }
}

impl Block {
    /// Columns of a table. A column without nulls never has a map of them, which would be written otherwise: equal values
    /// are equal bytes, wherever they come from.
    pub(super) fn new(schema: &SchemaRef, columns: Vec<ArrayRef>) -> std::result::Result<Block, ArrowError> {
        let plain = |column: ArrayRef| match column.nulls() {
            Some(nulls) if nulls.null_count() == 0 => make_array(column.to_data()),
            _ => column,
        };
        RecordBatch::try_new(schema.clone(), columns.into_iter().map(plain).collect()).map(Block)
    }

    /// The texts of a result column, row by row; the empty one where there is none.
    ///
    /// # Panics
    /// Where the table has no such column of texts.
    pub fn texts<'a>(&'a self, column: &str) -> impl Fn(usize) -> &'a str + use<'a> {
        let texts = self.0.column_by_name(column).expect("a column of this table").as_string::<i32>();
        |row| texts.value(row)
    }

    /// The numbers of a result column, of f64 or u32, row by row; NaN for null.
    ///
    /// # Panics
    /// Where the table has no such column of numbers.
    pub fn numbers<'a>(&'a self, column: &str) -> impl Fn(usize) -> f64 + use<'a> {
        let numbers = self.0.column_by_name(column).expect("a column of this table");
        let (wide, counts) = (numbers.as_primitive_opt::<Float64Type>(), numbers.as_primitive_opt::<UInt32Type>());
        move |row| match (wide, counts) {
            _ if numbers.is_null(row) => f64::NAN,
            (Some(wide), _) => wide.value(row),
            (_, Some(counts)) => f64::from(counts.value(row)),
            _ => panic!("a column of numbers"),
        }
    }

    /// The truth values of a result column, row by row.
    ///
    /// # Panics
    /// Where the table has no such column.
    pub fn flags<'a>(&'a self, column: &str) -> impl Fn(usize) -> bool + use<'a> {
        let flags = self.0.column_by_name(column).expect("a column of this table").as_boolean();
        |row| flags.value(row)
    }

    /// How many texts a list of a result column holds.
    ///
    /// # Panics
    /// Where the table has no such column of lists.
    pub fn length(&self, column: &str, row: usize) -> usize {
        self.0.column_by_name(column).expect("a column of this table").as_list::<i32>().value(row).len()
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.0.num_rows()
    }

    /// The same rows with other numbers in a column; NaN is null.
    ///
    /// # Panics
    /// Where the table has no such column of f64, or other rows.
    pub fn with_numbers(&self, column: &str, numbers: Vec<f64>) -> Block {
        let schema = self.0.schema();
        let at = schema.index_of(column).expect("a column of this table");
        let mut columns = self.0.columns().to_vec();
        columns[at] = Values::Number(numbers).into_array();
        Block::new(&schema, columns).expect("as many numbers as rows, in a column of numbers")
    }
}

/// A Parquet file of this layout.
fn parquet(layout: &Layout, place: Place) -> Result<Format> {
    // The Arrow schema is written at the end, since it holds the metadata.
    let options = ArrowWriterOptions::new().with_properties(properties(layout)).with_skip_arrow_metadata(true);
    let writer = ArrowWriter::try_new_with_options(place, layout.schema.clone(), options);
    Ok(Format::Parquet(writer.map_err(|error| layout.failed(&error))?))
}

impl Layout {
    /// Of a table at `out`; an Arrow file's keys are written otherwise than those of others.
    ///
    /// # Errors
    /// Two columns of one name.
    pub(super) fn new(out: &Path, keys: &KeySchema, columns: &[(String, OutputKind)], arrow: bool) -> Result<Layout> {
        let key_types = keys.types().iter().map(|data_type| match data_type {
            // A dictionary may not change within an Arrow file, and here every batch has its own.
            DataType::Dictionary(_, value) if arrow => (**value).clone(),
            other => other.clone(),
        });
        let key_fields = keys.names().iter().zip(key_types).map(|(name, data_type)| Field::new(name, data_type, true));
        let result_fields = columns.iter().map(|(name, kind)| Field::new(name, kind.data_type(), true));
        let fields: Vec<Field> = key_fields.chain(result_fields).collect();
        refuse_duplicates(&fields)?;
        let kinds = columns.iter().map(|(_, kind)| *kind).collect();
        Ok(Layout { out: out.into(), schema: Arc::new(Schema::new(fields)), kinds, keys: keys.names().len() })
    }

    /// Where a key column or a column of texts is.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        let at = self.schema.index_of(name).ok()?;
        (at < self.keys || self.kinds[at - self.keys] == OutputKind::Text).then_some(at)
    }

    /// The same without one column.
    pub(super) fn without(&self, at: usize) -> Layout {
        let fields = self.schema.fields().iter().enumerate().filter(|(index, _)| *index != at);
        let schema = Arc::new(Schema::new(fields.map(|(_, field)| field.clone()).collect::<Vec<_>>()));
        let kinds = self.kinds.iter().enumerate().filter(|(index, _)| self.keys + index != at);
        let kinds = kinds.map(|(_, kind)| *kind).collect();
        Layout { out: self.out.clone(), schema, kinds, keys: self.keys - usize::from(at < self.keys) }
    }

    /// For each curve of `keys` one row for each of `laws` laws; `values` holds, column by column, as many.
    ///
    /// # Errors
    /// [`Error::Output`]: keys that are not of the table's types.
    ///
    /// # Panics
    /// Where `values` has other columns, types or lengths than were announced.
    pub fn rows<'a>(&self, keys: &Keys, laws: usize, values: impl Into<Cow<'a, [Values]>>) -> Result<Block> {
        let values: Cow<[Values]> = values.into();
        assert!(values.iter().map(Values::kind).eq(self.kinds.iter().copied()), "columns other than announced");
        let mut columns = self.keys(keys, laws)?;
        columns.extend(values.into_owned().into_iter().map(Values::into_array));
        let rows = keys.len() * laws;
        assert!(columns.iter().all(|column| column.len() == rows), "a column has another length than curves × laws");
        Block::new(&self.schema, columns).map_err(|error| self.failed(&error))
    }

    /// The key columns of such rows.
    fn keys(&self, keys: &Keys, laws: usize) -> Result<Vec<ArrayRef>> {
        let repeat =
            UInt32Array::from_iter_values((0..keys.len() as u32).flat_map(|curve| std::iter::repeat_n(curve, laws)));
        let column = |(column, field): (&ArrayRef, &Arc<Field>)| {
            let column = if laws == 1 { column.clone() } else { take(column, &repeat, None)? };
            cast(&column, field.data_type())
        };
        let columns = keys.columns().iter().zip(self.schema.fields()).map(column);
        columns.collect::<std::result::Result<_, _>>().map_err(|error| self.failed(&error))
    }

    /// Whether a block of this layout holds the rows of these keys.
    ///
    /// # Errors
    /// As [`Layout::rows`].
    pub fn is_of(&self, block: &Block, keys: &Keys, laws: usize) -> Result<bool> {
        Ok(block.0.columns()[..self.keys] == self.keys(keys, laws)?)
    }

    pub(super) fn failed(&self, error: &dyn std::fmt::Display) -> Error {
        let reason = error.to_string();
        let repair = match reason.contains("No space left") {
            true if *self.out == *Path::new("-") => "; set TMPDIR to a place with room, where it waits to be complete",
            true => "; free the disk, or choose another place with -o",
            false => "",
        };
        Error::Output { file: self.out.to_path_buf(), message: format!("cannot be written: {reason}{repair}") }
    }
}

/// Looks whether a table could be written to `out`, and leaves nothing behind.
///
/// # Errors
/// As [`Writer::create`].
pub fn check_place(out: &str) -> Result<()> {
    place_of(out, false).map(drop)
}

fn place_of(out: &str, alone: bool) -> Result<Place> {
    if out == "-" {
        let spool = tempfile::tempfile();
        let failed = |error| Error::Output { file: out.into(), message: format!("cannot be spooled: {error}") };
        return Ok(Place::Spool(spool.map_err(failed)?));
    }
    if is_url(out) {
        return Ok(Place::Upload(Box::new(Upload::create(out)?)));
    }
    place_beside(Path::new(out), alone)
}

/// The length in bytes of a table that was written to `out`; `None` for what has none, as standard output.
pub fn length_of(out: &str) -> Option<u64> {
    if is_url(out) {
        return store::length(out);
    }
    std::fs::metadata(out).ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len())
}

fn refuse_duplicates(fields: &[Field]) -> Result<()> {
    for (index, field) in fields.iter().enumerate() {
        if fields[..index].iter().any(|other| other.name() == field.name()) {
            return Err(Error::Column {
                column: field.name().clone(),
                message: "would stand twice in the output; rename the key column of the input, or the parameter"
                    .to_string(),
            });
        }
    }
    Ok(())
}

fn place_beside(path: &Path, alone: bool) -> Result<Place> {
    let failed = |message: String| Error::Output { file: path.to_path_buf(), message };
    // Through a link the file that it points to is replaced, not the link.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if target.is_dir() {
        return Err(failed("is a folder; name a file in it".to_string()));
    }
    if target.exists() && !target.is_file() {
        let device = File::options().write(true).open(&target);
        return Ok(Place::Plain(device.map_err(|error| failed(format!("cannot be written: {error}")))?));
    }
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    };
    if target.file_name().is_none() || !folder.is_dir() {
        return Err(failed(format!("the folder {} does not exist; make it first", folder.display())));
    }
    let mut builder = tempfile::Builder::new();
    let name = target.file_name().map(|name| format!(".{}.part", name.to_string_lossy())).unwrap_or_default();
    match alone {
        true => builder.prefix(&name).rand_bytes(0),
        false => builder.prefix(".sweepfit-").suffix(".part"),
    };
    if alone {
        // Left by a killed process; where there is none, there is nothing to do.
        let _ = std::fs::remove_file(folder.join(&name));
    }
    // The result is an ordinary file, not a private one as temporary files are.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(&folder);
    let file = file.map_err(|error| failed(format!("cannot be written: {error}; choose another place with -o")))?;
    Ok(Place::Beside(file, target))
}

fn properties(layout: &Layout) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("sweepfit version ", env!("CARGO_PKG_VERSION")).to_string())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // A row group is kept in memory, encoded, until it is complete.
        .set_max_row_group_row_count(Some(ROWS_OF_A_GROUP))
        // Keys hardly ever repeat, unless they are few; a dictionary that grows on is given up in the end.
        .set_dictionary_page_size_limit(DICTIONARY)
        // Per page they cost time at every value, and nobody looks results up by them.
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for (field, kind) in layout.schema.fields()[layout.keys..].iter().zip(layout.kinds.iter()) {
        if matches!(kind, OutputKind::Number | OutputKind::Fingerprint) {
            // Fitted numbers hardly ever repeat; a dictionary would be built only to be given up. Nor can they be
            // compressed: zstd takes a twelfth off them, for more time than all else about them takes.
            let path = ColumnPath::new(vec![field.name().clone()]);
            properties = properties.set_column_dictionary_enabled(path.clone(), false);
            properties = properties.set_column_compression(path, Compression::UNCOMPRESSED);
        }
    }
    properties.build()
}

fn write_csv(writer: &mut impl Write, batch: &RecordBatch, keys: usize) -> std::result::Result<(), String> {
    let options = FormatOptions::default().with_null("");
    let formats = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
    let formats = formats.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let mut line = String::new();
    for row in 0..batch.num_rows() {
        line.clear();
        for (position, (column, format)) in batch.columns().iter().zip(&formats).enumerate() {
            match column.data_type() {
                _ if column.is_null(row) => {}
                // The shortest text that reads back as the same number.
                DataType::Float64 if position >= keys => {
                    line.push_str(&format!("{:?}", column.as_primitive::<Float64Type>().value(row)));
                }
                DataType::List(_) => line.push_str(&quoted(&joined(&column.as_list::<i32>().value(row)))),
                _ => {
                    let value = format.value(row).try_to_string().map_err(|error| error.to_string())?;
                    line.push_str(&quoted(&value));
                }
            }
            line.push(',');
        }
        line.pop();
        writeln!(writer, "{line}").map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A list of texts or of numbers in one field.
fn joined(list: &ArrayRef) -> String {
    let texts: Vec<String> = match list.data_type() {
        DataType::Float64 => list.as_primitive::<Float64Type>().values().iter().map(|n| format!("{n:?}")).collect(),
        _ => list.as_string::<i32>().iter().flatten().map(String::from).collect(),
    };
    texts.join(";")
}

/// A CSV field, in quotes where it needs them.
fn quoted(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Source, read};
    use super::*;
    use arrow::array::StringViewArray;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    fn columns() -> Vec<(String, OutputKind)> {
        let named = [
            ("law", OutputKind::Text),
            ("alpha", OutputKind::Number),
            ("points", OutputKind::Count),
            ("at_bound", OutputKind::TextList),
        ];
        named.map(|(name, kind)| (name.to_string(), kind)).to_vec()
    }

    fn values() -> Vec<Values> {
        let text = |text: &str| Arc::<str>::from(text);
        vec![
            Values::Text(["power", "a,b", "power", "a,b"].map(text).to_vec()),
            Values::Number(vec![0.1, f64::NAN, 1e300, -0.0]),
            Values::Count(vec![Some(3), None, Some(4), Some(0)]),
            Values::TextList(vec![vec![], vec![text("E"), text("A")], vec![], vec![text("E")]]),
        ]
    }

    /// Two curves with keys `a` and null.
    fn two_keys(folder: &Path) -> Keys {
        let path = folder.join("in.parquet");
        let keys: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None]));
        write_parquet(&path, &table(vec![("k", keys), ("x", Arc::new(Float64Array::from(vec![1.0, 2.0])))]));
        read_all(&[&path], &selection(&["k"], &["x"], ""), 1).expect("two curves").0[0].keys.clone()
    }

    fn written(out: &Path, keys: &Keys) -> Vec<u8> {
        let mut writer = Writer::create(&out.display().to_string(), keys.schema(), &columns()).expect("a writer");
        writer.write(keys, 2, values()).expect("rows");
        assert!(!out.exists(), "{} exists before it is complete", out.display());
        writer.finish(&[("sweepfit.version".to_string(), "1".to_string())]).expect("a table");
        std::fs::read(out).expect("bytes")
    }

    #[test]
    fn a_table_is_written_in_the_format_of_its_name_and_the_same_every_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = two_keys(folder.path());
        let csv = written(&folder.path().join("o.csv"), &keys);
        let expected =
            "k,law,alpha,points,at_bound\na,power,0.1,3,\na,\"a,b\",,,E;A\n,power,1e300,4,\n,\"a,b\",-0.0,0,E\n";
        assert_eq!(String::from_utf8(csv).expect("text"), expected);

        let parquet = folder.path().join("o.parquet");
        assert_eq!(written(&parquet, &keys), written(&folder.path().join("p.parquet"), &keys));
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&parquet).expect("a file")).expect("Parquet");
        assert_eq!(reader.schema().field(0).data_type(), &DataType::Utf8View);
        let metadata = reader.metadata().file_metadata().key_value_metadata().expect("metadata").clone();
        assert!(metadata.iter().any(|pair| pair.key == "sweepfit.version" && pair.value.as_deref() == Some("1")));
        let batch = reader.build().expect("a reader").next().expect("a batch").expect("rows");
        assert_eq!(batch.num_rows(), 4);
        assert!(batch.column(0).is_null(2) && batch.column(2).is_null(1));
        assert_eq!(batch.column(2).as_primitive::<Float64Type>().value(2), 1e300);

        for name in ["o.arrow", "o.feather", "o.ipc"] {
            written(&folder.path().join(name), &keys);
            let source = Source::open(&[folder.path().join(name).display().to_string()]).expect("Arrow IPC");
            let names: Vec<&str> = source.columns().iter().map(|column| column.name.as_str()).collect();
            assert_eq!(names, ["k", "law", "alpha", "points", "at_bound"]);
        }
    }

    #[test]
    fn a_dropped_writer_leaves_neither_a_file_nor_a_changed_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = two_keys(folder.path());
        let out = folder.path().join("o.parquet");
        std::fs::write(&out, "old").expect("a file");
        let mut writer = Writer::create(&out.display().to_string(), keys.schema(), &columns()).expect("a writer");
        writer.write(&keys, 2, values()).expect("rows");
        drop(writer);
        assert_eq!(std::fs::read(&out).expect("bytes"), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).expect("entries").count(), 2);
    }

    #[test]
    fn places_that_cannot_be_written_to_are_refused_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = two_keys(folder.path());
        for (out, expected) in [
            (folder.path().join("none").join("o.parquet"), "does not exist; make it first"),
            (folder.path().to_path_buf(), "is a folder"),
        ] {
            let error = Writer::create(&out.display().to_string(), keys.schema(), &columns());
            let message = error.err().expect("no writer").to_string();
            assert!(message.contains(expected) && message.contains(&out.display().to_string()), "{message}");
        }
        let twice = [columns(), columns()].concat();
        let message = Writer::create("x.parquet", keys.schema(), &twice).err().expect("no writer").to_string();
        assert!(message.contains("column \"law\" would stand twice"), "{message}");
    }

    #[test]
    fn an_empty_input_becomes_an_empty_table_of_the_right_types() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, out) = (folder.path().join("in.parquet"), folder.path().join("o.parquet"));
        let keys: ArrayRef = Arc::new(StringArray::from(Vec::<&str>::new()));
        write_parquet(&path, &table(vec![("k", keys), ("x", Arc::new(Float64Array::from(Vec::<f64>::new())))]));
        let source = Source::open(&[path.display().to_string()]).expect("a source");
        let reader = read(&source, &selection(&["k"], &["x"], ""), &Default::default()).expect("a reader");
        let writer = Writer::create(&out.display().to_string(), reader.key_schema(), &columns()).expect("a writer");
        assert_eq!(reader.count(), 0);
        writer.finish(&[]).expect("a table");
        let source = Source::open(&[out.display().to_string()]).expect("a source");
        let types: Vec<&str> = source.columns().iter().map(|column| column.type_name.as_str()).collect();
        assert_eq!(types[..4], ["Utf8", "Utf8", "Float64", "UInt32"]);
    }
}
