//! What was made of one batch, and its bytes in a ledger.

use super::card::{Stages, Tally};
use super::changes::Changes;
use super::watch::Tested;
use crate::bytes::{Decoder, Encoder};
use crate::error::Result;
use crate::table::{Block, Keys, Layout};
use crate::verify::Sample;

/// How the rows of the run's tables are laid out.
#[derive(Debug, Clone)]
pub(super) struct Layouts {
    pub fits: Layout,
    pub draws: Option<Layout>,
}

/// What was made of one batch.
#[derive(Debug)]
pub(super) struct Work {
    /// The rows of the table of fits: for each curve one per law.
    pub fits: Block,
    /// The rows of the table of draws, where there is one.
    pub draws: Option<Block>,
    /// One per law.
    pub tallies: Vec<Tally>,
    /// Curves of the batch that may be verified at the end.
    pub sample: Sample,
    pub stages: Stages,
    /// What became of the curves since an earlier run, where one is given.
    pub changes: Option<Changes>,
    /// Of curves whose new points were tested against the earlier fit.
    pub tested: Vec<Tested>,
    /// Curves that changed and could not be.
    pub untested: u64,
    /// Why the device was given up, where that had happened by the end of the batch.
    pub lost: Option<String>,
}

impl Work {
    /// For a ledger; `content` is the fingerprint of the batch. Times are not kept.
    pub fn encode(&self, content: u64, layouts: &Layouts) -> Result<Vec<u8>> {
        let mut encoder = Encoder::default();
        encoder.count(content);
        encoder.list(&self.tallies, |encoder, tally| tally.encode(encoder));
        self.sample.encode(&mut encoder);
        encoder.option(self.changes.as_ref(), |encoder, changes| changes.encode(encoder));
        encoder.list(&self.tested, |encoder, tested| tested.encode(encoder));
        encoder.count(self.untested);
        encoder.option(self.lost.as_ref(), |encoder, lost| encoder.text(lost));
        encoder.bytes(&self.fits.to_bytes(&layouts.fits)?);
        if let (Some(draws), Some(layout)) = (&self.draws, &layouts.draws) {
            encoder.bytes(&draws.to_bytes(layout)?);
        }
        Ok(encoder.0)
    }

    /// As it was encoded; `None` where it is not the work on these curves.
    pub fn decode(bytes: &[u8], content: u64, keys: &Keys, layouts: &Layouts) -> Result<Option<Work>> {
        let mut decoder = Decoder(bytes);
        let work = || {
            if decoder.count()? != content {
                return None;
            }
            let (tallies, sample) = (decoder.list(Tally::decode)?, Sample::decode(&mut decoder)?);
            let changes = decoder.option(Changes::decode)?;
            let (tested, untested) = (decoder.list(Tested::decode)?, decoder.count()?);
            let lost = decoder.option(Decoder::text)?;
            let fits = Block::from_bytes(decoder.bytes()?, &layouts.fits)?;
            let draws = match &layouts.draws {
                Some(layout) => Some(Block::from_bytes(decoder.bytes()?, layout)?),
                None => None,
            };
            Some(Work { fits, draws, tallies, sample, stages: Stages::default(), changes, tested, untested, lost })
        };
        let Some(work) = { work }() else { return Ok(None) };
        let laws = work.tallies.len();
        Ok(layouts.fits.is_of(&work.fits, keys, laws)?.then_some(work))
    }
}
