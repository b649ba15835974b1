//! What a parameter does in a formula, and the default box that follows from it.
//!
//! In: a law's graph. Out: for every parameter a [`Role`]; with a curve's inputs, the interval in which the parameter is
//! searched and the spacing of the grid. The boxes are relative to each curve's own inputs.

use crate::formula::graph::{Binary, Graph, Id, Node, Unary};

/// What a parameter does. An [`Id`] names the expression of columns whose range sets the box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `x^-alpha`, or the exponent of a term that only makes sense one way round: [0.005, 8].
    Decay,
    /// The sum of two such exponents: [0.005, 16].
    SteepDecay,
    /// The quotient of two such exponents: [0.000625, 1600].
    Ratio,
    /// `x^p`: [-8, 8].
    Exponent,
    /// `exp(-gamma*x)`: [0.02/(x_max − x_min), 12/(x₂ − x₁)].
    Rate(Id),
    /// `exp(-gamma*x^beta)`, `1 + Q*x^-r` under a function: what multiplies a power. It has no box of its own, because its
    /// unit is that of the power; it is searched such that the product reaches one near the data.
    PowerRate { subject: Id, rises: bool },
    /// `(S^w*x^-r*u)` under a function, w = 1 + r or another weight of exponents: where two powers of different inputs, x and
    /// u, are equal. Its box is open as that of a [`Role::PowerRate`], in units of where the curve starts.
    Crossing(Id),
    /// `(x_c/x)^alpha` beside other terms, with the number of alpha: where this term is one, often far outside the data.
    Unit(Id, usize),
    /// `exp(x/b)`, rate of either sign.
    SignedRate(Id),
    /// `exp(-x/tau)`: the reciprocal of a rate.
    TimeScale(Id),
    /// `x/x_b` under a power: [x_min/10, 10 x_max].
    Location(Id),
    /// `log(x) - b` under a function: the logarithm of a location.
    LogLocation(Id),
    /// `x - x_0` under a function: [x_min − span/10, x_max + span/10].
    Centre(Id),
    /// `(x + s)^p`: [-0.999 x_min, 10 x_max].
    Shift(Id),
    /// `(1 + b*x)^2`, `a/(1 + b*x)`: a coefficient inside another function. It has no box of its own; it is searched where
    /// its term is of the size of one.
    Coefficient(Id),
    /// `(1 + z^(1/Delta))^Delta`: [0.01, 10].
    Sharpness,
    /// None of the patterns: ±[1e-3, 1e3].
    Free,
}

/// How the cells of a grid lie between the ends of a box; both ends are cells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spacing {
    Uniform,
    /// Equal ratios; both ends positive.
    Geometric,
    /// Equal ratios of the distance from this value, which lies below both ends.
    GeometricFrom(f64),
    /// Equal ratios of the absolute value on both sides of zero; the box is [-hi, hi].
    Signed,
}

/// The range of one expression of columns over one curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    pub lowest: f64,
    pub highest: f64,
    /// Distance between the two smallest distinct values; 0 where there is only one.
    pub first_gap: f64,
}

impl Range {
    /// Stands for the range of roles that ask for none.
    pub const NONE: Range = Range { lowest: 0.0, highest: 0.0, first_gap: 0.0 };

    /// The range of `values`.
    pub fn of(values: impl Iterator<Item = f64> + Clone) -> Range {
        let lowest = values.clone().fold(f64::INFINITY, f64::min);
        let highest = values.clone().fold(f64::NEG_INFINITY, f64::max);
        let second = values.filter(|&value| value > lowest).fold(f64::INFINITY, f64::min);
        Range { lowest, highest, first_gap: second - lowest }
    }
}

/// Largest exponent of a default box.
const STEEPEST: f64 = 8.0;
/// Smallest exponent of a default box.
const FLATTEST: f64 = 0.005;
/// Largest quotient of two exponents.
const LARGEST_RATIO: f64 = STEEPEST / FLATTEST;
/// log of the largest power that is searched for.
const LARGEST_POWER: f64 = 600.0;
/// log of the factor by which a rate's product may miss one over all data and still show: exp(-4) = 0.02, as for a plain
/// rate; beside a larger term, of which it is a share, exp(-20) = 2e-9 shows in clean data.
const VISIBLE: f64 = 4.0;
const VISIBLE_SHARE: f64 = 20.0;
/// log of what other inputs may multiply a falling power by: five decades.
const OTHER_FACTORS: f64 = 11.5;

/// Smallest size of a signed exponent or rate on the grid, as a share of the box.
pub const SIGNED_INNERMOST: f64 = 0.005 / 8.0;

/// A role's default interval and spacing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    pub low: f64,
    pub high: f64,
    pub spacing: Spacing,
}

impl Role {
    /// The expression of columns whose range sets the box.
    pub fn subject(self) -> Option<Id> {
        match self {
            Role::Rate(id)
            | Role::PowerRate { subject: id, .. }
            | Role::Crossing(id)
            | Role::Unit(id, _)
            | Role::SignedRate(id)
            | Role::TimeScale(id)
            | Role::Location(id)
            | Role::LogLocation(id)
            | Role::Centre(id)
            | Role::Coefficient(id)
            | Role::Shift(id) => Some(id),
            Role::Decay | Role::SteepDecay | Role::Ratio | Role::Exponent | Role::Sharpness | Role::Free => None,
        }
    }

    /// Whether the solution may lie outside what is searched.
    pub fn is_unbounded(self) -> bool {
        matches!(self, Role::Free | Role::Coefficient(_) | Role::PowerRate { .. } | Role::Crossing(_) | Role::Unit(..))
    }

    /// The default box for a curve on which the role's subject has `range`. None where the range gives none (a location of
    /// inputs that are not positive, a rate over a single point).
    pub fn span(self, range: Range) -> Option<Span> {
        let span = range.highest - range.lowest;
        let smallest_positive = if range.lowest > 0.0 { range.lowest } else { range.lowest + range.first_gap };
        let (low, high, spacing) = match self {
            Role::Decay => (FLATTEST, STEEPEST, Spacing::Geometric),
            Role::SteepDecay => (FLATTEST, 2.0 * STEEPEST, Spacing::Geometric),
            Role::Ratio => (1.0 / LARGEST_RATIO, LARGEST_RATIO, Spacing::Geometric),
            Role::Exponent => (-STEEPEST, STEEPEST, Spacing::Signed),
            Role::Rate(_) => (0.02 / span, 12.0 / range.first_gap, Spacing::Geometric),
            Role::SignedRate(_) => (-12.0 / range.first_gap, 12.0 / range.first_gap, Spacing::Signed),
            Role::TimeScale(_) => (range.first_gap / 12.0, span / 0.02, Spacing::Geometric),
            Role::Location(_) => (range.lowest / 10.0, range.highest * 10.0, Spacing::Geometric),
            Role::LogLocation(_) => ((range.lowest / 10.0).ln(), (range.highest * 10.0).ln(), Spacing::Uniform),
            Role::Centre(_) => (range.lowest - span / 10.0, range.highest + span / 10.0, Spacing::Uniform),
            Role::PowerRate { rises, .. } => {
                // In units of the power at the smallest value.
                let decades = (range.highest / smallest_positive).ln();
                let (low, high, visible) = match rises {
                    true => (-STEEPEST * decades, 0.0, VISIBLE),
                    false => (-OTHER_FACTORS, STEEPEST * decades, VISIBLE_SHARE),
                };
                let reach = |log: f64| log.clamp(-LARGEST_POWER, LARGEST_POWER).exp();
                (reach(low - visible), reach(high + visible), Spacing::Geometric)
            }
            Role::Crossing(_) => {
                let reach = range.highest / smallest_positive * VISIBLE_SHARE.exp();
                ((-OTHER_FACTORS - VISIBLE_SHARE).exp(), reach, Spacing::Geometric)
            }
            Role::Unit(..) => (range.lowest / 1e3, range.highest * 1e12, Spacing::Geometric),
            Role::Shift(_) => {
                (1e-3 * smallest_positive - range.lowest, 10.0 * range.highest, Spacing::GeometricFrom(-range.lowest))
            }
            Role::Coefficient(_) => {
                let largest = 100.0 / range.lowest.abs().max(range.highest.abs());
                (-largest, largest, Spacing::Signed)
            }
            Role::Sharpness => (0.01, 10.0, Spacing::Geometric),
            Role::Free => (-1e3, 1e3, Spacing::Signed),
        };
        let usable = low.is_finite() && high.is_finite() && low < high;
        let positive = spacing != Spacing::Geometric || low > 0.0;
        (usable && positive).then_some(Span { low, high, spacing })
    }

    /// The box in words, for the catalogue's listing and the metadata.
    pub fn describe(self) -> &'static str {
        match self {
            Role::Decay => "[0.005, 8]",
            Role::SteepDecay => "[0.005, 16]",
            Role::Ratio => "[0.000625, 1600]",
            Role::PowerRate { .. } => "unbounded; searched where the product with its power reaches 1 near the data",
            Role::Crossing(_) => "unbounded; searched where two terms are equal near the data",
            Role::Unit(..) => "unbounded; searched in [x_min/1000, 1e12 x_max]",
            Role::Exponent => "[-8, 8]",
            Role::Rate(_) => "[0.02/(x_max - x_min), 12/(x_2 - x_1)]",
            Role::SignedRate(_) => "+-[., 12/(x_2 - x_1)]",
            Role::TimeScale(_) => "[(x_2 - x_1)/12, (x_max - x_min)/0.02]",
            Role::Location(_) => "[x_min/10, 10 x_max]",
            Role::LogLocation(_) => "[log(x_min/10), log(10 x_max)]",
            Role::Centre(_) => "[x_min - span/10, x_max + span/10]",
            Role::Shift(_) => "[-0.999 x_min, 10 x_max]",
            Role::Coefficient(_) => "unbounded; searched where its term is of the size of 1",
            Role::Sharpness => "[0.01, 10]",
            Role::Free => "[-1000, 1000]",
        }
    }
}

/// The roles of parameters `0..parameters` in `root`.
pub fn infer(graph: &mut Graph, root: Id, parameters: usize) -> Vec<Role> {
    let mut evidence = vec![None; parameters];
    for id in graph.reachable(&[root]) {
        match graph.node(id) {
            Node::Unary(Unary::Exp, exponent) => {
                read_exponent(graph, exponent, is_nested(graph, root, id), &mut evidence)
            }
            Node::Unary(Unary::Softplus | Unary::Sigmoid | Unary::Tanh | Unary::Expm1, argument) => {
                read_exponent(graph, argument, true, &mut evidence);
            }
            Node::Binary(Binary::Multiply, a, b) if is_nested(graph, root, id) => {
                read_power_rate(graph, a, b, &mut evidence);
            }
            Node::Binary(operator @ (Binary::Add | Binary::Subtract), a, b) => {
                read_sum(graph, root, id, operator, a, b, &mut evidence);
                if is_nested(graph, root, id) {
                    read_coefficients(graph, id, &mut evidence);
                }
            }
            _ => {}
        }
    }
    evidence.into_iter().map(|found: Option<(u8, Role)>| found.map_or(Role::Free, |(_, role)| role)).collect()
}

/// Keeps the strongest evidence; equal ranks keep the first.
fn note(evidence: &mut [Option<(u8, Role)>], j: u32, rank: u8, role: Role) {
    let slot = &mut evidence[j as usize];
    if slot.is_none_or(|(known, _)| rank > known) {
        *slot = Some((rank, role));
    }
}

/// Whether a power stands inside another function of the fit: `exp(-gamma*x^beta)`, `1/(b + x^d)`. Its exponent then has
/// one natural sign, the other one being an alias.
fn is_nested(graph: &Graph, root: Id, id: Id) -> bool {
    graph.reachable(&[root]).into_iter().any(|parent| match graph.node(parent) {
        Node::Unary(Unary::Exp | Unary::Softplus | Unary::Sigmoid | Unary::Log | Unary::Tanh | Unary::Expm1, a) => {
            graph.reachable(&[a]).binary_search(&id).is_ok()
        }
        Node::Binary(Binary::Divide, _, b) => graph.reachable(&[b]).binary_search(&id).is_ok(),
        _ => false,
    })
}

fn read_exponent(graph: &mut Graph, exponent: Id, nested: bool, evidence: &mut [Option<(u8, Role)>]) {
    for (sign, term) in graph.addends(exponent) {
        let (over, under) = graph.factors(term);
        let varying: Vec<Id> = over.iter().copied().filter(|&id| graph.uses_inputs(id)).collect();
        let logarithm = varying.iter().any(|&id| matches!(graph.node(id), Node::Unary(Unary::Log, _)));
        let plain = varying.iter().copied().find(|&id| graph.parameters(id) == 0);
        let smooth = varying.iter().any(|&id| matches!(graph.node(id), Node::Unary(Unary::Softplus, _)));
        for &factor in &over {
            let Node::Parameter(j) = graph.node(factor) else { continue };
            if logarithm && (sign < 0.0 || nested) || smooth {
                note(evidence, j, 4, Role::Decay);
            } else if logarithm {
                note(evidence, j, 3, Role::Exponent);
            } else if let Some(subject) = plain {
                note(evidence, j, 2, if sign < 0.0 { Role::Rate(subject) } else { Role::SignedRate(subject) });
            }
        }
        for &factor in &under {
            let Node::Parameter(j) = graph.node(factor) else { continue };
            if logarithm {
                note(evidence, j, 6, Role::Sharpness);
            } else if let Some(subject) = plain {
                note(evidence, j, 5, Role::TimeScale(subject));
            }
        }
    }
}

/// `b*x` as a term of a sum inside another function.
fn read_coefficients(graph: &mut Graph, sum: Id, evidence: &mut [Option<(u8, Role)>]) {
    for (_, term) in graph.addends(sum) {
        let (over, under) = graph.factors(term);
        let (fitted, measured): (Vec<Id>, Vec<Id>) = over.into_iter().partition(|&id| graph.parameters(id) != 0);
        let [factor] = fitted[..] else { continue };
        let Node::Parameter(j) = graph.node(factor) else { continue };
        if !graph.uses_inputs(term) || under.iter().any(|&id| graph.parameters(id) != 0) {
            continue;
        }
        let mut subject = graph.constant(1.0);
        for factor in measured {
            subject = graph.multiply(subject, factor);
        }
        for divisor in under {
            subject = graph.divide(subject, divisor);
        }
        note(evidence, j, 1, Role::Coefficient(subject));
    }
}

/// `gamma*exp(beta*log x)` inside another function.
fn read_power_rate(graph: &mut Graph, a: Id, b: Id, evidence: &mut [Option<(u8, Role)>]) {
    for (factor, power) in [(a, b), (b, a)] {
        let (Node::Parameter(j), Node::Unary(Unary::Exp, exponent)) = (graph.node(factor), graph.node(power)) else {
            continue;
        };
        for (sign, term) in graph.addends(exponent) {
            if graph.parameters(term) == 0 {
                continue;
            }
            let subject = graph.factors(term).0.into_iter().find_map(|id| match graph.node(id) {
                Node::Unary(Unary::Log, inner) if graph.parameters(inner) == 0 => Some(inner),
                _ => None,
            });
            if let Some(subject) = subject {
                note(evidence, j, 2, Role::PowerRate { subject, rises: sign > 0.0 });
            }
        }
    }
}

fn read_sum(graph: &Graph, root: Id, sum: Id, operator: Binary, a: Id, b: Id, evidence: &mut [Option<(u8, Role)>]) {
    let log_argument = |id: Id| match graph.node(id) {
        Node::Unary(Unary::Log, inner) => Some(inner),
        _ => None,
    };
    let measured = |id: Id| graph.uses_inputs(id) && graph.parameters(id) == 0;
    for (fitted, subject) in [(a, b), (b, a)] {
        if !measured(subject) {
            continue;
        }
        match (graph.node(fitted), log_argument(subject)) {
            (Node::Parameter(j), Some(inner)) if operator == Binary::Subtract => {
                note(evidence, j, 5, Role::LogLocation(inner));
            }
            (Node::Parameter(j), _) => {
                let under_log =
                    graph.reachable(&[root]).into_iter().any(|id| graph.node(id) == Node::Unary(Unary::Log, sum));
                let role =
                    if under_log && operator == Binary::Add { Role::Shift(subject) } else { Role::Centre(subject) };
                if under_log || operator == Binary::Subtract {
                    note(evidence, j, 5, role);
                }
            }
            (Node::Unary(Unary::Log, inner), Some(argument)) => {
                if let Node::Parameter(j) = graph.node(inner) {
                    note(evidence, j, 5, Role::Location(argument));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::{Law, Mapping};

    fn roles(formula: &str) -> Vec<(String, String)> {
        let columns = ["x", "y", "N", "D"].map(String::from);
        let mut law = Law::bind(formula, &columns, Mapping { x: &[], y: Some("y") }).expect(formula);
        let roles = infer(&mut law.graph, law.prediction, law.parameters.len());
        let words = |role: Role| format!("{role:?}").split(['(', ' ']).next().expect("a word").to_string();
        law.parameters.iter().cloned().zip(roles.into_iter().map(words)).collect()
    }

    #[test]
    fn roles_follow_from_the_formula() {
        for (formula, expected) in [
            ("E + A*x^-alpha", vec![("alpha", "Decay")]),
            ("a*x^p", vec![("p", "Exponent")]),
            ("E + A*exp(-gamma*x)", vec![("gamma", "Rate")]),
            ("E + A*exp(-x/tau)", vec![("tau", "TimeScale")]),
            ("A*(x + s)^-alpha", vec![("s", "Shift"), ("alpha", "Decay")]),
            (
                "A*(x/x_b)^-alpha * (1 + (x/x_b)^(1/Delta))^(-Delta*(eta - alpha))",
                vec![("x_b", "Location"), ("alpha", "Decay"), ("eta", "Decay"), ("Delta", "Sharpness")],
            ),
            ("b + (t - b)/(1 + (x50/x)^n)", vec![("x50", "Location"), ("n", "Decay")]),
            ("a/(1 + (x/exp(b))^c)", vec![("b", "LogLocation"), ("c", "Decay")]),
            ("E + A*N^-alpha + B*D^-beta", vec![("alpha", "Decay"), ("beta", "Decay")]),
            ("b + a*exp(-(x - m)^2/(2*s^2))", vec![("m", "Centre")]),
            ("E + A*exp(-g*x^b)", vec![("g", "PowerRate"), ("b", "Decay")]),
            ("a*(1 - (1 + b*x/2)^-2)", vec![("b", "Coefficient")]),
            ("(a + b*x)/(1 + c*x + d*x^2)", vec![("c", "Coefficient"), ("d", "Coefficient")]),
            ("A*(1 + q*x^-r)^b", vec![("q", "PowerRate"), ("r", "Decay")]),
        ] {
            let found = roles(formula);
            for (name, role) in expected {
                assert!(
                    found.iter().any(|(n, r)| n == name && r == role),
                    "{formula}: {name} should be {role}, found {found:?}"
                );
            }
        }
    }
}
