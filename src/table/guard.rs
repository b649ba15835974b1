//! The wall between damaged files and this process: a decoder's panic becomes an error that names the file.
//!
//! The decoders validate most of what they read, but not all: on garbage they may still run into an assertion. Such a
//! panic says something about the file, not about this program, so its message and backtrace are not printed.

use crate::error::{Error, Result};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::Path;
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside a decoder.
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder on `file`; its error or its panic becomes [`Error::Input`].
pub(super) fn decoding<T, E: std::fmt::Display>(
    file: &Path,
    decode: impl FnOnce() -> std::result::Result<T, E>,
) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |panic| {
            if !DECODING.get() {
                previous(panic);
            }
        }));
    });
    let outer = DECODING.replace(true);
    // The decoder is dropped by its owner after a panic and never asked again, so no broken state can be observed.
    let outcome = catch_unwind(AssertUnwindSafe(decode));
    DECODING.set(outer);
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(damaged(file, &error.to_string())),
        Err(panic) => {
            let reason = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
            let reason = reason.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(damaged(file, &reason.unwrap_or_else(|| "the decoder gave up".to_string())))
        }
    }
}

/// The error for a file whose content cannot be decoded.
pub(super) fn damaged(file: &Path, reason: &str) -> Error {
    let reason = reason.lines().next().unwrap_or_default();
    Error::Input {
        file: file.to_path_buf(),
        message: format!("cannot be decoded ({reason}); the file is damaged or incomplete, write or copy it again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_decoder_becomes_an_error_that_names_the_file() {
        let error = decoding(Path::new("x.parquet"), || -> std::result::Result<(), String> { panic!("index {}", 7) });
        let message = error.expect_err("a panic").to_string();
        assert!(message.starts_with("x.parquet: cannot be decoded (index 7)"), "{message}");
    }
}
