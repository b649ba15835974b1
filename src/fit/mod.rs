//! The fit: what is asked ([`Objective`]), what came out ([`Status`], [`judge::Verdicts`]), and the stages between.
//!
//! [`model`] compiles a law for a space, [`pack`](problem) lays curves out for it, a [`Backend`] searches (and on a GPU
//! refines), [`judge`] decides in f64 for every backend alike.

pub mod above;
pub mod appeal;
pub mod cpu;
pub mod decay;
pub mod dense;
mod descend;
mod describe;
pub mod exact;
pub mod fallback;
pub mod gpu;
pub mod inner;
pub mod judge;
pub mod lanes;
pub mod model;
mod objective;
pub mod orthogonal;
pub mod pack;
pub mod problem;
pub mod programs;
pub mod replicates;
pub mod retrial;
pub mod search;
pub mod settle;
pub mod spell;
pub mod symmetry;

use crate::error::Result;
use problem::Problem;
use replicates::Replication;

/// Where residuals are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// `log y − log f`
    Log,
    /// `y − f`
    Linear,
}

impl Space {
    /// The other space, whose projection may serve as a proxy.
    pub fn other(self) -> Space {
        match self {
            Space::Log => Space::Linear,
            Space::Linear => Space::Log,
        }
    }
}

/// What is summed over the residuals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// ½ w r²
    Squares,
    /// w huber(r): ½ r² inside δ, δ(|r| − ½ δ) outside.
    Huber { delta: f64 },
}

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    pub space: Space,
    pub loss: Loss,
}

/// What became of one curve under one law.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Status {
    /// Last Newton step ≤ 1e-9 of max(|θ|, its scale) in every parameter, Hessian positive definite.
    Converged = 1,
    /// The iterations ran out before that.
    IterationLimit = 2,
    /// Converged, with at least one parameter held by its box.
    AtBound = 3,
    /// Fewer points than free parameters.
    TooFewPoints = 4,
    /// A value outside the law's domain: non-positive y in log space, log of a non-positive input, an infinite value.
    BadDomain = 5,
    /// Constant response or input, or a Jacobian without full rank: the data do not determine the parameters.
    Degenerate = 6,
    /// No finite objective was found, or parameters beyond the range of numbers.
    NonFinite = 7,
}

impl Status {
    /// Every status, in the order in which summaries list them.
    pub const ALL: [Status; 7] = [
        Status::Converged,
        Status::AtBound,
        Status::IterationLimit,
        Status::TooFewPoints,
        Status::BadDomain,
        Status::Degenerate,
        Status::NonFinite,
    ];

    /// The word in the output's `status` column.
    pub fn name(self) -> &'static str {
        match self {
            Status::Converged => "converged",
            Status::IterationLimit => "iteration_limit",
            Status::AtBound => "at_bound",
            Status::TooFewPoints => "too_few_points",
            Status::BadDomain => "bad_domain",
            Status::Degenerate => "degenerate",
            Status::NonFinite => "non_finite",
        }
    }

    /// The status that a word in the output's `status` column stands for.
    pub fn of_name(name: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether parameters are reported under this status.
    pub fn has_parameters(self) -> bool {
        matches!(self, Status::Converged | Status::IterationLimit | Status::AtBound)
    }
}

/// Starting points for the judge: for every curve the distinct basins that a backend found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proposals {
    /// First proposal of every curve and, last, their number; length curves + 1.
    pub offsets: Vec<usize>,
    /// [`model::Model`] coordinates of every proposal, `model.len()` each, in the fitting space's chart.
    pub coordinates: Vec<f64>,
}

impl Proposals {
    /// None for any of so many curves.
    pub fn none(curves: usize) -> Proposals {
        Proposals { offsets: vec![0; curves + 1], coordinates: Vec::new() }
    }

    /// These and `other` proposals, curve by curve; of a model of so many `parameters`.
    pub fn joined(&self, other: &Proposals, parameters: usize) -> Proposals {
        let mut all = Proposals { offsets: vec![0], coordinates: Vec::new() };
        for curve in 0..self.offsets.len() - 1 {
            for part in [self, other] {
                let range = part.offsets[curve] * parameters..part.offsets[curve + 1] * parameters;
                all.coordinates.extend_from_slice(&part.coordinates[range]);
            }
            all.offsets.push(all.coordinates.len() / parameters);
        }
        all
    }
}

/// Where a device found the replicates of curves to end; replicate r of curve i at `i * replicates + r`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replicated {
    /// The distinct basins of every replicate, best first; none where the device could not fit it.
    pub proposals: Proposals,
    /// Whether the descent to the best came to its end.
    pub settled: Vec<bool>,
    /// Bit j: coordinate j of the best is held by its box.
    pub pinned: Vec<u64>,
}

/// A device that searches.
pub trait Backend: Sync {
    /// Finds the distinct basins of every curve whose `problem.status` is still open; curves that are settled get none.
    ///
    /// # Errors
    /// A lost device or one out of memory. A curve that cannot be fitted is no error: it gets no proposals.
    fn propose(&self, problem: &Problem) -> Result<Proposals>;

    /// Makes replicates of curves on the device and fits them there. None: the host makes them, as curves of one more problem.
    ///
    /// # Errors
    /// As [`Backend::propose`].
    fn replicate(&self, _: &Replication) -> Result<Option<Replicated>> {
        Ok(None)
    }

    /// Whether it is the CPU, whose search leaves nothing to be made up for.
    fn is_host(&self) -> bool {
        false
    }

    /// Why the device was given up, where it was and the CPU stands in for it.
    fn lost(&self) -> Option<&str> {
        None
    }
}
