//! Arrow and Parquet live here and nowhere else.

pub mod sweep;
