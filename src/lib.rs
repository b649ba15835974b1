//! sweepfit fits scaling laws and learning curves in bulk.

pub mod curves;
pub mod error;
pub mod evaluate;
pub mod fit;
pub mod formula;
pub mod generate;
pub mod law;
pub mod pipeline;
pub mod random;
pub mod table;

pub use error::{Error, Result};
