//! Recovery: every catalogue law gets its own parameters back from noiseless data by its default search alone.
//!
//! In: a law, a number of curves, a backend. Out: a row of the table. Parameters are drawn by role
//! (`sweepfit::generate::typical`), inputs span four decades, 32 points, 64 where there are several inputs. A draw *counts*
//! where f64 can know its parameters: the response is rounded, and with J the Jacobian of log f at the truth the rounding
//! moves parameter θ by about 2.2e-16 · sqrt(diag((JᵀJ)⁻¹)); three times that has to stay below 1e-9 of |θ|.

use rayon::prelude::*;
use sweepfit::fit::judge::judge;
use sweepfit::fit::pack::{Plan, Weighting};
use sweepfit::fit::{Backend, Loss, Objective, Space, Status};
use sweepfit::formula::graph::{Id, Unary};
use sweepfit::generate::{Draw, Generated, Noise, Sweep};
use sweepfit::law::Law;
use sweepfit::law::catalogue::{CATALOGUE, Entry, find};
use sweepfit::pipeline::{Fit, search};

/// Largest relative error of a parameter that is recovered.
pub const RECOVERED: f64 = 1e-6;
/// What rounding may do to a parameter that counts.
const KNOWN: f64 = 1e-9;
/// A draw of which rounding moves no parameter by this share has to have parameters. Beyond, `degenerate` is a right answer, since a
/// Jacobian whose columns are dependent to 1e-14 is rank-deficient to working precision, and so is `non_finite`, for a
/// parameter that no number stands for; either only with a perfect fit.
const LOST: f64 = 0.05;
/// Root mean square of the log residuals that a perfect fit leaves.
pub const PERFECT: f64 = 1e-12;
/// Share of the draws that has to succeed.
pub const SHARE: f64 = 0.99;

/// What became of one law's draws.
#[derive(Debug, Clone)]
pub struct Row {
    pub law: &'static str,
    pub draws: usize,
    /// Draws whose parameters f64 can know.
    pub counted: usize,
    /// Counted draws whose parameters came back.
    pub recovered: usize,
    /// Other draws whose residuals are perfect.
    pub perfect: usize,
    /// The first few that failed, in words.
    pub failures: Vec<String>,
}

impl Row {
    /// Whether of the draws that count enough came back.
    pub fn is_recovered(&self) -> bool {
        enough(self.recovered, self.counted)
    }

    /// Whether both shares are reached; of few draws one may fail.
    pub fn is_good(&self) -> bool {
        self.is_recovered() && enough(self.perfect, self.draws - self.counted)
    }

    pub fn heading() -> String {
        format!("{:26}{:>8}{:>10}{:>12}{:>14}", "law", "draws", "excluded", "recovered", "rest perfect")
    }

    pub fn line(&self) -> String {
        let share = |part: usize, of: usize| match of {
            0 => "-".to_string(),
            _ => format!("{:.2}%", 100.0 * part as f64 / of as f64),
        };
        format!(
            "{:26}{:>8}{:>10}{:>12}{:>14}",
            self.law,
            self.draws,
            share(self.draws - self.counted, self.draws),
            share(self.recovered, self.counted),
            share(self.perfect, self.draws - self.counted)
        )
    }
}

fn enough(good: usize, of: usize) -> bool {
    good as f64 >= (SHARE * of as f64).min(of.saturating_sub(1) as f64)
}

/// The table over the catalogue, and the failures of laws that miss a share. Of the laws of one family, which share a
/// search, all are tried: their parameters are their own.
pub fn all(curves: usize, backend: &dyn Backend) -> (String, Vec<String>) {
    let curves = std::env::var("SWEEPFIT_CURVES").map_or(curves, |text| text.parse().expect("a number of curves"));
    let only = std::env::var("SWEEPFIT_LAWS").ok();
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|one| one == name));
    let mut table = vec![Row::heading()];
    let mut failures = Vec::new();
    for entry in CATALOGUE.iter().filter(|entry| wanted(entry.name)) {
        let row = recover(entry, curves, 1, backend);
        table.push(row.line());
        if !row.is_good() {
            failures.extend(row.failures);
        }
    }
    (table.join("\n"), failures)
}

/// What became of one curve.
struct Outcome {
    /// Whether f64 can know its parameters.
    counts: bool,
    good: bool,
    failure: Option<String>,
}

/// Draws `curves` curves of `entry` under `seed`, fits them in log space by default, and compares.
pub fn recover(entry: &'static Entry, curves: usize, seed: u64, backend: &dyn Backend) -> Row {
    recover_sweep(entry, noiseless(entry, seed), curves, backend)
}

/// `kaplan` with both exponents from all of their box: their quotient runs over six decades.
pub fn recover_wide_kaplan(curves: usize, backend: &dyn Backend) -> Row {
    let entry = find("kaplan").expect("a catalogue law");
    let mut sweep = noiseless(entry, 1);
    for (draw, parameter) in sweep.draws.iter_mut().zip(entry.parameters) {
        if parameter.name.starts_with("alpha") {
            *draw = Draw::LogUniform(0.005, 8.0);
        }
    }
    recover_sweep(entry, sweep, curves, backend)
}

fn noiseless(entry: &'static Entry, seed: u64) -> Sweep {
    let points = if entry.inputs.len() == 1 { 32 } else { 64 };
    Sweep::typical(entry, (points, points), Noise::Log(0.0), seed)
}

fn recover_sweep(entry: &'static Entry, sweep: Sweep, curves: usize, backend: &dyn Backend) -> Row {
    let seed = sweep.seed;
    let Generated { curves: batch, truth } = sweep.batch(0, curves).expect("typical parameters give finite curves");
    let law = sweep.law;
    let objective = Objective { space: Space::Log, loss: Loss::Squares };
    let plan = |law: Law, controls: &[_]| {
        let columns = law.columns.clone();
        Plan::new(law, objective, controls, Weighting::Even, false, &columns)
    };
    let (plan, spelling) =
        Fit::plan(vec![law.clone()], &[], plan).expect("a catalogue law is planned").pop().expect("one law, one plan");
    let mut packed = plan.pack(&batch);
    let proposals = search(backend, &mut packed.problem).expect("the device works");
    let found = judge(&packed.problem, &proposals, false);
    let found = spelling.as_ref().map_or_else(|| found.clone(), |spelling| spelling.spell(&found));

    let jacobian = Jacobian::of(&law);
    let p = law.parameters.len();
    let outcomes: Vec<Outcome> = (0..curves)
        .into_par_iter()
        .map(|curve| {
            let theta: Vec<f64> = (0..p).map(|j| truth[j][curve]).collect();
            let rows = batch.offsets[curve]..batch.offsets[curve + 1];
            let inputs: Vec<Vec<f64>> =
                rows.map(|row| batch.columns.iter().map(|column| column[row]).collect()).collect();
            let doubt = jacobian.doubt(&inputs, &theta);
            let counts = doubt <= KNOWN;
            let own = &found.parameters[curve * p..(curve + 1) * p];
            let error = own.iter().zip(&theta).map(|(a, b)| (a / b - 1.0).abs());
            let error = error.fold(0.0f64, |worst, e| if e > worst || e.is_nan() { e } else { worst });
            let fitted = matches!(found.status[curve], Status::Converged | Status::AtBound | Status::IterationLimit);
            let good = match found.status[curve] {
                _ if counts => error <= RECOVERED,
                _ => (fitted || doubt >= LOST) && found.rmse[curve] <= PERFECT,
            };
            let failure = (!good).then(|| {
                format!(
                    "{} curve {curve} of seed {seed}, {}: {:?}, rmse {:.1e}, {} basins, found {own:?}, truth {theta:?}",
                    entry.name,
                    if counts { "counted".to_string() } else { format!("excluded, doubt {doubt:.0e}") },
                    found.status[curve],
                    found.rmse[curve],
                    found.basins[curve]
                )
            });
            Outcome { counts, good, failure }
        })
        .collect();
    let count = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| wanted(outcome)).count();
    Row {
        law: entry.name,
        draws: curves,
        counted: count(|outcome| outcome.counts),
        recovered: count(|outcome| outcome.counts && outcome.good),
        perfect: count(|outcome| !outcome.counts && outcome.good),
        failures: outcomes.into_iter().filter_map(|outcome| outcome.failure).take(20).collect(),
    }
}

/// ∂ log f/∂ log θ, as nodes.
struct Jacobian {
    law: Law,
    columns: Vec<Id>,
}

impl Jacobian {
    fn of(law: &Law) -> Jacobian {
        let mut law = law.clone();
        let logarithm = law.graph.unary(Unary::Log, law.prediction);
        let columns = (0..law.parameters.len()).map(|j| law.graph.differentiate(logarithm, j)).collect();
        Jacobian { law, columns }
    }

    /// The largest share of a parameter that rounding moves it by.
    fn doubt(&self, rows: &[Vec<f64>], theta: &[f64]) -> f64 {
        let (n, p) = (rows.len(), theta.len());
        // Relative parameters: their standard errors are shares of θ.
        let mut a: Vec<Vec<f64>> = (0..p)
            .map(|j| rows.iter().map(|row| self.law.graph.evaluate(self.columns[j], row, theta) * theta[j]).collect())
            .collect();
        let norms: Vec<f64> = a.iter().map(|column| column.iter().map(|v| v * v).sum::<f64>().sqrt()).collect();
        if norms.iter().any(|norm| !(norm.is_finite() && *norm > 0.0)) {
            return f64::INFINITY;
        }
        for (column, norm) in a.iter_mut().zip(&norms) {
            column.iter_mut().for_each(|v| *v /= norm);
        }
        // R of a Householder QR, row by row.
        let mut r = vec![0.0; p * p];
        for j in 0..p {
            let tail = a[j][j..].iter().map(|v| v * v).sum::<f64>().sqrt();
            let alpha = -tail.copysign(a[j][j]);
            let mut v = a[j][j..].to_vec();
            v[0] -= alpha;
            let size: f64 = v.iter().map(|v| v * v).sum();
            if size == 0.0 {
                return f64::INFINITY;
            }
            for column in &mut a[j..] {
                let product: f64 = v.iter().zip(&column[j..n]).map(|(v, c)| v * c).sum();
                v.iter().zip(&mut column[j..n]).for_each(|(v, c)| *c -= 2.0 * product / size * v);
            }
            for k in j..p {
                r[j * p + k] = a[k][j];
            }
        }
        // diag((RᵀR)⁻¹): the squared rows of R⁻¹.
        let mut inverse = vec![0.0; p * p];
        for k in 0..p {
            for j in (0..=k).rev() {
                let known: f64 = (j + 1..=k).map(|m| r[j * p + m] * inverse[m * p + k]).sum();
                inverse[j * p + k] = (f64::from(u8::from(j == k)) - known) / r[j * p + j];
            }
        }
        let errors = (0..p).map(|j| (j..p).map(|k| inverse[j * p + k].powi(2)).sum::<f64>().sqrt() / norms[j]);
        errors.fold(0.0, |worst, error| worst.max(3.0 * f64::EPSILON * error))
    }
}
