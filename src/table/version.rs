//! Which version of its files a source has: what a run that goes on after another has to find unchanged.

use super::source::Source;
use super::store::{Remote, is_url};
use crate::error::{Error, Result};
use std::time::UNIX_EPOCH;

impl Source {
    /// For every file, in reading order, a text that changes when the file does: its size and when it was written,
    /// or in a store the tag that it gives every state.
    ///
    /// # Errors
    /// [`Error::Input`]: a file that is gone.
    pub fn versions(&self) -> Result<Vec<String>> {
        let version = |file: &std::path::PathBuf| {
            if let Some(url) = file.to_str().filter(|text| is_url(text)) {
                return Remote::open(url).map(|remote| remote.version());
            }
            let version = file.metadata().and_then(|metadata| {
                let written = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                Ok(format!("{} bytes of {}.{:09}", metadata.len(), written.as_secs(), written.subsec_nanos()))
            });
            version.map_err(|error| Error::Input { file: file.clone(), message: format!("cannot be read: {error}") })
        };
        self.files().iter().map(version).collect()
    }
}
