//! Stores on the network: Amazon S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage, plain HTTP.
//!
//! In: URLs. Out: lists of files, ranges of bytes, uploads that appear whole or not at all. The asynchronous world behind
//! them stays in this file: its callers block. Credentials and endpoints come from the environment under the names that
//! users of these stores know (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`,
//! `AZURE_STORAGE_ACCOUNT_NAME` …), as `object_store` reads them.

use crate::error::{Error, Result};
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientConfigKey, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt,
    ObjectStoreScheme, PutPayload, RetryConfig,
};
use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tempfile::TempPath;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// Schemes of URLs that are read and written.
const SCHEMES: [&str; 10] = ["s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "http", "https"];

/// Whether a text names something in a store.
pub fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()))
}

/// Attempts at every request beyond the first, and how long they may take together; pauses double from the first on.
const RETRIES: usize = 8;
const PATIENCE: Duration = Duration::from_secs(90);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Ranges nearer to each other than this are fetched as one: a request costs as much as some hundred kilobytes.
const GAP: u64 = 256 * 1024;
/// Bytes of a request at most, so that each ends well before a time-out.
const PIECE: u64 = 8 * 1024 * 1024;
/// Requests of one fetch under way at a time.
const AT_ONCE: usize = 8;
/// Bytes of a part of an upload; S3 takes ten thousand parts: 80 GB.
const PART: usize = 8 * 1024 * 1024;

/// How long giving an upload up may take.
const FAREWELL: Duration = Duration::from_millis(500);
/// How often a wait looks whether it is still wanted.
const GLANCE: Duration = Duration::from_millis(50);

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on every wait for a store ends with an error soon after `stop` is set.
pub fn stop_waiting_when(stop: &Arc<AtomicBool>) {
    // There is one flag in a process.
    let _ = STOP.set(stop.clone());
}

/// Waits for an answer.
fn wait<T>(
    answer: impl Future<Output = std::result::Result<T, object_store::Error>>,
) -> std::result::Result<T, object_store::Error> {
    runtime().block_on(async {
        let mut answer = pin!(answer);
        loop {
            if let Ok(answer) = tokio::time::timeout(GLANCE, answer.as_mut()).await {
                return answer;
            }
            if STOP.get().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(object_store::Error::Generic { store: "the store", source: STOPPED.into() });
            }
        }
    })
}

/// Why a wait ended without an answer.
const STOPPED: &str = "interrupted while waiting for it";

/// Its threads do nothing but wait for the network.
fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        // Fails only where another provider was installed before, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = Builder::new_multi_thread().worker_threads(2).thread_name("network").enable_all().build();
        builder.expect("two threads more can be started")
    });
    &RUNTIME
}

/// A file, a folder or a pattern in a store.
struct Location {
    /// `s3://bucket`, without a path.
    root: String,
    scheme: ObjectStoreScheme,
    store: Arc<dyn ObjectStore>,
    key: Key,
}

impl Location {
    fn of(text: &str) -> std::result::Result<Location, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("is not a URL that can be read ({error})");
        let bucket = text.find("://").and_then(|at| text[at + 3..].find('/').map(|slash| at + 3 + slash));
        let (bucket, path) = text.split_at(bucket.unwrap_or(text.len()));
        let by_web = bucket.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("http"));
        let url = reqwest::Url::parse(if by_web { text } else { bucket }).map_err(|error| wrong(&error))?;
        let (scheme, mut key) = ObjectStoreScheme::parse(&url).map_err(|error| wrong(&error))?;
        let mut root = bucket.to_string();
        if by_web {
            // A bucket of S3 may be the first part of the path.
            let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
            let before = parts.len().saturating_sub(key.parts().count());
            parts[..before].iter().for_each(|part| root += &format!("/{part}"));
        } else {
            // Keys are taken as they stand, as the stores' own tools do: nothing is decoded.
            key = Key::parse(path).map_err(|error| wrong(&error))?;
        }
        let store = opened(&root, &url, &scheme).map_err(|error| reason(&error))?;
        Ok(Location { root, scheme, store, key })
    }

    /// The URL of a key, as the user would write it.
    fn url(&self, key: &Key) -> PathBuf {
        PathBuf::from(format!("{}/{key}", self.root))
    }
}

/// The store of a URL; every bucket is opened once, so that its connections and credentials are shared.
fn opened(
    root: &str,
    url: &reqwest::Url,
    scheme: &ObjectStoreScheme,
) -> std::result::Result<Arc<dyn ObjectStore>, object_store::Error> {
    static OPENED: Mutex<Option<HashMap<String, Arc<dyn ObjectStore>>>> = Mutex::new(None);
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = opened.get_or_insert_default();
    if let Some(store) = opened.get(root) {
        return Ok(store.clone());
    }
    let backoff = BackoffConfig { init_backoff: FIRST_PAUSE, max_backoff: LONGEST_PAUSE, base: 2.0 };
    let retry = RetryConfig { backoff, max_retries: RETRIES, retry_timeout: PATIENCE };
    let _inside = runtime().enter();
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            Arc::new(AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry).build()?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            Arc::new(GoogleCloudStorageBuilder::from_env().with_url(url.as_str()).with_retry(retry).build()?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            Arc::new(MicrosoftAzureBuilder::from_env().with_url(url.as_str()).with_retry(retry).build()?)
        }
        _ => {
            // Who writes http:// has decided against encryption.
            let builder = HttpBuilder::new().with_url(root);
            Arc::new(builder.with_config(ClientConfigKey::AllowHttp, "true").with_retry(retry).build()?)
        }
    };
    opened.insert(root.to_string(), store.clone());
    Ok(store)
}

/// What a store answered, in one line, and what may be done about it.
fn reason(error: &object_store::Error) -> String {
    use object_store::Error as E;
    let repair = match error {
        E::NotFound { .. } => "no such object; check bucket and path",
        E::PermissionDenied { .. } => "the credentials do not allow it; check what they may do",
        E::Unauthenticated { .. } => "the store takes no such credentials; check the variables that hold them",
        E::Precondition { .. } => "it changed while it was read; run again",
        _ if error.to_string().contains("NoSuchBucket") => "no such bucket; check its name and the endpoint",
        _ => "",
    };
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Most layers repeat the one below.
        if !text.contains(&cause_text) {
            text += &format!(": {cause_text}");
        }
        source = cause.source();
    }
    let text = without_markup(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    // "Generic S3 error: " tells nobody anything.
    let text = match text.strip_prefix("Generic ").and_then(|rest| rest.split_once(" error: ")) {
        Some((_, rest)) => rest.to_string(),
        None => text,
    };
    if text.contains("169.254.169.254") || text.contains("metadata.google") {
        return format!("no credentials in the environment, and none from the machine ({text})");
    }
    if repair.is_empty() { text } else { format!("{repair} ({text})") }
}

/// What a store answers in XML as `Code: Message`.
fn without_markup(text: &str) -> String {
    let inside = |tag: &str| {
        let from = text.find(&format!("<{tag}>"))? + tag.len() + 2;
        Some(&text[from..from + text[from..].find(&format!("</{tag}>"))?])
    };
    match (text.find('<'), inside("Code")) {
        (Some(start), Some(code)) => {
            let message = inside("Message").map_or(String::new(), |message| format!(": {message}"));
            format!("{}{code}{message}", &text[..start])
        }
        _ => text.to_string(),
    }
}

fn unreadable(url: &Path, message: &str) -> Error {
    Error::Input { file: url.to_path_buf(), message: format!("cannot be read: {message}") }
}

/// Resolves a URL: an object, a folder of objects whose names `wanted` takes, or a pattern.
///
/// # Errors
/// [`Error::Input`] with what was answered.
pub(super) fn resolve(text: &str, wanted: &dyn Fn(&Path) -> bool, paths: &mut Vec<PathBuf>) -> Result<()> {
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
        match wait(location.store.head(&location.key)) {
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
    let listed = wait(location.store.list(Some(&prefix)).try_collect::<Vec<_>>());
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

/// An object that can be read.
#[derive(Debug)]
pub(super) struct Remote {
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
        let found = wait(location.store.head(&location.key));
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
                _ => std::thread::sleep(pause(attempts)),
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

/// Whether asking again could not help: the store has decided, or has been asked often enough already.
fn is_final(error: &object_store::Error) -> bool {
    let text = error.to_string();
    !matches!(error, object_store::Error::Generic { .. })
        || text.contains("retries")
        || text.contains(STOPPED)
        || knows_no_ranges(error)
}

/// Whether a server answered a request for a range with the whole.
fn knows_no_ranges(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotSupported { .. }) || error.to_string().contains("non-partial")
}

fn pause(attempts: usize) -> Duration {
    (FIRST_PAUSE * (1 << attempts.min(16))).min(LONGEST_PAUSE)
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

/// The length of an object in bytes, where there is one.
pub(super) fn length(url: &str) -> Option<u64> {
    let location = Location::of(url).ok()?;
    wait(location.store.head(&location.key)).ok().map(|found| found.size)
}

/// An object on its way: it appears when [`Upload::finish`] returns, whole; dropped before, it never does.
pub(super) struct Upload {
    url: PathBuf,
    location: Location,
    waiting: Vec<u8>,
    sent: bool,
    /// Bytes written so far.
    length: u64,
    /// The tag of the object that will be replaced.
    before: Option<String>,
    /// Begun with the first full part. A web server takes no parts.
    parts: Option<Box<dyn MultipartUpload>>,
}

impl Upload {
    /// Looks whether the place takes uploads.
    ///
    /// # Errors
    /// [`Error::Output`] with what was answered.
    pub fn create(text: &str) -> Result<Upload> {
        let url = PathBuf::from(text);
        let failed = |message: String| Error::Output { file: url.clone(), message };
        let location = Location::of(text).map_err(failed)?;
        if text.ends_with('/') || location.key.parts().next().is_none() {
            return Err(failed("is a folder; name an object in it".into()));
        }
        let before = wait(location.store.head(&location.key)).ok().and_then(|found| found.e_tag);
        let mut upload =
            Upload { url: url.clone(), location, waiting: Vec::new(), sent: false, length: 0, before, parts: None };
        // Beginning asks for the right to write, before any work is done.
        if upload.location.scheme != ObjectStoreScheme::Http {
            upload.begin().map_err(|error| failed(format!("cannot be written: {}", reason(&error))))?;
        }
        Ok(upload)
    }

    fn begin(&mut self) -> std::result::Result<(), object_store::Error> {
        let (store, key) = (&self.location.store, &self.location.key);
        self.parts = Some(again(|| wait(store.put_multipart(key)))?);
        Ok(())
    }

    /// Whether the object is there, as long as it should be, and another one than before.
    fn appeared(&self) -> bool {
        let found = wait(self.location.store.head(&self.location.key));
        found.is_ok_and(|found| found.size == self.length && found.e_tag.is_some() && found.e_tag != self.before)
    }

    fn send(&mut self) -> std::io::Result<()> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        let payload = PutPayload::from(std::mem::take(&mut self.waiting));
        let sent = wait(parts.put_part(payload));
        self.sent = true;
        sent.map_err(|error| std::io::Error::other(reason(&error)))
    }

    /// Completes the object.
    ///
    /// # Errors
    /// [`Error::Output`] with what was answered; what was there before is still there then.
    pub fn finish(mut self) -> Result<()> {
        let failed = |url: &Path, message: String| Error::Output {
            file: url.to_path_buf(),
            message: format!("cannot be written: {message}"),
        };
        if self.parts.is_some() {
            // A store wants one part at least, be it empty.
            if !self.waiting.is_empty() || !self.sent {
                self.send().map_err(|error| failed(&self.url, error.to_string()))?;
            }
            let parts = self.parts.as_mut().expect("looked at above");
            match again(|| wait(parts.complete())) {
                Ok(_) => {}
                // The answer to a request that was heard may have been lost; then the upload is gone and the object new.
                Err(object_store::Error::NotFound { .. }) if self.appeared() => {}
                Err(error) => return Err(failed(&self.url, reason(&error))),
            }
            self.parts = None;
        } else {
            let payload = PutPayload::from(std::mem::take(&mut self.waiting));
            let put = wait(self.location.store.put(&self.location.key, payload));
            put.map_err(|error| failed(&self.url, reason(&error)))?;
        }
        Ok(())
    }
}

/// Tries again what a broken connection ended.
fn again<T>(
    mut attempt: impl FnMut() -> std::result::Result<T, object_store::Error>,
) -> std::result::Result<T, object_store::Error> {
    let mut attempts = 0;
    loop {
        match attempt() {
            Err(error) if attempts < RETRIES && !is_final(&error) => std::thread::sleep(pause(attempts)),
            other => return other,
        }
        attempts += 1;
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        self.length += bytes.len() as u64;
        if self.waiting.len() >= PART && self.parts.is_some() {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(mut parts) = self.parts.take() {
            // The reason for giving up is told elsewhere; parts that stay behind are invisible. A store that does not answer
            // must not keep a process from ending.
            let _ = runtime().block_on(async { tokio::time::timeout(FAREWELL, parts.abort()).await });
        }
    }
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

    #[test]
    fn answers_in_markup_are_cut_to_what_they_say() {
        for (text, expected) in [
            (
                "404: <?xml?> <Error><Code>NoSuchKey</Code><Message>None here</Message><Id>7</Id></Error>",
                "404: NoSuchKey: None here",
            ),
            ("500: <Error><Code>InternalError</Code></Error>", "500: InternalError"),
            ("200: <Code>cut", "200: <Code>cut"),
            ("timed out", "timed out"),
        ] {
            assert_eq!(without_markup(text), expected);
        }
    }

    #[test]
    fn urls_are_told_from_paths() {
        for (text, expected) in
            [("s3://b/k", true), ("HTTPS://h/x", true), ("a://b", false), ("runs/x.parquet", false), ("C:\\x", false)]
        {
            assert_eq!(is_url(text), expected, "{text}");
        }
    }
}
