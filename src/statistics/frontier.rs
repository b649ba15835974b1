//! The compute-optimal frontier straight from measurements, without a law: the isoFLOP and the envelope method.
//!
//! In: runs of two inputs, their cost and their loss. Out: for every key the optima seen, and straight lines in log-log
//! through them: inputs and loss against the budget. Both methods are known to be biased (see [`Method::bias`]); a fitted
//! law is to be preferred where there is one.

use super::allocation::{Allocation, Estimate};
use super::student::two_sided_quantile;
use crate::curves::CurveBatch;

/// How optima are found in the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A parabola of log loss in the logarithm of the first input for every budget.
    Isoflop,
    /// The runs that no cheaper run equals.
    Envelope,
}

impl Method {
    /// The name in the output's `law` column.
    pub fn name(self) -> &'static str {
        match self {
            Method::Isoflop => "isoflop",
            Method::Envelope => "envelope",
        }
    }

    /// What is known to be wrong with it.
    pub fn bias(self) -> &'static str {
        match self {
            Method::Isoflop => {
                "isoFLOP parabolas are biased even without noise: the valley is steeper on one side, which a parabola is \
                 not, and more so the wider the range of sizes; prefer a fitted law"
            }
            Method::Envelope => {
                "the envelope is biased: its points are the luckiest runs, and sizes that were not trained long enough or \
                 not tried bend it; prefer a fitted law"
            }
        }
    }
}

/// Budgets within this factor of the cheapest of a group are one budget.
const ONE_BUDGET: f64 = 1.1;
/// Points of the envelope per factor of ten of the budget.
const PER_DECADE: f64 = 10.0;

/// The optimum at one budget, all in logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Optimum {
    budget: f64,
    inputs: [f64; 2],
    loss: f64,
}

/// The frontier of one key.
#[derive(Debug, Clone, PartialEq)]
pub struct Frontier {
    /// Budgets at which an optimum was found.
    pub optima: usize,
    /// Of both inputs, the loss and the ratio against the budget.
    lines: Option<[Line; 4]>,
}

/// The columns of a batch: inputs, loss, cost.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    pub inputs: [&'a [f64]; 2],
    pub loss: &'a [f64],
    pub cost: &'a [f64],
}

impl Frontier {
    /// The frontier of every curve of a batch.
    pub fn of(batch: &CurveBatch, measured: Measured, method: Method) -> Vec<Frontier> {
        let frontier = |curve: usize| {
            let rows = batch.offsets[curve]..batch.offsets[curve + 1];
            let values =
                |row: usize| [measured.cost[row], measured.inputs[0][row], measured.inputs[1][row], measured.loss[row]];
            let usable = rows.filter(|&row| values(row).iter().all(|&value| value > 0.0 && value.is_finite()));
            let mut runs: Vec<Optimum> = usable
                .map(|row| values(row).map(f64::ln))
                .map(|[budget, n, d, loss]| Optimum { budget, inputs: [n, d], loss })
                .collect();
            runs.sort_by(|a, b| a.budget.total_cmp(&b.budget).then(a.inputs[0].total_cmp(&b.inputs[0])));
            let optima = match method {
                Method::Isoflop => parabolas(&runs),
                Method::Envelope => envelope(&runs),
            };
            let line = |of: &dyn Fn(&Optimum) -> f64| {
                Line::through(&optima.iter().map(|optimum| (optimum.budget, of(optimum))).collect::<Vec<_>>())
            };
            let lines = [
                line(&|o| o.inputs[0]),
                line(&|o| o.inputs[1]),
                line(&|o| o.loss),
                line(&|o| o.inputs[1] - o.inputs[0]),
            ];
            let all = lines.iter().all(Option::is_some);
            Frontier { optima: optima.len(), lines: all.then(|| lines.map(|line| line.expect("all are there"))) }
        };
        (0..batch.len()).map(frontier).collect()
    }

    /// What the lines say at a budget; NaN where fewer than two optima were found, no interval with fewer than three.
    pub fn allocation(&self, budget: f64, level: f64) -> Allocation {
        let Some([first, second, loss, ratio]) = &self.lines else {
            let none = [f64::NAN; 3];
            return Allocation {
                inputs: [none; 2],
                predicted: none,
                ratio: none,
                exponents: [none; 2],
                scale: [f64::NAN; 3],
                regret: Vec::new(),
            };
        };
        let at = |line: &Line| line.at(budget.ln(), level).map(f64::exp);
        Allocation {
            inputs: [at(first), at(second)],
            predicted: at(loss),
            ratio: at(ratio),
            exponents: [first.slope(level), second.slope(level)],
            scale: [f64::NAN; 3],
            regret: Vec::new(),
        }
    }
}

/// The vertex of a parabola for every budget that has three sizes and a valley between its ends.
fn parabolas(runs: &[Optimum]) -> Vec<Optimum> {
    let mut optima = Vec::new();
    let mut rest = runs;
    while let Some(first) = rest.first() {
        let length = rest.partition_point(|run| run.budget <= first.budget + ONE_BUDGET.ln());
        let (group, later) = rest.split_at(length);
        rest = later;
        let sizes: Vec<f64> = group.iter().map(|run| run.inputs[0]).collect();
        let mean = |values: &dyn Fn(&Optimum) -> f64| group.iter().map(values).sum::<f64>() / group.len() as f64;
        let centre = mean(&|run| run.inputs[0]);
        let against = |of: &dyn Fn(&Optimum) -> f64| {
            let points: Vec<(f64, f64)> = group.iter().map(|run| (run.inputs[0] - centre, of(run))).collect();
            parabola(&points)
        };
        let Some([a, b, c]) = against(&|run| run.loss) else { continue };
        let vertex = -b / (2.0 * c);
        let [low, high] = [f64::min, f64::max].map(|end| sizes.iter().copied().fold(sizes[0], end));
        if !(c > 0.0 && vertex + centre > low && vertex + centre < high) {
            continue;
        }
        // At one budget the second input is a smooth function of the first.
        let Some([d, e, g]) = against(&|run| run.inputs[1]) else { continue };
        optima.push(Optimum {
            budget: mean(&|run| run.budget),
            inputs: [vertex + centre, d + e * vertex + g * vertex * vertex],
            loss: a + b * vertex + c * vertex * vertex,
        });
    }
    optima
}

/// Runs with a loss below that of all cheaper ones, the best in each tenth of a decade.
fn envelope(runs: &[Optimum]) -> Vec<Optimum> {
    let mut lowest = f64::INFINITY;
    let mut kept: Vec<Optimum> = Vec::new();
    let bin = |run: &Optimum| (run.budget / std::f64::consts::LN_10 * PER_DECADE).floor();
    for run in runs {
        if run.loss < lowest {
            lowest = run.loss;
            if kept.last().is_some_and(|last| bin(last) == bin(run)) {
                kept.pop();
            }
            kept.push(*run);
        }
    }
    kept
}

/// Least squares y = a + b x + c x²; none with fewer than three distinct x. x should be centred.
pub fn parabola(points: &[(f64, f64)]) -> Option<[f64; 3]> {
    let n = points.len() as f64;
    let size = points.iter().map(|(x, _)| x.abs()).fold(0.0, f64::max);
    if points.len() < 3 || size == 0.0 {
        return None;
    }
    // Orthogonal polynomials 1, x − m, x² − p x − q: no normal equations to lose digits in.
    let mean = points.iter().map(|(x, _)| x).sum::<f64>() / n;
    let linear = |x: f64| x - mean;
    let second = points.iter().map(|(x, _)| linear(*x).powi(2)).sum::<f64>();
    let third = points.iter().map(|(x, _)| linear(*x).powi(3)).sum::<f64>() / second;
    let quadratic = |x: f64| linear(x).powi(2) - third * linear(x) - second / n;
    let fourth = points.iter().map(|(x, _)| quadratic(*x).powi(2)).sum::<f64>();
    // What rounding leaves where only two x are distinct.
    if second <= 1e-24 * size * size * n || fourth <= 1e-24 * second * second {
        return None;
    }
    let onto = |basis: &dyn Fn(f64) -> f64, norm: f64| points.iter().map(|(x, y)| basis(*x) * y).sum::<f64>() / norm;
    let (level, slope, bend) = (onto(&|_| 1.0, n), onto(&linear, second), onto(&quadratic, fourth));
    // Back from powers of x − m.
    let (a, b, c) = (level - bend * second / n, slope - bend * third, bend);
    Some([a - b * mean + c * mean * mean, b - 2.0 * c * mean, c])
}

/// A straight line by least squares, and how sure it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    points: f64,
    mean: f64,
    level: f64,
    slope: f64,
    /// Σ (x − mean)²
    spread: f64,
    /// Variance of a point about the line; NaN with two points.
    noise: f64,
}

impl Line {
    /// The line through points of at least two distinct x.
    pub fn through(points: &[(f64, f64)]) -> Option<Line> {
        let n = points.len() as f64;
        let mean = points.iter().map(|(x, _)| x).sum::<f64>() / n;
        let level = points.iter().map(|(_, y)| y).sum::<f64>() / n;
        let spread = points.iter().map(|(x, _)| (x - mean).powi(2)).sum::<f64>();
        if points.len() < 2 || spread <= 0.0 {
            return None;
        }
        let slope = points.iter().map(|(x, y)| (x - mean) * (y - level)).sum::<f64>() / spread;
        let squares = points.iter().map(|(x, y)| (y - level - slope * (x - mean)).powi(2)).sum::<f64>();
        let noise = if points.len() > 2 { squares / (n - 2.0) } else { f64::NAN };
        Some(Line { points: n, mean, level, slope, spread, noise })
    }

    fn at(&self, x: f64, level: f64) -> Estimate {
        let value = self.level + self.slope * (x - self.mean);
        let variance = self.noise * (1.0 / self.points + (x - self.mean).powi(2) / self.spread);
        self.estimate(value, variance, level)
    }

    fn slope(&self, level: f64) -> Estimate {
        self.estimate(self.slope, self.noise / self.spread, level)
    }

    fn estimate(&self, value: f64, variance: f64, level: f64) -> Estimate {
        let half = two_sided_quantile(level, self.points - 2.0) * variance.sqrt();
        [value, value - half, value + half]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parabola_is_found_again_and_needs_three_places() {
        let at = |x: f64| (x, 2.0 - 3.0 * x + 0.5 * x * x);
        let found = parabola(&[at(-1.0), at(0.3), at(2.0), at(5.0)]).expect("four places");
        for (found, expected) in found.iter().zip([2.0, -3.0, 0.5]) {
            assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
        }
        assert_eq!(parabola(&[at(1.0), at(1.0), at(2.0), at(2.0)]), None);
    }

    /// Runs of L = N^-½ + D^-½ at C = 6ND are symmetric about N = D: there the parabola is exact.
    #[test]
    fn symmetric_valleys_give_the_exact_frontier() {
        let (mut n, mut d, mut loss, mut cost) = (vec![], vec![], vec![], vec![]);
        for budget in [1e18f64, 1e19, 1e20, 1e21] {
            let optimum = (budget / 6.0).sqrt();
            for shift in -3..=3 {
                let size = optimum * 2f64.powi(shift);
                n.push(size);
                d.push(budget / 6.0 / size);
                loss.push(size.powf(-0.5) + (budget / 6.0 / size).powf(-0.5));
                cost.push(budget);
            }
        }
        let batch = CurveBatch { offsets: vec![0, n.len()], columns: vec![] };
        let measured = Measured { inputs: [&n, &d], loss: &loss, cost: &cost };
        let frontier = &Frontier::of(&batch, measured, Method::Isoflop)[0];
        assert_eq!(frontier.optima, 4);
        let at = frontier.allocation(1e24, 0.95);
        let optimum = (1e24f64 / 6.0).sqrt();
        for input in at.inputs {
            assert!((input[0] / optimum - 1.0).abs() < 1e-9, "{input:?}, exactly {optimum}");
        }
        assert!((at.exponents[0][0] - 0.5).abs() < 1e-12);
        let frontier = &Frontier::of(&batch, measured, Method::Envelope)[0];
        let input = frontier.allocation(1e24, 0.95).inputs[0][0];
        assert!((input / optimum - 1.0).abs() < 1e-9, "{input}, exactly {optimum}");
    }
}
