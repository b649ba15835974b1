//! Small files beside the table: the summary, the metrics. Written under a temporary name and renamed when complete.

use std::io::Write;
use std::path::{Path, PathBuf};
use sweepfit::{Error, Result};
use tempfile::NamedTempFile;

/// A file that is made before the run, so that it cannot fail after it for want of a folder.
pub struct SideFile {
    path: PathBuf,
    /// The option that names it, for messages.
    option: &'static str,
    file: NamedTempFile,
}

impl SideFile {
    pub fn create(path: &Path, option: &'static str) -> Result<SideFile> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".sweepfit-").suffix(".part");
        // An ordinary file, not a private one as temporary files are.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(|error| unwritable(path, option, &error))?;
        Ok(SideFile { path: path.to_path_buf(), option, file })
    }

    pub fn write(self, text: &str) -> Result<()> {
        let SideFile { path, option, mut file } = self;
        file.write_all(text.as_bytes()).map_err(|error| unwritable(&path, option, &error))?;
        file.persist(&path).map_err(|error| unwritable(&path, option, &error.error))?;
        Ok(())
    }
}

fn unwritable(path: &Path, option: &str, error: &std::io::Error) -> Error {
    Error::Output { file: path.to_path_buf(), message: format!("cannot be written: {error}; choose another {option}") }
}
