//! Blocks of rows as bytes and back: what a ledger keeps of a table that is not complete.
//!
//! In: a [`Block`]. Out: an Arrow IPC stream of that one batch, and the same block again, value for value.

use super::write::{Block, Layout};
use crate::error::Result;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

impl Block {
    /// As an Arrow IPC stream.
    ///
    /// # Errors
    /// [`Error::Output`](crate::Error::Output): a type that Arrow IPC does not know.
    pub fn to_bytes(&self, layout: &Layout) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.0.get_array_memory_size());
        let written = StreamWriter::try_new(&mut bytes, &self.0.schema()).and_then(|mut writer| {
            writer.write(&self.0)?;
            writer.finish()
        });
        written.map_err(|error| layout.failed(&error))?;
        Ok(bytes)
    }

    /// From such a stream; `None` where it holds anything else than one block of this layout.
    pub fn from_bytes(bytes: &[u8], layout: &Layout) -> Option<Block> {
        let mut reader = StreamReader::try_new(bytes, None).ok()?;
        let batch = reader.next()?.ok()?;
        (batch.schema_ref().fields() == layout.schema.fields() && reader.next().is_none()).then_some(Block(batch))
    }
}
