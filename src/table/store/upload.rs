//! Objects on their way to a store: sent in parts, and there when the last word is said, or never.

use super::{Location, again, reason, runtime, wait};
use crate::error::{Error, Result};
use object_store::{MultipartUpload, ObjectStoreExt, ObjectStoreScheme, PutPayload};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a part of an upload; S3 takes ten thousand parts: 80 GB.
const PART: usize = 8 * 1024 * 1024;

/// How long giving an upload up may take.
pub(super) const FAREWELL: Duration = Duration::from_millis(250);

/// An object on its way: it appears when [`Upload::finish`] returns, whole; dropped before, it never does.
pub struct Upload {
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
        if self.location.scheme == ObjectStoreScheme::MicrosoftAzure {
            // There beginning asks nothing: a block does, which never belongs to an object and goes by itself.
            again(|| wait(async { store.put_multipart(key).await?.put_part(PutPayload::from_static(b"?")).await }))?;
        }
        self.parts = Some(again(|| wait(store.put_multipart(key)))?);
        Ok(())
    }

    /// Whether the object is there, as long as it should be, and another one than before.
    fn appeared(&self) -> bool {
        let found = again(|| wait(self.location.store.head(&self.location.key)));
        found.is_ok_and(|found| found.size == self.length && found.e_tag.is_some() && found.e_tag != self.before)
    }

    fn send(&mut self) -> std::io::Result<()> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        let payload = PutPayload::from(std::mem::take(&mut self.waiting));
        let sent = wait(parts.put_part(payload));
        self.sent = true;
        sent.map_err(|error| std::io::Error::other(reason(&error)))
    }

    /// Sends what has been written and waits, so that finishing takes one request.
    pub(super) fn send_rest(&mut self) -> std::io::Result<()> {
        if self.waiting.is_empty() { Ok(()) } else { self.send() }
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
            // Asking a second time is of no use: the parts were told once. But the answer to a request that was heard may
            // have been lost, and then the object is there.
            if let Err(error) = wait(parts.complete())
                && !self.appeared()
            {
                return Err(failed(&self.url, reason(&error)));
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
