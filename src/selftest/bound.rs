//! How far f32 may be off: the operators' tolerances, and what they add up to over an expression.
//!
//! In: nodes of a graph and f32 inputs. Out: every node's f64 value and a bound on the error of a device that keeps to the
//! tolerances (running error analysis: Wilkinson 1963; Higham 2002, section 3.3). No data, no device.

use crate::formula::graph::{Binary, Graph, Id, Node, Unary};
use std::collections::HashMap;

/// Spacing of f32 numbers relative to their size, at most.
pub const ULP: f64 = f32::EPSILON as f64;
/// What a driver may flush to zero, and the rounding of subnormal results.
pub const TINY: f64 = 2.4e-38;
/// Error of an angle after whole quarter turns are taken off it; it shows near zeros and poles.
const ANGLE: f64 = 1e-11;

/// Largest error of an operator in [`ULP`]s of its value. `exp`, `log` and the divisions that the others are made of take
/// about two each (WGSL allows a division 2.5).
pub fn unary_tolerance(operator: Unary) -> f64 {
    match operator {
        Unary::Negate | Unary::Abs | Unary::Step => 0.0,
        Unary::Exp | Unary::Log | Unary::Sqrt => 3.0,
        Unary::Log1p | Unary::Atan | Unary::Sin | Unary::Cos => 4.0,
        Unary::Expm1 | Unary::Softplus | Unary::Sigmoid | Unary::Tanh => 6.0,
        Unary::Tan => 8.0,
    }
}

/// The same for two arguments: WGSL rounds sums and products to one of the two nearest numbers.
pub fn binary_tolerance(operator: Binary) -> f64 {
    match operator {
        Binary::Add | Binary::Subtract | Binary::Multiply => 1.0,
        Binary::Divide => 3.0,
        Binary::Minimum | Binary::Maximum => 0.0,
    }
}

/// An error that is allowed beside the tolerance, whatever the size of the value.
pub fn unary_absolute(operator: Unary, value: f64) -> f64 {
    match operator {
        Unary::Negate | Unary::Abs | Unary::Step => 0.0,
        Unary::Sin | Unary::Cos => ANGLE,
        Unary::Tan => ANGLE * (1.0 + value * value),
        _ => TINY,
    }
}

/// Numbers within these magnitudes, by a wide margin, a device has no reason to refuse.
const SMALL: f64 = 1e-30;
const LARGE: f64 = 1e30;
/// Angles up to here are reduced exactly, by a margin.
const TURNS: f64 = 8000.0;

/// A node's value, how far f32 may be off, and whether it has to be known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounded {
    pub value: f64,
    /// Infinite where the arguments' errors reach across the border of a domain.
    pub error: f64,
    /// Whether all that leads here lies well within f32's range and the operators' domains: a device may not refuse it.
    pub tame: bool,
}

/// Nodes laid out for analysis.
pub struct Analysis {
    nodes: Vec<Node>,
    place: HashMap<Id, usize>,
    outputs: Vec<usize>,
}

impl Analysis {
    /// Lays `outputs` out.
    pub fn new(graph: &Graph, outputs: &[Id]) -> Analysis {
        let order = graph.reachable(outputs);
        let place: HashMap<Id, usize> = order.iter().enumerate().map(|(position, &id)| (id, position)).collect();
        Analysis {
            nodes: order.iter().map(|&id| graph.node(id)).collect(),
            outputs: outputs.iter().map(|id| place[id]).collect(),
            place,
        }
    }

    /// All outputs at one point, whose numbers are f32 exactly.
    pub fn at(&self, inputs: &[f64], coordinates: &[f64]) -> Vec<Bounded> {
        let mut known: Vec<Bounded> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let exact = |value: f64| Bounded { value, error: 0.0, tame: true };
            let bounded = match *node {
                // Literals are rounded to f32.
                Node::Constant(bits) => {
                    let value = f64::from_bits(bits);
                    Bounded { error: ULP * value.abs(), ..exact(value) }
                }
                Node::Input(k) => exact(inputs[k as usize]),
                Node::Parameter(j) => exact(coordinates[j as usize]),
                Node::Unary(operator, a) => unary(operator, known[self.place[&a]]),
                Node::Binary(operator, a, b) => binary(operator, known[self.place[&a]], known[self.place[&b]]),
            };
            let large = bounded.value.abs() + bounded.error < LARGE;
            known.push(Bounded { tame: bounded.tame && large, ..bounded });
        }
        self.outputs.iter().map(|&position| known[position]).collect()
    }
}

fn unary(operator: Unary, a: Bounded) -> Bounded {
    let value = operator.apply(a.value);
    // Every operator is monotone between two neighbours of its argument, or flat at an extremum of its own.
    let ends = [a.value - a.error, a.value + a.error].map(|z| operator.apply(z));
    let carried = ends.into_iter().map(|end| (end - value).abs()).fold(0.0, worse);
    let inside = match operator {
        Unary::Log => a.value - a.error > SMALL,
        Unary::Log1p => 1.0 + a.value - a.error > ULP,
        Unary::Sqrt => a.value - a.error >= 0.0,
        Unary::Sin | Unary::Cos | Unary::Tan => a.value.abs() + a.error < TURNS,
        _ => true,
    };
    let largest = value.abs() + carried;
    let own = unary_tolerance(operator) * ULP * largest + unary_absolute(operator, largest);
    Bounded { value, error: carried + own, tame: a.tame && inside }
}

fn binary(operator: Binary, a: Bounded, b: Bounded) -> Bounded {
    let value = operator.apply(a.value, b.value);
    let (carried, inside) = match operator {
        Binary::Add | Binary::Subtract => (a.error + b.error, true),
        Binary::Multiply => (a.value.abs() * b.error + b.value.abs() * a.error + a.error * b.error, true),
        Binary::Divide => {
            let least = b.value.abs() - b.error;
            let carried = if least > 0.0 { (a.error + value.abs() * b.error) / least } else { f64::INFINITY };
            (carried, least > SMALL && b.value.abs() < LARGE)
        }
        Binary::Minimum | Binary::Maximum => (a.error.max(b.error), true),
    };
    let own = binary_tolerance(operator) * ULP * (value.abs() + carried) + TINY;
    Bounded { value, error: carried + own, tame: a.tame && b.tame && inside }
}

fn worse(a: f64, b: f64) -> f64 {
    // NaN: the argument's error reaches out of the domain.
    if b.is_nan() { f64::INFINITY } else { a.max(b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::reference::{Precision, Reference};

    /// log(1 + exp(-x²)) − sin(3 p)/x
    fn expression(graph: &mut Graph) -> Id {
        let (x, p, three) = (graph.input(0), graph.parameter(0), graph.constant(3.0));
        let square = graph.multiply(x, x);
        let negated = graph.negate(square);
        let soft = graph.unary(Unary::Softplus, negated);
        let angle = graph.multiply(three, p);
        let sine = graph.unary(Unary::Sin, angle);
        let quotient = graph.divide(sine, x);
        graph.subtract(soft, quotient)
    }

    #[test]
    fn ideal_single_precision_stays_within_the_bound() {
        let mut graph = Graph::default();
        let node = expression(&mut graph);
        let analysis = Analysis::new(&graph, &[node]);
        let mut single = Reference::new(&graph, &[node], Precision::Single);
        for i in 1..500 {
            let (x, p) = (f64::from(i as f32 * 0.013), f64::from(i as f32 * 0.007));
            single.evaluate(&[[x]], &[p], 1);
            let bounded = analysis.at(&[x], &[p])[0];
            let error = (single.output(0)[0] - bounded.value).abs();
            assert!(bounded.tame && error <= bounded.error, "at {x}, {p}: {error:e} beyond {:e}", bounded.error);
            assert!(bounded.error < 1e-4, "a bound of {:e} at {x} says nothing", bounded.error);
        }
    }

    #[test]
    fn what_leaves_a_domain_has_no_bound_and_need_not_be_known() {
        let mut graph = Graph::default();
        let (x, y) = (graph.input(0), graph.input(1));
        let square = graph.multiply(x, x);
        let difference = graph.subtract(square, y);
        let log = graph.unary(Unary::Log, difference);
        let analysis = Analysis::new(&graph, &[log]);
        // The difference is smaller than the rounding of the square.
        let close = analysis.at(&[1.0, 1.0 - 1e-9], &[])[0];
        assert!(close.error.is_infinite() && !close.tame, "{close:?}");
        assert!(!analysis.at(&[1.0, 2.0], &[])[0].tame);
        assert!(analysis.at(&[2.0, 1.0], &[])[0].tame);
    }
}
