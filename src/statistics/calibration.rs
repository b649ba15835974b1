//! Calibration: intervals widened or narrowed until they cover, on the sweep's own curves.
//!
//! In: a table of fits and the sweep behind it. Out: a factor per law for the half-widths of its intervals, and the coverage
//! before and after. Every curve is cut off at several shares of its points, fitted anew up to the cut as the table was,
//! and asked for the points beyond. The factor is the conformal quantile of |error|/half-width over curves, each of which
//! counts once, whatever its points; the coverage after is measured on folds of curves that took no part in their own factor.

use super::fits::{Fits, Fitted, FittedLaw};
use super::student::Quantiles;
use super::surface::{Surface, by_rows, variance};
use crate::curves::CurveBatch;
use crate::error::{Error, Result};
use crate::evaluate::tape::{Tape, map_columns};
use crate::fit::cpu::Cpu;
use crate::fit::judge::judge;
use crate::fit::pack::{self, Plan};
use crate::fit::{Backend, Space};
use crate::formula::graph::Unary;
use crate::formula::parse::parse_filter;
use crate::table::{self, Event, ReadOptions, Selection, Source};

/// Shares of a curve's points up to which it is fitted anew.
pub const CUT_OFFS: [f64; 5] = [0.5, 0.6, 0.7, 0.8, 0.9];
/// Curves that took no part in a factor, one share of so many at a time.
const FOLDS: usize = 10;
/// More curves than these make no factor better, and each is fitted five times.
const MOST_CURVES: usize = 20_000;

/// What calibration found for one law.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibrated {
    /// Multiplies the half-widths of intervals; 1 where no curve could be used.
    pub factor: f64,
    /// Curves that could be cut off, fitted and asked.
    pub curves: usize,
    /// Points beyond the cuts.
    pub points: usize,
    /// Coverage of uncalibrated intervals for new measurements, every curve counting once.
    pub before: f64,
    /// Coverage of calibrated ones, on curves outside their own factor; NaN with a single curve.
    pub after: f64,
    /// The share that so few curves can promise, where it is less than the level.
    pub promised: Option<f64>,
}

/// One held-out point: its curve and its error in half-widths of the uncalibrated interval.
#[derive(Debug, Clone, Copy)]
struct Score {
    curve: usize,
    error: f64,
    /// One over the number of scores of its curve.
    weight: f64,
}

/// Calibrates every law of `fits` on the sweep in `inputs`.
///
/// # Errors
/// What the sweep refuses; a sweep without the columns that the fits were made from.
pub fn calibrate(fits: &Fits, inputs: &[String], level: f64, options: &ReadOptions) -> Result<Vec<Calibrated>> {
    let columns = fits.sweep_columns();
    let plans = fits.plans(&columns)?;
    let source = Source::open(inputs)?;
    let filter = match fits.filter.as_str() {
        "" => None,
        text => Some((text.to_string(), parse_filter(text)?)),
    };
    let selection = Selection { keys: fits.keys.clone(), numbers: columns.clone(), filter };
    let laws: Vec<Law> = fits.laws.iter().zip(&plans).map(|(law, plan)| Law::new(fits, law, plan, &columns)).collect();
    let mut scores: Vec<Vec<Score>> = vec![Vec::new(); laws.len()];
    let mut curves = 0;
    for event in table::read(&source, &selection, options).map_err(|error| error.of_table(&inputs[0]))? {
        match event? {
            Event::Restarted => {
                scores.iter_mut().for_each(Vec::clear);
                curves = 0;
            }
            Event::Batch(batch) => {
                for (law, scores) in laws.iter().zip(&mut scores) {
                    law.score(&batch.curves, curves, level, scores)?;
                }
                curves += batch.curves.len();
                if curves >= MOST_CURVES {
                    break;
                }
            }
        }
    }
    Ok(scores.into_iter().map(|scores| summarise(scores, level)).collect())
}

/// A law and what it takes to score it.
struct Law<'a> {
    plan: &'a Plan,
    surface: Surface,
    /// t of the left side.
    response: Tape,
    /// The batch's columns of the law's own columns.
    places: Vec<usize>,
    /// Positions among the law's columns of its inputs.
    inputs: Vec<usize>,
    space: Space,
    weight: Option<usize>,
}

impl<'a> Law<'a> {
    fn new(fits: &Fits, fitted: &FittedLaw, plan: &'a Plan, columns: &[String]) -> Law<'a> {
        let place = |name: &str| columns.iter().position(|column| column == name).expect("asked for above");
        let mut graph = fitted.law.graph.clone();
        let space = fits.objective.space;
        let t = match space {
            Space::Log => graph.unary(Unary::Log, fitted.law.response),
            Space::Linear => fitted.law.response,
        };
        let all: Vec<usize> = (0..fitted.law.columns.len()).collect();
        Law {
            plan,
            surface: Surface::new(fitted, space),
            response: by_rows(&mut graph, &[t], &all),
            places: fitted.law.columns.iter().map(|name| place(name)).collect(),
            inputs: fitted.inputs.clone(),
            space,
            weight: fits.weight_column().map(place),
        }
    }

    /// Cuts the curves of a batch off, fits them anew and scores what lies beyond.
    fn score(&self, batch: &CurveBatch, first: usize, level: f64, scores: &mut Vec<Score>) -> Result<()> {
        let raw: Vec<&[f64]> = self.places.iter().map(|&place| batch.columns[place].as_slice()).collect();
        let t = map_columns(&self.response, &raw, batch.rows()).pop().expect("one output");
        let scale = self.scale(&raw, batch.rows());
        let before = scores.len();
        for share in CUT_OFFS {
            let (cut, beyond) = self.cut(batch, &scale, &t, share);
            let packed = self.plan.pack(&cut);
            let verdicts = judge(&packed.problem, &Cpu.propose(&packed.problem)?, self.known_sigma());
            let mut quantiles = Quantiles::new(level);
            for (curve, rows) in beyond.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
                let Some(fit) = Fitted::of(self.plan, 0, &verdicts, curve) else { continue };
                let Some(covariance) = &fit.covariance else { continue };
                let p = fit.parameters.len();
                let inputs = self.inputs.iter().map(|&k| rows.iter().map(|&row| raw[k][row]).collect());
                let parameters = fit.parameters.iter().map(|&value| vec![value; rows.len()]);
                let columns: Vec<Vec<f64>> = inputs.chain(parameters).collect();
                let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
                let values = self.surface.evaluate(&columns);
                let quantile = quantiles.two_sided(fit.freedom);
                for (at, &row) in rows.iter().enumerate() {
                    let scatter = match self.weight.map(|column| batch.columns[column][row]) {
                        None => fit.noise,
                        Some(sigma) if self.known_sigma() && self.space == Space::Linear => sigma * sigma,
                        Some(sigma) if self.known_sigma() => (sigma / values[0][at].exp()).powi(2),
                        Some(weight) => fit.noise / weight,
                    };
                    let half = quantile * (variance(covariance, |j| values[1 + j][at], p) + scatter).sqrt();
                    let error = (t[row] - values[0][at]).abs() / half;
                    if error.is_finite() {
                        scores.push(Score { curve: first + curve, error, weight: 1.0 });
                    }
                }
            }
        }
        let mut counts = vec![0u32; batch.len()];
        scores[before..].iter().for_each(|score| counts[score.curve - first] += 1);
        scores[before..].iter_mut().for_each(|score| score.weight = 1.0 / f64::from(counts[score.curve - first]));
        Ok(())
    }

    fn known_sigma(&self) -> bool {
        matches!(self.plan.weighting, pack::Weighting::Sigma(_))
    }

    /// By what the points of a curve grow: the sum of the inputs' logarithms, or the first input where one has none.
    fn scale(&self, raw: &[&[f64]], rows: usize) -> Vec<f64> {
        let first = raw[self.inputs[0]];
        let positive = self.inputs.iter().all(|&k| raw[k].iter().all(|&x| x > 0.0 || x.is_nan()));
        let scale = |row: usize| match positive {
            true => self.inputs.iter().map(|&k| raw[k][row].ln()).sum(),
            false => first[row],
        };
        (0..rows).map(scale).collect()
    }

    /// The curves up to a share of their points, and the rows beyond. A curve of too few points is left whole, with
    /// nothing beyond.
    fn cut(&self, batch: &CurveBatch, scale: &[f64], t: &[f64], share: f64) -> (CurveBatch, Vec<Vec<usize>>) {
        let mut cut = CurveBatch { offsets: vec![0], columns: vec![Vec::new(); batch.columns.len()] };
        let mut beyond = Vec::with_capacity(batch.len());
        for curve in 0..batch.len() {
            let rows = batch.offsets[curve]..batch.offsets[curve + 1];
            let mut rows: Vec<usize> = rows.filter(|&row| scale[row].is_finite() && t[row].is_finite()).collect();
            rows.sort_by(|&a, &b| scale[a].total_cmp(&scale[b]));
            // Points of one scale stay together.
            let mut kept = (share * rows.len() as f64).round() as usize;
            while kept > 0 && kept < rows.len() && scale[rows[kept]] <= scale[rows[kept - 1]] {
                kept += 1;
            }
            // Fewer than two degrees of freedom make an interval that says nothing.
            let enough = kept >= self.plan.model.len() + 2;
            beyond.push(if enough { rows.split_off(kept) } else { Vec::new() });
            for (column, all) in cut.columns.iter_mut().zip(&batch.columns) {
                column.extend(rows.iter().map(|&row| all[row]));
            }
            cut.offsets.push(cut.columns[0].len());
        }
        (cut, beyond)
    }
}

fn summarise(mut scores: Vec<Score>, level: f64) -> Calibrated {
    scores.sort_by(|a, b| a.error.total_cmp(&b.error).then(a.curve.cmp(&b.curve)));
    let mut seen: Vec<usize> = scores.iter().map(|score| score.curve).collect();
    seen.sort_unstable();
    seen.dedup();
    let curves = seen.len();
    let fold = |score: &Score| seen.partition_point(|&curve| curve < score.curve) % FOLDS;
    let covered = |factor: f64, mine: &dyn Fn(&Score) -> bool| {
        scores.iter().filter(|score| mine(score) && score.error <= factor).map(|score| score.weight).sum::<f64>()
    };
    let mut after = 0.0;
    for held_out in 0..FOLDS.min(curves) {
        let factor = quantile(&scores, level, &|score| fold(score) != held_out);
        after += covered(factor, &|score| fold(score) == held_out);
    }
    let most = curves as f64 / (curves + 1) as f64;
    Calibrated {
        factor: if curves == 0 { 1.0 } else { quantile(&scores, level, &|_| true) },
        curves,
        points: scores.len(),
        before: if curves == 0 { f64::NAN } else { covered(1.0, &|_| true) / curves as f64 },
        after: if curves < 2 { f64::NAN } else { after / curves as f64 },
        promised: (most < level).then_some(most),
    }
}

/// The conformal quantile of `scores`, which ascend, over curves. Of one random point of each of m curves the ⌈(m + 1)·level⌉-th
/// smallest error covers a new curve's with probability `level` (Dunn, Wasserman and Ramdas 2022); this is its median over all
/// such choices, so that no chance decides. The greatest error where there are not so many curves. Pooling all points under
/// one quantile would promise the same for any dependence in a curve, and so overshoot where curves are few.
fn quantile(scores: &[Score], level: f64, counted: &dyn Fn(&Score) -> bool) -> f64 {
    let own: Vec<&Score> = scores.iter().filter(|score| counted(score)).collect();
    let mut curves: Vec<usize> = own.iter().map(|score| score.curve).collect();
    curves.sort_unstable();
    curves.dedup();
    let m = curves.len();
    // What rounding adds to a whole number must not become one more.
    let wanted = ((level * (m + 1) as f64 - 1e-9).ceil() as usize).min(m);
    let place = |score: &&Score| curves.partition_point(|&curve| curve < score.curve);
    let places: Vec<usize> = own.iter().map(place).collect();
    let is_reached = |last: usize| {
        let mut below = vec![0.0; m];
        own[..=last].iter().zip(&places).for_each(|(score, &place)| below[place] += score.weight);
        at_least(&below, wanted) >= 0.5
    };
    let (mut low, mut high) = (0, own.len());
    while low < high {
        let middle = low.midpoint(high);
        if is_reached(middle) { high = middle } else { low = middle + 1 }
    }
    own.get(low).or(own.last()).map_or(f64::NAN, |score| score.error)
}

/// Curves up to which the probability is computed; beyond, the median of their number is its mean to a part in a thousand.
const EXACT: usize = 1000;

/// The probability that at least `wanted` of independent events happen, whose probabilities these are.
fn at_least(probabilities: &[f64], wanted: usize) -> f64 {
    if probabilities.len() > EXACT {
        return f64::from(u8::from(probabilities.iter().sum::<f64>() >= wanted as f64));
    }
    // By how many do not happen.
    let mut misses = vec![0.0; probabilities.len() - wanted + 1];
    misses[0] = 1.0;
    for probability in probabilities {
        for j in (0..misses.len()).rev() {
            let one_less = if j > 0 { misses[j - 1] } else { 0.0 };
            misses[j] = misses[j] * probability + one_less * (1.0 - probability);
        }
    }
    misses.iter().sum()
}

/// Says what a sweep without usable curves lacks.
///
/// # Errors
/// Where no law could be calibrated.
pub fn require_curves(calibrated: &[Calibrated]) -> Result<()> {
    if calibrated.iter().any(|law| law.curves > 0) {
        return Ok(());
    }
    Err(Error::Usage(
        "--calibrate: no curve has enough points to be fitted up to a cut-off and asked beyond it (two more than the law \
         has parameters, and one beyond); leave the option out, or give a sweep of longer curves"
            .into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(errors: &[f64]) -> Vec<Score> {
        errors.iter().enumerate().map(|(curve, &error)| Score { curve, error, weight: 1.0 }).collect()
    }

    #[test]
    fn the_factor_is_the_conformal_quantile_over_curves() {
        // 39 curves: level 0.9 asks for the ⌈0.9·40⌉ = 36th smallest.
        let errors: Vec<f64> = (1..=39).map(f64::from).collect();
        assert_eq!(summarise(scores(&errors), 0.9).factor, 36.0);
        let few = summarise(scores(&errors[..5]), 0.9);
        assert_eq!((few.factor, few.promised), (5.0, Some(5.0 / 6.0)));
    }

    #[test]
    fn many_points_of_few_curves_do_not_push_the_factor_to_their_worst() {
        // Twenty curves of fifty points each, all alike: the one random point of each lies below the largest of 50 with
        // probability 0.98^20 = 0.67 and below the second largest with 0.96^20 = 0.44.
        let errors = |curve: usize| (1..=50).map(move |i| (curve, f64::from(i)));
        let all = (0..20).flat_map(errors).map(|(curve, error)| Score { curve, error, weight: 0.02 }).collect();
        assert_eq!(summarise(all, 0.95).factor, 49.0);
        assert!((at_least(&[0.98; 20], 20) - 0.98f64.powi(20)).abs() < 1e-12);
        assert!((at_least(&[0.5; 3], 2) - 0.5).abs() < 1e-15);
    }

    #[test]
    fn a_curve_of_many_points_counts_once() {
        let mut all = scores(&[0.5, 0.6, 0.7]);
        all.extend([2.0; 30].map(|error| Score { curve: 3, error, weight: 1.0 / 30.0 }));
        let found = summarise(all, 0.5);
        assert_eq!((found.curves, found.points, found.before), (4, 33, 0.75));
    }
}
