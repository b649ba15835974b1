//! The tables that a run writes: the fits, in one file or in parts, and the draws.
//!
//! In: the work on batches, in order. Out: tables that appear when they are complete.

use super::Request;
use super::columns::Columns;
use super::work::{Layouts, Work};
use crate::error::Result;
use crate::table::{Block, Care, KeySchema, Layout, PartsWriter, Writer};

/// The table of fits, and that of draws where it is asked for.
pub(super) struct Writers {
    pub fits: Fits,
    draws: Option<Writer>,
}

/// The table of fits in one file or in parts.
pub(super) enum Fits {
    Whole(Box<Writer>),
    Parts(Box<PartsWriter>),
}

impl Fits {
    pub fn layout(&self) -> &Layout {
        match self {
            Fits::Whole(writer) => writer.layout(),
            Fits::Parts(writer) => writer.layout(),
        }
    }

    pub fn append(&mut self, block: &Block) -> Result<()> {
        match self {
            Fits::Whole(writer) => writer.append(block),
            Fits::Parts(writer) => writer.append(block),
        }
    }

    pub fn finish(self, metadata: &[(String, String)]) -> Result<()> {
        match self {
            Fits::Whole(writer) => writer.finish(metadata),
            Fits::Parts(writer) => writer.finish(metadata),
        }
    }
}

impl Writers {
    pub fn create(request: &Request, columns: &Columns, keys: &KeySchema) -> Result<Writers> {
        let care = Care { alone: true, durable: request.rerun.ledger.is_some() };
        let create = |path: &str, columns: &[_]| Writer::create_with(path, keys, columns, care);
        let columns_of_fits = columns.announced();
        let fits = match &request.parts {
            None => Fits::Whole(Box::new(create(&request.out, columns_of_fits)?)),
            Some(parting) => {
                Fits::Parts(Box::new(PartsWriter::create(&request.out, parting, keys, columns_of_fits, care)?))
            }
        };
        Ok(Writers { fits, draws: request.draws().map(|path| create(path, &columns.announced_draws())).transpose()? })
    }

    pub fn layouts(&self) -> Layouts {
        Layouts { fits: self.fits.layout().clone(), draws: self.draws.as_ref().map(|draws| draws.layout().clone()) }
    }

    pub fn append(&mut self, work: &Work) -> Result<()> {
        if let (Some(draws), Some(block)) = (&mut self.draws, &work.draws) {
            draws.append(block)?;
        }
        self.fits.append(&work.fits)
    }

    pub fn finish(self, metadata: &[(String, String)]) -> Result<()> {
        if let Some(draws) = self.draws {
            draws.finish(metadata)?;
        }
        self.fits.finish(metadata)
    }
}
