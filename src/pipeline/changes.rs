//! Work on what changed alone: curves that `--since` knows are carried over, the others are fitted.
//!
//! In: a batch and the [`Past`]. Out: the [`Work`] of the whole batch, and what became of its curves.

use super::card::Tally;
use super::columns::Columns;
use super::work::{Layouts, Work};
use super::{Request, batch, carried, watch};
use crate::bytes::{Decoder, Encoder};
use crate::error::{Error, Result};
use crate::fingerprint;
use crate::table::{Batch, Found, Past, Source, UNFIT};
use crate::verify::Sample;

/// How many curves of a run are what they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Rows as before: carried over.
    pub same: u64,
    /// Known, with other rows: fitted.
    pub changed: u64,
    /// Not known: fitted.
    pub new: u64,
}

impl Changes {
    fn of(found: &[Found]) -> Changes {
        let mut changes = Changes::default();
        for found in found {
            match found {
                Found::Same(_) => changes.same += 1,
                Found::Changed(_) => changes.changed += 1,
                Found::New => changes.new += 1,
            }
        }
        changes
    }

    pub(super) fn add(&mut self, later: &Changes) {
        self.same += later.same;
        self.changed += later.changed;
        self.new += later.new;
    }

    /// For a ledger.
    pub(super) fn encode(&self, encoder: &mut Encoder) {
        [self.same, self.changed, self.new].iter().for_each(|count| encoder.count(*count));
    }

    /// As it was encoded.
    pub(super) fn decode(decoder: &mut Decoder) -> Option<Changes> {
        Some(Changes { same: decoder.count()?, changed: decoder.count()?, new: decoder.count()? })
    }
}

/// Notes which curves of a batch came again, where its work is known already.
pub(super) fn mark(past: &Past, first: u64, batch: &Batch) -> Result<()> {
    past.find(&batch.keys, &fingerprint::of_curves(&batch.curves), first).map(|_| ())
}

/// Fits what changed and carries the rest over; `first` is the index in the run of the batch's first curve.
pub(super) fn fit_changed(
    request: &Request,
    columns: &Columns,
    layouts: &Layouts,
    past: &Past,
    first: u64,
    batch: &Batch,
) -> Result<Work> {
    let found = past.find(&batch.keys, &fingerprint::of_curves(&batch.curves), first)?;
    let open = |curve: &u32| !matches!(found[*curve as usize], Found::Same(_));
    let changed: Vec<u32> = (0..found.len() as u32).filter(open).collect();
    let indices: Vec<u64> = changed.iter().map(|curve| first + u64::from(*curve)).collect();
    let laws = request.fits.len();
    let mut work = if changed.is_empty() {
        let tallies = vec![Tally::default(); laws];
        let (fits, sample, stages) = (past.join(&found, None)?, Sample::default(), Default::default());
        Work { fits, draws: None, tallies, sample, stages, changes: None, tested: Vec::new(), untested: 0, lost: None }
    } else {
        let part = Batch { keys: batch.keys.take(&changed), curves: batch.curves.take(&changed) };
        let mut work = batch::fit(request, columns, layouts, &indices, &part)?;
        work.fits = past.join(&found, Some(&work.fits))?;
        work
    };
    let same: Vec<u32> = (0..found.len() as u32).filter(|curve| !open(curve)).collect();
    carried::count(request, columns, batch, &same, &mut work);
    work.changes = Some(Changes::of(&found));
    if let Some(watch) = &request.rerun.watch {
        watch::test(watch, request, past, batch, &found, &mut work)?;
    }
    past.done(&found);
    Ok(work)
}

/// What the fits of `--since` have to have in common with this run: all that changes an answer, but not where it was run.
const COMMON: [&str; 19] = [
    "version",
    "formula",
    "objective",
    "space",
    "loss",
    "information_criteria",
    "weighting",
    "standard_errors",
    "covariance",
    "level",
    "intervals",
    "bootstrap",
    "seed",
    "select",
    "bad_rows",
    "boxes",
    "by",
    "where",
    "fingerprint",
];

/// Refuses the fits of another job, saying in what it differs.
pub(super) fn refuse_another_job(source: &Source, methods: &[(String, String)]) -> Result<()> {
    let metadata = crate::table::rows::metadata(source);
    let file = source.files().first().cloned().unwrap_or_default();
    if !metadata.contains_key("sweepfit.version") {
        let message =
            "is no table of fits with its metadata, which --since compares: it takes fits as they were written";
        return Err(Error::Earlier { file, message: message.to_string(), repair: UNFIT });
    }
    for (name, value) in methods.iter().filter(|(name, _)| COMMON.contains(&name.as_str())) {
        let then = metadata.get(&format!("sweepfit.{name}")).cloned().unwrap_or_default();
        if then != *value {
            return Err(Error::Earlier {
                file,
                message: format!(
                    "holds fits of another job: {name} was {}, and is {}",
                    super::ledger::shown(&then),
                    super::ledger::shown(value)
                ),
                repair: UNFIT,
            });
        }
    }
    Ok(())
}
