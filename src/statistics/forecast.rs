//! Forecasts: what a fitted law says at a point, how sure it is of it, and where a new measurement would fall.
//!
//! In: fits and points. Out: predictions with two intervals each, for the law's mean and for a new measurement. Intervals
//! are made in the fitting space, by the delta method with Student's t or from draws of the parameters: in log space they
//! are positive and asymmetric. Knows no files.

use super::fits::{Fits, Fitted, FittedLaw, Weighting};
use super::student::Quantiles;
use super::surface::{Surface, by_rows, variance};
use crate::error::{Error, Result};
use crate::evaluate::tape::{Tape, map_columns};
use crate::fit::Space;
use crate::formula::graph::Node;
use rayon::prelude::*;

/// Where to predict: named columns of equal length.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Points {
    pub names: Vec<String>,
    pub columns: Vec<Vec<f64>>,
}

impl Points {
    /// The column of a law's input, under its column's name or the catalogue's.
    fn input(&self, law: &FittedLaw, position: usize) -> Option<usize> {
        let own = &law.law.columns[law.inputs[position]];
        let exact = self.names.iter().position(|name| name == own);
        exact.or_else(|| self.names.iter().position(|name| law.input(name) == Some(position)))
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }
}

/// What a fit says at a point; everything in the fitting space but `predicted`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// The left side of the law.
    pub predicted: f64,
    /// The ends of the intervals, as left sides.
    pub mean: [f64; 2],
    pub new: [f64; 2],
    /// The measured left side, where the points hold it; NaN elsewhere.
    pub observed: f64,
    quantile: f64,
    /// Half the widths in the fitting space.
    halves: [f64; 2],
}

impl Answer {
    const NONE: Answer = Answer {
        predicted: f64::NAN,
        mean: [f64::NAN; 2],
        new: [f64::NAN; 2],
        observed: f64::NAN,
        quantile: f64::NAN,
        halves: [f64::NAN; 2],
    };
}

/// Answers questions about a table of fits.
#[derive(Debug)]
pub struct Forecaster {
    space: Space,
    level: f64,
    weighting: Weighting,
    laws: Vec<Asked>,
    /// Widens or narrows each law's intervals.
    pub factors: Vec<f64>,
}

#[derive(Debug)]
struct Asked {
    surface: Surface,
    parameters: usize,
    /// The points' columns of the law's inputs.
    inputs: Vec<usize>,
    /// The left side over the points' columns, where they hold all of it.
    response: Option<(Tape, Vec<usize>)>,
    weight: Option<usize>,
}

/// Questions answered by one task.
const QUESTIONS: usize = 2048;

impl Forecaster {
    /// Prepares the laws of `fits` for `points`.
    ///
    /// # Errors
    /// An input of a law that the points lack.
    pub fn new(fits: &Fits, points: &Points, level: f64) -> Result<Forecaster> {
        let space = fits.objective.space;
        let asked = |fitted: &FittedLaw| -> Result<Asked> {
            let place = |position: usize| {
                points.input(fitted, position).ok_or_else(|| Error::Column {
                    column: fitted.input_names()[position].to_string(),
                    message: format!(
                        "is an input of law {} and has no value where to predict; given are: {}",
                        fitted.law.name,
                        points.names.join(", ")
                    ),
                })
            };
            Ok(Asked {
                surface: Surface::new(fitted, space),
                parameters: fitted.law.parameters.len(),
                inputs: (0..fitted.inputs.len()).map(place).collect::<Result<_>>()?,
                response: response(fitted, points),
                weight: fits.weight_column().and_then(|name| points.column(name)),
            })
        };
        let laws = fits.laws.iter().map(asked).collect::<Result<Vec<_>>>()?;
        let factors = vec![1.0; laws.len()];
        Ok(Forecaster { space, level, weighting: fits.weighting.clone(), laws, factors })
    }

    /// The points' column of input `position` of a law.
    pub fn input_column(&self, law: usize, position: usize) -> Option<usize> {
        self.laws[law].inputs.get(position).copied()
    }

    /// Whether the points hold the measured left side of every law.
    pub fn knows_observed(&self) -> bool {
        self.laws.iter().all(|law| law.response.is_some())
    }

    /// Answers questions, each a row of `rows` and a row of `points`.
    pub fn answer(&self, rows: &[Fitted], points: &Points, questions: &[(u32, u32)]) -> Vec<Answer> {
        let tasks = questions.par_chunks(QUESTIONS);
        let parts: Vec<Vec<Answer>> = tasks.map(|questions| self.task(rows, points, questions)).collect();
        parts.into_iter().flatten().collect()
    }

    fn task(&self, rows: &[Fitted], points: &Points, questions: &[(u32, u32)]) -> Vec<Answer> {
        let mut answers = vec![Answer::NONE; questions.len()];
        let mut quantiles = Quantiles::new(self.level);
        for (law, asked) in self.laws.iter().enumerate() {
            let mine: Vec<usize> = (0..questions.len()).filter(|&q| rows[questions[q].0 as usize].law == law).collect();
            if mine.is_empty() {
                continue;
            }
            let fit = |q: usize| &rows[questions[q].0 as usize];
            let point = |q: usize| questions[q].1 as usize;
            let inputs = asked.inputs.iter().map(|&k| mine.iter().map(|&q| points.columns[k][point(q)]).collect());
            let parameters = (0..asked.parameters).map(|j| mine.iter().map(|&q| fit(q).parameters[j]).collect());
            let columns: Vec<Vec<f64>> = inputs.chain(parameters).collect();
            let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
            let values = asked.surface.evaluate(&columns);
            for (at, &q) in mine.iter().enumerate() {
                let quantile = quantiles.two_sided(fit(q).freedom);
                let slope = |j: usize| values[1 + j][at];
                let t = values[0][at];
                let mean = if fit(q).draws.is_empty() {
                    let variance = fit(q).covariance.as_ref().map(|c| variance(c, slope, asked.parameters));
                    [quantile * variance.unwrap_or(f64::NAN).sqrt(); 2]
                } else {
                    let at_point: Vec<f64> = asked.inputs.iter().map(|&k| points.columns[k][point(q)]).collect();
                    self.percentiles(asked, fit(q), &at_point).map_or([f64::NAN; 2], |[low, high]| [t - low, high - t])
                };
                let weight = asked.weight.map(|k| points.columns[k][point(q)]);
                let scatter = quantile * self.scatter(fit(q).noise, weight, t).sqrt();
                answers[q] = self.interval(t, mean, scatter, self.factors[law]);
                answers[q].quantile = quantile;
            }
            if let Some((tape, places)) = &asked.response {
                let columns: Vec<Vec<f64>> =
                    places.iter().map(|&k| mine.iter().map(|&q| points.columns[k][point(q)]).collect()).collect();
                let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
                for (&q, &observed) in mine.iter().zip(&map_columns(tape, &columns, mine.len())[0]) {
                    answers[q].observed = observed;
                }
            }
        }
        answers
    }

    /// Variance of a new measurement about the law, in the fitting space.
    fn scatter(&self, noise: f64, weight: Option<f64>, t: f64) -> f64 {
        match (&self.weighting, weight) {
            (Weighting::Even, _) | (Weighting::Weight(_), None) => noise,
            (Weighting::Weight(_), Some(weight)) => noise / weight,
            // Nobody knows how exact the next measurement will be.
            (Weighting::Sigma(_), None) => f64::NAN,
            (Weighting::Sigma(_), Some(sigma)) => match self.space {
                Space::Linear => sigma * sigma,
                Space::Log => (sigma / t.exp()).powi(2),
            },
        }
    }

    fn interval(&self, t: f64, mean: [f64; 2], scatter: f64, factor: f64) -> Answer {
        let side = |t: f64| match self.space {
            Space::Log => t.exp(),
            Space::Linear => t,
        };
        let predicted = side(t);
        if !predicted.is_finite() {
            return Answer::NONE;
        }
        let mean = mean.map(|half| factor * half);
        let new = mean.map(|half| half.hypot(factor * scatter));
        Answer {
            predicted,
            mean: [side(t - mean[0]), side(t + mean[1])],
            new: [side(t - new[0]), side(t + new[1])],
            halves: [0.5 * (mean[0] + mean[1]), 0.5 * (new[0] + new[1])],
            ..Answer::NONE
        }
    }

    /// The ends of the interval that holds the level's share of the draws, in the fitting space.
    fn percentiles(&self, asked: &Asked, fit: &Fitted, point: &[f64]) -> Option<[f64; 2]> {
        let draws = fit.draws.len() / asked.parameters;
        let inputs = point.iter().map(|&x| vec![x; draws]);
        let parameters = (0..asked.parameters).map(|j| fit.draws.chunks(asked.parameters).map(|d| d[j]).collect());
        let columns: Vec<Vec<f64>> = inputs.chain(parameters).collect();
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        percentiles(asked.surface.value(&columns), self.level)
    }

    /// The average of several laws on one curve, weighted by their evidence; none where no law has any.
    ///
    /// Burnham and Anderson's unconditional variance: each law's own and its distance from the average.
    pub fn average(&self, rows: &[Fitted], answers: &[Answer]) -> Answer {
        let weight = |k: usize| match (rows[k].evidence, answers[k].predicted) {
            (evidence, predicted) if evidence > 0.0 && predicted.is_finite() => evidence,
            _ => 0.0,
        };
        let total: f64 = (0..rows.len()).map(weight).sum();
        if total <= 0.0 {
            return Answer::NONE;
        }
        let mean = |of: &dyn Fn(&Answer) -> f64| {
            let some = (0..rows.len()).filter(|&k| weight(k) > 0.0);
            some.map(|k| weight(k) / total * of(&answers[k])).sum::<f64>()
        };
        let inward = |y: f64| if self.space == Space::Log { y.ln() } else { y };
        let t = inward(mean(&|answer| answer.predicted));
        let half =
            |which: usize| mean(&|answer| answer.halves[which].hypot(answer.quantile * (inward(answer.predicted) - t)));
        let halves = [half(0), half(1)];
        let side = |t: f64| if self.space == Space::Log { t.exp() } else { t };
        Answer {
            predicted: side(t),
            mean: [side(t - halves[0]), side(t + halves[0])],
            new: [side(t - halves[1]), side(t + halves[1])],
            observed: answers[0].observed,
            quantile: f64::NAN,
            halves,
        }
    }
}

/// The ends of the central interval of `level` among values, by linear interpolation; none without finite values.
pub fn percentiles(mut values: Vec<f64>, level: f64) -> Option<[f64; 2]> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let at = |share: f64| {
        let place = share * last as f64;
        let below = place.floor() as usize;
        let above = (below + 1).min(last);
        values[below] + (place - below as f64) * (values[above] - values[below])
    };
    Some([at(0.5 * (1.0 - level)), at(0.5 * (1.0 + level))])
}

/// The left side as a tape over the points' columns, where they hold all that it reads.
fn response(fitted: &FittedLaw, points: &Points) -> Option<(Tape, Vec<usize>)> {
    let mut graph = fitted.law.graph.clone();
    let used = graph.reachable(&[fitted.law.response]);
    let read: Vec<usize> = (0..fitted.law.columns.len())
        .filter(|&k| used.iter().any(|&id| graph.node(id) == Node::Input(k as u32)))
        .collect();
    let places = read.iter().map(|&k| points.column(&fitted.law.columns[k])).collect::<Option<Vec<_>>>()?;
    Some((by_rows(&mut graph, &[fitted.law.response], &read), places))
}
