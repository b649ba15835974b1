//! sweepfit fits scaling laws and learning curves in bulk.

pub mod curves;
pub mod error;
pub mod formula;
pub mod table;

pub use error::{Error, Result};
