//! The shipped binary from outside: what it prints, what it writes, what it refuses, and the answers that others published.
//!
//! Tests on published data read `../shared/data` and show as ignored where that is absent.

#[path = "../support/mod.rs"]
mod support;

mod bad_input;
mod bench;
mod cli;
mod decide;
mod extrapolation;
mod language;
mod nist;
mod properties;
mod published;
mod tournament;
mod uncertainty;
mod verify;
