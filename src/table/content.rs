//! A file's bytes, wherever they lie: here, or in a store on the network.
//!
//! In: a path or URL. Out: what the decoders read from. Of Parquet in a store only the ranges of the columns that are needed
//! are fetched; CSV and Arrow IPC, which are read from end to end, are copied to a temporary file. Counts what was read.

use super::store::{self, Remote};
use crate::error::{Error, Result};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tempfile::TempPath;

/// The bytes of one input file; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Content {
    /// As messages call it.
    pub name: PathBuf,
    place: Place,
    read: Counter,
}

/// Bytes read of all files of a source.
pub(super) type Counter = Arc<AtomicU64>;

#[derive(Debug, Clone)]
enum Place {
    Here,
    Store(Arc<Fetched>),
}

/// A file in a store, and what was fetched of it for good.
#[derive(Debug)]
struct Fetched {
    remote: Remote,
    /// The last bytes, in which Parquet keeps its footer.
    tail: (u64, bytes::Bytes),
    copy: OnceLock<TempPath>,
}

/// Bytes from the end that are fetched on opening: the footer of most Parquet files, in one request.
const TAIL: u64 = 64 * 1024;

impl Content {
    /// # Errors
    /// [`Error::Input`]: what does not exist or may not be read, with what was answered.
    pub fn open(path: &Path, read: &Counter) -> Result<Content> {
        let name = path.to_path_buf();
        let place = match path.to_str().filter(|text| store::is_url(text)) {
            None => Place::Here,
            Some(url) => {
                let remote = Remote::open(url)?;
                let start = remote.size.saturating_sub(TAIL);
                let fetched = match remote.size {
                    0 => Some(bytes::Bytes::new()),
                    _ => remote.fetch(from_ref(&(start..remote.size)))?.map(|mut parts| parts.remove(0)),
                };
                // A server that knows no ranges gives all or nothing.
                let (copy, tail) = match fetched {
                    Some(tail) => (None, (start, tail)),
                    None => (Some(remote.copy()?), (remote.size, bytes::Bytes::new())),
                };
                let fetched = Fetched { remote, tail, copy: copy.map_or_else(OnceLock::new, OnceLock::from) };
                read.fetch_add(fetched.received(), Ordering::Relaxed);
                Place::Store(Arc::new(fetched))
            }
        };
        Ok(Content { name, place, read: read.clone() })
    }

    /// Whether every read is a request to a store.
    pub fn is_remote(&self) -> bool {
        matches!(&self.place, Place::Store(fetched) if fetched.copy.get().is_none())
    }

    /// How long the file is, in bytes.
    pub fn length(&self) -> std::io::Result<u64> {
        match &self.place {
            Place::Here => Ok(std::fs::metadata(&self.name)?.len()),
            Place::Store(fetched) => Ok(fetched.remote.size),
        }
    }

    /// The first eight bytes, or all where there are fewer.
    pub fn start(&self) -> Result<Vec<u8>> {
        let mut start = Vec::with_capacity(8);
        match &self.place {
            Place::Store(fetched) if fetched.copy.get().is_none() => {
                let end = fetched.remote.size.min(8);
                start.extend(fetched.get(&self.name, 0..end, &self.read).map_err(|error| self.unreadable(&error))?);
            }
            _ => {
                let file = self.stream().map_err(|error| self.unreadable(&error))?;
                file.take(8).read_to_end(&mut start).map_err(|error| self.unreadable(&error))?;
            }
        }
        Ok(start)
    }

    /// Makes sure that the bytes can be read from end to end: what lies in a store is copied.
    pub fn copy_here(&self) -> Result<()> {
        match &self.place {
            Place::Store(fetched) if fetched.copy.get().is_none() => {
                let copy = fetched.remote.copy()?;
                self.read.fetch_add(fetched.remote.size, Ordering::Relaxed);
                // Another thread may have been faster; its copy is as good.
                let _ = fetched.copy.set(copy);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// All bytes in their order, from a local file or the local copy.
    pub fn stream(&self) -> std::io::Result<Stream> {
        let (path, counted): (&Path, _) = match &self.place {
            Place::Here => (&self.name, true),
            Place::Store(fetched) => match fetched.copy.get() {
                // Counted when it was copied.
                Some(copy) => (copy, false),
                None => return Err(std::io::Error::other("was not copied from its store")),
            },
        };
        Ok(Stream { file: File::open(path)?, read: counted.then(|| self.read.clone()) })
    }

    /// The bytes as the Parquet decoder reads them; from a store the `ranges` are fetched first, together.
    pub fn chunks(&self, ranges: &[Range<u64>]) -> std::result::Result<Chunks, ParquetError> {
        let copied = || matches!(&self.place, Place::Store(fetched) if fetched.copy.get().is_some());
        let held = match &self.place {
            Place::Store(fetched) if !copied() => {
                let wanted: Vec<Range<u64>> =
                    ranges.iter().filter(|range| fetched.held(range).is_none()).cloned().collect();
                let parts = fetched.remote.fetch(&wanted).map_err(|error| ParquetError::External(Box::new(error)))?;
                let parts = parts.ok_or_else(|| ParquetError::General("the server no longer knows ranges".into()))?;
                self.read.fetch_add(parts.iter().map(|part| part.len() as u64).sum(), Ordering::Relaxed);
                let parts = wanted.iter().map(|range| range.start).zip(parts).collect();
                return Ok(Chunks::Fetched(Held { content: self.clone(), fetched: fetched.clone(), parts }));
            }
            _ => self.stream()?,
        };
        Ok(Chunks::Here(held))
    }

    fn unreadable(&self, error: &dyn std::fmt::Display) -> Error {
        Error::Input { file: self.name.clone(), message: format!("cannot be read: {error}") }
    }
}

impl Fetched {
    fn received(&self) -> u64 {
        if self.copy.get().is_some() { self.remote.size } else { self.tail.1.len() as u64 }
    }

    /// Bytes of the tail.
    fn held(&self, range: &Range<u64>) -> Option<bytes::Bytes> {
        let (start, tail) = &self.tail;
        part_of(*start, tail, range)
    }

    fn get(&self, name: &Path, range: Range<u64>, read: &Counter) -> std::io::Result<bytes::Bytes> {
        if let Some(held) = self.held(&range) {
            return Ok(held);
        }
        if range.end > self.remote.size {
            return Err(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                format!("bytes {}..{} of {} lie beyond its end", range.start, range.end, name.display()),
            ));
        }
        let parts = self.remote.fetch(from_ref(&range)).map_err(std::io::Error::other)?;
        let part = parts.and_then(|mut parts| parts.pop());
        let part = part.ok_or_else(|| std::io::Error::other("the server no longer knows ranges"))?;
        read.fetch_add(part.len() as u64, Ordering::Relaxed);
        Ok(part)
    }
}

/// The bytes `range` of a file where `bytes`, which begin at `start`, hold all of them.
fn part_of(start: u64, bytes: &bytes::Bytes, range: &Range<u64>) -> Option<bytes::Bytes> {
    let from = usize::try_from(range.start.checked_sub(start)?).ok()?;
    let to = usize::try_from(range.end.checked_sub(start)?).ok()?;
    (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
}

/// A local file whose bytes are counted as they are read.
#[derive(Debug)]
pub(super) struct Stream {
    file: File,
    read: Option<Counter>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        if let Some(counter) = &self.read {
            counter.fetch_add(read as u64, Ordering::Relaxed);
        }
        Ok(read)
    }
}

impl Seek for Stream {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(to)
    }
}

/// What the Parquet decoder reads from.
pub(super) enum Chunks {
    Here(Stream),
    Fetched(Held),
}

/// Parts of a file in a store.
pub(super) struct Held {
    content: Content,
    fetched: Arc<Fetched>,
    parts: Vec<(u64, bytes::Bytes)>,
}

impl Held {
    fn get(&self, range: Range<u64>) -> std::io::Result<bytes::Bytes> {
        let held = self.parts.iter().find_map(|(start, part)| part_of(*start, part, &range));
        held.map_or_else(|| self.fetched.get(&self.content.name, range, &self.content.read), Ok)
    }

    /// What is held from `start` on, or what can be fetched of it at once.
    fn from(&self, start: u64) -> std::io::Result<bytes::Bytes> {
        let end = |(first, part): &(u64, bytes::Bytes)| {
            (*first..first + part.len() as u64).contains(&start).then(|| first + part.len() as u64)
        };
        let tail = || end(&self.fetched.tail);
        let end = self.parts.iter().find_map(end).or_else(tail);
        self.get(start..end.unwrap_or_else(|| self.fetched.remote.size.min(start.saturating_add(TAIL))))
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        match self {
            Chunks::Here(stream) => stream.file.len(),
            Chunks::Fetched(held) => held.fetched.remote.size,
        }
    }
}

impl ChunkReader for Chunks {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> std::result::Result<Box<dyn Read>, ParquetError> {
        match self {
            Chunks::Here(stream) => {
                let mut file = stream.file.try_clone()?;
                file.seek(SeekFrom::Start(start))?;
                Ok(Box::new(BufReader::new(Stream { file, read: stream.read.clone() })))
            }
            Chunks::Fetched(held) => Ok(Box::new(Cursor::new(held.from(start)?))),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> std::result::Result<bytes::Bytes, ParquetError> {
        match self {
            Chunks::Here(stream) => {
                let bytes = stream.file.get_bytes(start, length)?;
                if let Some(counter) = &stream.read {
                    counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
                Ok(bytes)
            }
            Chunks::Fetched(held) => {
                let end = start.saturating_add(length as u64);
                Ok(held.get(start..end)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_found_and_nothing_beyond_it() {
        let bytes = bytes::Bytes::from_static(b"abcdef");
        for (range, expected) in [
            (100..106, Some("abcdef")),
            (102..104, Some("cd")),
            (106..106, Some("")),
            (99..101, None),
            (104..107, None),
            (u64::MAX - 1..u64::MAX, None),
        ] {
            let found = part_of(100, &bytes, &range);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{range:?}");
        }
    }
}
