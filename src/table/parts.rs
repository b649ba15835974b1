//! A table in parts: a folder of Parquet files of a bounded number of rows, by the values of a column if one is named.
//!
//! In: the blocks of one table, in order. Out: `FOLDER/part-00000.parquet` …, or `FOLDER/COLUMN=VALUE/part-00000.parquet` … as
//! Hive names them, without the column. All parts are written into a folder beside it, which takes its place when they are
//! complete. A folder that holds anything else than an earlier such table is not replaced. In a store, which cannot rename
//! folders, parts bear their content in their names, `part-00000-0123456789abcdef.parquet`; see `store::folder`.

use super::keys::KeySchema;
use super::store::{Folder, MARK, is_url, part_name};
use super::write::{Block, Care, Layout, OutputKind, Writer};
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// How a table is parted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parting {
    /// The column whose values become folders: a key, or a text such as `law` or `status`.
    pub by: Option<String>,
    /// Rows of a part, at most.
    pub rows: usize,
}

/// What writers of such trees call null.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";
/// Bytes of rows that wait, encoded, in all open parts together.
const WAITING: usize = 256 << 20;

/// Writes a table in parts.
pub struct PartsWriter {
    layout: Layout,
    /// Of every part: without the column that their folders hold.
    inner: Layout,
    target: Target,
    staging: Staging,
    by: Option<usize>,
    rows: usize,
    care: Care,
    /// One per value, in order of appearance, and where each value's is.
    open: Vec<Open>,
    places: HashMap<String, usize>,
    /// Parts that are full; they are completed at the end, when the metadata are known.
    full: Vec<Writer>,
    /// The places of all parts below the folder.
    names: Vec<PathBuf>,
}

/// Where the folder of parts will be.
enum Target {
    Here(PathBuf),
    Store(Folder),
}

/// The part of a value that takes rows.
struct Open {
    folder: PathBuf,
    number: usize,
    rows: usize,
    writer: Writer,
}

/// The folder in which parts are made; goes with the writer.
struct Staging(PathBuf);

impl Drop for Staging {
    fn drop(&mut self) {
        // Gone already where it has taken its place.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl PartsWriter {
    /// Prepares the folder `out`.
    ///
    /// # Errors
    /// A place that cannot be written to, a folder that holds something else, a column that is not in the table.
    pub fn create(
        out: &str,
        parting: &Parting,
        keys: &KeySchema,
        columns: &[(String, OutputKind)],
        care: Care,
    ) -> Result<PartsWriter> {
        let layout = Layout::new(Path::new(out), keys, columns, false)?;
        let by = match &parting.by {
            Some(name) => Some(layout.place(name).ok_or_else(|| Error::Column {
                column: name.clone(),
                message: "is neither a key nor a text of the output, as --partition-by needs".to_string(),
            })?),
            None => None,
        };
        let inner = by.map_or_else(|| layout.clone(), |by| layout.without(by));
        let (target, staging) = match is_url(out) {
            true => (Target::Store(Folder::open(out)?), staging_anywhere(&layout)?),
            false => {
                let target = PathBuf::from(out.trim_end_matches(['/', '\\']));
                let staging = staging_beside(&target, &layout)?;
                (Target::Here(target), staging)
            }
        };
        Ok(PartsWriter {
            layout,
            inner,
            target,
            staging,
            by,
            rows: parting.rows.max(1),
            care,
            open: Vec::new(),
            places: HashMap::new(),
            full: Vec::new(),
            names: Vec::new(),
        })
    }

    /// How rows are laid out for the whole table.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Appends rows that were laid out for this table.
    ///
    /// # Errors
    /// [`Error::Output`]: a full disk, for example.
    pub fn append(&mut self, block: &Block) -> Result<()> {
        let Some(by) = self.by else {
            let place = self.place_of("")?;
            return self.fill(place, block.0.clone());
        };
        let column = block.0.column(by);
        let options = FormatOptions::default();
        let format = ArrayFormatter::try_new(column.as_ref(), &options).map_err(|error| self.layout.failed(&error))?;
        let mut rows: Vec<Vec<u32>> = Vec::new();
        let mut folder = String::new();
        let mut last: Option<(String, usize)> = None;
        for row in 0..block.0.num_rows() {
            folder.clear();
            match column.is_null(row) {
                true => folder.push_str(NULL),
                false => folder.push_str(&format.value(row).to_string()),
            }
            let place = match &last {
                Some((value, place)) if *value == folder => *place,
                _ => self.place_of(&folder)?,
            };
            last = Some((std::mem::take(&mut folder), place));
            rows.resize(self.open.len(), Vec::new());
            rows[place].push(row as u32);
        }
        let mut rest = block.0.clone();
        rest.remove_column(by);
        for (place, rows) in rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let at = UInt32Array::from(rows);
            let columns = rest.columns().iter().map(|column| take(column, &at, None));
            let columns = columns.collect::<std::result::Result<Vec<_>, _>>().map_err(|e| self.layout.failed(&e))?;
            let own = RecordBatch::try_new(self.inner.schema.clone(), columns).map_err(|e| self.layout.failed(&e))?;
            self.fill(place, own)?;
        }
        let waiting: usize = self.open.iter().map(|open| open.writer.waiting()).sum();
        if waiting > WAITING {
            for open in &mut self.open {
                open.writer.flush_rows()?;
            }
        }
        Ok(())
    }

    /// Where the part of a value is that takes rows.
    fn place_of(&mut self, value: &str) -> Result<usize> {
        if let Some(place) = self.places.get(value) {
            return Ok(*place);
        }
        let folder = match self.by {
            Some(by) => {
                let name = self.layout.schema.field(by).name();
                let value = if value == NULL { NULL.to_string() } else { encoded(value) };
                self.staging.0.join(format!("{}={value}", encoded(name)))
            }
            None => self.staging.0.clone(),
        };
        fs::create_dir_all(&folder).map_err(|error| self.layout.failed(&error))?;
        let writer = self.part(&folder, 0)?;
        self.open.push(Open { folder, number: 0, rows: 0, writer });
        self.places.insert(value.to_string(), self.open.len() - 1);
        Ok(self.open.len() - 1)
    }

    fn part(&mut self, folder: &Path, number: usize) -> Result<Writer> {
        let path = folder.join(format!("part-{number:05}.parquet"));
        self.names.extend(path.strip_prefix(&self.staging.0).map(Path::to_path_buf));
        Writer::part(&path, &self.inner, self.care)
    }

    /// Appends rows of one value, and begins parts as they become full.
    fn fill(&mut self, place: usize, rows: RecordBatch) -> Result<()> {
        let mut done = 0;
        while done < rows.num_rows() {
            if self.open[place].rows == self.rows {
                let number = self.open[place].number + 1;
                let writer = self.part(&self.open[place].folder.clone(), number)?;
                let open = &mut self.open[place];
                (open.number, open.rows) = (number, 0);
                let mut full = std::mem::replace(&mut open.writer, writer);
                full.flush_rows()?;
                self.full.push(full);
            }
            let open = &mut self.open[place];
            let more = (self.rows - open.rows).min(rows.num_rows() - done);
            open.writer.append(&Block(rows.slice(done, more)))?;
            open.rows += more;
            done += more;
        }
        Ok(())
    }

    /// Completes all parts and puts the folder in its place.
    ///
    /// # Errors
    /// [`Error::Output`]: a full disk, for example. The folder that was there stays then.
    pub fn finish(mut self, metadata: &[(String, String)]) -> Result<()> {
        if self.by.is_none() && self.open.is_empty() {
            self.place_of("")?;
        }
        for writer in self.full.drain(..).chain(self.open.drain(..).map(|open| open.writer)) {
            writer.finish(metadata)?;
        }
        let failed = |error: std::io::Error| self.layout.failed(&error);
        match self.target {
            Target::Here(target) => swap(&self.staging.0, &target, &failed),
            Target::Store(folder) => {
                let mut parts = Vec::with_capacity(self.names.len());
                for name in &self.names {
                    let path = self.staging.0.join(name);
                    parts.push((part_name(name, content(&path).map_err(failed)?), path));
                }
                folder.replace(&parts)
            }
        }
    }
}

/// Looks whether a table in parts could be written to `out`, and leaves nothing behind.
///
/// # Errors
/// As [`PartsWriter::create`].
pub fn check_parts(out: &str) -> Result<()> {
    if is_url(out) {
        return Folder::open(out).map(drop);
    }
    let target = Path::new(out.trim_end_matches(['/', '\\']));
    refuse_foreign(target)?;
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::tempdir_in(folder).map(drop).map_err(|error| unwritable(target, &error))
}

fn unwritable(target: &Path, error: &std::io::Error) -> Error {
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let message = match folder.is_dir() {
        true => format!("cannot be written: {error}; choose another place with -o"),
        false => format!("the folder {} does not exist; make it first", folder.display()),
    };
    Error::Output { file: target.to_path_buf(), message }
}

/// A folder beside the target, where an earlier run may have left one.
fn staging_beside(target: &Path, layout: &Layout) -> Result<Staging> {
    let (staging, old) = (hidden(target, "part"), hidden(target, "old"));
    let failed = |error: std::io::Error| layout.failed(&error);
    // Death between the two renames of an earlier run.
    if old.is_dir() && !target.exists() {
        fs::rename(&old, target).map_err(failed)?;
    }
    refuse_foreign(target)?;
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(failed)?;
    }
    fs::create_dir(&staging).map_err(|error| unwritable(target, &error))?;
    let staging = Staging(staging);
    fs::write(staging.0.join(MARK), "A table of fits in parts, written by sweepfit.\n").map_err(failed)?;
    Ok(staging)
}

/// A folder for parts that will be sent away.
fn staging_anywhere(layout: &Layout) -> Result<Staging> {
    let made = tempfile::Builder::new().prefix(".sweepfit-").tempdir();
    let made = made.map_err(|error| layout.failed(&format!("{error}; set TMPDIR to a place with room for all parts")));
    Ok(Staging(made?.keep()))
}

/// A hidden neighbour of a folder.
fn hidden(target: &Path, ending: &str) -> PathBuf {
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    target.with_file_name(format!(".{name}.{ending}"))
}

/// Puts the folder of complete parts in the place of the target.
fn swap(staging: &Path, target: &Path, failed: &dyn Fn(std::io::Error) -> Error) -> Result<()> {
    refuse_foreign(target)?;
    let old = hidden(target, "old");
    if target.exists() {
        if old.exists() {
            fs::remove_dir_all(&old).map_err(failed)?;
        }
        fs::rename(target, &old).map_err(failed)?;
    }
    fs::rename(staging, target).map_err(failed)?;
    if old.exists() {
        fs::remove_dir_all(&old).map_err(failed)?;
    }
    Ok(())
}

/// A fingerprint of a file's bytes.
fn content(path: &Path) -> std::io::Result<u64> {
    let mut file = fs::File::open(path)?;
    let (mut fingerprint, mut chunk) = (Fingerprint::default(), Vec::new());
    loop {
        chunk.clear();
        if file.by_ref().take(1 << 20).read_to_end(&mut chunk)? == 0 {
            return Ok(fingerprint.value());
        }
        fingerprint.add_bytes(&chunk);
    }
}

/// Refuses to replace what is not a table of ours.
fn refuse_foreign(target: &Path) -> Result<()> {
    let failed = |message: String| Error::Output { file: target.to_path_buf(), message };
    if !target.exists() || target.join(MARK).is_file() {
        return Ok(());
    }
    if !target.is_dir() {
        return Err(failed("is a file, and the table in parts would be a folder; choose another with -o".into()));
    }
    let mut entries = fs::read_dir(target).map_err(|error| failed(format!("cannot be read: {error}")))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(failed(
            "holds other files, which a table in parts would replace; empty it, or choose another folder with -o"
                .into(),
        )),
    }
}

/// A name or value as a folder's name holds it: all but letters, digits and `_-.` as `%XX`.
fn encoded(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'-' | b'.' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    // A folder of dots alone would be another one.
    if name.bytes().all(|byte| byte == b'.') { name.replace('.', "%2E") } else { name }
}
