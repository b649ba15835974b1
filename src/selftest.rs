//! Self-test: every operator and every law of the catalogue on the user's own adapter, held against f64 on the CPU.
//!
//! In: an open GPU. Out: one [`Check`] per operator and three per law, each with the largest error seen, what ideal f32
//! arithmetic would have made of the same numbers, and a tolerance whose reason stands beside it. It loops over the
//! operators and the catalogue, so that nothing new escapes it.

mod bound;
pub(crate) mod curves;
pub mod laws;
pub mod operators;

use crate::error::Result;
use crate::fit::gpu::Gpu;

/// What an error is an error of, and so its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// An operator's values over dense and extreme arguments, in units of f32's rounding (2^-23 of the value).
    Operator,
    /// A law's values and derivatives, as a share of what the operators' tolerances can add up to at that point.
    Values,
    /// What the device proposes for a curve, in standard errors of the parameters from the optimum; the median over curves.
    Proposal,
    /// The judged parameters and objective, relative to those of the CPU's own fit.
    Answer,
}

impl Measure {
    /// The word for tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Operator => "operator",
            Measure::Values => "values",
            Measure::Proposal => "proposal",
            Measure::Answer => "answer",
        }
    }

    /// The unit of errors and tolerances.
    pub fn unit(self) -> &'static str {
        match self {
            Measure::Operator => "ulp",
            Measure::Values => "of the bound",
            Measure::Proposal => "standard errors",
            Measure::Answer => "relative",
        }
    }
}

/// One line of the self-test.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub measure: Measure,
    /// The operator or the law.
    pub subject: String,
    /// The largest error of the device (of proposals the median); infinite where it refused what it should know.
    pub worst: f64,
    /// The largest error of ideal f32 arithmetic on the same numbers; none where f64 has the last word.
    pub single: Option<f64>,
    pub tolerance: f64,
    /// How many values or curves were compared.
    pub samples: usize,
    /// Where the largest error was.
    pub place: String,
}

impl Check {
    /// Whether the device did what it should; a check that compared nothing did not pass.
    pub fn passed(&self) -> bool {
        self.samples > 0 && self.worst <= self.tolerance
    }
}

/// The largest of many errors, and where it was.
#[derive(Debug, Default)]
struct Worst {
    error: f64,
    single: f64,
    samples: usize,
    place: String,
}

impl Worst {
    /// Takes one error in; NaN is the worst of all. `place` is asked only where it is the largest so far.
    fn take(&mut self, error: f64, place: impl FnOnce() -> String) {
        let error = if error.is_nan() { f64::INFINITY } else { error };
        self.samples += 1;
        if error > self.error || self.samples == 1 {
            self.error = error;
            self.place = place();
        }
    }

    /// Takes the error of ideal f32 arithmetic in.
    fn take_single(&mut self, error: f64) {
        self.single = if error > self.single || error.is_nan() { error } else { self.single };
    }

    /// The middle one of `errors`, which stands for all of them.
    fn median(mut errors: Vec<Worst>) -> Worst {
        errors.sort_by(|a, b| a.error.total_cmp(&b.error));
        let samples = errors.len();
        let middle = errors.drain(..).nth(samples / 2).unwrap_or_default();
        Worst { samples, ..middle }
    }

    fn check(self, measure: Measure, subject: &str, single: bool, tolerance: f64) -> Check {
        Check {
            measure,
            subject: subject.to_string(),
            worst: self.error,
            single: single.then_some(self.single),
            tolerance,
            samples: self.samples,
            place: self.place,
        }
    }
}

/// Runs every check; `watch` hears of each as it is done.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device) where the device fails; wrong answers are no error but a check that did not pass.
pub fn run(gpu: &Gpu, watch: &mut dyn FnMut(&Check)) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    operators::run(gpu, &mut |check| {
        watch(&check);
        checks.push(check);
    })?;
    laws::run(gpu, &mut |check| {
        watch(&check);
        checks.push(check);
    })?;
    Ok(checks)
}
