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
        if problem.is_one_step() {
            return Ok(from_zero(problem));
        }
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

/// Zero for every open curve: the judge's first step leads from there to the optimum.
fn from_zero(problem: &Problem) -> Proposals {
    let mut offsets = Vec::with_capacity(problem.len() + 1);
    offsets.push(0);
    let mut count = 0;
    for status in &problem.status {
        count += usize::from(status.is_none());
        offsets.push(count);
    }
    Proposals { offsets, coordinates: vec![0.0; count * problem.model.len()] }
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
    use crate::fit::judge::judge;
    use crate::fit::pack::{Control, NamedControl, Plan, Weighting};
    use crate::fit::{Loss, Objective, Space, Status};
    use crate::law::{Law, Mapping};

    /// The plan of a law of x.
    fn plan(formula: &str, space: Space, controls: &[NamedControl]) -> Plan {
        let columns = ["x", "y"].map(String::from);
        let law = Law::bind(formula, &columns, Mapping { x: &columns[..1], y: None }).expect("a formula");
        let objective = Objective { space, loss: Loss::Squares };
        Plan::new(law, objective, controls, Weighting::Even, false, &columns).expect("nothing contradicts")
    }

    #[test]
    fn a_law_that_is_linear_in_its_parameters_is_fitted_without_a_search() {
        let x: Vec<f64> = (0..40).map(|i| 3.0 + f64::from(i)).collect();
        let y: Vec<f64> = x.iter().map(|x| 1e3 - 7.0 * x + 0.02 * x * x + (5.0 * x).sin()).collect();
        let batch = CurveBatch { offsets: vec![0, 40], columns: vec![x, y] };
        let free = plan("y ~ a + b*x + c*x^2", Space::Linear, &[]);
        let problem = free.pack(&batch).problem;
        let proposed = Cpu.propose(&problem).expect("the CPU does not fail");
        assert_eq!(proposed.coordinates, [0.0; 3]);
        let mut searched = Proposals { offsets: vec![0], coordinates: Vec::new() };
        search(&problem, &[0], &mut Workspace::default(), &mut searched);
        let [one, other] = [&proposed, &searched].map(|proposals| judge(&problem, proposals, false));
        assert_eq!(one.status, [Status::Converged]);
        for (one, other) in one.parameters.iter().zip(&other.parameters) {
            assert!((one / other - 1.0).abs() < 1e-11, "{one} and {other}");
        }
        assert!((one.objective[0] / other.objective[0] - 1.0).abs() < 1e-12);
        // A box may hold what a step from zero would have to pass.
        let control = Control { lower: Some(-1.0), upper: Some(1.0), ..Control::default() };
        let bound = NamedControl { parameter: "b".into(), control };
        let bounded = plan("y ~ a + b*x + c*x^2", Space::Linear, &[bound]);
        let problem = bounded.pack(&batch).problem;
        assert!(!problem.is_one_step());
        assert_eq!(judge(&problem, &Cpu.propose(&problem).expect("a search"), false).status, [Status::AtBound]);
    }

    /// Where the amplitude is subtracted, the curve has no logarithm at the points that fill a lane up.
    #[test]
    fn a_longer_neighbour_changes_no_proposal() {
        let plan = plan("y ~ E - A*x^-alpha", Space::Log, &[]);
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
