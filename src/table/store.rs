//! Stores on the network: Amazon S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage, plain HTTP.
//!
//! In: URLs. Out: lists of files and ranges of bytes (`read`), objects that appear whole or not at all (`upload`), folders
//! whose parts are replaced together (`folder`). The asynchronous world behind them stays here: callers block. Credentials
//! and endpoints come from the environment under the names that users of these stores know (`AWS_ACCESS_KEY_ID`,
//! `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME` …), as `object_store` reads them.

mod folder;
mod read;
mod upload;

pub(super) use folder::{Folder, MARK, part_name};
pub(super) use read::{Remote, exists, resolve};
pub use upload::Upload;

use crate::error::Error;
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreExt, ObjectStoreScheme, RetryConfig};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

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
/// How often a wait looks whether it is still wanted.
const GLANCE: Duration = Duration::from_millis(50);

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on every wait for a store ends with an error soon after `stop` is set.
pub fn stop_waiting_when(stop: &Arc<AtomicBool>) {
    // There is one flag in a process.
    let _ = STOP.set(stop.clone());
}

fn stopped() -> bool {
    STOP.get().is_some_and(|stop| stop.load(Ordering::Relaxed))
}

/// Waits before something is tried again, as long as that is wanted.
fn rest(pause: Duration) {
    let until = Instant::now() + pause;
    while Instant::now() < until && !stopped() {
        std::thread::sleep(GLANCE.min(pause));
    }
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
            if stopped() {
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

/// Where a machine in a cloud is asked for credentials, when the environment holds none.
const MACHINES: [&str; 2] = ["169.254.169.254", "metadata.google"];

/// Whether an answer holds one of these texts.
fn told(error: &object_store::Error, texts: &[&str]) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if texts.iter().any(|wanted| text.contains(wanted)) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What a store answered, in one line, and what may be done about it.
fn reason(error: &object_store::Error) -> String {
    use object_store::Error as E;
    let repair = match error {
        _ if told(error, &["NoSuchBucket", "ContainerNotFound"]) => "no such bucket; check its name and the endpoint",
        E::NotFound { .. } => "no such object; check bucket and path",
        E::PermissionDenied { .. } => "the credentials do not allow it; check what they may do",
        E::Unauthenticated { .. } => "the store takes no such credentials; check the variables that hold them",
        E::Precondition { .. } => "it changed while it was read; run again",
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
    if told(error, &MACHINES) {
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

/// Whether asking again could not help: the store has decided, or has been asked often enough already.
fn is_final(error: &object_store::Error) -> bool {
    let text = error.to_string();
    !matches!(error, object_store::Error::Generic { .. })
        || text.contains("retries")
        || text.contains(STOPPED)
        || told(error, &MACHINES)
        || knows_no_ranges(error)
}

/// Whether a server answered a request for a range with the whole.
fn knows_no_ranges(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotSupported { .. }) || error.to_string().contains("non-partial")
}

fn pause(attempts: usize) -> Duration {
    (FIRST_PAUSE * (1 << attempts.min(16))).min(LONGEST_PAUSE)
}

/// Tries again what a broken connection ended.
fn again<T>(
    mut attempt: impl FnMut() -> std::result::Result<T, object_store::Error>,
) -> std::result::Result<T, object_store::Error> {
    let mut attempts = 0;
    loop {
        match attempt() {
            Err(error) if attempts < RETRIES && !is_final(&error) => rest(pause(attempts)),
            other => return other,
        }
        attempts += 1;
    }
}

/// The length in bytes of an object, or of all in a folder, where there is one.
pub(super) fn length(url: &str) -> Option<u64> {
    let location = Location::of(url.trim_end_matches('/')).ok()?;
    if let Ok(found) = wait(location.store.head(&location.key)) {
        return Some(found.size);
    }
    let found = wait(location.store.list(Some(&location.key)).try_collect::<Vec<_>>()).ok()?;
    (!found.is_empty()).then(|| found.iter().map(|object| object.size).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

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
