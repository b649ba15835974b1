//! Workloads that benches share: what is generated and how it is fitted, by name or by law.
//!
//! In: a name (W1, W3, W7) or a catalogue law. Out: a [`Workload`], which makes a [`Sweep`] for any seed. W1 emulates the
//! benchmark of Gpufit (Przybylski et al. 2017), W3 robust fits of the size of Chinchilla's data, W7 a warehouse of ragged
//! learning curves.

use crate::error::{Error, Result, nearest};
use crate::fit::{Loss, Objective, Space};
use crate::generate::{Axis, Draw, Noise, Sweep};
use crate::law::{Law, Mapping, catalogue};

/// What is generated, and how it is fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// W1, W3, W7, or the law's name.
    pub name: String,
    /// A catalogue law or a formula.
    pub law: String,
    /// The inputs, in the law's order.
    pub x: Vec<(String, Axis)>,
    /// The response.
    pub y: String,
    /// How every parameter is drawn.
    pub parameters: Vec<(String, Draw)>,
    /// Fewest and most points of a curve; where the axes form a grid it decides.
    pub points: (usize, usize),
    /// The noise.
    pub noise: Noise,
    /// What is minimised.
    pub objective: Objective,
    /// How many curves, unless somebody says otherwise.
    pub curves: u64,
}

/// The workloads that have names of their own.
pub const NAMES: [&str; 3] = ["W1", "W3", "W7"];
/// The laws that figures are told for, and their parameters, in the catalogue's order.
const TOLD: [(&str, &[Draw]); 2] = [
    ("power", &[Draw::Uniform(5.0, 15.0), Draw::Uniform(-0.6, -0.1)]),
    ("saturating_power", &[Draw::Uniform(1.5, 2.5), Draw::Uniform(5.0, 15.0), Draw::Uniform(0.1, 0.6)]),
];
/// Their input.
const TOLD_RANGE: Axis = Axis { low: 1e2, high: 1e6, cells: None };

impl Workload {
    /// One of [`NAMES`], case ignored.
    ///
    /// # Errors
    /// [`Error::Usage`] with the names that there are.
    pub fn named(name: &str) -> Result<Workload> {
        match name.to_uppercase().as_str() {
            "W1" => Ok(spots()),
            "W3" => Ok(robust_chinchilla()),
            "W7" => {
                let ragged = Workload::of_law("saturating_power")?;
                Ok(Workload { name: "W7".into(), points: (8, 64), curves: 1_000_000, ..ragged })
            }
            _ => Err(Error::Usage(format!("unknown workload \"{name}\": choose {}", NAMES.join(", ")))),
        }
    }

    /// 100,000 curves of 32 points with 0.5% noise under a catalogue law, in log space. `power` and `saturating_power` have the
    /// ranges that figures are told for; the other laws' parameters are drawn as their roles suggest.
    ///
    /// # Errors
    /// [`Error::Usage`] where the name is not in the catalogue: the ranges of a formula's parameters cannot be guessed.
    pub fn of_law(name: &str) -> Result<Workload> {
        let Some(entry) = catalogue::find(name.trim()) else {
            let known = catalogue::CATALOGUE.iter().map(|entry| entry.name);
            let hint = nearest(name, known).map_or(String::new(), |near| format!("; did you mean {near}?"));
            return Err(Error::Usage(format!(
                "--law {name}: only a catalogue law's sweep can be made up{hint} (for a formula, write a sweep with \
                 `sweepfit generate` and give it: sweepfit bench FILE --law …)"
            )));
        };
        let told = TOLD.iter().find(|(law, _)| *law == entry.name).map(|(_, draws)| *draws);
        let range = if told.is_some() { TOLD_RANGE } else { Axis::four_decades(entry) };
        let draw = |j: usize| told.map_or(Draw::Typical, |draws| draws[j]);
        Ok(Workload {
            name: entry.name.into(),
            law: entry.name.into(),
            x: entry.inputs.iter().map(|input| (input.to_string(), range)).collect(),
            y: "y".into(),
            parameters: entry.parameters.iter().enumerate().map(|(j, own)| (own.name.to_string(), draw(j))).collect(),
            points: (32, 32),
            noise: Noise::Log(0.005),
            objective: Objective { space: Space::Log, loss: Loss::Squares },
            curves: 100_000,
        })
    }

    /// Gives the noise another size, where one is given: of the kind that the workload has, except that under a law it is
    /// added in the fitting space.
    pub fn with_noise(&mut self, size: Option<f64>) {
        self.noise = match (self.noise, self.objective.space, size) {
            (Noise::OfMean(_), _, Some(size)) => Noise::OfMean(size),
            (Noise::Log(_), Space::Log, Some(size)) => Noise::Log(size),
            (_, _, Some(size)) => Noise::Linear(size),
            (kept, _, None) => kept,
        };
    }

    /// The law, bound to the workload's columns.
    ///
    /// # Errors
    /// As [`Law::bind`].
    pub fn bind(&self) -> Result<Law> {
        let names: Vec<String> = self.x.iter().map(|(name, _)| name.clone()).collect();
        let columns = [names.as_slice(), std::slice::from_ref(&self.y)].concat();
        Law::bind(&self.law, &columns, Mapping { x: &names, y: Some(&self.y) })
    }

    /// The recipe of its curves.
    ///
    /// # Errors
    /// As [`Law::bind`].
    pub fn sweep(&self, seed: u64) -> Result<Sweep> {
        let law = self.bind()?;
        let axis = |column: &String| self.x.iter().find(|(name, _)| name == column).map(|(_, axis)| *axis);
        let draw = |name: &String| {
            let found = self.parameters.iter().find(|(known, _)| known == name).map(|(_, draw)| *draw);
            found.ok_or_else(|| Error::Usage(format!("workload {}: no range for parameter {name}", self.name)))
        };
        let axes = law.columns.iter().map(axis).collect();
        let draws = law.parameters.iter().map(draw).collect::<Result<_>>()?;
        Ok(Sweep { law, axes, draws, points: self.points, noise: self.noise, seed })
    }
}

/// W1: spots on 5 × 5 pixels. Gpufit starts its fits within a tenth of the truth; here they are searched.
fn spots() -> Workload {
    let pixels = Axis { low: 0.0, high: 4.0, cells: Some(5) };
    let around = |value: f64| Draw::Uniform(0.9 * value, 1.1 * value);
    let parameters = [("amp", 500.0), ("x0", 2.0), ("y0", 2.0), ("s", 1.0), ("bg", 10.0)];
    Workload {
        name: "W1".into(),
        law: "z ~ amp*exp(-((x-x0)^2+(y-y0)^2)/(2*s^2)) + bg".into(),
        x: vec![("x".into(), pixels), ("y".into(), pixels)],
        y: "z".into(),
        parameters: parameters.map(|(name, value)| (name.to_string(), around(value))).to_vec(),
        points: (25, 25),
        noise: Noise::OfMean(0.1),
        objective: Objective { space: Space::Linear, loss: Loss::Squares },
        curves: 2000,
    }
}

/// W3: sweeps of the size and the ranges of Chinchilla's (Hoffmann et al. 2022; Besiroglu et al. 2024), by their objective.
fn robust_chinchilla() -> Workload {
    let parameters = [
        ("E", Draw::Uniform(1.5, 2.0)),
        ("A", Draw::LogUniform(200.0, 800.0)),
        ("alpha", Draw::Uniform(0.28, 0.4)),
        ("B", Draw::LogUniform(500.0, 5000.0)),
        ("beta", Draw::Uniform(0.28, 0.42)),
    ];
    let axis = |low: f64, high: f64| Axis { low, high, cells: None };
    Workload {
        name: "W3".into(),
        law: "chinchilla".into(),
        x: vec![("N".into(), axis(4e7, 2e10)), ("D".into(), axis(1e9, 3e11))],
        y: "y".into(),
        parameters: parameters.map(|(name, draw)| (name.to_string(), draw)).to_vec(),
        points: (100, 240),
        noise: Noise::Log(0.01),
        objective: Objective { space: Space::Log, loss: Loss::Huber { delta: 1e-3 } },
        curves: 200,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_workloads_are_reproducible_and_follow_their_description() {
        for name in NAMES {
            let workload = Workload::named(name).expect("a workload");
            let make = |seed, first, count| workload.sweep(seed).expect("a sweep").batch(first, count).expect("curves");
            assert_eq!(make(1, 0, 20), make(1, 0, 20), "{name}");
            assert_ne!(make(1, 0, 20), make(2, 0, 20), "{name}");
            let curves = make(1, 0, 300).curves;
            let lengths: Vec<usize> = curves.offsets.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let (fewest, most) = (lengths.iter().min().copied(), lengths.iter().max().copied());
            let within = workload.points;
            assert!(fewest >= Some(within.0) && most <= Some(within.1), "{name}: {fewest:?} to {most:?}");
            // Uniform between the ends: 300 draws come near both.
            let slack = (within.1 - within.0) / 20;
            assert!(
                fewest <= Some(within.0 + slack) && most >= Some(within.1 - slack),
                "{name}: {fewest:?} to {most:?}"
            );
        }
    }

    #[test]
    fn spots_have_noise_of_a_tenth_of_their_mean() {
        let sweep = Workload::named("w1").expect("case is ignored").sweep(3).expect("a sweep");
        let noisy = sweep.batch(0, 400).expect("curves");
        let clean = Sweep { noise: Noise::OfMean(0.0), ..sweep }.batch(0, 400).expect("curves");
        let z = clean.curves.columns.len() - 1;
        let mut squares = 0.0;
        for curve in 0..400 {
            let rows = clean.curves.offsets[curve]..clean.curves.offsets[curve + 1];
            let (noisy, clean) = (&noisy.curves.columns[z][rows.clone()], &clean.curves.columns[z][rows]);
            let mean = clean.iter().sum::<f64>() / clean.len() as f64;
            squares += noisy.iter().zip(clean).map(|(a, b)| ((a - b) / mean).powi(2)).sum::<f64>();
        }
        // The standard error of a standard deviation from n draws is σ/sqrt(2n); five of them.
        assert!((((squares / 10_000.0).sqrt()) / 0.1 - 1.0).abs() < 5.0 / 20_000f64.sqrt());
        assert!(clean.truth[0].iter().all(|amplitude| (450.0..550.0).contains(amplitude)));
    }

    #[test]
    fn every_catalogue_law_has_a_workload_that_it_can_be_fitted_to() {
        for entry in catalogue::CATALOGUE {
            let workload = Workload::of_law(entry.name).expect(entry.name);
            let curves = workload.sweep(1).expect(entry.name).batch(0, 200).expect(entry.name).curves;
            let y = workload.bind().expect(entry.name).columns.iter().position(|name| *name == workload.y);
            let response = &curves.columns[y.expect("the response is a column")];
            assert!(response.iter().all(|&y| y > 0.0), "{}: log space needs y > 0", entry.name);
        }
        let message = Workload::of_law("saturating_pwer").expect_err("no law").to_string();
        assert!(message.contains("did you mean saturating_power?"), "{message}");
    }
}
