//! What lies in a store: URLs, folders and patterns become objects; of these, ranges of bytes or whole copies.

use super::folder::without_strays;
use super::{Location, RETRIES, again, is_final, knows_no_ranges, pause, reason, rest, unreadable, wait};
use crate::error::{Error, Result};
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, ObjectStoreScheme};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempPath;
use tokio::task::JoinSet;

/// Ranges nearer to each other than this are fetched as one: a request costs as much as some hundred kilobytes.
const GAP: u64 = 256 * 1024;
/// Bytes of a request at most, so that each ends well before a time-out.
const PIECE: u64 = 8 * 1024 * 1024;
/// Requests of one fetch under way at a time.
const AT_ONCE: usize = 8;

/// Resolves a URL: an object, a folder of objects whose names `wanted` takes, or a pattern.
///
/// # Errors
/// [`Error::Input`] with what was answered.
pub(in crate::table) fn resolve(text: &str, wanted: &dyn Fn(&Path) -> bool, paths: &mut Vec<PathBuf>) -> Result<()> {
    let url = Path::new(text);
    let location = Location::of(text).map_err(|message| unreadable(url, &message))?;
    let is_http = location.scheme == ObjectStoreScheme::Http;
    if is_http && text.contains(['?', '#']) {
        return Err(unreadable(url, "queries are not sent; fetch the file first, or give it a name without one"));
    }
    let pattern = location.key.as_ref().contains(['*', '?', '[']);
    if is_http && (pattern || text.ends_with('/')) {
        return Err(unreadable(url, "a web server does not list its files; name them one by one"));
    }
    if !pattern && !text.ends_with('/') {
        match again(|| wait(location.store.head(&location.key))) {
            Ok(_) => {
                paths.push(url.to_path_buf());
                return Ok(());
            }
            // A folder, perhaps, written without its slash.
            Err(object_store::Error::NotFound { .. }) if !is_http => {}
            Err(error) => return Err(unreadable(url, &reason(&error))),
        }
    }
    // What stands before the first part with a wildcard can be asked of the store.
    let parts: Vec<_> = location.key.parts().collect();
    let fixed = parts.iter().take_while(|part| !part.as_ref().contains(['*', '?', '['])).count();
    let prefix: Key = parts.iter().take(fixed).cloned().collect();
    let listed = again(|| wait(location.store.list(Some(&prefix)).try_collect::<Vec<_>>()));
    let listed = listed.and_then(|listed| without_strays(&*location.store, listed));
    let mut listed = listed.map_err(|error| unreadable(url, &reason(&error)))?;
    // The order of a store is its own; the order of the curves must not be.
    listed.sort_by(|one, other| one.location.cmp(&other.location));
    let matcher = match pattern {
        true => Some(
            glob::Pattern::new(location.key.as_ref())
                .map_err(|error| unreadable(url, &format!("is not a valid pattern: {}", error.msg)))?,
        ),
        false => None,
    };
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() };
    let before = paths.len();
    for object in listed.iter().filter(|object| object.size > 0 || !object.location.as_ref().ends_with('/')) {
        let key = object.location.as_ref();
        let taken = match &matcher {
            // A pattern may name folders, as on a disk.
            Some(matcher) => (0..=key.len())
                .filter(|&at| at == key.len() || key.as_bytes()[at] == b'/')
                .any(|end| matcher.matches_with(&key[..end], options) && (end == key.len() || wanted(Path::new(key)))),
            None => wanted(Path::new(key)),
        };
        let side_file = object.location.parts().skip(fixed).any(|part| {
            let part = part.as_ref().to_string();
            part.starts_with('.') || (part.starts_with('_') && !part.contains('='))
        });
        if taken && !side_file {
            paths.push(location.url(&object.location));
        }
    }
    if paths.len() == before {
        let message = match (pattern, listed.is_empty()) {
            (true, _) => "no object matches this pattern",
            (false, true) => "no such object or folder; check bucket and path",
            (false, false) => {
                "holds no table; objects that end in .parquet, .csv, .tsv, .arrow, .feather or .ipc are read"
            }
        };
        return Err(Error::Input { file: url.to_path_buf(), message: message.into() });
    }
    Ok(())
}

/// Whether there is an object, or are objects in a folder.
///
/// # Errors
/// [`Error::Input`] with what was answered.
pub(in crate::table) fn exists(text: &str) -> Result<bool> {
    let url = Path::new(text);
    let location = Location::of(text.trim_end_matches('/')).map_err(|message| unreadable(url, &message))?;
    match again(|| wait(location.store.head(&location.key))) {
        Ok(_) => return Ok(true),
        Err(object_store::Error::NotFound { .. }) if location.scheme == ObjectStoreScheme::Http => return Ok(false),
        Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => return Err(unreadable(url, &reason(&error))),
    }
    let first = again(|| wait(async { location.store.list(Some(&location.key)).try_next().await }));
    first.map(|first| first.is_some()).map_err(|error| unreadable(url, &reason(&error)))
}

/// An object that can be read.
#[derive(Debug)]
pub(in crate::table) struct Remote {
    url: PathBuf,
    store: Arc<dyn ObjectStore>,
    key: Key,
    /// In bytes.
    pub size: u64,
    /// Tells one state of the object from another.
    tag: Option<String>,
}

impl Remote {
    /// Looks the object up.
    ///
    /// # Errors
    /// [`Error::Input`] with what was answered.
    pub fn open(text: &str) -> Result<Remote> {
        let url = PathBuf::from(text);
        let location = Location::of(text).map_err(|message| unreadable(&url, &message))?;
        let found = again(|| wait(location.store.head(&location.key)));
        let found = found.map_err(|error| unreadable(&url, &reason(&error)))?;
        Ok(Remote { url, store: location.store, key: location.key, size: found.size, tag: found.e_tag })
    }

    /// A text that changes when the object does.
    pub fn version(&self) -> String {
        format!("{} bytes, tag {}", self.size, self.tag.as_deref().unwrap_or("none"))
    }

    /// The bytes of `ranges`, each; neighbours are fetched together, several at a time. `None` where the server knows no
    /// ranges.
    ///
    /// # Errors
    /// [`Error::Input`] with what was answered; also where the object is no longer what it was when it was opened.
    pub fn fetch(&self, ranges: &[Range<u64>]) -> Result<Option<Vec<Bytes>>> {
        let spans = joined(ranges);
        let pieces: Vec<Range<u64>> = spans.iter().flat_map(|span| pieces(span.clone())).collect();
        let fetched = wait(async {
            let mut waiting: Vec<(usize, Range<u64>)> = pieces.iter().cloned().enumerate().rev().collect();
            let mut parts = vec![Bytes::new(); pieces.len()];
            let mut running = JoinSet::new();
            while !waiting.is_empty() || !running.is_empty() {
                while running.len() < AT_ONCE
                    && let Some((index, range)) = waiting.pop()
                {
                    let (store, key, tag) = (self.store.clone(), self.key.clone(), self.tag.clone());
                    running.spawn(async move { (index, get(&*store, &key, tag, range).await) });
                }
                if let Some(done) = running.join_next().await {
                    let (index, part) = done.expect("requests do not panic and are not cancelled");
                    parts[index] = part?;
                }
            }
            Ok::<_, object_store::Error>(parts)
        });
        let parts = match fetched {
            Ok(parts) => parts,
            Err(error) if knows_no_ranges(&error) => return Ok(None),
            Err(error) => return Err(unreadable(&self.url, &reason(&error))),
        };
        let mut parts = pieces.iter().zip(parts).peekable();
        let mut whole = Vec::with_capacity(spans.len());
        for span in &spans {
            let mut bytes = BytesMut::new();
            while let Some((_, part)) = parts.next_if(|(piece, _)| piece.end <= span.end) {
                bytes.extend_from_slice(&part);
            }
            whole.push((span.start, bytes.freeze()));
        }
        let part = |range: &Range<u64>| {
            let (start, bytes) =
                whole.iter().rev().find(|(start, _)| *start <= range.start).expect("every range is in a span");
            bytes.slice((range.start - start) as usize..(range.end - start) as usize)
        };
        Ok(Some(ranges.iter().map(part).collect()))
    }

    /// A copy in a temporary file.
    ///
    /// # Errors
    /// As [`Remote::fetch`]; also where there is no room for it.
    pub fn copy(&self) -> Result<TempPath> {
        let no_room = |error: &dyn std::fmt::Display| {
            unreadable(&self.url, &format!("no copy can be made ({error}); set TMPDIR to a place with room"))
        };
        let mut file = tempfile::Builder::new().prefix(".sweepfit-").tempfile().map_err(|error| no_room(&error))?;
        let mut attempts = 0;
        loop {
            file.as_file().set_len(0).map_err(|error| no_room(&error))?;
            std::io::Seek::rewind(&mut file).map_err(|error| no_room(&error))?;
            let options = GetOptions { if_match: self.tag.clone(), ..GetOptions::default() };
            let written = wait(async {
                let mut stream = self.store.get_opts(&self.key, options).await?.into_stream();
                let mut length = 0;
                while let Some(bytes) = stream.try_next().await? {
                    length += bytes.len() as u64;
                    if let Err(error) = file.write_all(&bytes) {
                        return Ok(Err(error));
                    }
                }
                Ok::<_, object_store::Error>(Ok(length))
            });
            match written {
                Ok(Ok(length)) if length == self.size => return Ok(file.into_temp_path()),
                Ok(Err(error)) => return Err(no_room(&error)),
                Err(error) if attempts == RETRIES || is_final(&error) => {
                    return Err(unreadable(&self.url, &reason(&error)));
                }
                Ok(Ok(length)) if attempts == RETRIES => {
                    return Err(unreadable(&self.url, &format!("only {length} of {} bytes were sent", self.size)));
                }
                _ => rest(pause(attempts)),
            }
            attempts += 1;
        }
    }
}

/// One range, tried again where the answer broke off.
async fn get(
    store: &dyn ObjectStore,
    key: &Key,
    tag: Option<String>,
    range: Range<u64>,
) -> std::result::Result<Bytes, object_store::Error> {
    let mut attempts = 0;
    loop {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: tag.clone(),
            ..GetOptions::default()
        };
        let answer = async { store.get_opts(key, options).await?.bytes().await }.await;
        match answer {
            Ok(bytes) if bytes.len() as u64 == range.end - range.start => return Ok(bytes),
            Ok(bytes) if attempts == RETRIES => {
                let message = format!("only {} of {} bytes were sent", bytes.len(), range.end - range.start);
                return Err(object_store::Error::Generic { store: "the store", source: message.into() });
            }
            Err(error) if attempts == RETRIES || is_final(&error) => return Err(error),
            _ => tokio::time::sleep(pause(attempts)).await,
        }
        attempts += 1;
    }
}

/// Ranges in order, those that touch or nearly touch as one.
fn joined(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = ranges.to_vec();
    sorted.sort_by_key(|range| range.start);
    let mut spans: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match spans.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(GAP) => last.end = last.end.max(range.end),
            _ => spans.push(range),
        }
    }
    spans
}

/// A span in requests of bounded size.
fn pieces(span: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    (span.start..span.end).step_by(PIECE as usize).map(move |start| start..span.end.min(start + PIECE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_fetched_together_and_long_ones_in_pieces() {
        let far = GAP + 11..GAP + 20;
        for (ranges, expected) in [
            (vec![10..20, 0..5], vec![(0, 20)]),
            (vec![0..10, far.clone()], vec![(0, 10), (far.start, far.end)]),
            (vec![0..100, 10..20], vec![(0, 100)]),
        ] {
            let spans: Vec<(u64, u64)> = joined(&ranges).iter().map(|span| (span.start, span.end)).collect();
            assert_eq!(spans, expected);
        }
        let all: Vec<_> = pieces(5..2 * PIECE + 6).collect();
        assert_eq!(all, [5..PIECE + 5, PIECE + 5..2 * PIECE + 5, 2 * PIECE + 5..2 * PIECE + 6]);
    }
}
