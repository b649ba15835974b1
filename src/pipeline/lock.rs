//! One run at a time for every output: an advisory lock on a small file beside it.
//!
//! In: the output's path. Out: a [`Lock`] that lasts as long as it is held, or an error that names the run that holds it.
//! The lock is the operating system's and dies with its process; the file that a killed process leaves behind is taken
//! over by the next one. What is no file (standard output, a device) is not locked.

use crate::error::{Error, Result};
use crate::table::is_url;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Held while an output is written.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

/// A hidden file beside `out`: `.NAME.ENDING`. Through a link it lies beside the file that the link points to.
pub fn beside(out: &Path, ending: &str) -> PathBuf {
    let target = std::fs::canonicalize(out).unwrap_or_else(|_| out.to_path_buf());
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    target.with_file_name(format!(".{name}.{ending}"))
}

/// The folder in which an output lies; that of temporary files for what lies in no folder here.
pub fn folder_of(out: &str) -> PathBuf {
    if out == "-" || is_url(out) {
        return std::env::temp_dir();
    }
    let out = Path::new(out);
    let target = std::fs::canonicalize(out).unwrap_or_else(|_| out.to_path_buf());
    target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

impl Lock {
    /// Locks an output; `None` for what is no file and cannot be in two runs' way.
    ///
    /// # Errors
    /// [`Error::Output`] where another run holds it, naming that run, and where no lock can be made.
    pub fn take(out: &str) -> Result<Option<Lock>> {
        let target = Path::new(out);
        if out == "-" || is_url(out) || (target.exists() && !target.is_file() && !target.is_dir()) {
            return Ok(None);
        }
        let failed = |message: String| Error::Output { file: target.to_path_buf(), message };
        let path = beside(target, "lock");
        loop {
            let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = options.map_err(|error| {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                    return failed(format!("the folder {} does not exist; make it first", folder.display()));
                }
                failed(format!("cannot be locked ({}: {error}); choose another place for it", path.display()))
            })?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut owner = String::new();
                    // Where locked files cannot be read, the owner stays unknown.
                    let owner = match file.read_to_string(&mut owner) {
                        Ok(1..) => owner.trim().to_string(),
                        _ => "another process".to_string(),
                    };
                    return Err(failed(format!(
                        "is being written by {owner}: wait for it, end it, or choose another place with -o"
                    )));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(failed(format!(
                        "cannot be locked ({}: {error}): its file system knows no locks; choose another place for it",
                        path.display()
                    )));
                }
            }
            // Its owner may have removed the file while this run waited to open it: then the lock guards nothing.
            if !is_at(&file, &path) {
                continue;
            }
            let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", this_run()));
            written.map_err(|error| failed(format!("cannot be locked ({}: {error})", path.display())))?;
            return Ok(Some(Lock { path, file }));
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is still held, so that nobody can lock a file that is about to go. One that stays is taken over.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata(), std::fs::metadata(path)), (Ok(a), Ok(b)) if place(&a) == place(&b))
}

/// Where an open file cannot be removed by name, it is at its place.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

/// This process, its machine and the time.
fn this_run() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok());
    let host = host.map_or(String::new(), |host| format!(" on {}", host.trim()));
    format!("process {}{host} since {}", std::process::id(), utc(SystemTime::now()))
}

/// `2026-03-01 04:05:06 UTC`.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 0000-03-01, so that a leap day ends its year (Hinnant, "chrono-compatible date algorithms").
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, year) } else { (month - 9, year + 1) };
    let year = year + 400 * era;
    format!("{year}-{month:02}-{date:02} {:02}:{:02}:{:02} UTC", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_second_run_is_told_who_the_first_one_is_and_the_next_one_may() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("fits.parquet").display().to_string();
        let first = Lock::take(&out).expect("a lock").expect("a file");
        let message = Lock::take(&out).expect_err("held").to_string();
        assert!(message.contains(&format!("written by process {}", std::process::id())), "{message}");
        assert!(message.starts_with(&out) && message.contains(" UTC: wait"), "{message}");
        drop(first);
        assert_eq!(std::fs::read_dir(folder.path()).expect("entries").count(), 0);
        // What a killed process leaves.
        std::fs::write(beside(Path::new(&out), "lock"), "process 1 on elsewhere since long ago\n").expect("a file");
        let next = Lock::take(&out).expect("a lock");
        assert!(next.is_some() && Lock::take("-").expect("no lock").is_none());
    }

    #[test]
    fn times_are_told_as_dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
