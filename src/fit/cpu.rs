//! The CPU as a backend: rayon over blocks of curves, eight curves per vector.

use super::problem::Problem;
use super::search::{Workspace, search};
use super::{Backend, Proposals, above};
use crate::error::Result;
use crate::evaluate::tape::LANES;
use rayon::prelude::*;

/// Curves per task: enough that sorting by length fills the lanes, few enough that tasks balance.
pub const CURVES_PER_TASK: usize = 256;

/// Searches on all threads of the current rayon pool.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cpu;

impl Backend for Cpu {
    fn is_host(&self) -> bool {
        true
    }

    fn propose(&self, problem: &Problem) -> Result<Proposals> {
        let tasks: Vec<usize> = (0..problem.len()).step_by(CURVES_PER_TASK).collect();
        let parts: Vec<Proposals> = tasks
            .par_iter()
            .map_init(Workspace::default, |workspace, &first| {
                let curves = first..problem.len().min(first + CURVES_PER_TASK);
                let open: Vec<usize> = curves.clone().filter(|&curve| problem.status[curve].is_none()).collect();
                let mut found = Proposals { offsets: vec![0], coordinates: Vec::new() };
                // Where a curve's proposals stand among those found, which are in the order of the packs.
                let mut places = vec![0..0; curves.len()];
                for pack in packs(problem, open) {
                    let known = found.offsets.len() - 1;
                    search(problem, &pack, workspace, &mut found);
                    for (position, &curve) in pack.iter().enumerate() {
                        let at = known + position;
                        places[curve - first] = found.offsets[at]..found.offsets[at + 1];
                    }
                }
                let p = problem.model.len();
                let mut ordered = Proposals { offsets: Vec::with_capacity(curves.len()), coordinates: Vec::new() };
                for place in places {
                    ordered.coordinates.extend_from_slice(&found.coordinates[place.start * p..place.end * p]);
                    ordered.offsets.push(ordered.coordinates.len() / p);
                }
                ordered
            })
            .collect();
        let mut all = Proposals { offsets: vec![0], coordinates: Vec::new() };
        for part in parts {
            let known = all.offsets[all.offsets.len() - 1];
            all.offsets.extend(part.offsets.iter().map(|offset| known + offset));
            all.coordinates.extend(part.coordinates);
        }
        Ok(match &problem.model.above {
            Some(above) => above::propose(problem, above, &all),
            None => all,
        })
    }
}

/// Sorts curves by their number of points and cuts them into packs of at most eight, so that lanes are of like length.
pub fn packs(problem: &Problem, mut curves: Vec<usize>) -> Vec<Vec<usize>> {
    curves.sort_by_key(|&curve| problem.points(curve));
    curves.chunks(LANES).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curves::CurveBatch;
    use crate::fit::pack::{Plan, Weighting};
    use crate::fit::{Loss, Objective, Space};
    use crate::law::{Law, Mapping};

    /// Where the amplitude is subtracted, the curve has no logarithm at the points that fill a lane up.
    #[test]
    fn a_longer_neighbour_changes_no_proposal() {
        let columns = ["x", "y"].map(String::from);
        let law = Law::bind("y ~ E - A*x^-alpha", &columns, Mapping { x: &columns[..1], y: None }).expect("a formula");
        let objective = Objective { space: Space::Log, loss: Loss::Squares };
        let plan = Plan::new(law, objective, &[], Weighting::Even, false, &columns).expect("nothing contradicts");
        let proposals = |lengths: &[usize]| {
            let mut batch = CurveBatch { offsets: vec![0], columns: vec![Vec::new(), Vec::new()] };
            for &points in lengths {
                let x: Vec<f64> = (0..points).map(|i| 1.5f64.powi(i as i32)).collect();
                let y = x.iter().enumerate().map(|(i, x)| (3.0 - 2.0 * x.powf(-0.5)) * (1.0 + 0.02 * (i as f64).sin()));
                batch.columns[1].extend(y);
                batch.columns[0].extend(x);
                batch.offsets.push(batch.columns[0].len());
            }
            let found = Cpu.propose(&plan.pack(&batch).problem).expect("the CPU does not fail");
            found.coordinates[..found.offsets[1] * plan.model.len()].to_vec()
        };
        let alone = proposals(&[16]);
        assert!(!alone.is_empty());
        assert_eq!(alone, proposals(&[16, 40]));
    }
}
