//! Small files beside the table: the summary, the metrics. They appear under their name when complete, here or in a store.

use std::io::Write;
use std::path::{Path, PathBuf};
use sweepfit::table::{Upload, is_url};
use sweepfit::{Error, Result};
use tempfile::NamedTempFile;

/// A file that is made before the run, so that it cannot fail after it for want of a folder.
pub struct SideFile {
    path: PathBuf,
    /// The option that names it, for messages.
    option: &'static str,
    place: Place,
}

enum Place {
    /// Renamed when complete.
    Here(NamedTempFile),
    Store(Box<Upload>),
}

impl SideFile {
    pub fn create(path: &Path, option: &'static str) -> Result<SideFile> {
        let place = match path.to_str().filter(|text| is_url(text)) {
            Some(url) => Place::Store(Box::new(Upload::create(url)?)),
            None => Place::Here(hidden_beside(path).map_err(|error| unwritable(path, option, &error))?),
        };
        Ok(SideFile { path: path.to_path_buf(), option, place })
    }

    pub fn write(self, text: &str) -> Result<()> {
        let SideFile { path, option, place } = self;
        let failed = |error: &std::io::Error| unwritable(&path, option, error);
        match place {
            Place::Here(mut file) => {
                file.write_all(text.as_bytes()).map_err(|error| failed(&error))?;
                file.persist(&path).map_err(|error| failed(&error.error))?;
                Ok(())
            }
            Place::Store(mut upload) => {
                upload.write_all(text.as_bytes()).map_err(|error| failed(&error))?;
                upload.finish()
            }
        }
    }
}

fn hidden_beside(path: &Path) -> std::io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".sweepfit-").suffix(".part");
    // An ordinary file, not a private one as temporary files are.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

fn unwritable(path: &Path, option: &str, error: &std::io::Error) -> Error {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        let message =
            format!("the folder {} does not exist; make it first, or choose another {option}", folder.display());
        return Error::Output { file: path.to_path_buf(), message };
    }
    Error::Output { file: path.to_path_buf(), message: format!("cannot be written: {error}; choose another {option}") }
}
