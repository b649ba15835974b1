//! Blocks that wait for what only the end of a run can tell: kept in a file without a name, read again in order.

use super::write::{Block, Layout};
use crate::error::Result;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Blocks in the order in which they came.
pub struct Spool {
    layout: Layout,
    file: File,
    lengths: Vec<usize>,
}

impl Spool {
    /// An empty one in `folder`.
    ///
    /// # Errors
    /// [`Error::Output`](crate::Error::Output): a folder that cannot be written to.
    pub fn create(folder: &Path, layout: &Layout) -> Result<Spool> {
        let file = tempfile::tempfile_in(folder).map_err(|error| layout.failed(&error))?;
        Ok(Spool { layout: layout.clone(), file, lengths: Vec::new() })
    }

    /// Takes a block in.
    ///
    /// # Errors
    /// [`Error::Output`](crate::Error::Output): a full disk, for example.
    pub fn push(&mut self, block: &Block) -> Result<()> {
        let bytes = block.to_bytes(&self.layout)?;
        self.file.write_all(&bytes).map_err(|error| self.layout.failed(&error))?;
        self.lengths.push(bytes.len());
        Ok(())
    }

    /// Hands every block out, in order.
    ///
    /// # Errors
    /// What `sink` refuses, and a file that cannot be read any more.
    pub fn replay(mut self, mut sink: impl FnMut(Block) -> Result<()>) -> Result<()> {
        self.file.seek(SeekFrom::Start(0)).map_err(|error| self.layout.failed(&error))?;
        let mut bytes = Vec::new();
        for length in self.lengths {
            bytes.resize(length, 0);
            self.file.read_exact(&mut bytes).map_err(|error| self.layout.failed(&error))?;
            let block = Block::from_bytes(&bytes, &self.layout);
            sink(block.ok_or_else(|| self.layout.failed(&"a block of it cannot be read again"))?)?;
        }
        Ok(())
    }
}
