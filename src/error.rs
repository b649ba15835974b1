//! The one error type of the library.
//!
//! Every variant names what is wrong (file, column, curve, option) and the repair. A failed curve is not an error: it is
//! data and gets a [`Status`](crate::fit::Status). Only what stops the whole run lives here.

use std::path::PathBuf;

/// What stops a run; `main` prints the chain once and exits with 2.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A formula, filter or law text that does not parse or does not mean anything; `message` holds the caret picture.
    #[error("{0}")]
    Formula(String),
    /// A wrong combination or value of options; names the option and the repair.
    #[error("{0}")]
    Usage(String),
    /// A job file that cannot be read or does not mean anything; file, line and column, with a caret picture.
    #[error("{0}")]
    Job(String),
    /// What stopped a step of a job; `step` says which one.
    #[error("{step}")]
    Step { step: String, source: Box<Error> },
    /// An input file that cannot be read as a table.
    #[error("{}: {message}", .file.display())]
    Input { file: PathBuf, message: String },
    /// A column that is missing, has the wrong type or holds a value that cannot be used.
    #[error("column \"{column}\" {message}")]
    Column { column: String, message: String },
    /// An output that cannot be written.
    #[error("{}: {message}", .file.display())]
    Output { file: PathBuf, message: String },
    /// What an earlier run left cannot be gone on from: its ledger or its fits are not there, or are of another input, of
    /// other options or of another version.
    #[error("{}: {message}; {repair}", .file.display())]
    Earlier { file: PathBuf, message: String, repair: &'static str },
    /// No usable adapter, a lost device, a device out of memory.
    #[error("{0}")]
    Device(String),
    /// The run was told to stop by SIGINT or SIGTERM.
    #[error("interrupted; no output was written")]
    Interrupted,
}

impl Error {
    /// Names the table that a column is missing in, where a command reads several.
    pub fn of_table(self, file: &str) -> Error {
        match self {
            Error::Column { column, message } => {
                Error::Input { file: file.into(), message: format!("column \"{column}\" {message}") }
            }
            other => other,
        }
    }
}

/// Shorthand for results of the library.
pub type Result<T> = std::result::Result<T, Error>;

/// The candidate nearest to `wanted` by edit distance, if one is near enough to be a likely typing slip.
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count().max(wanted.chars().count()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
