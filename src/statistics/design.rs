//! Design: which measurement to make next, so that a forecast becomes surer for its price.
//!
//! In: fits with covariances, a target, candidates and what each costs. Out: greedily, one run after the other, the
//! candidate that most reduces the variance of the forecast at the target (V-optimal), or the volume of the parameters'
//! uncertainty (D-optimal), per unit of cost. A measurement at x of scatter s² turns the covariance C of the parameters into
//! C − C g gᵀ C/(s² + gᵀ C g), g being the law's slopes there (Fedorov 1972).

use super::fits::{Fits, Fitted};
use super::surface::{Surface, variance};
use crate::fit::lanes::pair;

/// What a run shall improve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Criterion {
    /// The variance of the forecast at the target.
    Forecast,
    /// The determinant of the parameters' covariance.
    Parameters,
}

/// Which of two useful runs comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// The one that improves more per unit of cost.
    PerCost,
    /// The one that improves more.
    PerRun,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// Inputs of the law at the target.
    pub target: Vec<f64>,
    /// One column per input of the law.
    pub candidates: Vec<Vec<f64>>,
    /// One per candidate.
    pub cost: Vec<f64>,
    /// All runs together.
    pub budget: f64,
    pub most_runs: usize,
    pub criterion: Criterion,
    pub rank: Rank,
    /// Standard deviation of a new measurement in the fitting space, where the fit's own is not to be used.
    pub noise: Option<f64>,
}

/// One run of a design.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// Position among the candidates.
    pub candidate: usize,
    /// Standard deviation of the forecast in the fitting space before and after.
    pub before: f64,
    pub after: f64,
}

/// Why no run is proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// The curve has no fit, or as many parameters as points, or data that do not determine them.
    NoCovariance,
    /// The law has no value at the target, or its variance there is rounding.
    NoForecast,
    /// No candidate is within the budget and helps.
    NoCandidate,
}

/// The next runs for one fit, at least one.
///
/// # Errors
/// Why there is none.
pub fn next_runs(surface: &Surface, fit: &Fitted, question: &Question) -> Result<Vec<Run>, Silence> {
    let p = fit.parameters.len();
    let scatter = question.noise.map_or(fit.noise, |deviation| deviation * deviation);
    let covariance = fit.covariance.clone().filter(|_| scatter > 0.0);
    let mut covariance = covariance.ok_or(Silence::NoCovariance)?;
    let slopes = |inputs: &[Vec<f64>]| {
        let rows = inputs[0].len();
        let parameters = fit.parameters.iter().map(|&value| vec![value; rows]);
        let columns: Vec<Vec<f64>> = inputs.iter().cloned().chain(parameters).collect();
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        surface.evaluate(&columns).split_off(1)
    };
    let at_target = slopes(&question.target.iter().map(|&x| vec![x]).collect::<Vec<_>>());
    let goal: Vec<f64> = at_target.iter().map(|column| column[0]).collect();
    let at_candidates = slopes(&question.candidates);
    let times = |covariance: &[f64], g: &dyn Fn(usize) -> f64| -> Vec<f64> {
        (0..p).map(|i| (0..p).map(|j| covariance[pair(i, j)] * g(j)).sum()).collect()
    };
    let mut runs = Vec::new();
    let mut left = question.budget;
    while runs.len() < question.most_runs {
        let before = variance(&covariance, |j| goal[j], p);
        if runs.is_empty() && before.is_nan() {
            return Err(Silence::NoForecast);
        }
        let towards = times(&covariance, &|j| goal[j]);
        let gain = |candidate: usize| {
            let g = |j: usize| at_candidates[j][candidate];
            let own = variance(&covariance, g, p);
            match question.criterion {
                Criterion::Forecast => (0..p).map(|j| towards[j] * g(j)).sum::<f64>().powi(2) / (scatter + own),
                Criterion::Parameters => (own / scatter).ln_1p(),
            }
        };
        let worth = |candidate: usize| match question.rank {
            Rank::PerCost => gain(candidate) / question.cost[candidate],
            Rank::PerRun => gain(candidate),
        };
        let affordable = (0..question.cost.len()).filter(|&c| question.cost[c] > 0.0 && question.cost[c] <= left);
        let useful = affordable.map(|c| (c, worth(c))).filter(|(_, worth)| worth.is_finite() && *worth > 0.0);
        let Some((candidate, _)) = useful.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0))) else { break };
        let g = |j: usize| at_candidates[j][candidate];
        let direction = times(&covariance, &g);
        let total = scatter + (0..p).map(|j| direction[j] * g(j)).sum::<f64>();
        for i in 0..p {
            for j in 0..=i {
                covariance[pair(i, j)] -= direction[i] * direction[j] / total;
            }
        }
        let after = variance(&covariance, |j| goal[j], p);
        left -= question.cost[candidate];
        runs.push(Run { candidate, before: before.sqrt(), after: after.sqrt() });
    }
    if runs.is_empty() { Err(Silence::NoCandidate) } else { Ok(runs) }
}

/// The surfaces of all laws of a table.
pub fn surfaces(fits: &Fits) -> Vec<Surface> {
    fits.laws.iter().map(|law| Surface::new(law, fits.objective.space)).collect()
}
