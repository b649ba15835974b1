//! The CPU as a backend: rayon over blocks of curves, eight curves per vector.

use super::problem::Problem;
use super::search::{Workspace, search};
use super::{Backend, Proposals};
use crate::error::Result;
use crate::evaluate::tape::LANES;
use rayon::prelude::*;

/// Curves per task: enough that sorting by length fills the lanes, few enough that tasks balance.
pub const CURVES_PER_TASK: usize = 256;

/// Searches on all threads of the current rayon pool.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cpu;

impl Backend for Cpu {
    fn propose(&self, problem: &Problem) -> Result<Proposals> {
        let tasks: Vec<usize> = (0..problem.len()).step_by(CURVES_PER_TASK).collect();
        let parts: Vec<Vec<Proposals>> = tasks
            .par_iter()
            .map_init(Workspace::default, |workspace, &first| {
                let curves = first..problem.len().min(first + CURVES_PER_TASK);
                let mut found = vec![Proposals::default(); curves.len()];
                for pack in packs(problem, curves.filter(|&curve| problem.status[curve].is_none()).collect()) {
                    let mut proposals = Proposals { offsets: vec![0], coordinates: Vec::new() };
                    search(problem, &pack, workspace, &mut proposals);
                    for (position, &curve) in pack.iter().enumerate() {
                        let range = proposals.offsets[position] * problem.model.len()
                            ..proposals.offsets[position + 1] * problem.model.len();
                        found[curve - first].coordinates = proposals.coordinates[range].to_vec();
                    }
                }
                found
            })
            .collect();
        let mut all = Proposals { offsets: vec![0], coordinates: Vec::new() };
        for part in parts.into_iter().flatten() {
            all.coordinates.extend(part.coordinates);
            all.offsets.push(all.coordinates.len() / problem.model.len());
        }
        Ok(all)
    }
}

/// Sorts curves by their number of points and cuts them into packs of at most eight, so that lanes are of like length.
pub fn packs(problem: &Problem, mut curves: Vec<usize>) -> Vec<Vec<usize>> {
    curves.sort_by_key(|&curve| problem.points(curve));
    curves.chunks(LANES).map(<[usize]>::to_vec).collect()
}
