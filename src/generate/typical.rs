//! Typical parameters of a law, drawn by the roles that they play.
//!
//! In: a law, the inputs of a curve, a stream of random numbers. Out: parameters under which the law varies over these
//! inputs by an amount that measurements show. One place for synthetic sweeps, for the tests that loop over the catalogue,
//! and for the proof that every law recovers its own parameters.
//!
//! | parameter | drawn from |
//! |---|---|
//! | floor | U(0.1, 3) |
//! | amplitude | where its term is largest, the term is log-uniform in (0.1, 30) |
//! | exponent of a decay, sharpness | log-uniform in [0.05, 2], the middle of the default box |
//! | exponent of free sign | uniform in the default box |
//! | location, shift | log-uniform over the range of x |
//! | rate | rate × span log-uniform in (0.1, 30); with a power of x, rate × power at its largest |
//! | time scale | span / scale log-uniform in (0.1, 30) |
//! | linear in log f, no other role | where its term is largest, the term is U(-3, 3) |

use crate::evaluate::reference::{Precision, Reference};
use crate::formula::graph::{Graph, Id, Node, Unary};
use crate::formula::separate::separate;
use crate::law::role::{self, Range, Role};
use crate::law::{Law, catalogue::Entry};
use crate::random::Stream;

/// Where floors lie.
const FLOOR: (f64, f64) = (0.1, 3.0);
/// Sizes of amplitudes, and of rates times spans.
const SIZE: (f64, f64) = (0.1, 30.0);
/// Exponents of decays.
const EXPONENT: (f64, f64) = (0.05, 2.0);
/// Changes of log f.
const CHANGE: f64 = 3.0;

/// How one parameter is drawn; expressions are nodes of [`Typical::graph`].
#[derive(Debug, Clone)]
enum Recipe {
    Floor,
    /// θ times this is of typical size.
    Amplitude(Reference),
    /// θ times this changes log f.
    Change(Reference),
    /// By the role, over the range of its subject.
    Role(Role, Option<Reference>),
    /// Nothing is known of it.
    Unknown,
}

/// How the parameters of a law are drawn.
#[derive(Debug, Clone)]
pub struct Typical {
    recipes: Vec<Recipe>,
    /// Recipes in the order in which they are followed: what others rest on comes first.
    order: Vec<usize>,
    /// How many of them rest on no other parameter.
    independent: usize,
    /// A law of a family is drawn in the parameters of the family's law.
    family: Option<Box<(Typical, Vec<Reference>)>>,
}

impl Typical {
    /// Reads off the law how its parameters are drawn.
    pub fn new(law: &Law) -> Typical {
        let mut graph = law.graph.clone();
        let parameters = law.parameters.len();
        let mut roles = role::infer(&mut graph, law.prediction, parameters);
        if let Some(entry) = law.entry {
            override_roles(entry, &mut graph, &mut roles);
        }
        let linear = separate(&mut graph, law.prediction, u64::MAX);
        let logarithm = graph.unary(Unary::Log, law.prediction);
        let log_linear = separate(&mut graph, logarithm, u64::MAX);
        let mut recipes: Vec<Recipe> = Vec::new();
        for (j, &role) in roles.iter().enumerate() {
            let of = |separation: &crate::formula::separate::Separation| {
                separation.linear.iter().position(|&l| l == j).map(|l| separation.basis[l])
            };
            recipes.push(match (of(&linear), of(&log_linear)) {
                (Some(basis), _) if graph.constant_value(basis).is_some() => Recipe::Floor,
                (Some(basis), _) => Recipe::Amplitude(values_of(&graph, basis)),
                (None, Some(basis)) if role == Role::Free => Recipe::Change(values_of(&graph, basis)),
                _ if role == Role::Free => Recipe::Unknown,
                _ => Recipe::Role(role, subject(&mut graph, law.prediction, j, role)),
            });
        }
        let mut order: Vec<usize> = (0..parameters).collect();
        let rank = |&j: &usize| match &recipes[j] {
            Recipe::Role(Role::PowerRate { .. } | Role::Unit(..), _) => 1,
            Recipe::Floor | Recipe::Amplitude(_) | Recipe::Change(_) => 2,
            _ => 0,
        };
        order.sort_by_key(rank);
        let independent = order.iter().filter(|j| rank(j) == 0).count();
        let family = law.in_family().map(|(of, own)| {
            let own = own.iter().map(|&id| values_of(&of.graph, id)).collect();
            Box::new((Typical::new(&of), own))
        });
        Typical { recipes, order, independent, family }
    }

    /// The parameters of which nothing is known.
    pub fn unknown(&self) -> Vec<usize> {
        match self.family {
            Some(_) => Vec::new(),
            None => (0..self.recipes.len()).filter(|&j| matches!(self.recipes[j], Recipe::Unknown)).collect(),
        }
    }

    /// Draws the parameters that `known` leaves open for a curve with these inputs, in the order of the law's columns;
    /// `points` is their length.
    ///
    /// # Panics
    /// Where [`Typical::unknown`] parameters are left open.
    pub fn draw(
        &mut self,
        known: &[Option<f64>],
        columns: &[Vec<f64>],
        points: usize,
        stream: &mut Stream,
    ) -> Vec<f64> {
        if let Some(family) = &mut self.family {
            let (of, own) = &mut **family;
            let drawn = of.draw(&vec![None; of.recipes.len()], columns, points, stream);
            let mut own = own.iter_mut().map(|steps| evaluate(steps, columns, &drawn, 1)[0]);
            return known.iter().map(|known| own.next().map(|own| known.unwrap_or(own)).expect("one each")).collect();
        }
        let mut theta: Vec<f64> = known.iter().map(|known| known.unwrap_or(1.0)).collect();
        for at in 0..self.order.len() {
            let j = self.order[at];
            if at == self.independent {
                self.put_breaks_in_order(known, &mut theta);
            }
            // A parameter that is given uses no random numbers.
            if known[j].is_none() {
                theta[j] = self.recipes[j].draw(&theta, columns, points, stream);
            }
        }
        theta
    }

    /// Breaks are numbered in the order in which they come.
    fn put_breaks_in_order(&self, known: &[Option<f64>], theta: &mut [f64]) {
        let place = |j: &usize| known[*j].is_none() && matches!(self.recipes[*j], Recipe::Role(Role::Location(_), _));
        let places: Vec<usize> = (0..theta.len()).filter(place).collect();
        let mut values: Vec<f64> = places.iter().map(|&j| theta[j]).collect();
        values.sort_by(f64::total_cmp);
        places.into_iter().zip(values).for_each(|(j, value)| theta[j] = value);
    }
}

/// One node of a graph, over the points of a curve.
fn values_of(graph: &Graph, id: Id) -> Reference {
    Reference::new(graph, &[id], Precision::Double)
}

fn evaluate<'a>(node: &'a mut Reference, columns: &[Vec<f64>], theta: &[f64], points: usize) -> &'a [f64] {
    node.evaluate(columns, theta, points);
    node.output(0)
}

impl Recipe {
    fn draw(&mut self, theta: &[f64], columns: &[Vec<f64>], points: usize, stream: &mut Stream) -> f64 {
        let mut size = |(low, high): (f64, f64)| stream.uniform(low.ln(), high.ln()).exp();
        let largest = |steps: &mut Reference| {
            evaluate(steps, columns, theta, points).iter().fold(0.0f64, |largest, value| largest.max(value.abs()))
        };
        let (role, subject) = match self {
            Recipe::Floor => return stream.uniform(FLOOR.0, FLOOR.1),
            Recipe::Amplitude(basis) => return size(SIZE) / largest(basis),
            Recipe::Change(basis) => return stream.uniform(-CHANGE, CHANGE) / largest(basis),
            Recipe::Unknown => panic!("a parameter without a role has to be given"),
            Recipe::Role(role, subject) => (*role, subject),
        };
        let range = match subject {
            Some(steps) => Range::of(evaluate(steps, columns, theta, points).iter().copied()),
            None => Range::NONE,
        };
        let span = range.highest - range.lowest;
        match role {
            Role::Location(_) | Role::Shift(_) => size((range.lowest, range.highest)),
            Role::LogLocation(_) => stream.uniform(range.lowest.ln(), range.highest.ln()),
            Role::Centre(_) => stream.uniform(range.lowest, range.highest),
            Role::Rate(_) => size(SIZE) / span,
            Role::TimeScale(_) => span / size(SIZE),
            Role::SignedRate(_) => stream.uniform(-CHANGE, CHANGE) / span,
            // Its subject here is the power that it multiplies.
            Role::PowerRate { .. } | Role::Crossing(_) => size(SIZE) / range.highest,
            Role::Unit(_, exponent) => range.lowest * size(SIZE).powf(1.0 / theta[exponent]),
            Role::Decay | Role::SteepDecay | Role::Ratio | Role::Sharpness => size(EXPONENT),
            Role::Exponent => {
                let span = role.span(Range::NONE).expect("a box that asks for no range");
                stream.uniform(span.low, span.high)
            }
            Role::Coefficient(_) => size(SIZE) / range.lowest.abs().max(range.highest.abs()),
            Role::Free => unreachable!("a free parameter has another recipe"),
        }
    }
}

/// What the range of a role is taken of: its subject, or for what multiplies a power, that power.
fn subject(graph: &mut Graph, prediction: Id, j: usize, role: Role) -> Option<Reference> {
    let id = match role {
        Role::PowerRate { .. } => graph.reachable(&[prediction]).into_iter().find_map(|id| match graph.node(id) {
            Node::Binary(crate::formula::graph::Binary::Multiply, a, b) => {
                let own = |id: Id| graph.node(id) == Node::Parameter(j as u32);
                (own(a).then_some(b)).or(own(b).then_some(a))
            }
            _ => None,
        }),
        _ => role.subject(),
    };
    id.map(|id| values_of(graph, id))
}

fn override_roles(entry: &'static Entry, graph: &mut Graph, roles: &mut [Role]) {
    let inputs: Vec<Id> = (0..entry.inputs.len()).map(|k| graph.input(k)).collect();
    for (role, parameter) in roles.iter_mut().zip(entry.parameters) {
        if let Some(given) = parameter.role {
            *role = given(&inputs);
        }
    }
}
