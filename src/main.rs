//! Parses the arguments, runs the subcommand, prints the error chain once, sets the exit code; nothing else.

mod cli;

use clap::Parser;
use std::error::Error;
use std::process::ExitCode;

/// Batches come and go by the megabyte: an allocator that keeps their pages spares the system clearing them anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(unsafe_code, reason = "the allocator's crate does not offer its options; this function only sets a number")]
unsafe extern "C" {
    /// Of the allocator: sets an option of its `mi_option_t`.
    safe fn mi_option_set(option: std::ffi::c_int, value: std::ffi::c_long);
}

/// `mi_option_purge_delay`: after how many milliseconds freed pages go back to the system.
const PURGE_DELAY: std::ffi::c_int = 15;
/// Long beside the life of a batch, on a machine that others load, too.
const MILLISECONDS: std::ffi::c_long = 10_000;

fn main() -> ExitCode {
    // A batch is as large as the one before: pages given back at once would be asked for, and cleared, again.
    mi_option_set(PURGE_DELAY, MILLISECONDS);
    cli::keep_drivers_quiet();
    match cli::Arguments::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprint!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!();
            ExitCode::from(2)
        }
    }
}
