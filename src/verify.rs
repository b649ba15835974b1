//! `--verify K`: K random curves of a run, fitted again by [`brute_force`], and how far the run's own fits were off.
//!
//! In: batches as they were fitted, then the laws' plans. Out: a [`Verification`] per law. The K curves are those whose
//! index, mixed with a seed, gives the smallest numbers: a uniform sample that depends on no thread and no batch, and of
//! which never more than K curves are kept (bottom-k sampling: Cohen and Kaplan 2007). What is compared are objectives
//! that the law itself, as typed, takes at either side's parameters on the raw columns, so that coordinates, centring and
//! tapes are verified, too.

pub mod brute_force;

use crate::bytes::{Decoder, Encoder};
use crate::curves::CurveBatch;
use crate::error::{Error, Result};
use crate::evaluate::reference::{Precision, Reference};
use crate::fit::judge::Verdicts;
use crate::fit::pack::{Control, NamedControl, Plan, Weighting};
use crate::fit::{Loss, Space, Status};
use crate::law::Law;
use crate::random::Stream;
use crate::table::Batch;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// A fit disagrees where brute force finds an objective lower by more than this share.
pub const TOLERANCE: f64 = 1e-6;
/// An objective told differs from the law's own at the parameters told by at most this share; parameters that nearly cancel
/// lose digits when they are rounded, a wrong scale shows at once.
const CONSISTENT: f64 = 1e-4;
/// Residuals this small beside the response are rounding: two perfect fits are equal.
const ROUNDING: f64 = 1e-12;
/// The sample's seed.
const SEED: u64 = 0;

/// A law as it is reported, and the plan that it was searched by: a law of a family in another's parameters.
#[derive(Debug, Clone, Copy)]
pub struct Fitted<'a> {
    pub law: &'a Law,
    pub plan: &'a Plan,
}

/// What a run says about one curve under one law.
#[derive(Debug, Clone, PartialEq)]
struct Claim {
    status: Status,
    points: u32,
    objective: f64,
    /// The law's free parameters.
    parameters: Vec<f64>,
    /// Those of the law that was searched, and their standard errors.
    searched: Vec<f64>,
    standard_errors: Vec<f64>,
}

/// A curve of the sample.
#[derive(Debug, Clone, PartialEq)]
struct Sampled {
    priority: u64,
    key: String,
    data: CurveBatch,
    /// One per law; none where the law was not fitted.
    claims: Vec<Option<Claim>>,
}

/// Up to K random curves of a run and what was made of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample(Vec<Sampled>);

impl Sample {
    /// The sample of one batch, whose curves have these `indices` in the run; one pair per law: the verdicts as they are
    /// reported, and in the parameters that were searched.
    pub fn of(most: usize, indices: &[u64], batch: &Batch, verdicts: &[(&Verdicts, &Verdicts)]) -> Sample {
        if most == 0 {
            return Sample::default();
        }
        let fitted = |status: Status| status.has_parameters() || status == Status::NonFinite;
        let mut chosen: Vec<(u64, usize)> = (0..batch.curves.len())
            .filter(|&curve| verdicts.iter().any(|(verdicts, _)| fitted(verdicts.status[curve])))
            .map(|curve| (Stream::new(SEED, indices[curve]).bits(), curve))
            .collect();
        chosen.sort_unstable();
        chosen.truncate(most);
        let sampled = chosen.into_iter().map(|(priority, curve)| {
            let rows = batch.curves.offsets[curve]..batch.curves.offsets[curve + 1];
            let claim = |&(verdicts, searched): &(&Verdicts, &Verdicts)| {
                let p = verdicts.parameters.len() / verdicts.status.len();
                let own = curve * p..(curve + 1) * p;
                fitted(verdicts.status[curve]).then(|| Claim {
                    status: verdicts.status[curve],
                    points: verdicts.points[curve],
                    objective: verdicts.objective[curve],
                    parameters: verdicts.parameters[own.clone()].to_vec(),
                    searched: searched.parameters[own.clone()].to_vec(),
                    standard_errors: searched.standard_errors[own].to_vec(),
                })
            };
            Sampled {
                priority,
                key: batch.keys.describe(curve),
                data: CurveBatch {
                    offsets: vec![0, rows.len()],
                    columns: batch.curves.columns.iter().map(|column| column[rows.clone()].to_vec()).collect(),
                },
                claims: verdicts.iter().map(claim).collect(),
            }
        });
        Sample(sampled.collect())
    }

    /// For a ledger.
    pub fn encode(&self, encoder: &mut Encoder) {
        encoder.list(&self.0, |encoder, Sampled { priority, key, data, claims }| {
            encoder.count(*priority);
            encoder.text(key);
            encoder.list(&data.columns, |encoder, column| encoder.numbers(column));
            encoder.list(claims, |encoder, claim| {
                encoder.option(claim.as_ref(), |encoder, claim| {
                    encoder.count(claim.status as u64);
                    encoder.count(u64::from(claim.points));
                    encoder.numbers(&[claim.objective]);
                    for own in [&claim.parameters, &claim.searched, &claim.standard_errors] {
                        encoder.numbers(own);
                    }
                });
            });
        });
    }

    /// As it was encoded.
    pub fn decode(decoder: &mut Decoder) -> Option<Sample> {
        let claim = |decoder: &mut Decoder| {
            let status = decoder.count()?;
            Some(Claim {
                status: Status::ALL.into_iter().find(|known| *known as u64 == status)?,
                points: u32::try_from(decoder.count()?).ok()?,
                objective: *decoder.numbers()?.first()?,
                parameters: decoder.numbers()?,
                searched: decoder.numbers()?,
                standard_errors: decoder.numbers()?,
            })
        };
        let sampled = |decoder: &mut Decoder| {
            let (priority, key) = (decoder.count()?, decoder.text()?);
            let columns = decoder.list(Decoder::numbers)?;
            let rows = columns.first().map_or(0, Vec::len);
            let data = CurveBatch { offsets: vec![0, rows], columns };
            Some(Sampled { priority, key, data, claims: decoder.list(|decoder| decoder.option(claim))? })
        };
        decoder.list(sampled).map(Sample)
    }

    /// How many curves there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes another batch's sample in.
    pub fn merge(&mut self, most: usize, other: Sample) {
        self.0.extend(other.0);
        self.0.sort_by_key(|sampled| sampled.priority);
        self.0.truncate(most);
    }
}

/// One fit beside brute force.
#[derive(Debug, Clone, PartialEq)]
struct Finding {
    /// How far the run's objective lies above brute force's, as a share of it; negative where the run found better.
    excess: f64,
    /// Largest difference of a parameter, relative and in standard errors.
    relative: f64,
    errors: f64,
}

/// Why a fit disagrees.
#[derive(Debug, Clone, PartialEq)]
pub struct Disagreement {
    /// The curve's key.
    pub key: String,
    /// What is wrong, in words.
    pub reason: String,
}

/// How the run's fits of one law compare with brute force.
#[derive(Debug, Clone, PartialEq)]
pub struct Verification {
    pub law: String,
    /// Fits that were compared.
    pub fits: usize,
    /// Objective: how far the run lies above brute force, relative; [`QUANTILES`] of it.
    pub excess: [f64; QUANTILES.len()],
    /// Largest difference of a parameter, relative, and in standard errors.
    pub relative: [f64; QUANTILES.len()],
    pub errors: [f64; QUANTILES.len()],
    /// Fits for which the run found better than brute force, by more than [`TOLERANCE`].
    pub ahead: usize,
    /// Fits for which brute force found better than the run, and those that are not what they say.
    pub disagreements: Vec<Disagreement>,
    /// Curves on which brute force has no box to search.
    pub unverified: Vec<String>,
}

/// The shares of fits whose differences are reported.
pub const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 1.0];

impl Verification {
    /// For the summary and the metadata.
    pub fn to_json(&self) -> Value {
        let quantiles = |values: &[f64; QUANTILES.len()]| json!({ "median": values[0], "p90": values[1], "p99": values[2], "worst": values[3] });
        let disagreement = |found: &Disagreement| json!({ "curve": found.key, "reason": found.reason });
        json!({
            "law": self.law,
            "fits": self.fits,
            "tolerance": TOLERANCE,
            "objective_excess": quantiles(&self.excess),
            "parameters_relative": quantiles(&self.relative),
            "parameters_in_standard_errors": quantiles(&self.errors),
            "run_found_better": self.ahead,
            "disagreements": self.disagreements.iter().map(disagreement).collect::<Vec<_>>(),
            "unverified": self.unverified,
        })
    }
}

/// Refits the sample under every law, on the current rayon pool. `columns` names the columns of the sample's curves.
///
/// # Errors
/// [`Error::Interrupted`] where the flag is set on the way.
pub fn verify(
    fits: &[Fitted],
    columns: &[String],
    sample: &Sample,
    interrupted: &AtomicBool,
) -> Result<Vec<Verification>> {
    let laws = fits.iter().enumerate();
    laws.map(|(law, fitted)| {
        let reference = without_hints(fitted.plan, columns)?;
        let claimed = sample.0.par_iter().filter_map(|sampled| Some((sampled, sampled.claims[law].as_ref()?)));
        let compared: Vec<(&str, Outcome)> = claimed
            .map(|(sampled, claim)| {
                if interrupted.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted);
                }
                Ok((sampled.key.as_str(), compare(fitted, &reference, columns, &sampled.data, claim)))
            })
            .collect::<Result<_>>()?;
        Ok(summarise(&fitted.law.name, compared))
    })
    .collect()
}

/// The plan without `--grid` and `--start`: a hint that leads astray must not lead brute force with it.
fn without_hints(plan: &Plan, columns: &[String]) -> Result<Plan> {
    let free = plan.model.free.iter().zip(&plan.controls).map(|(&j, control)| {
        let kept = Control { lower: control.lower, upper: control.upper, ..Control::default() };
        (j, kept)
    });
    let fixed = plan.fixed.iter().enumerate().filter(|(_, fixed)| fixed.is_some());
    let fixed = fixed.map(|(j, &fixed)| (j, Control { fixed, ..Control::default() }));
    let named: Vec<NamedControl> = free
        .chain(fixed)
        .map(|(j, control)| NamedControl { parameter: plan.law.parameters[j].clone(), control })
        .collect();
    Plan::new(plan.law.clone(), plan.objective, &named, plan.weighting, plan.drop_bad_rows, columns)
}

enum Outcome {
    Compared(Finding),
    Inconsistent(String),
    Unverified,
}

fn compare(fitted: &Fitted, reference: &Plan, columns: &[String], data: &CurveBatch, claim: &Claim) -> Outcome {
    let packed = reference.pack(data);
    if packed.problem.status[0].is_some() {
        return Outcome::Unverified;
    }
    let Some(minimum) = brute_force::search(&packed.problem, 0) else { return Outcome::Unverified };
    let theirs = reference.model.decode(&minimum.z, &packed.problem.centres);
    let dense = told_by_law(&reference.law, reference, columns, data, &theirs);
    if claim.status == Status::NonFinite && claim.objective.is_finite() {
        // There is a fit; its parameters are beyond the range of numbers.
        return Outcome::Unverified;
    }
    if claim.status == Status::NonFinite {
        return Outcome::Inconsistent(format!("no fit was found; brute force has objective {:e}", dense.objective));
    }
    let own = told_by_law(fitted.law, fitted.plan, columns, data, &claim.parameters);
    if own.points != claim.points as usize {
        return Outcome::Inconsistent(format!("{} points are told, the law counts {}", claim.points, own.points));
    }
    let apart = (own.objective - claim.objective).abs() / (own.objective + own.rounding / CONSISTENT);
    if apart > CONSISTENT || apart.is_nan() {
        let law = own.objective;
        return Outcome::Inconsistent(format!(
            "objective {:e} is told, at its parameters it is {law:e}",
            claim.objective
        ));
    }
    let parameters = || claim.searched.iter().zip(&theirs).zip(&claim.standard_errors);
    Outcome::Compared(Finding {
        excess: (own.objective - dense.objective) / (dense.objective.min(own.objective) + own.rounding / TOLERANCE),
        relative: parameters().map(|((a, b), _)| (a - b).abs() / a.abs().max(f64::MIN_POSITIVE)).fold(0.0, f64::max),
        errors: parameters().map(|((a, b), error)| (a - b).abs() / error).fold(0.0, f64::max),
    })
}

/// What a law says about a curve at given parameters.
struct Told {
    objective: f64,
    points: usize,
    /// The objective of a perfect fit; a difference of so much is none.
    rounding: f64,
}

/// Evaluates the law as typed on the raw columns; rows count as the output's `points` does.
fn told_by_law(law: &Law, plan: &Plan, columns: &[String], data: &CurveBatch, free: &[f64]) -> Told {
    // Another spelling than the plan's has no fixed parameter, and as many as the plan's.
    let mut parameters: Vec<f64> = plan.fixed.iter().map(|fixed| fixed.unwrap_or(f64::NAN)).collect();
    for (&j, &value) in plan.model.free.iter().zip(free) {
        parameters[j] = value;
    }
    let position = |name: &String| columns.iter().position(|column| column == name);
    let position = |name| position(name).expect("every column that a law uses is read");
    let raw: Vec<&[f64]> = law.columns.iter().map(|name| data.columns[position(name)].as_slice()).collect();
    let mut reference = Reference::new(&law.graph, &[law.response, law.prediction], Precision::Double);
    reference.evaluate(&raw, &parameters, data.rows());
    let (mut objective, mut points, mut perfect, mut largest) = (0.0, 0, 0.0, 1.0f64);
    for row in 0..data.rows() {
        let (y, f) = (reference.output(0)[row], reference.output(1)[row]);
        let weight = match plan.weighting {
            Weighting::Even => 1.0,
            Weighting::Weight(column) => data.columns[column][row],
            Weighting::Sigma(column) => {
                let scale = if plan.objective.space == Space::Log { y } else { 1.0 };
                (scale / data.columns[column][row]).powi(2)
            }
        };
        let (t, h) = if plan.objective.space == Space::Log { (y.ln(), f.ln()) } else { (y, f) };
        let missing = raw.iter().any(|column| column[row].is_nan()) || weight.is_nan() || weight == 0.0;
        let bad = plan.drop_bad_rows && !(t.is_finite() && f.is_finite() && weight > 0.0);
        if missing || bad {
            continue;
        }
        let r = t - h;
        objective += weight
            * match plan.objective.loss {
                Loss::Huber { delta } if r.abs() > delta => delta * (r.abs() - 0.5 * delta),
                _ => 0.5 * r * r,
            };
        points += 1;
        perfect += 0.5 * weight * ROUNDING * ROUNDING;
        largest = if plan.objective.space == Space::Log { largest.max(t.abs()) } else { largest.max(y.abs()) };
    }
    Told { objective, points, rounding: perfect * largest * largest }
}

fn summarise(law: &str, compared: Vec<(&str, Outcome)>) -> Verification {
    let mut findings = Vec::new();
    let (mut disagreements, mut unverified) = (Vec::new(), Vec::new());
    for (key, outcome) in compared {
        let mut disagree = |reason: String| disagreements.push(Disagreement { key: key.to_string(), reason });
        match outcome {
            Outcome::Unverified => unverified.push(key.to_string()),
            Outcome::Inconsistent(reason) => disagree(reason),
            Outcome::Compared(finding) => {
                if finding.excess > TOLERANCE || finding.excess.is_nan() {
                    disagree(format!("brute force finds an objective lower by {:.1e} of it", finding.excess));
                }
                findings.push(finding);
            }
        }
    }
    let quantiles = |of: fn(&Finding) -> f64| {
        let mut values: Vec<f64> = findings.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        // The smallest value that this share of the fits does not exceed.
        QUANTILES.map(|share| match values.len() {
            0 => f64::NAN,
            n => values[((share * n as f64).ceil() as usize).clamp(1, n) - 1],
        })
    };
    Verification {
        law: law.to_string(),
        fits: findings.len(),
        excess: quantiles(|finding| finding.excess),
        relative: quantiles(|finding| finding.relative),
        errors: quantiles(|finding| finding.errors),
        ahead: findings.iter().filter(|finding| finding.excess < -TOLERANCE).count(),
        disagreements,
        unverified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::cpu::Cpu;
    use crate::fit::judge::judge;
    use crate::fit::{Backend, Objective};
    use crate::law::catalogue::find;
    use crate::selftest::curves::curves;

    fn sampled(priority: u64) -> Sampled {
        let data = CurveBatch { offsets: vec![0, 0], columns: Vec::new() };
        Sampled { priority, key: priority.to_string(), data, claims: Vec::new() }
    }

    #[test]
    fn a_sample_is_the_same_however_its_batches_are_cut() {
        let priorities: Vec<u64> = (0..100).map(|curve| Stream::new(SEED, curve).bits()).collect();
        let sample = |batch: usize| {
            let mut all = Sample::default();
            for part in priorities.chunks(batch) {
                all.merge(7, Sample(part.iter().map(|&priority| sampled(priority)).collect()));
            }
            all
        };
        assert_eq!(sample(100).0.len(), 7);
        assert_eq!(sample(100), sample(13));
    }

    fn plan(space: Space, loss: Loss) -> (Plan, Vec<String>) {
        let columns = ["x", "y"].map(String::from).to_vec();
        let entry = find("saturating_power").expect("an entry");
        let mapping = crate::law::Mapping { x: &columns[..1], y: Some("y") };
        let law = crate::law::Law::bind(entry.name, &columns, mapping).expect("a law");
        let objective = Objective { space, loss };
        (Plan::new(law, objective, &[], Weighting::Even, false, &columns).expect("a plan"), columns)
    }

    fn claim(plan: &Plan, data: &CurveBatch) -> Claim {
        let packed = plan.pack(data);
        let proposals = Cpu.propose(&packed.problem).expect("the CPU searches");
        let verdicts = judge(&packed.problem, &proposals, false);
        Claim {
            status: verdicts.status[0],
            points: verdicts.points[0],
            objective: verdicts.objective[0],
            parameters: verdicts.parameters.clone(),
            searched: verdicts.parameters,
            standard_errors: verdicts.standard_errors,
        }
    }

    #[test]
    fn shifted_answers_are_found_out() {
        for space in [Space::Log, Space::Linear] {
            for loss in [Loss::Squares, Loss::Huber { delta: 0.01 }] {
                let (plan, columns) = plan(space, loss);
                let data = curves(&plan, 1, 5);
                let reference = without_hints(&plan, &columns).expect("a plan");
                let honest = claim(&plan, &data);
                let fitted = Fitted { law: &plan.law, plan: &plan };
                let excess = |claim: &Claim| match compare(&fitted, &reference, &columns, &data, claim) {
                    Outcome::Compared(finding) => Some(finding.excess),
                    _ => None,
                };
                let found = excess(&honest).expect("an honest claim is consistent");
                assert!(found.abs() < 1e-9, "{space:?} {loss:?}: {found:e}");
                // The objective told is another's.
                assert_eq!(excess(&Claim { objective: 1.01 * honest.objective, ..honest.clone() }), None);
                assert_eq!(excess(&Claim { points: honest.points - 1, ..honest.clone() }), None);
                // Parameters that are no optimum, with the objective that they have.
                let mut shifted = honest.clone();
                shifted.parameters[2] *= 1.01;
                shifted.objective = told_by_law(&plan.law, &plan, &columns, &data, &shifted.parameters).objective;
                assert!(excess(&shifted).is_some_and(|excess| excess > TOLERANCE), "{space:?} {loss:?}");
            }
        }
    }

    #[test]
    fn two_perfect_fits_are_equal() {
        let (plan, columns) = plan(Space::Log, Loss::Squares);
        let mut data = curves(&plan, 1, 5);
        let [floor, amplitude, exponent] = claim(&plan, &data).parameters[..] else { panic!("three parameters") };
        data.columns[1] = data.columns[0].iter().map(|x| floor + amplitude * x.powf(-exponent)).collect();
        let reference = without_hints(&plan, &columns).expect("a plan");
        let mut perfect = claim(&plan, &data);
        perfect.parameters[0] *= 1.0 + 1e-13;
        let told = told_by_law(&plan.law, &plan, &columns, &data, &perfect.parameters).objective;
        assert!(told > 10.0 * perfect.objective, "{told:e} {:e}", perfect.objective);
        perfect.objective = told;
        let fitted = Fitted { law: &plan.law, plan: &plan };
        let Outcome::Compared(finding) = compare(&fitted, &reference, &columns, &data, &perfect) else {
            panic!("a consistent claim")
        };
        assert!(finding.excess > 0.0 && finding.excess < TOLERANCE, "{:e}", finding.excess);
    }
}
