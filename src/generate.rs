//! Synthetic sweeps with known truth.
//!
//! In: a law, ranges for its inputs and parameters, a noise, a seed. Out: [`CurveBatch`]es and the true parameters. Curve
//! `i` depends on the seed and `i` alone: not on batches, threads or how many curves there are. Knows no files.

pub mod typical;

use typical::Typical;

use crate::curves::CurveBatch;
use crate::error::{Error, Result};
use crate::evaluate::reference::{Precision, Reference};
use crate::law::catalogue::Entry;
use crate::law::{Law, Mapping};
use crate::random::Stream;
use rayon::prelude::*;

/// Where the values of one input lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    /// First value.
    pub low: f64,
    /// Last value; both ends are included.
    pub high: f64,
    /// Values on an axis of a product grid; none where the curve's number of points decides.
    pub cells: Option<usize>,
}

/// How a true parameter is drawn for each curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Draw {
    /// The same for all curves.
    Fixed(f64),
    /// Uniform between the ends.
    Uniform(f64, f64),
    /// Uniform in the logarithm; both ends positive.
    LogUniform(f64, f64),
    /// As its role in the law suggests, over the inputs of the curve: see [`typical`].
    Typical,
}

/// Independent noise on every point, given by its standard deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Noise {
    /// y = f·exp(σ·normal): σ = 0.02 is two per cent.
    Log(f64),
    /// y = f + σ·normal.
    Linear(f64),
    /// y = f + σ·mean of the curve's f·normal: σ = 0.1 is a tenth of the curve's mean.
    OfMean(f64),
}

/// A recipe for a sweep.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The law; its left side is one plain column.
    pub law: Law,
    /// Per column of [`Law::columns`], the response's own left out (`None`).
    pub axes: Vec<Option<Axis>>,
    /// Per parameter of the law.
    pub draws: Vec<Draw>,
    /// Fewest and most points of a curve; the number is uniform between. Ignored where the axes form a grid.
    pub points: (usize, usize),
    /// The noise.
    pub noise: Noise,
    /// Sweeps of different seeds are independent.
    pub seed: u64,
}

/// Some consecutive curves of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// Columns as in [`Law::columns`].
    pub curves: CurveBatch,
    /// Per parameter of the law, one value per curve.
    pub truth: Vec<Vec<f64>>,
}

impl Axis {
    /// Four decades in the law's domain: 1 to 1e4, or 10 to 1e5 where the law begins at one.
    pub fn four_decades(entry: &Entry) -> Axis {
        let low = if entry.above < 1.0 { 1.0 } else { 10.0 * entry.above };
        Axis { low, high: 1e4 * low, cells: None }
    }

    /// Value at `position` in 0..=1: geometric where the low end is positive, uniform elsewhere.
    fn at(&self, position: f64) -> f64 {
        // Both ends exactly: exp(log(high)) is not high.
        match position {
            0.0 => self.low,
            1.0 => self.high,
            _ if self.low > 0.0 => (self.low.ln() + (self.high / self.low).ln() * position).exp(),
            _ => self.low + (self.high - self.low) * position,
        }
    }
}

impl Draw {
    /// None where the inputs of the curve have to be known first.
    fn draw(self, stream: &mut Stream) -> Option<f64> {
        match self {
            Draw::Fixed(value) => Some(value),
            Draw::Uniform(low, high) => Some(stream.uniform(low, high)),
            Draw::LogUniform(low, high) => Some((stream.uniform(low.ln(), high.ln())).exp()),
            Draw::Typical => None,
        }
    }
}

impl Sweep {
    /// A catalogue law under typical parameters, its inputs, under their own names, over four decades, the response `y`.
    pub fn typical(entry: &'static Entry, points: (usize, usize), noise: Noise, seed: u64) -> Sweep {
        let inputs: Vec<String> = entry.inputs.iter().map(|input| input.to_string()).collect();
        let columns = [inputs.clone(), vec!["y".to_string()]].concat();
        let law =
            Law::bind(entry.name, &columns, Mapping { x: &inputs, y: Some("y") }).expect("an entry binds: a test");
        Sweep {
            axes: columns.iter().map(|column| (column != "y").then_some(Axis::four_decades(entry))).collect(),
            draws: vec![Draw::Typical; law.parameters.len()],
            points,
            noise,
            seed,
            law,
        }
    }

    /// Curves `first..first + count`.
    ///
    /// # Errors
    /// [`Error::Usage`] where the law is not finite at a point, naming the curve and its parameters.
    pub fn batch(&self, first: u64, count: usize) -> Result<Generated> {
        // Truth should not come from the evaluators that it tests.
        let law = Reference::new(&self.law.graph, &[self.law.prediction], Precision::Double);
        let tools = (law, Typical::new(&self.law));
        let curves: Vec<Curve> = (0..count)
            .into_par_iter()
            .with_min_len(64)
            .map_init(|| tools.clone(), |(law, typical), i| self.curve(first + i as u64, law, typical))
            .collect::<Result<_>>()?;
        let mut offsets = Vec::with_capacity(count + 1);
        offsets.push(0);
        let mut rows = 0;
        for curve in &curves {
            rows += curve.columns[0].len();
            offsets.push(rows);
        }
        let columns = (0..self.law.columns.len())
            .into_par_iter()
            .map(|k| {
                let mut column = Vec::with_capacity(rows);
                curves.iter().for_each(|curve| column.extend_from_slice(&curve.columns[k]));
                column
            })
            .collect();
        let truth = (0..self.draws.len()).map(|j| curves.iter().map(|curve| curve.truth[j]).collect()).collect();
        Ok(Generated { curves: CurveBatch { offsets, columns }, truth })
    }

    fn curve(&self, index: u64, law: &mut Reference, typical: &mut Typical) -> Result<Curve> {
        let mut stream = Stream::new(self.seed, index);
        let known: Vec<Option<f64>> = self.draws.iter().map(|draw| draw.draw(&mut stream)).collect();
        let mut columns = self.inputs(&mut stream);
        let points = columns[0].len().max(columns[columns.len() - 1].len());
        let truth = typical.draw(&known, &columns, points, &mut stream);
        law.evaluate(&columns, &truth, points);
        let mut response = law.output(0).to_vec();
        let mean = response.iter().sum::<f64>() / points as f64;
        for (point, y) in response.iter_mut().enumerate() {
            *y = match self.noise {
                Noise::Log(sigma) => *y * (sigma * stream.normal()).exp(),
                Noise::Linear(sigma) => *y + sigma * stream.normal(),
                Noise::OfMean(share) => *y + share * mean * stream.normal(),
            };
            if !y.is_finite() {
                let list = |names: &[String], values: &dyn Fn(usize) -> f64, keep: &dyn Fn(usize) -> bool| {
                    let shown = |k: usize| format!("{} = {}", names[k], values(k));
                    (0..names.len()).filter(|&k| keep(k)).map(shown).collect::<Vec<_>>().join(", ")
                };
                return Err(Error::Usage(format!(
                    "law {} is not finite in curve {index} at {} with {}: narrow the ranges of --x or --param",
                    self.law.name,
                    list(&self.law.columns, &|k| columns[k][point], &|k| self.axes[k].is_some()),
                    list(&self.law.parameters, &|j| truth[j], &|_| true),
                )));
            }
        }
        let y = self.axes.iter().position(Option::is_none).expect("the response is the column without an axis");
        columns[y] = response;
        Ok(Curve { columns, truth })
    }

    /// The input columns of one curve; the response's is left empty.
    fn inputs(&self, stream: &mut Stream) -> Vec<Vec<f64>> {
        let axes: Vec<&Axis> = self.axes.iter().flatten().collect();
        let mut positions: Vec<Vec<f64>> = if axes.iter().all(|axis| axis.cells.is_some()) {
            grid(&axes)
        } else {
            let points = stream.integer(self.points.0 as u64, self.points.1 as u64) as usize;
            (0..axes.len()).map(|d| scatter(points, d)).collect()
        };
        positions.reverse();
        let mut column = |axis: &Axis| {
            let positions = positions.pop().expect("one list per axis");
            positions.into_iter().map(|position| axis.at(position)).collect()
        };
        self.axes.iter().map(|axis| axis.as_ref().map_or(Vec::new(), &mut column)).collect()
    }
}

/// Share of an axis at cell `j` of `cells`.
fn share(j: usize, cells: usize) -> f64 {
    if cells > 1 { j as f64 / (cells - 1) as f64 } else { 0.0 }
}

/// Positions of the product grid, the last axis running fastest.
fn grid(axes: &[&Axis]) -> Vec<Vec<f64>> {
    let cells: Vec<usize> = axes.iter().map(|axis| axis.cells.unwrap_or(1)).collect();
    let points: usize = cells.iter().product();
    let position = |d: usize, point: usize| {
        let faster: usize = cells[d + 1..].iter().product();
        share(point / faster % cells[d], cells[d])
    };
    (0..axes.len()).map(|d| (0..points).map(|point| position(d, point)).collect()).collect()
}

/// Positions of `points` on input `d`: evenly for the first one; for the others a lattice in which no two inputs move
/// together, since a law of several inputs cannot be told from points on one line.
fn scatter(points: usize, d: usize) -> Vec<f64> {
    // Fractional parts of the square roots of primes: badly approximable, pairwise independent.
    const PRIMES: [f64; 8] = [2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0];
    match d {
        0 => (0..points).map(|j| share(j, points)).collect(),
        _ => {
            let step = PRIMES[(d - 1) % PRIMES.len()].sqrt().fract();
            (0..points).map(|j| ((j as f64 + 0.5) * step).fract()).collect()
        }
    }
}

struct Curve {
    columns: Vec<Vec<f64>>,
    truth: Vec<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::catalogue::CATALOGUE;

    fn sweep() -> Sweep {
        let columns = ["x", "y"].map(String::from);
        let law = Law::bind("saturating_power", &columns, Mapping { x: &columns[..1], y: Some("y") }).unwrap();
        Sweep {
            law,
            axes: vec![Some(Axis { low: 1.0, high: 1e4, cells: None }), None],
            draws: vec![Draw::Uniform(1.5, 2.5), Draw::LogUniform(5.0, 15.0), Draw::Uniform(0.1, 0.6)],
            points: (8, 64),
            noise: Noise::Log(0.02),
            seed: 3,
        }
    }

    #[test]
    fn a_curve_depends_on_seed_and_index_alone() {
        let whole = sweep().batch(0, 100).unwrap();
        let later = sweep().batch(60, 40).unwrap();
        let start = whole.curves.offsets[60];
        for (k, column) in later.curves.columns.iter().enumerate() {
            assert_eq!(column[..], whole.curves.columns[k][start..]);
        }
        assert_eq!(later.truth[2], whole.truth[2][60..]);
        let other = Sweep { seed: 4, ..sweep() }.batch(0, 100).unwrap();
        assert_ne!(other.truth[2], whole.truth[2]);
    }

    #[test]
    fn curves_follow_the_law_and_the_noise() {
        let Generated { curves, truth } = sweep().batch(0, 2000).unwrap();
        let mut squares = 0.0;
        for i in 0..curves.len() {
            let rows = curves.offsets[i]..curves.offsets[i + 1];
            assert!((8..=64).contains(&rows.len()));
            assert_eq!((curves.columns[0][rows.start], curves.columns[0][rows.end - 1]), (1.0, 1e4));
            for row in rows {
                let f = truth[0][i] + truth[1][i] * curves.columns[0][row].powf(-truth[2][i]);
                squares += (curves.columns[1][row] / f).ln().powi(2);
            }
        }
        // The standard error of a standard deviation from n draws is σ/sqrt(2n); five of them.
        let n = curves.rows() as f64;
        assert!(((squares / n).sqrt() / 0.02 - 1.0).abs() < 5.0 / (2.0 * n).sqrt());
        assert!(truth[1].iter().all(|a| (5.0..15.0).contains(a)) && truth[2].iter().all(|a| (0.1..0.6).contains(a)));
    }

    #[test]
    fn typical_parameters_make_every_law_vary_within_reason() {
        for entry in CATALOGUE {
            let Generated { curves, truth } =
                Sweep::typical(entry, (32, 32), Noise::Log(0.0), 5).batch(0, 200).unwrap();
            let y = &curves.columns[entry.inputs.len()];
            assert!(y.iter().all(|y| y.is_finite() && *y >= 0.0), "{}", entry.name);
            let varies = |curve: usize| {
                let own = &y[curves.offsets[curve]..curves.offsets[curve + 1]];
                let (low, high) = own.iter().fold((f64::INFINITY, 0.0f64), |(l, h), &y| (l.min(y), h.max(y)));
                high > 1.001 * low
            };
            let varied = (0..200).filter(|&curve| varies(curve)).count();
            assert!(varied >= 190, "{}: {varied} of 200 curves vary by more than a thousandth", entry.name);
            for (j, parameter) in entry.parameters.iter().enumerate() {
                let drawn = &truth[j];
                assert!(drawn.iter().any(|&value| value != drawn[0]), "{} {}", entry.name, parameter.name);
            }
        }
    }

    #[test]
    fn a_parameter_that_is_given_stays_and_the_others_are_drawn() {
        let recipe = Sweep { draws: vec![Draw::Typical, Draw::Fixed(7.0), Draw::Typical], ..sweep() };
        let Generated { truth, .. } = recipe.batch(0, 50).unwrap();
        assert!(truth[1].iter().all(|&value| value == 7.0));
        assert!(truth[0].iter().all(|floor| (0.1..3.0).contains(floor)));
        assert!(truth[2].iter().all(|alpha| (0.05..2.0).contains(alpha)));
    }

    #[test]
    fn axes_with_cells_form_a_grid_and_several_inputs_do_not_move_together() {
        let columns = ["y", "N", "D"].map(String::from);
        let law = Law::bind("y ~ E + A*N^-a + B*D^-b", &columns, Mapping::default()).unwrap();
        let axis = |cells| Some(Axis { low: 1.0, high: 100.0, cells });
        let place = |axes: [Option<Axis>; 2]| {
            let mut axes = axes.into_iter();
            law.columns.iter().map(|column| if column == "y" { None } else { axes.next().unwrap() }).collect()
        };
        let mut recipe = Sweep {
            axes: place([axis(Some(3)), axis(Some(2))]),
            draws: vec![Draw::Fixed(1.0); 5],
            points: (64, 64),
            noise: Noise::Linear(0.0),
            seed: 0,
            law: law.clone(),
        };
        let grid = recipe.batch(0, 1).unwrap().curves;
        let column = |batch: &CurveBatch, name: &str| {
            batch.columns[law.columns.iter().position(|column| column == name).unwrap()].clone()
        };
        assert_eq!(column(&grid, "N").iter().map(|v| v.round()).collect::<Vec<_>>(), [1., 1., 10., 10., 100., 100.]);
        assert_eq!(column(&grid, "D"), [1., 100., 1., 100., 1., 100.]);
        assert_eq!(column(&grid, "y")[0], 3.0);
        recipe.axes = place([axis(None), axis(None)]);
        let scattered = recipe.batch(0, 1).unwrap().curves;
        let logs = |name| column(&scattered, name).iter().map(|v| v.ln()).collect::<Vec<_>>();
        let (n, d) = (logs("N"), logs("D"));
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let covariance =
            |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(p, q)| (p - mean(a)) * (q - mean(b))).sum::<f64>();
        let correlation = covariance(&n, &d) / (covariance(&n, &n) * covariance(&d, &d)).sqrt();
        assert!(correlation.abs() < 0.1, "{correlation}");
    }

    #[test]
    fn a_law_that_is_not_finite_names_curve_and_parameters() {
        let recipe = Sweep { draws: vec![Draw::Fixed(1.0), Draw::Fixed(1e308), Draw::Fixed(-100.0)], ..sweep() };
        let message = recipe.batch(0, 1).unwrap_err().to_string();
        for part in ["curve 0", "alpha = -100", "x = ", "--param"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
