//! A law as a surface: its value and slopes row by row, every row with parameters of its own.
//!
//! In: a law and a space; then columns of inputs and, behind them, columns of parameters. Out: t and ∂t/∂θ for each row,
//! t being the prediction or, in log space, its logarithm. Parameters are columns like the inputs, so that rows of many
//! fits share one tape and its vector instructions.

use super::fits::FittedLaw;
use crate::evaluate::tape::{Tape, map_columns};
use crate::fit::Space;
use crate::fit::lanes::{at, triangle};
use crate::formula::graph::{Graph, Id, Node, Unary};

/// t and its slopes in the parameters.
#[derive(Debug, Clone)]
pub struct Surface {
    slopes: Tape,
    value: Tape,
}

impl Surface {
    /// Compiles the right side of a law.
    pub fn new(fitted: &FittedLaw, space: Space) -> Surface {
        let law = &fitted.law;
        let mut graph = law.graph.clone();
        let t = match space {
            Space::Log => graph.unary(Unary::Log, law.prediction),
            Space::Linear => law.prediction,
        };
        let mut roots = vec![t];
        roots.extend((0..law.parameters.len()).map(|j| graph.differentiate(t, j)));
        let slopes = by_rows(&mut graph, &roots, &fitted.inputs);
        Surface { slopes, value: by_rows(&mut graph, &roots[..1], &fitted.inputs) }
    }

    /// t for each row; `columns` as for [`Surface::evaluate`].
    pub fn value(&self, columns: &[&[f64]]) -> Vec<f64> {
        map_columns(&self.value, columns, columns[0].len()).pop().expect("the tape has one output")
    }

    /// t, then ∂t/∂θ_j, one value per row each; `columns` are the law's inputs in order and then its parameters.
    pub fn evaluate(&self, columns: &[&[f64]]) -> Vec<Vec<f64>> {
        map_columns(&self.slopes, columns, columns[0].len())
    }
}

/// A tape over columns: the inputs at `inputs` first, then the parameters.
pub(super) fn by_rows(graph: &mut Graph, roots: &[Id], inputs: &[usize]) -> Tape {
    let roots = graph.substitute(roots, |graph, id| match graph.node(id) {
        Node::Input(k) => inputs.iter().position(|&input| input == k as usize).map(|position| graph.input(position)),
        Node::Parameter(j) => Some(graph.input(inputs.len() + j as usize)),
        _ => None,
    });
    Tape::compile(graph, &roots, 0)
}

/// A variance that rounding leaves less than this share of the terms that it is summed of is not known.
const CANCELLED: f64 = 1e-13;

/// gᵀ C g with C a packed lower triangle: the variance of a quantity of slopes g. NaN where rounding has eaten it.
pub fn variance(covariance: &[f64], slope: impl Fn(usize) -> f64, parameters: usize) -> f64 {
    debug_assert_eq!(covariance.len(), triangle(parameters));
    let (mut sum, mut size) = (0.0, 0.0);
    for i in 0..parameters {
        for j in 0..=i {
            let twice = if i == j { 1.0 } else { 2.0 };
            let term = twice * covariance[at(i, j)] * slope(i) * slope(j);
            sum += term;
            size += term.abs();
        }
    }
    if sum >= CANCELLED * size { sum } else { f64::NAN }
}

/// gᵀ C h, the covariance of two quantities.
pub fn covariance_of(
    covariance: &[f64],
    one: impl Fn(usize) -> f64,
    other: impl Fn(usize) -> f64,
    parameters: usize,
) -> f64 {
    let mut sum = 0.0;
    for i in 0..parameters {
        for j in 0..=i {
            let both = if i == j { one(i) * other(i) } else { one(i) * other(j) + one(j) * other(i) };
            sum += covariance[at(i, j)] * both;
        }
    }
    sum
}
