//! Parses the arguments, runs the subcommand, prints the error chain once, sets the exit code; nothing else.

mod cli;

use clap::Parser;
use std::error::Error;
use std::process::ExitCode;

/// Batches come and go by the megabyte: an allocator that keeps their pages spares the system clearing them anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
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
