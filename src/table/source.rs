//! Inputs to files and columns: paths, folders and globs are resolved, every file's format and schema are read.
//!
//! In: the input texts of the command line. Out: a [`Source`], which knows the files in reading order and their columns,
//! those of Hive-style `key=value` folders included. Reads no rows, except that the types of CSV columns are inferred
//! from all of theirs.

use super::arrow_ipc;
use super::content::{Content, Counter};
use super::csv::{self, CsvFormat, Guess};
use super::guard::decoding;
use super::numbers::{is_list_of_numbers, is_number};
use super::store;
use crate::error::{Error, Result, nearest};
use arrow::datatypes::{DataType, SchemaRef};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::ParquetStatisticsPolicy;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The resolved inputs; cheap to clone.
#[derive(Debug, Clone)]
pub struct Source {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    files: Vec<TableFile>,
    paths: Vec<PathBuf>,
    columns: Vec<ColumnInfo>,
    notes: Vec<String>,
    read: Counter,
}

/// One file of the input.
#[derive(Debug)]
pub(super) struct TableFile {
    pub path: PathBuf,
    /// Its bytes.
    pub content: Content,
    pub format: Format,
    /// The columns that the file itself holds.
    pub schema: SchemaRef,
    /// The columns that its folders hold: one value for the whole file.
    pub partitions: Vec<Partition>,
}

/// What a file's bytes are, with what was learnt about them on opening.
#[derive(Debug)]
pub(super) enum Format {
    Parquet(ArrowReaderMetadata),
    Csv(CsvFormat),
    /// Arrow IPC with a footer.
    ArrowFile,
    /// Arrow IPC, messages only.
    ArrowStream,
}

/// A column out of a `key=value` folder.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Partition {
    pub name: String,
    /// `None` is null.
    pub value: Option<String>,
    /// Whether every file's value of this column is an integer.
    pub integer: bool,
}

impl Partition {
    pub fn data_type(&self) -> DataType {
        if self.integer { DataType::Int64 } else { DataType::Utf8 }
    }
}

/// What a column can serve as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// Any integer, float or decimal.
    Number,
    /// Strings of any layout, dictionaries of strings.
    Text,
    /// Booleans.
    Truth,
    /// Dates, times, timestamps, durations.
    Time,
    /// A list of numbers in every row: each row is a curve.
    ListOfNumbers,
    /// Structures, binary data and whatever else can be carried but not fitted.
    Other,
}

/// A column of the input.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnInfo {
    /// As in the file or the folder.
    pub name: String,
    /// What it can serve as.
    pub kind: ColumnKind,
    /// The type as messages name it, for example `Int64` or `Utf8`.
    pub type_name: String,
}

/// Where a needed column of a file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Index into the file's own schema.
    Column(usize),
    /// Index into its partitions.
    Partition(usize),
}

impl Source {
    /// Resolves inputs: a Parquet, CSV or Arrow IPC file, a folder of such, or a glob.
    ///
    /// # Errors
    /// [`Error::Input`] that names the path: no such file, no match, a format that is not known or not what the name
    /// says, a damaged file.
    pub fn open(inputs: &[String]) -> Result<Source> {
        let mut paths = Vec::new();
        for input in inputs {
            resolve(input, &mut paths)?;
        }
        let (paths, repeated) = without_repetition(paths);
        let mut notes = Vec::new();
        if let Some(path) = repeated {
            notes.push(format!("{} is named more than once among the inputs and read once", path.display()));
        }
        let read = Counter::default();
        let mut files = open_files(&paths, &read)?;
        infer_csv_types(&mut files)?;
        agree_on_partition_types(&mut files);
        let columns = files.first().map_or(Vec::new(), columns_of);
        Ok(Source { inner: Arc::new(Inner { files, paths, columns, notes, read }) })
    }

    /// The columns of the first file, those of its folders last. Other files may hold more, and must hold those that
    /// are asked for.
    pub fn columns(&self) -> &[ColumnInfo] {
        &self.inner.columns
    }

    /// The files in the order in which they are read.
    pub fn files(&self) -> &[PathBuf] {
        &self.inner.paths
    }

    /// What the user should know about how the inputs were taken.
    pub fn notes(&self) -> &[String] {
        &self.inner.notes
    }

    /// The column of this name, or an error that says which one may have been meant.
    pub fn column(&self, name: &str) -> Result<&ColumnInfo> {
        self.columns().iter().find(|column| column.name == name).ok_or_else(|| self.missing(name))
    }

    /// How many rows there are, where every file says so without being read.
    pub fn rows(&self) -> Option<u64> {
        self.tables().iter().map(TableFile::rows).sum()
    }

    /// How many bytes of the files were read so far, as stored.
    pub fn bytes_read(&self) -> u64 {
        self.inner.read.load(Ordering::Relaxed)
    }

    /// How many bytes the files have, as stored.
    pub fn bytes(&self) -> u64 {
        self.tables().iter().filter_map(|file| file.content.length().ok()).sum()
    }

    pub(super) fn tables(&self) -> &[TableFile] {
        &self.inner.files
    }

    /// The error for a name that no column has.
    pub(super) fn missing(&self, name: &str) -> Error {
        let names: Vec<&str> = self.columns().iter().map(|column| column.name.as_str()).collect();
        Error::Column { column: name.to_string(), message: missing_message(name, &names) }
    }
}

/// Whether a file or folder is there, here or in a store.
///
/// # Errors
/// [`Error::Input`]: a store that does not answer, or denies it.
pub fn exists(input: &str) -> Result<bool> {
    if store::is_url(input) { store::exists(input) } else { Ok(Path::new(input).exists()) }
}

/// "is not in the input; did you mean …? (columns: …)", or without a guess.
fn missing_message(name: &str, names: &[&str]) -> String {
    /// More names than these would hide the message.
    const SHOWN: usize = 40;
    let hint = nearest(name, names.iter().copied()).map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
    let more = if names.len() > SHOWN { format!(", and {} more", names.len() - SHOWN) } else { String::new() };
    let shown = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    format!("is not in the input{hint} (columns: {shown}{more})")
}

impl TableFile {
    /// Where the column `name` is found; folders go before columns of the same name, as in other readers of such trees.
    pub(super) fn place(&self, name: &str) -> Result<Option<Place>> {
        if let Some(index) = self.partitions.iter().position(|partition| partition.name == name) {
            return Ok(Some(Place::Partition(index)));
        }
        let mut found = self.schema.fields().iter().enumerate().filter(|(_, field)| field.name() == name);
        let first = found.next().map(|(index, _)| Place::Column(index));
        if found.next().is_some() {
            return Err(Error::Column {
                column: name.to_string(),
                message: format!("stands twice in {}; rename one of the two", self.path.display()),
            });
        }
        Ok(first)
    }

    pub(super) fn data_type(&self, place: Place) -> DataType {
        match place {
            Place::Column(index) => self.schema.field(index).data_type().clone(),
            Place::Partition(index) => self.partitions[index].data_type(),
        }
    }

    /// How many rows the file says that it holds, where it says so.
    pub(super) fn rows(&self) -> Option<u64> {
        match &self.format {
            Format::Parquet(metadata) => u64::try_from(metadata.metadata().file_metadata().num_rows()).ok(),
            _ => None,
        }
    }
}

/// What columns of this type can serve as.
pub(super) fn kind_of(data_type: &DataType) -> ColumnKind {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ColumnKind::Text,
        DataType::Boolean => ColumnKind::Truth,
        DataType::Dictionary(_, value) => kind_of(value),
        other if is_number(other) => ColumnKind::Number,
        other if is_list_of_numbers(other) => ColumnKind::ListOfNumbers,
        other if other.is_temporal() => ColumnKind::Time,
        _ => ColumnKind::Other,
    }
}

fn columns_of(file: &TableFile) -> Vec<ColumnInfo> {
    let own = file.schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone()));
    let own = own.filter(|(name, _)| file.partitions.iter().all(|partition| partition.name != *name));
    let folders = file.partitions.iter().map(|partition| (partition.name.clone(), partition.data_type()));
    own.chain(folders)
        .map(|(name, data_type)| ColumnInfo { name, kind: kind_of(&data_type), type_name: data_type.to_string() })
        .collect()
}

fn input_error(path: &Path, message: impl Into<String>) -> Error {
    Error::Input { file: path.to_path_buf(), message: message.into() }
}

fn resolve(input: &str, paths: &mut Vec<PathBuf>) -> Result<()> {
    if store::is_url(input) {
        let is_table = |path: &Path| format_by_name(path).is_some_and(|format| format != Named::Text);
        return store::resolve(input, &is_table, paths);
    }
    let path = Path::new(input);
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return resolve_folder(path, paths),
        Ok(metadata) if metadata.is_file() => {
            paths.push(path.to_path_buf());
            return Ok(());
        }
        Ok(_) => return Err(input_error(path, "is neither a file nor a folder; copy its content into a file first")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !input.contains(['*', '?', '[']) => {
            return Err(input_error(path, "no such file or folder"));
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(input_error(path, format!("cannot be read: {error}")));
        }
        Err(_) => {}
    }
    let matches =
        glob::glob(input).map_err(|error| input_error(path, format!("is not a valid pattern: {}", error.msg)))?;
    let before = paths.len();
    for found in matches {
        let found = found.map_err(|error| input_error(error.path(), format!("cannot be read: {}", error.error())))?;
        if found.is_dir() {
            resolve_folder(&found, paths)?;
        } else {
            paths.push(found);
        }
    }
    if paths.len() == before {
        return Err(input_error(path, "no file matches this pattern"));
    }
    Ok(())
}

fn resolve_folder(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let before = paths.len();
    walk(folder, paths, 0)?;
    if paths.len() == before {
        return Err(input_error(
            folder,
            "holds no table; files that end in .parquet, .csv, .tsv, .arrow, .feather or .ipc are read",
        ));
    }
    Ok(())
}

/// Deepest nesting of folders that is followed, so that a link to a parent ends.
const DEEPEST: usize = 32;

fn walk(folder: &Path, paths: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(input_error(folder, "is nested too deeply; does a link point back to a folder above it?"));
    }
    let unreadable = |error: std::io::Error| input_error(folder, format!("cannot be read: {error}"));
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        entries.push(entry.map_err(unreadable)?.path());
    }
    // The order of a directory is the file system's whim; the order of the curves must not be.
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Side files of other programs: `.crc`, `_SUCCESS`, `_metadata`, `_delta_log`.
        if name.starts_with('.') || (name.starts_with('_') && !name.contains('=')) {
            continue;
        }
        if entry.is_dir() {
            walk(&entry, paths, depth + 1)?;
        } else if format_by_name(&entry).is_some_and(|format| format != Named::Text) {
            paths.push(entry);
        }
    }
    Ok(())
}

/// Each file once, at its first place; also says which one was named again.
fn without_repetition(paths: Vec<PathBuf>) -> (Vec<PathBuf>, Option<PathBuf>) {
    let mut seen = HashSet::new();
    let mut repeated = None;
    let mut kept = Vec::with_capacity(paths.len());
    for path in paths {
        if seen.insert(fs::canonicalize(&path).unwrap_or_else(|_| path.clone())) {
            kept.push(path);
        } else {
            repeated.get_or_insert(path);
        }
    }
    (kept, repeated)
}

/// What a file's name says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Parquet,
    Csv,
    /// `.txt`: read as CSV where named, passed over in folders.
    Text,
    Arrow,
}

/// Whether a file of this name is read where its folder is an input.
pub fn is_named_as_table(path: &Path) -> bool {
    matches!(format_by_name(path), Some(Named::Parquet | Named::Csv | Named::Arrow))
}

fn format_by_name(path: &Path) -> Option<Named> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "parquet" | "parq" | "pq" => Some(Named::Parquet),
        "csv" | "tsv" => Some(Named::Csv),
        "txt" => Some(Named::Text),
        "arrow" | "arrows" | "feather" | "ipc" => Some(Named::Arrow),
        _ => None,
    }
}

/// What a file's first bytes say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Magic {
    Parquet,
    EncryptedParquet,
    ArrowFile,
    ArrowStream,
    FeatherOne,
    Gzip,
    None,
}

fn format_by_content(start: &[u8]) -> Magic {
    match start {
        [b'P', b'A', b'R', b'1', ..] => Magic::Parquet,
        [b'P', b'A', b'R', b'E', ..] => Magic::EncryptedParquet,
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => Magic::ArrowFile,
        [0xff, 0xff, 0xff, 0xff, ..] => Magic::ArrowStream,
        [b'F', b'E', b'A', b'1', ..] => Magic::FeatherOne,
        [0x1f, 0x8b, ..] => Magic::Gzip,
        _ => Magic::None,
    }
}

impl Magic {
    fn describe(self) -> &'static str {
        match self {
            Magic::Parquet => "it is Parquet",
            Magic::EncryptedParquet => "it is encrypted Parquet",
            Magic::ArrowFile | Magic::ArrowStream => "it is Arrow IPC",
            Magic::FeatherOne => "it is Feather version 1",
            Magic::Gzip => "it is compressed with gzip",
            Magic::None => "it does not begin as such a file does",
        }
    }
}

/// Files in a store that are opened side by side: each waits for a few answers.
const OPENED_AT_ONCE: usize = 16;

fn open_files(paths: &[PathBuf], read: &Counter) -> Result<Vec<TableFile>> {
    if !paths.iter().any(|path| path.to_str().is_some_and(store::is_url)) {
        return paths.iter().map(|path| open_file(path, read)).collect();
    }
    let mut files = Vec::with_capacity(paths.len());
    for some in paths.chunks(OPENED_AT_ONCE) {
        let opened: Vec<Result<TableFile>> = std::thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|path| scope.spawn(|| open_file(path, read))).collect();
            threads.into_iter().map(|thread| thread.join().expect("decoders' panics are errors by now")).collect()
        });
        files.extend(opened.into_iter().collect::<Result<Vec<_>>>()?);
    }
    Ok(files)
}

fn open_file(path: &Path, read: &Counter) -> Result<TableFile> {
    let content = Content::open(path, read)?;
    let start = content.start()?;
    if start.is_empty() {
        return Err(input_error(path, "is empty (0 bytes); write it again"));
    }
    let named = format_by_name(path);
    let (format, schema) = match (named, format_by_content(&start)) {
        (_, Magic::EncryptedParquet) => return Err(input_error(path, "is encrypted Parquet; decrypt it first")),
        (_, Magic::Gzip) => return Err(input_error(path, "is compressed with gzip; decompress it first")),
        (_, Magic::FeatherOne) => {
            return Err(input_error(path, "is Feather version 1; write it again as Feather version 2 or as Parquet"));
        }
        (None | Some(Named::Parquet), Magic::Parquet) => open_parquet(&content)?,
        (None | Some(Named::Arrow), Magic::ArrowFile) => arrow_ipc::open_file(&content)?,
        (None | Some(Named::Arrow), Magic::ArrowStream) => arrow_ipc::open_stream(&content)?,
        (Some(Named::Csv | Named::Text), Magic::None) => csv::open(&content)?,
        (None, Magic::None) => {
            return Err(input_error(
                path,
                "is of no known format; expected Parquet, Arrow IPC or CSV (.parquet, .arrow, .feather, .csv, .tsv)",
            ));
        }
        (Some(named), magic) => {
            let (claim, endings) = match named {
                Named::Parquet => ("Parquet", ".parquet"),
                Named::Csv | Named::Text => ("CSV", ".csv"),
                Named::Arrow => ("Arrow IPC", ".arrow"),
            };
            return Err(input_error(
                path,
                format!(
                    "is not {claim}, although its name says so: {}; name another file, or give this one the ending of \
                     what it is (not {endings})",
                    magic.describe()
                ),
            ));
        }
    };
    let partitions = partitions_of(path);
    Ok(TableFile { path: path.to_path_buf(), content, format, schema, partitions })
}

fn open_parquet(content: &Content) -> Result<(Format, SchemaRef)> {
    // Statistics are not used, and with thousands of files their metadata is what fills the memory.
    let options = ArrowReaderOptions::new()
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_encoding_stats_as_mask(true);
    let metadata = decoding(&content.name, || ArrowReaderMetadata::load(&content.chunks(&[])?, options))?;
    let schema = metadata.schema().clone();
    Ok((Format::Parquet(metadata), schema))
}

/// CSV files carry no types: a column's type is the narrowest that takes all its values in all files.
fn infer_csv_types(files: &mut [TableFile]) -> Result<()> {
    let mut guesses: BTreeMap<String, Guess> = BTreeMap::new();
    for file in files.iter() {
        if let Format::Csv(format) = &file.format {
            csv::infer(&file.content, format, &file.schema, &mut guesses)?;
        }
    }
    for file in files.iter_mut() {
        if let Format::Csv(_) = &file.format {
            file.schema = csv::typed_schema(&file.schema, &guesses);
        }
    }
    Ok(())
}

/// `key=value` folders of a path, outermost first.
fn partitions_of(path: &Path) -> Vec<Partition> {
    let folders = path.parent().map(|parent| parent.components().collect::<Vec<_>>()).unwrap_or_default();
    let mut partitions: Vec<Partition> = Vec::new();
    for folder in folders {
        let Component::Normal(folder) = folder else { continue };
        let Some((name, value)) = folder.to_str().and_then(|folder| folder.split_once('=')) else { continue };
        let (name, value) = (percent_decoded(name), percent_decoded(value));
        if name.is_empty() {
            continue;
        }
        // The name that writers of such trees give to null.
        let value = (value != "__HIVE_DEFAULT_PARTITION__").then_some(value);
        partitions.retain(|partition| partition.name != name);
        partitions.push(Partition { name, value, integer: false });
    }
    partitions
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hexadecimal = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hexadecimal.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_string())
}

/// A column of folders is an integer column where every value of it is an integer.
fn agree_on_partition_types(files: &mut [TableFile]) {
    let mut texts = HashSet::new();
    for partition in files.iter().flat_map(|file| &file.partitions) {
        if partition.value.as_ref().is_some_and(|value| value.parse::<i64>().is_err()) {
            texts.insert(partition.name.clone());
        }
    }
    for partition in files.iter_mut().flat_map(|file| &mut file.partitions) {
        partition.integer = !texts.contains(&partition.name);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn folders_become_columns_and_are_integers_where_all_values_are() {
        let folder = tempfile::tempdir().expect("a folder");
        for (run, name) in [("run=1", "split=a%20b"), ("run=2", "split=__HIVE_DEFAULT_PARTITION__")] {
            let inner = folder.path().join(run).join(name);
            fs::create_dir_all(&inner).expect("folders");
            write_parquet(&inner.join("part-0.parquet"), &numbers_table(&[("x", &[1.0])]));
            fs::write(inner.join("_SUCCESS"), "").expect("a side file");
        }
        let source = Source::open(&[folder.path().display().to_string()]).expect("a source");
        assert_eq!(source.files().len(), 2);
        let names: Vec<_> = source.columns().iter().map(|column| (column.name.as_str(), column.kind)).collect();
        assert_eq!(names, [("x", ColumnKind::Number), ("run", ColumnKind::Number), ("split", ColumnKind::Text)]);
        assert_eq!(source.tables()[0].partitions[1].value.as_deref(), Some("a b"));
        assert_eq!(source.tables()[1].partitions[1].value, None);
    }

    #[test]
    fn files_that_are_not_what_they_claim_are_named_with_the_repair() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        write_parquet(&at("good.parquet"), &numbers_table(&[("x", &[1.0])]));
        let parquet = fs::read(at("good.parquet")).expect("bytes");
        fs::write(at("table.csv"), &parquet).expect("a file");
        fs::write(at("text.parquet"), "x,y\n1,2\n").expect("a file");
        fs::write(at("empty.parquet"), "").expect("a file");
        fs::write(at("cut.parquet"), &parquet[..parquet.len() / 2]).expect("a file");
        fs::write(at("notes.md"), "hello").expect("a file");
        fs::write(at("cut.arrow"), b"ARROW1\0\0").expect("a file");
        fs::write(at("packed.csv"), [0x1f, 0x8b, 8, 0]).expect("a file");
        for (name, expected) in [
            ("table.csv", "is not CSV, although its name says so: it is Parquet"),
            ("text.parquet", "is not Parquet, although its name says so"),
            ("empty.parquet", "is empty (0 bytes)"),
            ("cut.parquet", "damaged or incomplete"),
            ("notes.md", "is of no known format"),
            ("cut.arrow", "damaged or incomplete"),
            ("packed.csv", "decompress it first"),
            ("none.parquet", "no such file"),
            ("*.xyz", "no file matches"),
        ] {
            let error = Source::open(&[at(name).display().to_string()]).expect_err(name).to_string();
            assert!(error.contains(expected) && error.contains(name), "{name}: {error}");
        }
    }

    #[test]
    fn a_file_named_twice_is_read_once_and_said_so() {
        let folder = tempfile::tempdir().expect("a folder");
        write_parquet(&folder.path().join("a.parquet"), &numbers_table(&[("x", &[1.0])]));
        let input = folder.path().display().to_string();
        let source = Source::open(&[input.clone(), format!("{input}/*.parquet")]).expect("a source");
        assert_eq!(source.files().len(), 1);
        assert!(source.notes()[0].contains("named more than once"));
    }

    #[test]
    fn a_missing_column_is_answered_with_the_nearest_name_and_the_list() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.parquet");
        write_parquet(&path, &numbers_table(&[("loss", &[1.0]), ("tokens", &[2.0])]));
        let source = Source::open(&[path.display().to_string()]).expect("a source");
        let message = source.column("los").expect_err("no such column").to_string();
        assert!(message.contains("did you mean \"loss\"?") && message.contains("columns: loss, tokens"), "{message}");
    }
}
