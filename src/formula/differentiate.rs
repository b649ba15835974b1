//! Symbolic derivatives of graph nodes.
//!
//! In: a node and a parameter. Out: the node of the derivative, in the same graph and therefore sharing its subterms.
//! Differentiating twice gives the exact Hessian that the verdict's Newton steps need.

use super::graph::{Binary, Graph, Id, Node, Unary};
use std::collections::HashMap;

impl Graph {
    /// `d root / d parameter j`.
    pub fn differentiate(&mut self, root: Id, j: usize) -> Id {
        if !self.uses(root, j) {
            return self.constant(0.0);
        }
        let mut derivative: HashMap<Id, Id> = HashMap::new();
        for id in self.reachable(&[root]) {
            if self.uses(id, j) {
                let value = self.derivative_from_children(id, &derivative);
                derivative.insert(id, value);
            }
        }
        derivative[&root]
    }

    fn derivative_from_children(&mut self, id: Id, known: &HashMap<Id, Id>) -> Id {
        match self.node(id) {
            Node::Constant(_) | Node::Input(_) => self.constant(0.0),
            Node::Parameter(_) => self.constant(1.0),
            Node::Unary(operator, a) => {
                let inner = known[&a];
                self.chain(operator, id, a, inner)
            }
            Node::Binary(operator, a, b) => {
                let zero = self.constant(0.0);
                let da = known.get(&a).copied().unwrap_or(zero);
                let db = known.get(&b).copied().unwrap_or(zero);
                match operator {
                    Binary::Add => self.add(da, db),
                    Binary::Subtract => self.subtract(da, db),
                    Binary::Multiply => {
                        let (left, right) = (self.multiply(da, b), self.multiply(a, db));
                        self.add(left, right)
                    }
                    Binary::Divide => {
                        // a'/b − (a/b)(b'/b): the quotients are shared with the value and the other derivatives.
                        let (left, ratio) = (self.divide(da, b), self.divide(db, b));
                        let right = self.multiply(id, ratio);
                        self.subtract(left, right)
                    }
                    Binary::Minimum | Binary::Maximum => {
                        let difference =
                            if operator == Binary::Minimum { self.subtract(b, a) } else { self.subtract(a, b) };
                        let chosen = self.unary(Unary::Step, difference);
                        let gap = self.subtract(da, db);
                        let switched = self.multiply(chosen, gap);
                        self.add(db, switched)
                    }
                }
            }
        }
    }

    /// `f'(a) a'` where `id` is `f(a)`.
    fn chain(&mut self, operator: Unary, id: Id, a: Id, inner: Id) -> Id {
        let one = self.constant(1.0);
        match operator {
            Unary::Negate => self.negate(inner),
            Unary::Exp => self.multiply(id, inner),
            Unary::Log => self.divide(inner, a),
            Unary::Log1p => {
                let denominator = self.add(one, a);
                self.divide(inner, denominator)
            }
            Unary::Expm1 => {
                let exponential = self.unary(Unary::Exp, a);
                self.multiply(exponential, inner)
            }
            Unary::Sqrt => {
                let two = self.constant(2.0);
                let denominator = self.multiply(two, id);
                self.divide(inner, denominator)
            }
            Unary::Abs => {
                let (two, step) = (self.constant(2.0), self.unary(Unary::Step, a));
                let doubled = self.multiply(two, step);
                let sign = self.subtract(doubled, one);
                self.multiply(sign, inner)
            }
            Unary::Sin => {
                let cosine = self.unary(Unary::Cos, a);
                self.multiply(cosine, inner)
            }
            Unary::Cos => {
                let sine = self.unary(Unary::Sin, a);
                let product = self.multiply(sine, inner);
                self.negate(product)
            }
            Unary::Tan => {
                let square = self.multiply(id, id);
                let slope = self.add(one, square);
                self.multiply(slope, inner)
            }
            Unary::Atan => {
                let square = self.multiply(a, a);
                let denominator = self.add(one, square);
                self.divide(inner, denominator)
            }
            Unary::Tanh => {
                let square = self.multiply(id, id);
                let slope = self.subtract(one, square);
                self.multiply(slope, inner)
            }
            Unary::Softplus => {
                let sigmoid = self.unary(Unary::Sigmoid, a);
                self.multiply(sigmoid, inner)
            }
            Unary::Sigmoid => {
                // s(z) s(−z) keeps its digits in both tails, s (1 − s) does not.
                let negated = self.negate(a);
                let mirrored = self.unary(Unary::Sigmoid, negated);
                let slope = self.multiply(id, mirrored);
                self.multiply(slope, inner)
            }
            Unary::Step => self.constant(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Richardson-extrapolated central differences of f64 values agree with exact derivatives to about this.
    const AGREEMENT: f64 = 1e-7;

    fn difference(graph: &Graph, id: Id, at: f64) -> f64 {
        let slope = |h: f64| (graph.evaluate(id, &[], &[at + h]) - graph.evaluate(id, &[], &[at - h])) / (2.0 * h);
        (4.0 * slope(5e-5) - slope(1e-4)) / 3.0
    }

    fn check(graph: &mut Graph, id: Id, label: &str) {
        let first = graph.differentiate(id, 0);
        let second = graph.differentiate(first, 0);
        for at in [0.3, 0.9, 2.1] {
            for (function, derivative, order) in [(id, first, "first"), (first, second, "second")] {
                let (expected, found) = (difference(graph, function, at), graph.evaluate(derivative, &[], &[at]));
                let tolerance = AGREEMENT * (1.0 + expected.abs());
                assert!(
                    (expected - found).abs() <= tolerance,
                    "{order} derivative of {label} at {at}: {found}, differences say {expected}"
                );
            }
        }
    }

    #[test]
    fn every_operator_differentiates_as_finite_differences_say() {
        for operator in Unary::ALL {
            let mut graph = Graph::default();
            let (p, scale) = (graph.parameter(0), graph.constant(0.7));
            let scaled = graph.multiply(scale, p);
            let id = graph.unary(operator, scaled);
            check(&mut graph, id, &format!("{operator:?}"));
        }
        for operator in Binary::ALL {
            let mut graph = Graph::default();
            let p = graph.parameter(0);
            let (left, right) = (graph.unary(Unary::Exp, p), graph.unary(Unary::Atan, p));
            let id = graph.binary(operator, left, right);
            check(&mut graph, id, &format!("{operator:?}"));
        }
    }

    #[test]
    fn the_difference_check_can_fail() {
        let mut graph = Graph::default();
        let p = graph.parameter(0);
        let sine = graph.unary(Unary::Sin, p);
        let wrong = sine;
        assert!((difference(&graph, sine, 0.3) - graph.evaluate(wrong, &[], &[0.3])).abs() > AGREEMENT * 10.0);
    }
}
