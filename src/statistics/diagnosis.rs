//! Diagnosis: what shape a curve has, how well that is known, and what it means for forecasts.
//!
//! In: curves of one positive input and a positive response. Out: per curve a [`Diagnosis`]: the shape, or that the data
//! cannot tell, with the numbers behind it and the same in words. Every candidate law is fitted in log space; a law with
//! more parameters has to earn them, and laws with as many have to be far enough apart. Knows no files.

use super::fits::{Fitted, FittedLaw};
use super::frontier::parabola;
use super::student::{Quantiles, two_sided_p};
use super::surface::{Surface, variance};
use crate::curves::CurveBatch;
use crate::error::Result;
use crate::fit::cpu::Cpu;
use crate::fit::judge::{Verdicts, judge};
use crate::fit::lanes::pair;
use crate::fit::pack::{Plan, Weighting};
use crate::fit::{Backend, Loss, Objective, Space, Status};
use crate::law::{Law, Mapping};
use rayon::prelude::*;
use std::fmt::Write;

/// The shapes that are told apart, by the law that has them; in order of preference at equal evidence.
pub const SHAPES: [&str; 6] =
    ["power", "logarithmic", "exponential", "saturating_power", "saturating_exponential", "broken_power"];
/// What `shape` says where no law stands out.
pub const CANNOT_TELL: &str = "cannot_tell";

const POWER: usize = 0;
const LOGARITHMIC: usize = 1;
const FLOOR: usize = 3;
const BROKEN: usize = 5;

/// AICc by which a law has to be better than one with fewer parameters. By chance a superfluous parameter gains 6 once in
/// two hundred curves.
const EARNED: f64 = 6.0;
/// The same for a break, whose place is searched: chance has many places to choose from.
const EARNED_BREAK: f64 = 10.0;
/// AICc by which a law has to be better than another with as many parameters: odds of 7 to 1.
const APART: f64 = 4.0;
/// Where AICc is not defined for want of points: how many times smaller the sum of squares has to be.
const APART_OF_FEW: f64 = 1e4;
/// Log residuals that are rounding, not misfit.
const ROUNDING: f64 = 1e-12;

/// The candidate laws, ready for any batch of columns x and y.
#[derive(Debug)]
pub struct Candidates {
    laws: Vec<(Plan, Surface)>,
}

/// What is known about one curve; NaN where it is not.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosis {
    /// Points that could be used.
    pub points: u32,
    /// One of [`SHAPES`] or [`CANNOT_TELL`].
    pub shape: &'static str,
    /// AICc above the least, per candidate; a break is looked for only where simpler laws miss something.
    pub above: [f64; SHAPES.len()],
    /// Second derivative of log y in log x and its two-sided p: zero for a power law.
    pub curvature: [f64; 2],
    /// Slope of log y in log x and its p.
    pub trend: [f64; 2],
    /// Exponent of the decay with its interval: of the power law, or of what lies above the floor, or before the break.
    pub exponent: [f64; 3],
    /// Exponent after the break.
    pub exponent_after: f64,
    /// The floor with its interval.
    pub floor: [f64; 3],
    /// Where the slope changes, with its interval.
    pub elbow: [f64; 3],
    /// Relative change of y that the next doubling of x brings.
    pub next_doubling: f64,
    /// x at which y comes within 10% of the floor.
    pub near_floor: f64,
    /// Runs of one sign of the residuals, how many to expect of noise, and the chance of so few.
    pub runs: [f64; 3],
    /// The largest change of the exponent when one point is left out, in standard errors, and that point's x.
    pub influence: [f64; 2],
    /// Standard deviation of the residuals about the law, relative.
    pub scatter: f64,
    /// Factors of ten that the inputs span.
    pub decades: f64,
    /// How many times the span a forecast reaches beyond the largest input.
    pub reach: f64,
    /// The same in words.
    pub words: String,
}

impl Candidates {
    /// Binds all candidates to columns 0 (x) and 1 (y) of the batches to come.
    ///
    /// # Errors
    /// None that these names could cause.
    pub fn new() -> Result<Candidates> {
        let columns = ["x", "y"].map(String::from);
        let law = |name: &&str| {
            let law = Law::bind(name, &columns, Mapping { x: &columns[..1], y: Some("y") })?;
            let objective = Objective { space: Space::Log, loss: Loss::Squares };
            let plan = Plan::new(law.clone(), objective, &[], Weighting::Even, false, &columns)?;
            let names = law.parameters.clone();
            let fitted = FittedLaw { law, inputs: vec![0], columns: names, controls: Vec::new() };
            Ok((plan, Surface::new(&fitted, Space::Log)))
        };
        Ok(Candidates { laws: SHAPES.iter().map(law).collect::<Result<_>>()? })
    }

    /// Diagnoses every curve of a batch whose rows are positive and ascend in x. `target` is the x of a forecast, ten
    /// times the largest of each curve without.
    ///
    /// # Errors
    /// What a backend refuses; the CPU refuses nothing.
    pub fn diagnose(&self, batch: &CurveBatch, level: f64, target: Option<f64>) -> Result<Vec<Diagnosis>> {
        let verdicts = |law: usize, batch: &CurveBatch| -> Result<Verdicts> {
            let packed = self.laws[law].0.pack(batch);
            Ok(judge(&packed.problem, &Cpu.propose(&packed.problem)?, false))
        };
        let simple = (0..BROKEN).map(|law| verdicts(law, batch)).collect::<Result<Vec<Verdicts>>>()?;
        let curves = || (0..batch.len()).into_par_iter().with_min_len(64);
        let fit = |law: usize, verdicts: &Verdicts, curve: usize| self.fit(law, verdicts, curve);
        let mut fits: Vec<Vec<Option<Fit>>> =
            curves().map(|curve| (0..BROKEN).map(|law| fit(law, &simple[law], curve)).collect()).collect();
        // A break is dear to search for, and only where simpler laws miss something can it be found.
        let missed: Vec<bool> = curves().map(|curve| self.misses(batch, curve, &fits[curve])).collect();
        let bent: Vec<usize> = (0..batch.len()).filter(|&curve| missed[curve]).collect();
        let broken = verdicts(BROKEN, &chosen(batch, &bent))?;
        fits.iter_mut().for_each(|fits| fits.push(None));
        for (position, &curve) in bent.iter().enumerate() {
            fits[curve][BROKEN] = fit(BROKEN, &broken, position);
        }
        Ok(curves().map(|curve| self.curve(batch, &fits[curve], curve, level, target)).collect())
    }

    /// Whether the best of the simpler laws leaves a pattern in log x: a component of its residuals along one of the first
    /// polynomials that noise has once in twenty curves.
    fn misses(&self, batch: &CurveBatch, curve: usize, fits: &[Option<Fit>]) -> bool {
        let rows = batch.offsets[curve]..batch.offsets[curve + 1];
        let (x, y) = (&batch.columns[0][rows.clone()], &batch.columns[1][rows]);
        let Some(law) = best_guess(fits) else { return true };
        let fit = fits[law].as_ref().expect("only fitted laws are chosen");
        let residuals = self.residuals(law, &fit.fitted.parameters, x, y).1;
        let freedom = x.len() as f64 - (fit.fitted.parameters.len() + PATTERNS) as f64;
        if freedom < 1.0 {
            return true;
        }
        let mut rest: f64 = residuals.iter().map(|r| r * r).sum();
        let components: Vec<f64> = polynomials(x)
            .iter()
            .map(|basis| basis.iter().zip(&residuals).map(|(basis, residual)| basis * residual).sum())
            .collect();
        rest -= components.iter().map(|component| component * component).sum::<f64>();
        let noise = rest.max(x.len() as f64 * ROUNDING * ROUNDING) / freedom;
        components.iter().any(|component| two_sided_p(component / noise.sqrt(), freedom) < 0.05 / PATTERNS as f64)
    }

    /// t and its slopes at x and, last, at twice the largest; and log y − t.
    fn residuals(&self, law: usize, theta: &[f64], x: &[f64], y: &[f64]) -> (Vec<Vec<f64>>, Vec<f64>) {
        let last = x.last().copied().unwrap_or(f64::NAN);
        let at: Vec<f64> = x.iter().copied().chain([2.0 * last]).collect();
        let parameters = theta.iter().map(|&value| vec![value; at.len()]);
        let columns: Vec<Vec<f64>> = [at.clone()].into_iter().chain(parameters).collect();
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let values = self.laws[law].1.evaluate(&columns);
        let residuals = y.iter().zip(&values[0]).map(|(y, t)| y.ln() - t).collect();
        (values, residuals)
    }

    fn curve(
        &self,
        batch: &CurveBatch,
        fits: &[Option<Fit>],
        curve: usize,
        level: f64,
        target: Option<f64>,
    ) -> Diagnosis {
        let rows = batch.offsets[curve]..batch.offsets[curve + 1];
        let (x, y) = (&batch.columns[0][rows.clone()], &batch.columns[1][rows]);
        let mut found = Diagnosis::empty(x.len() as u32);
        let (Some(&first), Some(&last)) = (x.first(), x.last()) else {
            found.words = "No usable point.".into();
            return found;
        };
        found.decades = (last / first).log10();
        if last > first {
            found.reach = (target.unwrap_or(10.0 * last) / last).log10() / found.decades;
        }
        (found.trend, found.curvature) = straightness(x, y);
        let least = fits.iter().flatten().map(|fit| fit.aicc).fold(f64::INFINITY, f64::min);
        for (above, fit) in found.above.iter_mut().zip(fits) {
            *above = fit.as_ref().map_or(f64::NAN, |fit| fit.aicc - least);
        }
        let decided = decide(fits, found.trend[1]);
        let law = decided.or_else(|| best_guess(fits));
        if let Some(law) = law {
            let fit = fits[law].as_ref().expect("only fitted laws are chosen");
            self.describe(&mut found, law, fit, x, y, level);
        }
        if let Some(law) = decided {
            found.shape = SHAPES[law];
        }
        found.words = words(&found, fits, decided, x, target);
        found
    }

    fn fit(&self, law: usize, verdicts: &Verdicts, curve: usize) -> Option<Fit> {
        let fitted = Fitted::of(&self.laws[law].0, law, verdicts, curve)?;
        let points = f64::from(verdicts.points[curve]);
        // A pinned parameter was searched for all the same.
        let k = fitted.parameters.len() as f64 + 1.0;
        let squares = (2.0 * verdicts.objective[curve]).max(points * ROUNDING * ROUNDING);
        let defined = points > k + 1.0;
        let aicc = points * (squares / points).ln() + 2.0 * k + 2.0 * k * (k + 1.0) / (points - k - 1.0);
        Some(Fit {
            squares,
            aicc: if defined { aicc } else { f64::NAN },
            pinned: verdicts.pinned[curve],
            settled: verdicts.status[curve] != Status::IterationLimit,
            fitted,
        })
    }

    /// The numbers that the chosen law gives.
    fn describe(&self, found: &mut Diagnosis, law: usize, fit: &Fit, x: &[f64], y: &[f64], level: f64) {
        let Fit { fitted, .. } = fit;
        let theta = &fitted.parameters;
        let p = theta.len();
        let quantile = Quantiles::new(level).two_sided(fitted.freedom);
        let error = |j: usize| {
            let variance = fitted.covariance.as_ref().map_or(f64::NAN, |packed| packed[pair(j, j)]);
            if variance > 0.0 { variance.sqrt() } else { f64::NAN }
        };
        let estimate = |j: usize, sign: f64| {
            let (value, half) = (sign * theta[j], quantile * error(j));
            [value, value - half, value + half]
        };
        // Position of the exponent and its sign as a decay.
        let exponent = match SHAPES[law] {
            "power" => Some((1, -1.0)),
            "saturating_power" | "broken_power" => Some((2, 1.0)),
            _ => None,
        };
        if let Some((j, sign)) = exponent {
            found.exponent = estimate(j, sign);
        }
        if matches!(SHAPES[law], "saturating_power" | "saturating_exponential") {
            found.floor = estimate(0, 1.0);
            let (floor, size, decay) = (theta[0], theta[1], theta[2]);
            let wanted = size / (0.1 * floor);
            if wanted > 0.0 {
                found.near_floor = if law == FLOOR { wanted.powf(1.0 / decay) } else { wanted.ln() / decay };
            }
        }
        if law == BROKEN {
            found.elbow = estimate(1, 1.0);
            found.exponent_after = theta[3];
        }
        found.scatter = fitted.noise.sqrt();

        let (values, residuals) = self.residuals(law, theta, x, y);
        found.next_doubling = (values[0][x.len()] - values[0][x.len() - 1]).exp_m1();
        if fit.squares > 2.0 * x.len() as f64 * ROUNDING * ROUNDING {
            found.runs = runs(&residuals);
        }
        if let (Some((j, _)), Some(covariance)) = (exponent, &fitted.covariance) {
            let error = error(j);
            let mut worst = [0.0, f64::NAN];
            for (i, residual) in residuals.iter().enumerate() {
                let slope = |k: usize| values[1 + k][i];
                // One Newton step from the fit of all points; exact for a straight line.
                let leverage = variance(covariance, slope, p) / fitted.noise;
                let moved: f64 = (0..p).map(|k| covariance[pair(j, k)] * slope(k)).sum::<f64>() / fitted.noise;
                let change = (moved * residual / (1.0 - leverage)).abs() / error;
                if change > worst[0] {
                    worst = [change, x[i]];
                }
            }
            if worst[1].is_finite() {
                found.influence = worst;
            }
        }
    }
}

/// Polynomials along which residuals are looked at.
const PATTERNS: usize = 5;

/// Polynomials in log x of degrees 1 to [`PATTERNS`], orthonormal over the points.
fn polynomials(x: &[f64]) -> Vec<Vec<f64>> {
    let logs: Vec<f64> = x.iter().map(|x| x.ln()).collect();
    let (low, high) = (logs[0], logs[logs.len() - 1]);
    let place: Vec<f64> = logs.iter().map(|log| 2.0 * (log - low) / (high - low) - 1.0).collect();
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let mut basis = vec![vec![1.0 / (x.len() as f64).sqrt(); x.len()]];
    for degree in 0..PATTERNS {
        let mut next: Vec<f64> = basis[degree].iter().zip(&place).map(|(value, place)| value * place).collect();
        // Twice is enough (Kahan and Parlett).
        for _ in 0..2 {
            for known in &basis {
                let along = dot(known, &next);
                next.iter_mut().zip(known).for_each(|(value, known)| *value -= along * known);
            }
        }
        let norm = dot(&next, &next).sqrt();
        next.iter_mut().for_each(|value| *value = if norm > 1e-9 { *value / norm } else { 0.0 });
        basis.push(next);
    }
    basis.split_off(1)
}

/// Some curves of a batch.
fn chosen(batch: &CurveBatch, curves: &[usize]) -> CurveBatch {
    let mut some = CurveBatch { offsets: vec![0], columns: vec![Vec::new(); batch.columns.len()] };
    for &curve in curves {
        let rows = batch.offsets[curve]..batch.offsets[curve + 1];
        for (into, from) in some.columns.iter_mut().zip(&batch.columns) {
            into.extend_from_slice(&from[rows.clone()]);
        }
        some.offsets.push(some.columns[0].len());
    }
    some
}

/// One candidate on one curve.
#[derive(Debug)]
struct Fit {
    fitted: Fitted,
    /// Σ r², at least that of rounding.
    squares: f64,
    /// NaN where there are too few points for it.
    aicc: f64,
    pinned: u64,
    settled: bool,
}

impl Diagnosis {
    fn empty(points: u32) -> Diagnosis {
        let none = f64::NAN;
        Diagnosis {
            points,
            shape: CANNOT_TELL,
            above: [none; SHAPES.len()],
            curvature: [none; 2],
            trend: [none; 2],
            exponent: [none; 3],
            exponent_after: none,
            floor: [none; 3],
            elbow: [none; 3],
            next_doubling: none,
            near_floor: none,
            runs: [none; 3],
            influence: [none; 2],
            scatter: none,
            decades: none,
            reach: none,
            words: String::new(),
        }
    }
}

/// Whether a candidate may be named at all: a floor below zero, or an exponent at its box, only imitates another shape.
fn credible(law: usize, fit: &Fit) -> bool {
    let positive_floor = !matches!(SHAPES[law], "saturating_power" | "saturating_exponential")
        || fit.fitted.parameters[0] > 0.0 && fit.pinned == 0;
    fit.settled && positive_floor
}

/// The law that stands out; none where the data cannot tell.
fn decide(fits: &[Option<Fit>], trend_p: f64) -> Option<usize> {
    let candidates: Vec<(usize, &Fit)> = fits
        .iter()
        .enumerate()
        .filter_map(|(law, fit)| fit.as_ref().map(|fit| (law, fit)))
        .filter(|(law, fit)| credible(*law, fit))
        .collect();
    let parameters = |fit: &Fit| fit.fitted.parameters.len();
    let defined: Vec<&(usize, &Fit)> = candidates.iter().filter(|(_, fit)| fit.aicc.is_finite()).collect();
    if defined.is_empty() {
        // Too few points for AICc: only a law that leaves next to nothing can be named.
        let mut simple: Vec<&(usize, &Fit)> =
            candidates.iter().filter(|(_, fit)| parameters(fit) == 2 && fit.fitted.freedom > 0.0).collect();
        simple.sort_by(|a, b| a.1.squares.total_cmp(&b.1.squares));
        return match simple.as_slice() {
            [best, second, ..] if best.1.squares * APART_OF_FEW <= second.1.squares => Some(best.0),
            _ => None,
        };
    }
    // Up the ladder: a law with more parameters replaces a simpler one only where it earned them.
    let mut chosen =
        **defined.iter().min_by(|a, b| parameters(a.1).cmp(&parameters(b.1)).then(a.1.aicc.total_cmp(&b.1.aicc)))?;
    for count in [3, 5] {
        let of_count = defined.iter().filter(|(_, fit)| parameters(fit) == count);
        let Some(rival) = of_count.min_by(|a, b| a.1.aicc.total_cmp(&b.1.aicc)) else { continue };
        let earned = if rival.0 == BROKEN { EARNED_BREAK } else { EARNED };
        if rival.1.aicc <= chosen.1.aicc - earned {
            chosen = **rival;
        }
    }
    let rival = |other: &&&(usize, &Fit)| other.0 != chosen.0 && parameters(other.1) <= parameters(chosen.1);
    let apart = defined.iter().filter(rival).all(|other| other.1.aicc >= chosen.1.aicc + APART);
    // Without a trend every law is a horizontal line.
    let moves = parameters(chosen.1) > 2 || trend_p < 0.01;
    (apart && moves).then_some(chosen.0)
}

/// Where nothing stands out, the law of least AICc, or of least squares.
fn best_guess(fits: &[Option<Fit>]) -> Option<usize> {
    let credible = |(law, fit): (usize, &'_ Option<Fit>)| {
        fit.as_ref().filter(|fit| credible(law, fit)).map(|fit| (law, fit.aicc, fit.squares))
    };
    let all: Vec<(usize, f64, f64)> = fits.iter().enumerate().filter_map(credible).collect();
    let by_aicc = all.iter().filter(|(_, aicc, _)| aicc.is_finite()).min_by(|a, b| a.1.total_cmp(&b.1));
    by_aicc.or_else(|| all.iter().min_by(|a, b| a.2.total_cmp(&b.2))).map(|(law, ..)| *law)
}

/// Slope and curvature of log y in log x, each with its p.
fn straightness(x: &[f64], y: &[f64]) -> ([f64; 2], [f64; 2]) {
    let n = x.len() as f64;
    let mean = x.iter().map(|x| x.ln()).sum::<f64>() / n;
    let points: Vec<(f64, f64)> = x.iter().zip(y).map(|(x, y)| (x.ln() - mean, y.ln())).collect();
    let moment = |power: i32| points.iter().map(|(u, _)| u.powi(power)).sum::<f64>();
    let level = points.iter().map(|(_, t)| t).sum::<f64>() / n;
    let slope = points.iter().map(|(u, t)| u * (t - level)).sum::<f64>() / moment(2);
    let squares = |value: &dyn Fn(f64) -> f64| {
        let rounding = n * ROUNDING * ROUNDING;
        points.iter().map(|(u, t)| (t - value(*u)).powi(2)).sum::<f64>().max(rounding)
    };
    let noise = squares(&|u| level + slope * u) / (n - 2.0);
    let trend = [slope, two_sided_p(slope / (noise / moment(2)).sqrt(), n - 2.0)];
    let Some([a, b, c]) = parabola(&points) else { return (trend, [f64::NAN; 2]) };
    let noise = squares(&|u| a + b * u + c * u * u) / (n - 3.0);
    // Σ of the squared part of u² that is neither constant nor linear.
    let (second, third) = (moment(2), moment(3));
    let bent = moment(4) - second * second / n - third * third / second;
    (trend, [2.0 * c, two_sided_p(c / (noise / bent).sqrt(), n - 3.0)])
}

/// Runs of one sign, how many to expect of noise, and the chance of so few (Wald and Wolfowitz 1940, exact).
fn runs(residuals: &[f64]) -> [f64; 3] {
    let signs: Vec<bool> = residuals.iter().map(|residual| *residual > 0.0).collect();
    let above = signs.iter().filter(|sign| **sign).count();
    let below = signs.len() - above;
    let count = 1 + signs.windows(2).filter(|pair| pair[0] != pair[1]).count();
    if above == 0 || below == 0 {
        return [count as f64, f64::NAN, f64::NAN];
    }
    let mut logs = vec![0.0; signs.len() + 1];
    for i in 1..logs.len() {
        logs[i] = logs[i - 1] + (i as f64).ln();
    }
    let choose = |n: usize, k: usize| if k > n { 0.0 } else { (logs[n] - logs[k] - logs[n - k]).exp() };
    let all = choose(signs.len(), above);
    let ways = |runs: usize| {
        let half = runs / 2;
        match runs % 2 {
            0 => 2.0 * choose(above - 1, half - 1) * choose(below - 1, half - 1),
            _ => {
                choose(above - 1, half) * choose(below - 1, half - 1)
                    + choose(above - 1, half - 1) * choose(below - 1, half)
            }
        }
    };
    let fewer: f64 = (2..=count).map(ways).sum();
    let expected = 1.0 + 2.0 * above as f64 * below as f64 / signs.len() as f64;
    [count as f64, expected, (fewer / all).min(1.0)]
}

/// A number as one would write it by hand: four digits, powers of ten where it is very large or small.
fn place(x: f64) -> String {
    let size = x.abs().log10();
    if (-3.0..6.0).contains(&size) {
        let text = format!("{:.1$}", x, (3 - size.floor() as i32).max(0) as usize);
        // The zeros of a whole number are its own.
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
    } else {
        format!("{x:.3e}")
    }
}

/// A few plain sentences.
fn words(found: &Diagnosis, fits: &[Option<Fit>], decided: Option<usize>, x: &[f64], target: Option<f64>) -> String {
    let mut text = String::new();
    let mut say = |sentence: String| write!(text, "{sentence} ").expect("writing to a string cannot fail");
    if found.decades == 0.0 {
        return format!(
            "{} at one x: there is no curve to tell the shape of.",
            if x.len() == 1 { "One point" } else { "All points lie" }
        );
    }
    let falls = found.trend[0] < 0.0;
    let verb = if falls { "falls" } else { "rises" };
    let bottom = if falls { "floor" } else { "ceiling" };
    match decided {
        Some(law) => say(match SHAPES[law] {
            "power" => format!(
                "A power law: {verb} by the same factor for every factor of x, exponent {:.3}.",
                found.exponent[0]
            ),
            "logarithmic" => {
                let theta = &fits[law].as_ref().expect("chosen").fitted.parameters;
                format!(
                    "{} by a constant step of {:.3} for every factor of ten in x: a logarithm, not a power law with a {bottom}.",
                    if falls { "Falls" } else { "Rises" },
                    (theta[1] * std::f64::consts::LN_10).abs()
                )
            }
            "exponential" => "An exponential, not a power law: the same factor for every step of x.".into(),
            "saturating_power" => format!(
                "A power law over a {bottom} of {:.4} ({:.4} to {:.4}), exponent {:.3}.",
                found.floor[0], found.floor[1], found.floor[2], found.exponent[0]
            ),
            "saturating_exponential" => format!("An exponential approach to a {bottom} of {:.4}.", found.floor[0]),
            _ => format!(
                "A power law with an elbow near x = {}: exponent {:.3} before, {:.3} after.",
                place(found.elbow[0]),
                found.exponent[0],
                found.exponent_after
            ),
        }),
        None if found.trend[1] >= 0.01 => {
            say("No trend that stands out of the scatter: the shape cannot be told.".into())
        }
        None => {
            let close: Vec<&str> =
                (0..SHAPES.len()).filter(|&law| found.above[law] < APART).map(|law| SHAPES[law]).collect();
            match close.len() {
                0 | 1 => say("The shape cannot be told.".into()),
                _ => say(format!("The shape cannot be told: {} fit alike.", close.join(", "))),
            }
        }
    }
    if x.len() < 8 {
        say(format!("{} points cannot tell much more.", x.len()));
    }
    if decided.is_some_and(|law| !matches!(law, POWER | LOGARITHMIC)) && found.curvature[1] < 0.01 {
        say(format!("On log-log axes it bends (p = {:.1e}).", found.curvature[1]));
    }
    if found.runs[2] < 0.01 {
        say(format!(
            "The residuals keep their sign too long ({} runs, {:.0} expected): the law misses something, or the errors hang \
             together.",
            found.runs[0], found.runs[1]
        ));
    }
    if found.influence[0] > 1.0 {
        say(format!(
            "Without the point at x = {} the exponent moves by {:.1} standard errors.",
            place(found.influence[1]),
            found.influence[0]
        ));
    }
    if found.next_doubling.is_finite() && decided.is_some() {
        say(format!("The next doubling of x changes y by {:+.2}%.", 100.0 * found.next_doubling));
    }
    if found.near_floor.is_finite() && decided.is_some() {
        let last = x.last().copied().unwrap_or(f64::NAN);
        if found.near_floor > last {
            say(format!(
                "Within 10% of the {bottom} at x = {:.2e}, {:.1e} times the largest.",
                found.near_floor,
                found.near_floor / last
            ));
        } else {
            say(format!("Already within 10% of the {bottom}."));
        }
    }
    if found.reach > 0.5 {
        let to = target.map_or("ten times the largest x".to_string(), |target| format!("x = {}", place(target)));
        say(format!(
            "A forecast at {to} reaches beyond the data by {:.0}% of the range that they span.",
            100.0 * found.reach
        ));
    }
    text.trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn places_are_written_as_by_hand() {
        let written = [0.5, 0.00125, 1.0, 10.0, 1000.0, 1234.5, 50_000.0, 120_000.0, 2e6, 1e-5].map(place);
        let expected = ["0.5", "0.00125", "1", "10", "1000", "1234", "50000", "120000", "2.000e6", "1.000e-5"];
        assert_eq!(written, expected);
    }
}
