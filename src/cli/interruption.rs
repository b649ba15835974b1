//! SIGINT and SIGTERM: a run is told to stop, cleans up after itself and exits with 2.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    // Where no handler can be set, the signals end the process as they always did.
    let _ = ctrlc::set_handler(move || set.store(true, Ordering::Relaxed));
    flag
});

/// Set when the process is told to stop; from the first call on, the signals do nothing else.
pub fn flag() -> Arc<AtomicBool> {
    INTERRUPTED.clone()
}
