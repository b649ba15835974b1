//! The watch: whether new points of a curve lie where its earlier fit predicted them.
//!
//! In: batches whose curves are known, grown ones among them. Out: a p-value for each curve that had a fit and has only new
//! rows at its end, adjusted at the end of the run for all of them. The test is Chow's (1960): the new points are predicted
//! jointly, scatter and uncertainty of the fit included, as well as the sum of squares rises little when they join the fit.
//! For one new point and a linear law that is its prediction interval by Student's t.

use super::Request;
use super::work::Work;
use crate::bytes::{Decoder, Encoder};
use crate::error::Result;
use crate::fingerprint;
use crate::fit::Status;
use crate::fit::pack::Weighting;
use crate::statistics::variance_ratio::{adjusted, prediction_p};
use crate::table::{BROKE, BROKE_ADJUSTED, Batch, Block, Found, Past};
use serde_json::{Value, json};

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Watch {
    /// Which of the run's laws.
    pub law: usize,
    /// The rate of false discoveries up to which a curve counts as broken.
    pub rate: f64,
}

/// A curve whose new points were tested.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tested {
    /// In its batch; in [`Tests`], in the run.
    row: u64,
    key: String,
    p: f64,
    /// New points.
    points: u64,
}

impl Tested {
    /// For a ledger.
    pub fn encode(&self, encoder: &mut Encoder) {
        encoder.count(self.row);
        encoder.text(&self.key);
        encoder.numbers(&[self.p]);
        encoder.count(self.points);
    }

    /// As it was encoded.
    pub fn decode(decoder: &mut Decoder) -> Option<Tested> {
        let (row, key) = (decoder.count()?, decoder.text()?);
        Some(Tested { row, key, p: *decoder.numbers()?.first()?, points: decoder.count()? })
    }
}

/// All tests of a run so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tests {
    rows: u64,
    tested: Vec<Tested>,
    untested: u64,
}

impl Tests {
    /// Takes those of a batch of so many rows in.
    pub fn add(&mut self, rows: u64, tested: Vec<Tested>, untested: u64) {
        let before = self.rows;
        self.tested.extend(tested.into_iter().map(|tested| Tested { row: before + tested.row, ..tested }));
        self.rows += rows;
        self.untested += untested;
    }
}

/// Tests the curves of a batch that have grown, and puts the p-values into their rows.
pub(super) fn test(
    watch: &Watch,
    request: &Request,
    past: &Past,
    batch: &Batch,
    found: &[Found],
    work: &mut Work,
) -> Result<()> {
    let (tested, untested) = tests(watch, request, past, batch, found, &work.fits)?;
    let mut p_values = vec![f64::NAN; work.fits.rows()];
    tested.iter().for_each(|tested| p_values[tested.row as usize] = tested.p);
    work.fits = work.fits.with_numbers(BROKE, p_values);
    (work.tested, work.untested) = (tested, untested);
    Ok(())
}

/// The tests of a batch whose rows are `fits`, and how many curves changed and could not be tested.
fn tests(
    watch: &Watch,
    request: &Request,
    past: &Past,
    batch: &Batch,
    found: &[Found],
    fits: &Block,
) -> Result<(Vec<Tested>, u64)> {
    let plan = &request.fits[watch.law].plan;
    let known = matches!(plan.weighting, Weighting::Sigma(_));
    let (status, points, objective) = (fits.texts("status"), fits.numbers("points"), fits.numbers("objective"));
    let fitted = |status: &str| Status::of_name(status).is_some_and(Status::has_parameters);
    let (mut tested, mut untested) = (Vec::new(), 0);
    for (curve, found) in found.iter().enumerate() {
        let Found::Changed(place) = *found else { continue };
        let row = curve * request.fits.len() + watch.law;
        let grown = fingerprint::rows_known(&batch.curves, curve, past.fingerprint(place)).is_some();
        let then = past.told(place, watch.law)?;
        let both = fitted(&then.status) && fitted(status(row));
        let more = points(row) - f64::from(then.points);
        let freedom = f64::from(then.points) - (plan.model.len() as f64 - then.pinned as f64);
        let p = prediction_p(then.objective, objective(row), freedom, more, known);
        if !(grown && both && more > 0.0) || p.is_nan() {
            untested += 1;
            continue;
        }
        tested.push(Tested { row: row as u64, key: batch.keys.describe(curve), p, points: more as u64 });
    }
    Ok((tested, untested))
}

/// A curve whose new points lie off its earlier fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Broken {
    pub key: String,
    /// How often true points would lie as far off or farther.
    pub p: f64,
    /// The rate of false discoveries among curves with an adjusted p-value as small.
    pub adjusted: f64,
    /// New points.
    pub points: u64,
}

/// What the watch found.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    pub law: String,
    pub rate: f64,
    /// Curves whose new points were tested.
    pub tested: u64,
    /// Curves that changed and were not: not only grown, or without a fit or a point to spare.
    pub untested: u64,
    /// The worst first.
    pub broken: Vec<Broken>,
    /// Row of the table and adjusted p-value, in the order of rows.
    adjusted: Vec<(u64, f64)>,
}

impl Watched {
    pub(super) fn of(watch: &Watch, law: &str, tests: Tests) -> Watched {
        let p: Vec<f64> = tests.tested.iter().map(|tested| tested.p).collect();
        let adjusted = adjusted(&p);
        let broken = tests.tested.iter().zip(&adjusted).filter(|(_, adjusted)| **adjusted <= watch.rate);
        let broken = broken.map(|(tested, &adjusted)| Broken {
            key: tested.key.clone(),
            p: tested.p,
            adjusted,
            points: tested.points,
        });
        let mut broken: Vec<Broken> = broken.collect();
        broken.sort_by(|a, b| a.p.total_cmp(&b.p));
        Watched {
            law: law.to_string(),
            rate: watch.rate,
            tested: p.len() as u64,
            untested: tests.untested,
            broken,
            adjusted: tests.tested.iter().map(|tested| tested.row).zip(adjusted).collect(),
        }
    }

    /// Puts the adjusted p-values into a block whose first row is `first` of the table.
    pub(super) fn adjust(&self, block: &Block, first: u64) -> Block {
        let rows = first..first + block.rows() as u64;
        let mut numbers = vec![f64::NAN; block.rows()];
        let from = self.adjusted.partition_point(|(row, _)| *row < rows.start);
        for (row, adjusted) in self.adjusted[from..].iter().take_while(|(row, _)| rows.contains(row)) {
            numbers[(row - first) as usize] = *adjusted;
        }
        block.with_numbers(BROKE_ADJUSTED, numbers)
    }

    /// For the summary and the metadata.
    pub fn to_json(&self) -> Value {
        let broken = |found: &Broken| json!({ "curve": found.key, "p": found.p, "adjusted": found.adjusted, "new_points": found.points });
        json!({
            "law": self.law,
            "rate": self.rate,
            "tested": self.tested,
            "not_tested": self.untested,
            "broken": self.broken.iter().map(broken).collect::<Vec<_>>(),
        })
    }
}
