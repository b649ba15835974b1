//! A law compiled for one space: everything that the backends evaluate, as nodes of one graph.
//!
//! In: a [`Law`], the space, the parameters held fixed. Out: a [`Model`]. The model does not speak of the user's
//! parameters θ but of *coordinates* z, chosen so that the numbers stay tame:
//!
//! * a parameter that appears only as `log θ` has the coordinate `log θ`;
//! * a linear amplitude of an exponential basis is measured where the curve starts, not at x = 1: with `c` the smallest
//!   value of `u = log x` on the curve, `A exp(-alpha u) = A' exp(-alpha (u − c))`, `A = A' K`, `K = exp(alpha c)`.
//!   Chinchilla's condition number falls from 3.5e11 to some hundreds, and f32 can carry exponents of 8;
//! * what multiplies a power inside a function, gamma in `exp(-gamma x^beta)`, is positive and measured where the curve
//!   starts, too: gamma = exp(z) K, `K = exp(-beta c)`; so is what stands under a power of its own there, S in
//!   `exp(w log S + log u - r log x)`;
//! * a shift, s in `log(x + s)`, is measured from where the curve starts: with c the smallest x, σ = s + c = exp(z) and
//!   `log(x + s) = z + log1p((x − c)/σ)`. Every real z is in the law's domain.
//!
//! Knows no curves and no device.

use super::Space;
use super::above::{self, Above};
use super::programs::{Programs, Roots};
use crate::formula::graph::{Binary, Graph, Id, Node, Unary};
use crate::formula::separate::{Separation, separate};
use crate::law::Law;
use crate::law::role::{self, Role};
use std::collections::HashMap;

/// How a coordinate z stands for a parameter θ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coordinate {
    /// θ = z
    Identity,
    /// θ = exp z
    Log,
}

impl Coordinate {
    /// θ of z.
    pub fn decode(self, z: f64) -> f64 {
        match self {
            Coordinate::Identity => z,
            Coordinate::Log => z.exp(),
        }
    }

    /// z of θ; not finite where θ has none.
    pub fn encode(self, theta: f64) -> f64 {
        match self {
            Coordinate::Identity => theta,
            Coordinate::Log => theta.ln(),
        }
    }

    /// dθ/dz at θ.
    pub fn slope(self, theta: f64) -> f64 {
        match self {
            Coordinate::Identity => 1.0,
            Coordinate::Log => theta,
        }
    }
}

/// One column that the model reads: an expression of raw columns, computed in f64 once per row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derived {
    /// The expression, a node of the law's graph.
    pub source: Id,
    /// Whether the curve's smallest value, the centre, is subtracted.
    pub centred: bool,
}

/// The exactly solvable part: `t ≈ offset + Σ_l z[linear[l]] basis[l]` in `space`.
#[derive(Debug, Clone)]
pub struct Projection {
    /// Where the sum stands; if it is not the model's own space, the projection is a proxy for the objective.
    pub space: Space,
    /// Coordinates of this chart, one per free parameter.
    pub coordinates: Vec<Coordinate>,
    pub linear: Vec<usize>,
    /// The free parameters that have to be searched.
    pub nonlinear: Vec<usize>,
    pub basis: Vec<Id>,
    pub offset: Id,
}

/// A law compiled for one space. Free parameters are numbered 0..len().
#[derive(Debug, Clone)]
pub struct Model {
    pub space: Space,
    /// The law's graph, extended: [`Derived::source`] and the roles' subjects are nodes of it, over raw columns.
    pub raw: Graph,
    /// Nodes over `Input(k)` = [`Model::inputs`] and `Parameter(j)` = coordinate j of the chart that a root belongs to.
    pub graph: Graph,
    pub inputs: Vec<Derived>,
    /// Position of every free parameter in [`Law::parameters`].
    pub free: Vec<usize>,
    /// Roles of the free parameters; subjects are nodes of [`Model::raw`].
    pub roles: Vec<Role>,
    /// Coordinates of the model's own chart.
    pub coordinates: Vec<Coordinate>,
    /// K_j of θ_j = decode(z_j) K_j: a node over *decoded* parameters and, as inputs, the curve's centres.
    pub scale: Vec<Option<Id>>,
    /// The input whose centre is taken off: θ_j = decode(z_j) − centre. Only where there is no K_j.
    pub origin: Vec<Option<usize>>,
    /// h with t ≈ h; t is log y in log space.
    pub prediction: Id,
    /// ∂h/∂z_j
    pub gradient: Vec<Id>,
    /// ∂²h/∂z_i∂z_j at i(i+1)/2 + j, j ≤ i.
    pub hessian: Vec<Id>,
    pub projection: Projection,
    /// Free parameters in which f itself is linear: floors and amplitudes, which have no default box.
    pub amplitudes: Vec<usize>,
    /// Coordinates in which h is linear, so that they can be solved exactly wherever the others stand.
    pub solved: Vec<usize>,
    /// The floor: the amplitude that is simply added to f. Raising it makes any prediction positive.
    pub floor: Option<usize>,
    /// Where the law is searched above its floor.
    pub above: Option<Above>,
    pub programs: Programs,
    /// Whether f is linear in amplitudes with no offset left, so that y may be rescaled freely in linear space.
    pub homogeneous: bool,
}

/// Axes of a product grid over the objective's own projection that are searched without looking for a cheaper proxy.
const SEARCHABLE: usize = 2;

impl Model {
    /// Number of free parameters.
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// Whether nothing is left to fit.
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// Whether the optimum under squares is the projection itself.
    pub fn is_closed_form(&self) -> bool {
        self.projection.nonlinear.is_empty() && self.projection.space == self.space
    }

    /// Whether it is so in the model's own chart, too: then one Newton step under squares leads to it from anywhere.
    pub fn is_linear(&self) -> bool {
        self.is_closed_form() && self.projection.coordinates == self.coordinates
    }

    /// Compiles `law` for `space`. `fixed[j]` holds the value of a parameter that is not fitted; `constrained[j]` marks
    /// parameters with a box or grid of the user's, whose coordinates must keep their own scale.
    pub fn compile(law: &Law, space: Space, fixed: &[Option<f64>], constrained: &[bool]) -> Model {
        let mut graph = law.graph.clone();
        let free: Vec<usize> = (0..law.parameters.len()).filter(|&j| fixed[j].is_none()).collect();
        let prediction = renumber(&mut graph, law.prediction, fixed, &free);
        let roles = roles(law, &mut graph, prediction, &free);

        let raw_inputs = law.columns.len();
        let mut centred: Vec<Id> = Vec::new();
        let unconstrained =
            free.iter().enumerate().filter(|(_, j)| !constrained[**j]).fold(0, |set, (i, _)| set | 1 << i);
        let searched = project(&mut graph, prediction, space, &roles).nonlinear;
        let (prediction, rates) = measure_rates(
            &mut graph,
            prediction,
            |j| searched.contains(&j) && unconstrained >> j & 1 == 1,
            raw_inputs,
            &mut centred,
        );
        let (prediction, crossings) = measure_crossings(
            &mut graph,
            prediction,
            |j| matches!(roles[j], Role::Crossing(_)) && unconstrained >> j & 1 == 1,
            raw_inputs,
            &mut centred,
        );
        let (prediction, shifts) = measure_shifts(&mut graph, prediction, raw_inputs, &mut centred);
        let Centred { prediction, mut scale, amplitudes, floor, homogeneous } =
            centre(&mut graph, prediction, unconstrained, free.len(), raw_inputs, &mut centred);
        for (j, factor) in rates.into_iter().chain(crossings) {
            scale[j] = Some(factor);
        }

        let (own, coordinates) = chart(&mut graph, prediction, space, free.len());
        let gradient: Vec<Id> = (0..free.len()).map(|j| graph.differentiate(own, j)).collect();
        let mut hessian = Vec::new();
        for i in 0..free.len() {
            for j in 0..=i {
                hessian.push(graph.differentiate(gradient[i], j));
            }
        }
        let projection = project(&mut graph, prediction, space, &roles);
        let above = floor.and_then(|floor| {
            let chart = |graph: &mut Graph, value: Id| take_logarithms(graph, value, free.len());
            above::Draft::of(&mut graph, prediction, floor, &amplitudes, &projection, &coordinates, chart)
        });

        let mut lift = Lift {
            source: &graph,
            raw_inputs,
            centred: &centred,
            target: Graph::default(),
            inputs: Vec::new(),
            image: HashMap::new(),
        };
        let prediction = lift.node(own);
        let gradient: Vec<Id> = gradient.into_iter().map(|id| lift.node(id)).collect();
        let hessian: Vec<Id> = hessian.into_iter().map(|id| lift.node(id)).collect();
        let projection = Projection {
            basis: projection.basis.iter().map(|&id| lift.node(id)).collect(),
            offset: lift.node(projection.offset),
            ..projection
        };
        let scale: Vec<Option<Id>> = scale.into_iter().map(|id| id.map(|id| lift.node(id))).collect();
        let above = above.map(|draft| {
            let basis: Vec<Id> = draft.basis.iter().map(|&id| lift.node(id)).collect();
            (draft, basis)
        });
        let mut origin = vec![None; free.len()];
        for (j, k) in shifts {
            origin[j] = Some(lift.position(Derived { source: centred[k - raw_inputs], centred: true }));
        }
        let Lift { inputs, target: mut lifted, .. } = lift;
        let roots =
            Roots { projection: &projection, prediction, gradient: &gradient, hessian: &hessian, scale: &scale };
        let programs = Programs::compile(&mut lifted, roots);
        let above = above.map(|(draft, basis)| draft.finish(&lifted, &basis, free.len()));
        let same_chart = |j: &usize| projection.coordinates[*j] == coordinates[*j];
        let solved = match space {
            Space::Linear => amplitudes.clone(),
            Space::Log if projection.space == space && projection.linear.iter().all(same_chart) => {
                projection.linear.clone()
            }
            Space::Log => Vec::new(),
        };
        Model {
            space,
            inputs,
            raw: graph,
            graph: lifted,
            free,
            roles,
            coordinates,
            scale,
            origin,
            prediction,
            gradient,
            hessian,
            projection,
            amplitudes,
            solved,
            floor,
            above,
            programs,
            homogeneous,
        }
    }

    /// θ of z; `centres[k]` is the curve's centre of input k.
    pub fn decode(&self, z: &[f64], centres: &[f64]) -> Vec<f64> {
        let plain: Vec<f64> = z.iter().zip(&self.coordinates).map(|(&z, coordinate)| coordinate.decode(z)).collect();
        let scaled = |j: usize| self.scale[j].map_or(plain[j], |k| plain[j] * self.graph.evaluate(k, centres, &plain));
        (0..self.len()).map(|j| scaled(j) - self.origin[j].map_or(0.0, |k| centres[k])).collect()
    }

    /// z of θ.
    pub fn encode(&self, theta: &[f64], centres: &[f64]) -> Vec<f64> {
        let plain: Vec<f64> = (0..self.len()).map(|j| theta[j] + self.origin[j].map_or(0.0, |k| centres[k])).collect();
        let scale = |j: usize| self.scale[j].map_or(1.0, |k| self.graph.evaluate(k, centres, &plain));
        (0..self.len()).map(|j| self.coordinates[j].encode(plain[j] / scale(j))).collect()
    }
}

/// Puts constants for fixed parameters and numbers the free ones anew.
fn renumber(graph: &mut Graph, root: Id, fixed: &[Option<f64>], free: &[usize]) -> Id {
    let stand_ins: Vec<Id> = (0..fixed.len())
        .map(|j| match fixed[j] {
            Some(value) => graph.constant(value),
            None => graph.parameter(free.iter().position(|&f| f == j).expect("free lists every parameter not fixed")),
        })
        .collect();
    graph.substitute(&[root], |graph, id| match graph.node(id) {
        Node::Parameter(j) => Some(stand_ins[j as usize]),
        _ => None,
    })[0]
}

/// The law in `space` and its coordinates there.
fn chart(graph: &mut Graph, prediction: Id, space: Space, parameters: usize) -> (Id, Vec<Coordinate>) {
    let value = if space == Space::Log { graph.unary(Unary::Log, prediction) } else { prediction };
    take_logarithms(graph, value, parameters)
}

/// Chooses where the linear parameters are solved: in the fit's own space, unless the other one saves axes and the own
/// projection is a poor one.
fn project(graph: &mut Graph, prediction: Id, space: Space, roles: &[Role]) -> Projection {
    let parameters = roles.len();
    let mut projected = |space: Space| {
        let (value, coordinates) = chart(graph, prediction, space, parameters);
        let separation = separate(graph, value, u64::MAX);
        let nonlinear = (0..parameters).filter(|j| !separation.linear.contains(j)).collect();
        let Separation { linear, basis, offset } = separation;
        Projection { space, coordinates, linear, nonlinear, basis, offset }
    };
    let (own, proxy) = (projected(space), projected(space.other()));
    let boxed = own.nonlinear.iter().all(|&j| !matches!(roles[j], Role::Free | Role::Coefficient(_)));
    let good = boxed && own.nonlinear.len() <= SEARCHABLE;
    if proxy.nonlinear.len() < own.nonlinear.len() && !good { proxy } else { own }
}

fn roles(law: &Law, graph: &mut Graph, prediction: Id, free: &[usize]) -> Vec<Role> {
    let mut roles = role::infer(graph, prediction, free.len());
    if let Some(entry) = law.entry {
        let inputs: Vec<Id> = (0..entry.inputs.len()).map(|k| graph.input(k)).collect();
        for (role, &j) in roles.iter_mut().zip(free) {
            if let Some(given) = entry.parameters[j].role {
                *role = given(&inputs);
            }
        }
    }
    roles
}

struct Centred {
    prediction: Id,
    scale: Vec<Option<Id>>,
    amplitudes: Vec<usize>,
    floor: Option<usize>,
    homogeneous: bool,
}

/// Measures linear amplitudes where the curve starts. Input `raw_inputs + k` stands for `centred[k]` less its centre.
fn centre(
    graph: &mut Graph,
    prediction: Id,
    candidates: u64,
    parameters: usize,
    raw_inputs: usize,
    centred: &mut Vec<Id>,
) -> Centred {
    let separation = separate(graph, prediction, u64::MAX);
    let homogeneous = graph.constant_value(separation.offset) == Some(0.0);
    let one = graph.constant(1.0);
    let floor = separation.basis.iter().position(|&basis| basis == one).map(|l| separation.linear[l]);
    let mut scale = vec![None; parameters];
    let mut sum = separation.offset;
    for (&j, &basis) in separation.linear.iter().zip(&separation.basis) {
        let mut basis = basis;
        if candidates >> j & 1 == 1
            && let Some((tame, factor)) = split_amplitude(graph, basis, raw_inputs, centred)
        {
            basis = tame;
            scale[j] = Some(factor);
        }
        let parameter = graph.parameter(j);
        let term = graph.multiply(parameter, basis);
        sum = graph.add(sum, term);
    }
    // A linear parameter inside another's scale would make the scale depend on what is projected; separation excludes it.
    Centred { prediction: sum, scale, amplitudes: separation.linear, floor, homogeneous }
}

/// `basis = tame / K`: what depends on parameters alone is taken out of the exponential, and measured inputs in it are
/// centred. None where nothing can be taken out.
fn split_amplitude(graph: &mut Graph, basis: Id, raw_inputs: usize, centred: &mut Vec<Id>) -> Option<(Id, Id)> {
    let (sign, rest, exponent) = match graph.node(basis) {
        Node::Unary(Unary::Exp, g) => (1.0, None, g),
        Node::Unary(Unary::Negate, inner) => match graph.node(inner) {
            Node::Unary(Unary::Exp, g) => (-1.0, None, g),
            _ => return None,
        },
        Node::Binary(Binary::Multiply, a, b) => match (graph.node(a), graph.node(b)) {
            (Node::Unary(Unary::Exp, g), _) => (1.0, Some(b), g),
            (_, Node::Unary(Unary::Exp, g)) => (1.0, Some(a), g),
            _ => return None,
        },
        _ => return None,
    };
    let (mut kept, mut taken) = (graph.constant(0.0), graph.constant(0.0));
    let mut changed = false;
    for (sign, term) in graph.addends(exponent) {
        if graph.parameters(term) != 0 && !graph.uses_inputs(term) {
            taken = add_signed(graph, taken, sign, term);
            changed = true;
            continue;
        }
        let (coefficient, measured) = split_measured(graph, term);
        let term = match measured {
            Some(source) if graph.parameters(coefficient) != 0 => {
                changed = true;
                let input = centred_input(graph, source, raw_inputs, centred);
                // `taken` is evaluated with the centre in the input's place.
                let product = graph.multiply(coefficient, input);
                taken = add_signed(graph, taken, sign, product);
                product
            }
            _ => term,
        };
        kept = add_signed(graph, kept, sign, term);
    }
    if !changed {
        return None;
    }
    let mut tame = graph.unary(Unary::Exp, kept);
    if let Some(rest) = rest {
        tame = graph.multiply(rest, tame);
    }
    if sign < 0.0 {
        tame = graph.negate(tame);
    }
    let negated = graph.negate(taken);
    Some((tame, graph.unary(Unary::Exp, negated)))
}

/// Writes every `gamma*exp(beta*log x + …)` whose gamma is `wanted` and occurs nowhere else as `exp(log gamma' + beta*(log x −
/// c) + …)`. Returns the new prediction and, for every such gamma, K.
fn measure_rates(
    graph: &mut Graph,
    prediction: Id,
    wanted: impl Fn(usize) -> bool,
    raw_inputs: usize,
    centred: &mut Vec<Id>,
) -> (Id, Vec<(usize, Id)>) {
    let order = graph.reachable(&[prediction]);
    let mut found: Vec<(usize, Id, Id)> = Vec::new();
    for &id in &order {
        let Node::Binary(Binary::Multiply, a, b) = graph.node(id) else { continue };
        for (factor, power) in [(a, b), (b, a)] {
            if let (Node::Parameter(j), Node::Unary(Unary::Exp, exponent)) = (graph.node(factor), graph.node(power))
                && wanted(j as usize)
                && !graph.uses(power, j as usize)
                && order.iter().filter(|&&parent| graph.children(parent).any(|child| child == factor)).count() == 1
            {
                found.push((j as usize, id, exponent));
            }
        }
    }
    let mut stand_ins: HashMap<Id, Id> = HashMap::new();
    let mut scales = Vec::new();
    for (j, product, exponent) in found {
        let parameter = graph.parameter(j);
        let (mut kept, mut taken) = (graph.unary(Unary::Log, parameter), graph.constant(0.0));
        for (sign, term) in graph.addends(exponent) {
            let (term, moved) = centred_term(graph, term, raw_inputs, centred);
            kept = add_signed(graph, kept, sign, term);
            if moved {
                taken = add_signed(graph, taken, sign, term);
            }
        }
        stand_ins.insert(product, graph.unary(Unary::Exp, kept));
        let negated = graph.negate(taken);
        scales.push((j, graph.unary(Unary::Exp, negated)));
    }
    let prediction = graph.substitute(&[prediction], |_, id| stand_ins.get(&id).copied())[0];
    (prediction, scales)
}

/// Writes every exponent `w*log S + log u − r*log x …` whose S is `wanted` and occurs nowhere else as `w*log S' + (log u − c) −
/// r*(log x − c') …`. Returns the new prediction and, for every such S, K = S/S'.
fn measure_crossings(
    graph: &mut Graph,
    mut prediction: Id,
    wanted: impl Fn(usize) -> bool,
    raw_inputs: usize,
    centred: &mut Vec<Id>,
) -> (Id, Vec<(usize, Id)>) {
    let mut scales = Vec::new();
    for id in graph.reachable(&[prediction]) {
        let Node::Unary(Unary::Exp | Unary::Softplus, exponent) = graph.node(id) else { continue };
        let (zero, one) = (graph.constant(0.0), graph.constant(1.0));
        let terms = graph.addends(exponent);
        let Some(j) = (0..u64::BITS as usize).find(|&j| graph.uses(exponent, j) && wanted(j)) else { continue };
        let elsewhere = graph.substitute(&[prediction], |_, other| (other == exponent).then_some(zero))[0];
        if graph.uses(elsewhere, j) {
            continue;
        }
        let parameter = graph.parameter(j);
        let logarithm = graph.unary(Unary::Log, parameter);
        let (mut weight, mut kept, mut taken) = (zero, zero, zero);
        for (sign, term) in terms {
            if graph.uses(term, j) {
                let factor = graph.substitute(&[term], |_, id| (id == logarithm).then_some(one))[0];
                weight = add_signed(graph, weight, sign, factor);
                continue;
            }
            let (term, moved) = centred_term(graph, term, raw_inputs, centred);
            kept = add_signed(graph, kept, sign, term);
            if moved {
                taken = add_signed(graph, taken, sign, term);
            }
        }
        if graph.uses(weight, j) || graph.uses_inputs(weight) {
            continue;
        }
        let own = graph.multiply(weight, logarithm);
        let image = graph.add(own, kept);
        prediction = graph.substitute(&[prediction], |_, id| (id == exponent).then_some(image))[0];
        let share = graph.divide(taken, weight);
        let negated = graph.negate(share);
        scales.push((j, graph.unary(Unary::Exp, negated)));
    }
    (prediction, scales)
}

/// Writes `log(x + s)` as `log σ + log1p((x − c)/σ)`, σ = s + c, where s occurs nowhere else. Returns the new prediction, in
/// which σ has the place of s, and for every such parameter its input: `raw_inputs` + position in `centred`.
fn measure_shifts(
    graph: &mut Graph,
    prediction: Id,
    raw_inputs: usize,
    centred: &mut Vec<Id>,
) -> (Id, Vec<(usize, usize)>) {
    let order = graph.reachable(&[prediction]);
    let parents = |id: Id| -> Vec<Id> {
        order.iter().copied().filter(|&parent| graph.children(parent).any(|child| child == id)).collect()
    };
    let mut found: Vec<(usize, Id, Id)> = Vec::new();
    for &id in &order {
        let Node::Parameter(j) = graph.node(id) else { continue };
        let [sum] = parents(id)[..] else { continue };
        let Node::Binary(Binary::Add, a, b) = graph.node(sum) else { continue };
        let source = if a == id { b } else { a };
        let [log] = parents(sum)[..] else { continue };
        let measured = graph.uses_inputs(source) && graph.parameters(source) == 0;
        if measured && matches!(graph.node(log), Node::Unary(Unary::Log, _)) {
            found.push((j as usize, log, source));
        }
    }
    let mut stand_ins: HashMap<Id, Id> = HashMap::new();
    let mut shifts = Vec::new();
    for (j, log, source) in found {
        let parameter = graph.parameter(j);
        let size = graph.unary(Unary::Log, parameter);
        let input = centred_input(graph, source, raw_inputs, centred);
        let inverse = graph.negate(size);
        let inverse = graph.unary(Unary::Exp, inverse);
        let share = graph.multiply(input, inverse);
        let rest = graph.unary(Unary::Log1p, share);
        stand_ins.insert(log, graph.add(size, rest));
        let Node::Input(k) = graph.node(input) else { unreachable!("a centred input is an input") };
        shifts.push((j, k as usize));
    }
    let prediction = graph.substitute(&[prediction], |_, id| stand_ins.get(&id).copied())[0];
    (prediction, shifts)
}

/// The input that stands for `source` less its centre.
fn centred_input(graph: &mut Graph, source: Id, raw_inputs: usize, centred: &mut Vec<Id>) -> Id {
    let k = centred.iter().position(|&known| known == source).unwrap_or_else(|| {
        centred.push(source);
        centred.len() - 1
    });
    graph.input(raw_inputs + k)
}

/// An addend of an exponent with its measured factor, if it has one, read from a centred input; and whether it has.
fn centred_term(graph: &mut Graph, term: Id, raw_inputs: usize, centred: &mut Vec<Id>) -> (Id, bool) {
    let (coefficient, Some(source)) = split_measured(graph, term) else { return (term, false) };
    let input = centred_input(graph, source, raw_inputs, centred);
    (graph.multiply(coefficient, input), true)
}

fn add_signed(graph: &mut Graph, sum: Id, sign: f64, term: Id) -> Id {
    if sign < 0.0 { graph.subtract(sum, term) } else { graph.add(sum, term) }
}

/// A product as (fitted factor, measured factor); no measured factor where a single factor mixes both.
fn split_measured(graph: &mut Graph, term: Id) -> (Id, Option<Id>) {
    if graph.parameters(term) == 0 {
        let one = graph.constant(1.0);
        return (one, graph.uses_inputs(term).then_some(term));
    }
    if !graph.uses_inputs(term) {
        return (term, None);
    }
    match graph.node(term) {
        Node::Binary(operator @ (Binary::Multiply | Binary::Divide), a, b) => {
            let ((fitted_a, measured_a), (fitted_b, measured_b)) = (split_measured(graph, a), split_measured(graph, b));
            let mixed = |id: Id, fitted: Id, measured: Option<Id>| id != fitted && measured.is_none();
            if graph.uses_inputs(a) && mixed(a, fitted_a, measured_a)
                || graph.uses_inputs(b) && mixed(b, fitted_b, measured_b)
            {
                return (term, None);
            }
            if graph.uses_inputs(fitted_a) || graph.uses_inputs(fitted_b) {
                return (term, None);
            }
            let fitted = graph.binary(operator, fitted_a, fitted_b);
            let one = graph.constant(1.0);
            let measured = match (measured_a, measured_b) {
                (Some(a), Some(b)) => Some(graph.binary(operator, a, b)),
                (Some(a), None) => Some(a),
                (None, Some(b)) => Some(graph.binary(operator, one, b)),
                (None, None) => None,
            };
            (fitted, measured)
        }
        Node::Unary(Unary::Negate, a) => {
            let (fitted, measured) = split_measured(graph, a);
            (graph.negate(fitted), measured)
        }
        _ => (term, None),
    }
}

/// Gives every parameter that appears only as `log θ` that logarithm as its coordinate.
fn take_logarithms(graph: &mut Graph, root: Id, parameters: usize) -> (Id, Vec<Coordinate>) {
    let mut coordinates = vec![Coordinate::Log; parameters];
    for id in graph.reachable(&[root]) {
        let is_log = matches!(graph.node(id), Node::Unary(Unary::Log, _));
        for child in graph.children(id) {
            if let Node::Parameter(j) = graph.node(child)
                && !is_log
            {
                coordinates[j as usize] = Coordinate::Identity;
            }
        }
    }
    for (j, coordinate) in coordinates.iter_mut().enumerate() {
        if graph.node(root) == Node::Parameter(j as u32) || !graph.uses(root, j) {
            *coordinate = Coordinate::Identity;
        }
    }
    let root = graph.substitute(&[root], |graph, id| match graph.node(id) {
        Node::Unary(Unary::Log, a) => match graph.node(a) {
            Node::Parameter(j) if coordinates[j as usize] == Coordinate::Log => Some(a),
            _ => None,
        },
        _ => None,
    })[0];
    (root, coordinates)
}

/// Copies nodes into a graph whose inputs are the maximal expressions of columns alone.
struct Lift<'a> {
    source: &'a Graph,
    raw_inputs: usize,
    centred: &'a [Id],
    target: Graph,
    inputs: Vec<Derived>,
    image: HashMap<Id, Id>,
}

impl Lift<'_> {
    fn node(&mut self, root: Id) -> Id {
        let source = self.source;
        // Children before parents; what lies below a lifted expression is visited in vain but never asked for.
        for id in source.reachable(&[root]) {
            if self.image.contains_key(&id) {
                continue;
            }
            let image = match source.node(id) {
                Node::Constant(bits) => self.target.constant(f64::from_bits(bits)),
                Node::Parameter(j) => self.target.parameter(j as usize),
                Node::Input(k) if k as usize >= self.raw_inputs => {
                    let derived = Derived { source: self.centred[k as usize - self.raw_inputs], centred: true };
                    self.input(derived)
                }
                _ if self.is_raw(id) => continue,
                Node::Unary(operator, a) => {
                    let a = self.operand(a);
                    self.target.unary(operator, a)
                }
                Node::Binary(operator, a, b) => {
                    let (a, b) = (self.operand(a), self.operand(b));
                    self.target.binary(operator, a, b)
                }
                Node::Input(_) => unreachable!("raw inputs are raw"),
            };
            self.image.insert(id, image);
        }
        self.operand(root)
    }

    /// Whether a node is made of raw columns alone.
    fn is_raw(&self, id: Id) -> bool {
        let source = self.source;
        source.uses_inputs(id)
            && source.parameters(id) == 0
            && source
                .reachable(&[id])
                .iter()
                .all(|&n| !matches!(source.node(n), Node::Input(k) if k as usize >= self.raw_inputs))
    }

    fn operand(&mut self, id: Id) -> Id {
        if self.is_raw(id) { self.input(Derived { source: id, centred: false }) } else { self.image[&id] }
    }

    fn input(&mut self, derived: Derived) -> Id {
        let k = self.position(derived);
        self.target.input(k)
    }

    fn position(&mut self, derived: Derived) -> usize {
        self.inputs.iter().position(|known| *known == derived).unwrap_or_else(|| {
            self.inputs.push(derived);
            self.inputs.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::catalogue::CATALOGUE;
    use crate::law::{Law, Mapping};

    fn compile(formula: &str, space: Space) -> (Law, Model) {
        let columns = ["x", "y", "N", "D", "token_multiplier", "params"].map(String::from);
        let x = match crate::law::catalogue::find(formula).map(|entry| entry.inputs.len()) {
            Some(inputs) if inputs > 1 => ["N", "D", "params"][..inputs].iter().map(ToString::to_string).collect(),
            _ => vec!["x".to_string()],
        };
        let law = Law::bind(formula, &columns, Mapping { x: &x, y: Some("y") }).expect(formula);
        let open = vec![None; law.parameters.len()];
        let model = Model::compile(&law, space, &open, &vec![false; open.len()]);
        (law, model)
    }

    fn searched(model: &Model, law: &Law) -> Vec<String> {
        model.projection.nonlinear.iter().map(|&j| law.parameters[model.free[j]].clone()).collect()
    }

    #[test]
    fn laws_project_onto_few_searched_parameters() {
        for (formula, space, expected, own_space) in [
            ("power", Space::Log, &[][..], true),
            ("power", Space::Linear, &["p"][..], true),
            ("saturating_power", Space::Log, &["alpha"][..], false),
            ("saturating_power", Space::Linear, &["alpha"][..], true),
            ("exponential", Space::Log, &[][..], true),
            ("logarithmic", Space::Linear, &[][..], true),
            ("broken_power", Space::Log, &["x_b", "Delta"][..], true),
            ("broken_power", Space::Linear, &["x_b", "Delta"][..], false),
            ("chinchilla", Space::Log, &["alpha", "beta"][..], false),
            ("chinchilla", Space::Linear, &["alpha", "beta"][..], true),
            ("exp(-a*x^-b)", Space::Log, &["b"][..], true),
            ("1 + A*x^-alpha", Space::Log, &["alpha"][..], false),
            ("E + a*params^b + c*6^(b/2)*(token_multiplier*params)^b", Space::Linear, &["b"][..], true),
        ] {
            let (law, model) = compile(formula, space);
            assert_eq!(searched(&model, &law), expected, "{formula} in {space:?}");
            assert_eq!(model.projection.space == space, own_space, "{formula} in {space:?}");
        }
    }

    #[test]
    fn coordinates_carry_the_law_and_come_back() {
        for entry in CATALOGUE {
            for space in [Space::Log, Space::Linear] {
                let (law, model) = compile(entry.name, space);
                let theta: Vec<f64> = (0..model.len()).map(|j| 0.3 + 0.2 * j as f64).collect();
                let raw: Vec<f64> = (0..law.columns.len()).map(|k| 30.0 + 7.0 * k as f64).collect();
                let centres: Vec<f64> = model
                    .inputs
                    .iter()
                    .map(|input| if input.centred { 0.9 * model.raw.evaluate(input.source, &raw, &[]) } else { 0.0 })
                    .collect();
                let inputs: Vec<f64> = model
                    .inputs
                    .iter()
                    .zip(&centres)
                    .map(|(input, centre)| model.raw.evaluate(input.source, &raw, &[]) - centre)
                    .collect();
                let z = model.encode(&theta, &centres);
                for (found, expected) in model.decode(&z, &centres).iter().zip(&theta) {
                    assert!((found / expected - 1.0).abs() < 1e-13, "{}: {found} is not {expected}", entry.name);
                }
                let f = law.graph.evaluate(law.prediction, &raw, &theta);
                let expected = if space == Space::Log { f.ln() } else { f };
                let found = model.graph.evaluate(model.prediction, &inputs, &z);
                assert!(
                    (found - expected).abs() < 1e-13 * (1.0 + expected.abs()),
                    "{} in {space:?}: {found}, the law says {expected}",
                    entry.name
                );
            }
        }
    }

    #[test]
    fn fixed_parameters_leave_the_model() {
        let (law, _) = compile("saturating_power", Space::Log);
        let model = Model::compile(&law, Space::Log, &[Some(0.0), None, None], &[false; 3]);
        assert_eq!(model.free, [1, 2]);
        assert!(model.is_closed_form(), "without its floor the law is a straight line in log space");
    }
}
