//! Tables in, tables out: Parquet, CSV and Arrow IPC become batches of curves, results become a table.
//!
//! In: the paths of the inputs, the key columns, the numeric columns, a filter. Out: [`Batch`]es of whole curves in the
//! order in which their keys first appear, and a [`Writer`] for one row per curve and law. Arrow and Parquet live here
//! and nowhere else; laws, fits and formulas' parameters are not known here.
//!
//! The way of a row: `source` finds the files and their columns, `decode` turns a part of a file into arrays, `piece`
//! filters them, finds where the key changes and makes every number an f64 (all of that in parallel), `group` joins the
//! pieces to curves in input order, `read` is the conveyor between them.

mod arrow_ipc;
mod block;
mod content;
mod csv;
mod decode;
mod filter;
mod group;
mod guard;
mod index;
mod keys;
mod known;
mod numbers;
mod parts;
mod past;
mod piece;
mod read;
pub mod rows;
mod seen;
mod source;
mod spill;
mod spool;
mod store;
pub mod sweep;
#[cfg(test)]
mod testing;
mod version;
mod write;

pub use keys::{KeySchema, Keys};
pub use known::Found;
pub use parts::{Parting, PartsWriter, check_parts};
pub use past::{BROKE, BROKE_ADJUSTED, FINGERPRINT, Past, Told, UNFIT};
pub use read::{Counts, DEVICE_BATCH, Event, HOST_BATCH, ReadOptions, Reader, Selection, read, read_with_labels};
pub use source::{ColumnInfo, ColumnKind, Source, exists, is_named_as_table};
pub use spill::Memory;
pub use spool::Spool;
pub use store::{Upload, is_url, stop_waiting_when};
pub use write::{Block, Care, Layout, OutputKind, Values, Writer, check_place, length_of};

use crate::curves::CurveBatch;

/// Whole curves: the numbers and, row for row, the keys that they belong to.
#[derive(Debug, Clone)]
pub struct Batch {
    /// One row per curve.
    pub keys: Keys,
    /// The numeric columns in the order in which they were asked for.
    pub curves: CurveBatch,
}

impl Batch {
    /// The batch in parts of at most `curves` curves.
    pub fn split(self, curves: usize) -> Vec<Batch> {
        if self.curves.len() <= curves {
            return vec![self];
        }
        let starts = (0..self.curves.len()).step_by(curves.max(1));
        let part = |start: usize| {
            let range = start..self.curves.len().min(start + curves.max(1));
            Batch { keys: self.keys.slice(range.clone()), curves: self.curves.slice(range) }
        };
        starts.map(part).collect()
    }
}
