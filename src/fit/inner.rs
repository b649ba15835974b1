//! What stands under the outermost function of a law: `log1p(E + A*x^-alpha)` is searched like `E + A*x^-alpha`.
//!
//! In: a law. Out: the law without that function, its left side under the inverse. Both have one optimum where the fit is
//! perfect and nearby ones where it is good, so that the inner law's answer is a start for the outer one's descent, which
//! the grid of a law without linear parameters would hardly find.

use crate::formula::graph::{Binary, Node, Unary};
use crate::law::Law;

/// `g` of a law `h(g)`, h having an inverse, with the left side under it; None where no such function stands outermost.
pub fn inner(law: &Law) -> Option<Law> {
    let mut inner = law.clone();
    let (graph, response) = (&mut inner.graph, law.response);
    let one = graph.constant(1.0);
    let (prediction, response) = match graph.node(law.prediction) {
        Node::Unary(Unary::Log1p, a) => (a, graph.unary(Unary::Expm1, response)),
        Node::Unary(Unary::Expm1, a) => (a, graph.unary(Unary::Log1p, response)),
        Node::Unary(Unary::Log, a) => (a, graph.unary(Unary::Exp, response)),
        Node::Unary(Unary::Exp, a) => (a, graph.unary(Unary::Log, response)),
        Node::Unary(Unary::Sqrt, a) => (a, graph.multiply(response, response)),
        Node::Unary(Unary::Negate, a) => (a, graph.negate(response)),
        Node::Unary(Unary::Softplus, a) => {
            let raised = graph.unary(Unary::Expm1, response);
            (a, graph.unary(Unary::Log, raised))
        }
        Node::Unary(Unary::Sigmoid, a) => {
            let odds = graph.subtract(one, response);
            let odds = graph.divide(response, odds);
            (a, graph.unary(Unary::Log, odds))
        }
        // A square of something positive.
        Node::Binary(Binary::Multiply, a, b) if a == b => (a, graph.unary(Unary::Sqrt, response)),
        Node::Binary(Binary::Divide, a, b) if graph.constant_value(a).is_some() => (b, graph.divide(a, response)),
        _ => return None,
    };
    (inner.prediction, inner.response) = (prediction, response);
    Some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::Mapping;

    #[test]
    fn the_inner_law_holds_wherever_the_law_does() {
        let columns = ["x", "y"].map(String::from);
        for (outer, of) in [
            ("log1p", f64::ln_1p as fn(f64) -> f64),
            ("expm1", f64::exp_m1),
            ("log", f64::ln),
            ("exp", f64::exp),
            ("sqrt", f64::sqrt),
            ("-", |g| -g),
            ("softplus", |g| g.exp().ln_1p()),
            ("sigmoid", |g| 1.0 / (1.0 + (-g).exp())),
            ("3/", |g| 3.0 / g),
        ] {
            let text = format!("y ~ {outer}(E + A*x^-alpha)");
            let law = Law::bind(&text, &columns, Mapping { x: &columns[..1], y: None }).expect("a formula");
            let inner = inner(&law).expect(outer);
            let theta = [1.3, 2.1, 0.4];
            let g = 1.3 + 2.1 * 7f64.powf(-0.4);
            let row = law.columns.iter().map(|name| if name == "x" { 7.0 } else { of(g) }).collect::<Vec<f64>>();
            for (value, expected) in [
                (law.graph.evaluate(law.prediction, &row, &theta), of(g)),
                (inner.graph.evaluate(inner.prediction, &row, &theta), g),
                (inner.graph.evaluate(inner.response, &row, &[]), g),
            ] {
                assert!((value / expected - 1.0).abs() < 1e-12, "{text}: {value}, not {expected}");
            }
        }
        let plain =
            Law::bind("y ~ E + A*x^-alpha", &columns, Mapping { x: &columns[..1], y: None }).expect("a formula");
        assert!(inner(&plain).is_none());
    }
}
