//! Reference evaluator: node after node over whole columns, by the standard library's functions.
//!
//! In: a graph's nodes, columns, one set of parameters. Out: one column of values per node asked for. It shares nothing
//! with the tape and the WGSL but the graph, and so is what both are held against. In [`Precision::Single`] every value is
//! rounded to f32: the best that f32 arithmetic can do, operator by operator.

use crate::formula::graph::{Binary, Graph, Id, Node, Unary};
use std::collections::HashMap;

/// What a value is rounded to after every operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Double,
    Single,
}

impl Precision {
    /// The nearest number of this precision.
    pub fn round(self, value: f64) -> f64 {
        match self {
            Precision::Double => value,
            Precision::Single => f64::from(value as f32),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Constant(f64),
    Input(usize),
    Parameter(usize),
    /// Operands are positions among the steps.
    Unary(Unary, usize),
    Binary(Binary, usize, usize),
}

/// Nodes laid out for evaluation, and the memory that it takes; reusable.
#[derive(Debug, Clone)]
pub struct Reference {
    steps: Vec<Step>,
    outputs: Vec<usize>,
    values: Vec<Vec<f64>>,
    precision: Precision,
}

impl Reference {
    /// Lays `outputs` out.
    pub fn new(graph: &Graph, outputs: &[Id], precision: Precision) -> Reference {
        let order = graph.reachable(outputs);
        let place: HashMap<Id, usize> = order.iter().enumerate().map(|(position, &id)| (id, position)).collect();
        let step = |&id: &Id| match graph.node(id) {
            Node::Constant(bits) => Step::Constant(f64::from_bits(bits)),
            Node::Input(k) => Step::Input(k as usize),
            Node::Parameter(j) => Step::Parameter(j as usize),
            Node::Unary(operator, a) => Step::Unary(operator, place[&a]),
            Node::Binary(operator, a, b) => Step::Binary(operator, place[&a], place[&b]),
        };
        Reference {
            steps: order.iter().map(step).collect(),
            outputs: outputs.iter().map(|id| place[id]).collect(),
            values: vec![Vec::new(); order.len()],
            precision,
        }
    }

    /// Evaluates all outputs at `points` points; column k of `columns` belongs to `Input(k)`.
    pub fn evaluate<C: AsRef<[f64]>>(&mut self, columns: &[C], parameters: &[f64], points: usize) {
        let round = |value: f64| self.precision.round(value);
        for (position, step) in self.steps.iter().enumerate() {
            let (before, rest) = self.values.split_at_mut(position);
            let out = &mut rest[0];
            out.clear();
            match *step {
                Step::Constant(value) => out.resize(points, round(value)),
                Step::Input(k) => out.extend(columns[k].as_ref()[..points].iter().map(|&value| round(value))),
                Step::Parameter(j) => out.resize(points, round(parameters[j])),
                Step::Unary(operator, a) => out.extend(before[a].iter().map(|&z| round(operator.apply(z)))),
                Step::Binary(operator, a, b) => {
                    out.extend(before[a].iter().zip(&before[b]).map(|(&a, &b)| round(operator.apply(a, b))));
                }
            }
        }
    }

    /// The values of output `k` after [`Reference::evaluate`].
    pub fn output(&self, k: usize) -> &[f64] {
        &self.values[self.outputs[k]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_output_is_what_the_graph_says() {
        let mut graph = Graph::default();
        let (x, p) = (graph.input(1), graph.parameter(0));
        let product = graph.multiply(p, x);
        let outputs = [graph.unary(Unary::Tanh, product), product, graph.constant(3.0)];
        let mut reference = Reference::new(&graph, &outputs, Precision::Double);
        let columns = [vec![9.0; 3], vec![0.1, 0.2, 0.3]];
        reference.evaluate(&columns, &[1.7], 3);
        for (k, &output) in outputs.iter().enumerate() {
            for row in 0..3 {
                let expected = graph.evaluate(output, &[9.0, columns[1][row]], &[1.7]);
                assert_eq!(reference.output(k)[row], expected);
            }
        }
    }

    #[test]
    fn single_precision_rounds_after_every_operator() {
        let mut graph = Graph::default();
        let (x, y) = (graph.input(0), graph.input(1));
        let sum = graph.add(x, y);
        let difference = graph.subtract(sum, y);
        let mut reference = Reference::new(&graph, &[difference], Precision::Single);
        // 0.75 is lost beside 2^24, where f32 counts in twos.
        reference.evaluate(&[[0.75], [16_777_216.0]], &[], 1);
        assert_eq!(reference.output(0), [0.0]);
    }
}
