//! SIGINT and SIGTERM: a run is told to stop, cleans up after itself, and the process exits with 2, within a second.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// Whether somebody looks at the flag and has to clean up.
static LOOKED_AT: AtomicBool = AtomicBool::new(false);

/// Folders that go with the process where nobody looks at the flag.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// How long a run may take to clean up: what it is in the middle of, a disk may hold up.
const PATIENCE: Duration = Duration::from_millis(800);

static FLAG: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| {
    let flag = Arc::new(AtomicBool::new(false));
    sweepfit::table::stop_waiting_when(&flag);
    let set = flag.clone();
    // Where no handler can be set, the signals end the process as they always did.
    let _ = ctrlc::set_handler(move || {
        set.store(true, Ordering::SeqCst);
        if LOOKED_AT.load(Ordering::SeqCst) {
            std::thread::sleep(PATIENCE);
            // Still here. Ledger and outputs bear any death, and the next run replaces the hidden files that this one leaves.
            super::log::error(&sweepfit::Error::Interrupted);
            std::process::exit(2);
        } else {
            for folder in FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                // The message that follows is all that can be said; some folders are gone already.
                let _ = std::fs::remove_dir_all(folder);
            }
            super::log::error(&sweepfit::Error::Interrupted);
            std::process::exit(2);
        }
    });
    flag
});

/// Takes the signals over: until [`flag`] is asked for, they end the process at once.
pub fn watch() {
    LazyLock::force(&FLAG);
}

/// Set when the process is told to stop. The caller cleans up and ends the process.
pub fn flag() -> Arc<AtomicBool> {
    LOOKED_AT.store(true, Ordering::SeqCst);
    FLAG.clone()
}

/// Takes [`flag`] back: from now on the signals end the process at once, until it is asked for again.
pub fn nobody_looks() {
    LOOKED_AT.store(false, Ordering::SeqCst);
}

/// Whether the process was told to stop.
pub fn flag_is_set() -> bool {
    FLAG.load(Ordering::SeqCst)
}

/// Removes a folder, too, when the signals end the process at once.
pub fn clear_away(folder: PathBuf) {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).push(folder);
}
