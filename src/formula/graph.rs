//! Expression graph: hash-consed nodes, simplified as they are made.
//!
//! In: syntax trees and other nodes. Out: [`Id`]s of shared nodes; equal subterms have equal ids, children have smaller
//! ids than their parents. The constructors rewrite towards forms that neither overflow nor hide linearity: powers become
//! `exp(b log a)`, products of exponentials one exponential, `log(1 + exp z)` a softplus, `1/(1 + exp z)` a sigmoid.
//! Knows numbered inputs and parameters, no names and no data.

use std::collections::{HashMap, HashSet};

/// A node of a [`Graph`]; ordered so that children precede parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u32);

impl Id {
    /// Position in the arena.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Operators of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    Negate,
    Exp,
    Log,
    Log1p,
    Expm1,
    Sqrt,
    Abs,
    Sin,
    Cos,
    Tan,
    Atan,
    Tanh,
    Softplus,
    Sigmoid,
    /// 1 above zero, 0 elsewhere: the derivative of `max(z, 0)`.
    Step,
}

impl Unary {
    /// Every operator, for tests that must not miss one.
    pub const ALL: [Unary; 15] = [
        Unary::Negate,
        Unary::Exp,
        Unary::Log,
        Unary::Log1p,
        Unary::Expm1,
        Unary::Sqrt,
        Unary::Abs,
        Unary::Sin,
        Unary::Cos,
        Unary::Tan,
        Unary::Atan,
        Unary::Tanh,
        Unary::Softplus,
        Unary::Sigmoid,
        Unary::Step,
    ];

    /// The value in f64, by the standard library: the reference for every evaluator.
    pub fn apply(self, z: f64) -> f64 {
        match self {
            Unary::Negate => -z,
            Unary::Exp => z.exp(),
            Unary::Log => z.ln(),
            Unary::Log1p => z.ln_1p(),
            Unary::Expm1 => z.exp_m1(),
            Unary::Sqrt => z.sqrt(),
            Unary::Abs => z.abs(),
            Unary::Sin => z.sin(),
            Unary::Cos => z.cos(),
            Unary::Tan => z.tan(),
            Unary::Atan => z.atan(),
            Unary::Tanh => z.tanh(),
            Unary::Softplus => z.max(0.0) + (-z.abs()).exp().ln_1p(),
            Unary::Sigmoid => {
                let e = (-z.abs()).exp();
                if z >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
            }
            Unary::Step => f64::from(u8::from(z > 0.0)),
        }
    }
}

/// Operators of two arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Minimum,
    Maximum,
}

impl Binary {
    /// Every operator, for tests that must not miss one.
    pub const ALL: [Binary; 6] =
        [Binary::Add, Binary::Subtract, Binary::Multiply, Binary::Divide, Binary::Minimum, Binary::Maximum];

    /// The value in f64: the reference for every evaluator.
    pub fn apply(self, a: f64, b: f64) -> f64 {
        match self {
            Binary::Add => a + b,
            Binary::Subtract => a - b,
            Binary::Multiply => a * b,
            Binary::Divide => a / b,
            Binary::Minimum => a.min(b),
            Binary::Maximum => a.max(b),
        }
    }
}

/// What a node computes. Constants are kept as bits so that nodes can be compared and hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Node {
    Constant(u64),
    Input(u32),
    Parameter(u32),
    Unary(Unary, Id),
    Binary(Binary, Id, Id),
}

/// Most parameters that one graph may hold: their sets are bit masks.
pub const MOST_PARAMETERS: usize = 64;

/// The arena. Ids of one graph mean nothing in another.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    index: HashMap<Node, Id>,
    /// Per node: bit j is set where parameter j is used.
    parameters: Vec<u64>,
    /// Per node: whether any input is used.
    inputs: Vec<bool>,
    /// Per node: whether it is positive wherever it is finite.
    positive: Vec<bool>,
}

impl Graph {
    /// The node behind an id.
    pub fn node(&self, id: Id) -> Node {
        self.nodes[id.index()]
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no node was made yet.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The parameters that a node depends on, bit j for parameter j.
    pub fn parameters(&self, id: Id) -> u64 {
        self.parameters[id.index()]
    }

    /// Whether a node depends on parameter `j`.
    pub fn uses(&self, id: Id, j: usize) -> bool {
        self.parameters(id) >> j & 1 == 1
    }

    /// Whether a node depends on any input.
    pub fn uses_inputs(&self, id: Id) -> bool {
        self.inputs[id.index()]
    }

    /// The value of a constant node.
    pub fn constant_value(&self, id: Id) -> Option<f64> {
        match self.node(id) {
            Node::Constant(bits) => Some(f64::from_bits(bits)),
            _ => None,
        }
    }

    /// The nodes that `roots` need, themselves included, children first.
    pub fn reachable(&self, roots: &[Id]) -> Vec<Id> {
        let mut needed = vec![false; self.nodes.len()];
        for root in roots {
            needed[root.index()] = true;
        }
        for index in (0..self.nodes.len()).rev() {
            if needed[index] {
                for child in self.children(Id(index as u32)) {
                    needed[child.index()] = true;
                }
            }
        }
        (0..self.nodes.len()).filter(|&index| needed[index]).map(|index| Id(index as u32)).collect()
    }

    /// The arguments of a node.
    pub fn children(&self, id: Id) -> impl Iterator<Item = Id> + use<> {
        let (a, b) = match self.node(id) {
            Node::Unary(_, a) => (Some(a), None),
            Node::Binary(_, a, b) => (Some(a), Some(b)),
            _ => (None, None),
        };
        a.into_iter().chain(b)
    }

    fn intern(&mut self, node: Node) -> Id {
        if let Some(&id) = self.index.get(&node) {
            return id;
        }
        let (parameters, inputs) = match node {
            Node::Constant(_) => (0, false),
            Node::Input(_) => (0, true),
            Node::Parameter(j) => (1 << j, false),
            Node::Unary(_, a) => (self.parameters(a), self.uses_inputs(a)),
            Node::Binary(_, a, b) => {
                (self.parameters(a) | self.parameters(b), self.uses_inputs(a) || self.uses_inputs(b))
            }
        };
        let positive = match node {
            Node::Constant(bits) => f64::from_bits(bits) > 0.0,
            Node::Unary(Unary::Exp | Unary::Softplus | Unary::Sigmoid | Unary::Sqrt, _) => true,
            Node::Binary(Binary::Add | Binary::Multiply | Binary::Divide, a, b) => {
                self.is_positive(a) && self.is_positive(b)
            }
            _ => false,
        };
        let id = Id(self.nodes.len() as u32);
        self.nodes.push(node);
        self.positive.push(positive);
        self.parameters.push(parameters);
        self.inputs.push(inputs);
        self.index.insert(node, id);
        id
    }

    /// A number.
    pub fn constant(&mut self, value: f64) -> Id {
        // One zero: −0 would hide from the rewrites below.
        self.intern(Node::Constant(if value == 0.0 { 0.0f64 } else { value }.to_bits()))
    }

    /// Input `k`.
    pub fn input(&mut self, k: usize) -> Id {
        self.intern(Node::Input(k as u32))
    }

    /// Parameter `j`, below [`MOST_PARAMETERS`].
    pub fn parameter(&mut self, j: usize) -> Id {
        assert!(j < MOST_PARAMETERS, "the law's reader limits the parameters");
        self.intern(Node::Parameter(j as u32))
    }

    fn is(&self, id: Id, value: f64) -> bool {
        self.constant_value(id) == Some(value)
    }

    fn negated(&self, id: Id) -> Option<Id> {
        match self.node(id) {
            Node::Unary(Unary::Negate, a) => Some(a),
            _ => None,
        }
    }

    fn exponent(&self, id: Id) -> Option<Id> {
        match self.node(id) {
            Node::Unary(Unary::Exp, a) => Some(a),
            _ => None,
        }
    }

    /// `g` of a node `1 + exp(g)`.
    fn one_plus_exponential(&self, id: Id) -> Option<Id> {
        let Node::Binary(Binary::Add, a, b) = self.node(id) else { return None };
        match (self.is(a, 1.0), self.is(b, 1.0)) {
            (true, _) => self.exponent(b),
            (_, true) => self.exponent(a),
            _ => None,
        }
    }

    /// Whether a node is positive wherever it is finite.
    fn is_positive(&self, id: Id) -> bool {
        self.positive[id.index()]
    }

    /// `-a`
    pub fn negate(&mut self, a: Id) -> Id {
        match self.node(a) {
            Node::Constant(bits) => self.constant(-f64::from_bits(bits)),
            Node::Unary(Unary::Negate, inner) => inner,
            Node::Binary(Binary::Subtract, b, c) => self.subtract(c, b),
            _ => self.intern(Node::Unary(Unary::Negate, a)),
        }
    }

    /// `a + b`
    pub fn add(&mut self, a: Id, b: Id) -> Id {
        if let (Some(x), Some(y)) = (self.constant_value(a), self.constant_value(b)) {
            return self.constant(x + y);
        }
        if self.is(a, 0.0) {
            return b;
        }
        if self.is(b, 0.0) {
            return a;
        }
        if let Some(inner) = self.negated(b) {
            return self.subtract(a, inner);
        }
        if let Some(inner) = self.negated(a) {
            return self.subtract(b, inner);
        }
        self.intern(Node::Binary(Binary::Add, a.min(b), a.max(b)))
    }

    /// `a - b`
    pub fn subtract(&mut self, a: Id, b: Id) -> Id {
        if let (Some(x), Some(y)) = (self.constant_value(a), self.constant_value(b)) {
            return self.constant(x - y);
        }
        if self.is(b, 0.0) {
            return a;
        }
        if self.is(a, 0.0) {
            return self.negate(b);
        }
        if a == b {
            return self.constant(0.0);
        }
        if let Some(inner) = self.negated(b) {
            return self.add(a, inner);
        }
        self.intern(Node::Binary(Binary::Subtract, a, b))
    }

    /// `a * b`
    pub fn multiply(&mut self, a: Id, b: Id) -> Id {
        let (a, b) = (a.min(b), a.max(b));
        if let (Some(x), Some(y)) = (self.constant_value(a), self.constant_value(b)) {
            return self.constant(x * y);
        }
        for (c, other) in [(a, b), (b, a)] {
            match self.constant_value(c) {
                Some(0.0) => return c,
                Some(1.0) => return other,
                Some(-1.0) => return self.negate(other),
                Some(x) => {
                    if let Node::Binary(Binary::Multiply, p, q) = self.node(other) {
                        for (p, q) in [(p, q), (q, p)] {
                            if let Some(y) = self.constant_value(p) {
                                let folded = self.constant(x * y);
                                return self.multiply(folded, q);
                            }
                        }
                    }
                }
                None => {}
            }
        }
        for (c, other) in [(a, b), (b, a)] {
            if let Some(inner) = self.negated(c) {
                let product = self.multiply(inner, other);
                return self.negate(product);
            }
            if let Node::Binary(Binary::Divide, numerator, denominator) = self.node(c)
                && self.is(numerator, 1.0)
            {
                return self.divide(other, denominator);
            }
            if let Some(g) = self.exponent(c) {
                if let Some(k) = self.exponent(other) {
                    let sum = self.add(g, k);
                    return self.unary(Unary::Exp, sum);
                }
                if let Node::Binary(Binary::Multiply, p, q) = self.node(other) {
                    for (p, q) in [(p, q), (q, p)] {
                        if self.exponent(p).is_some() {
                            let merged = self.multiply(p, c);
                            return self.multiply(q, merged);
                        }
                    }
                }
            }
        }
        self.intern(Node::Binary(Binary::Multiply, a, b))
    }

    /// `a / b`
    pub fn divide(&mut self, a: Id, b: Id) -> Id {
        if let (Some(x), Some(y)) = (self.constant_value(a), self.constant_value(b)) {
            return self.constant(x / y);
        }
        if self.is(a, 0.0) {
            return a;
        }
        if self.is(b, 1.0) {
            return a;
        }
        if self.is(b, -1.0) {
            return self.negate(a);
        }
        if a == b {
            return self.constant(1.0);
        }
        if let Some(inner) = self.negated(a) {
            let quotient = self.divide(inner, b);
            return self.negate(quotient);
        }
        if let Some(inner) = self.negated(b) {
            let quotient = self.divide(a, inner);
            return self.negate(quotient);
        }
        if let Some(g) = self.exponent(b) {
            let negated = self.negate(g);
            let inverse = self.unary(Unary::Exp, negated);
            return self.multiply(a, inverse);
        }
        if let Some(g) = self.one_plus_exponential(b) {
            let negated = self.negate(g);
            let sigmoid = self.unary(Unary::Sigmoid, negated);
            return self.multiply(a, sigmoid);
        }
        self.intern(Node::Binary(Binary::Divide, a, b))
    }

    /// `a ^ b`: products for integer constants, a root for one half, `exp(b log a)` else.
    pub fn power(&mut self, a: Id, b: Id) -> Id {
        if let Some(exponent) = self.constant_value(b) {
            if let Some(base) = self.constant_value(a) {
                return self.constant(base.powf(exponent));
            }
            if exponent == 0.5 {
                return self.unary(Unary::Sqrt, a);
            }
            if exponent.fract() == 0.0 && exponent.abs() <= 64.0 {
                let positive = self.integer_power(a, exponent.abs() as u32);
                if exponent >= 0.0 {
                    return positive;
                }
                let one = self.constant(1.0);
                return self.divide(one, positive);
            }
        }
        if self.is(a, 1.0) {
            return a;
        }
        let log = self.log_of_base(a);
        let exponent = self.multiply(b, log);
        self.unary(Unary::Exp, exponent)
    }

    fn integer_power(&mut self, a: Id, n: u32) -> Id {
        match n {
            0 => self.constant(1.0),
            1 => a,
            _ => {
                let half = self.integer_power(a, n / 2);
                let square = self.multiply(half, half);
                if n % 2 == 1 { self.multiply(square, a) } else { square }
            }
        }
    }

    /// `log a` for the base of a non-integer power, which has to be positive: a quotient or product of something measured
    /// and something fitted is split, so that `log x` is computed once from the data.
    fn log_of_base(&mut self, a: Id) -> Id {
        if let Node::Binary(operator @ (Binary::Multiply | Binary::Divide), p, q) = self.node(a) {
            let measured = |id: Id| self.parameters(id) == 0;
            let fitted = |id: Id| !self.uses_inputs(id);
            if measured(p) && fitted(q) || fitted(p) && measured(q) {
                let (p, q) = (self.log_of_base(p), self.log_of_base(q));
                return if operator == Binary::Multiply { self.add(p, q) } else { self.subtract(p, q) };
            }
        }
        self.unary(Unary::Log, a)
    }

    /// A function of one argument.
    pub fn unary(&mut self, operator: Unary, a: Id) -> Id {
        if let Some(value) = self.constant_value(a) {
            return self.constant(operator.apply(value));
        }
        match operator {
            Unary::Negate => self.negate(a),
            Unary::Log => self.log(a),
            _ => self.intern(Node::Unary(operator, a)),
        }
    }

    fn log(&mut self, a: Id) -> Id {
        if let Some(g) = self.exponent(a) {
            return g;
        }
        if let Some(g) = self.one_plus_exponential(a) {
            return self.unary(Unary::Softplus, g);
        }
        match self.node(a) {
            Node::Unary(Unary::Sqrt, b) => {
                let (half, log) = (self.constant(0.5), self.unary(Unary::Log, b));
                self.multiply(half, log)
            }
            Node::Unary(Unary::Sigmoid, g) => {
                let negated = self.negate(g);
                let softplus = self.unary(Unary::Softplus, negated);
                self.negate(softplus)
            }
            // Only where the sign of the product is the sign of one factor: two negative factors have no logarithms.
            // Powers of powers: the logarithm of a square is made once, not twice at every level.
            Node::Binary(Binary::Multiply, p, q) if p == q && self.is_positive(p) => {
                let (two, log) = (self.constant(2.0), self.unary(Unary::Log, p));
                self.multiply(two, log)
            }
            Node::Binary(Binary::Multiply, p, q) if self.is_positive(p) || self.is_positive(q) => {
                let (p, q) = (self.unary(Unary::Log, p), self.unary(Unary::Log, q));
                self.add(p, q)
            }
            Node::Binary(Binary::Divide, p, q) if self.is_positive(p) || self.is_positive(q) => {
                let (p, q) = (self.unary(Unary::Log, p), self.unary(Unary::Log, q));
                self.subtract(p, q)
            }
            _ => self.intern(Node::Unary(Unary::Log, a)),
        }
    }

    /// The smaller of two.
    pub fn minimum(&mut self, a: Id, b: Id) -> Id {
        self.extremum(Binary::Minimum, a, b)
    }

    /// The larger of two.
    pub fn maximum(&mut self, a: Id, b: Id) -> Id {
        self.extremum(Binary::Maximum, a, b)
    }

    fn extremum(&mut self, operator: Binary, a: Id, b: Id) -> Id {
        if let (Some(x), Some(y)) = (self.constant_value(a), self.constant_value(b)) {
            return self.constant(operator.apply(x, y));
        }
        if a == b { a } else { self.intern(Node::Binary(operator, a.min(b), a.max(b))) }
    }

    /// Any operator of two arguments, simplified.
    pub fn binary(&mut self, operator: Binary, a: Id, b: Id) -> Id {
        match operator {
            Binary::Add => self.add(a, b),
            Binary::Subtract => self.subtract(a, b),
            Binary::Multiply => self.multiply(a, b),
            Binary::Divide => self.divide(a, b),
            Binary::Minimum | Binary::Maximum => self.extremum(operator, a, b),
        }
    }

    /// Copies `roots` with nodes replaced: `replace` is asked first for every node (children before parents) and may answer
    /// with its stand-in; other nodes are made again from their replaced children, and so simplified again.
    pub fn substitute(&mut self, roots: &[Id], mut replace: impl FnMut(&mut Graph, Id) -> Option<Id>) -> Vec<Id> {
        let mut image: HashMap<Id, Id> = HashMap::new();
        for id in self.reachable(roots) {
            let stand_in = match replace(self, id) {
                Some(stand_in) => stand_in,
                None => match self.node(id) {
                    Node::Unary(operator, a) => self.unary(operator, image[&a]),
                    Node::Binary(operator, a, b) => self.binary(operator, image[&a], image[&b]),
                    _ => id,
                },
            };
            image.insert(id, stand_in);
        }
        roots.iter().map(|root| image[root]).collect()
    }

    /// The value of `id` in plain f64 with the standard library's functions: the reference for every evaluator.
    pub fn evaluate(&self, id: Id, inputs: &[f64], parameters: &[f64]) -> f64 {
        let mut values: HashMap<Id, f64> = HashMap::new();
        for node in self.reachable(&[id]) {
            let value = match self.node(node) {
                Node::Constant(bits) => f64::from_bits(bits),
                Node::Input(k) => inputs[k as usize],
                Node::Parameter(j) => parameters[j as usize],
                Node::Unary(operator, a) => operator.apply(values[&a]),
                Node::Binary(operator, a, b) => operator.apply(values[&a], values[&b]),
            };
            values.insert(node, value);
        }
        values[&id]
    }
}

/// Sums with more addends than this are not taken apart: brackets multiply out to any number of them.
const MOST_ADDENDS: usize = 256;

/// Products and sums taken apart.
impl Graph {
    /// The addends of a node with their signs, products distributed over sums: `-a*(u - v)` gives `-a*u` and `+a*v`. What
    /// would give more than 256 is one addend.
    pub fn addends(&mut self, id: Id) -> Vec<(f64, Id)> {
        let mut known: HashMap<Id, Vec<(f64, Id)>> = HashMap::new();
        // Children before parents, so that long sums need no deep recursion and shared parts are taken apart once.
        for node in self.reachable(&[id]) {
            let whole = vec![(1.0, node)];
            let terms = match self.node(node) {
                Node::Unary(Unary::Negate, a) => flip(&known[&a]),
                Node::Binary(Binary::Add, a, b) => [&known[&a][..], &known[&b]].concat(),
                Node::Binary(Binary::Subtract, a, b) => [known[&a].clone(), flip(&known[&b])].concat(),
                Node::Binary(Binary::Multiply, a, b) if known[&a].len() * known[&b].len() <= MOST_ADDENDS => {
                    let mut terms = Vec::with_capacity(known[&a].len() * known[&b].len());
                    for &(left_sign, left_term) in &known[&a] {
                        for &(right_sign, right_term) in &known[&b] {
                            terms.push((left_sign * right_sign, self.multiply(left_term, right_term)));
                        }
                    }
                    terms
                }
                Node::Binary(Binary::Divide, a, b) => {
                    known[&a].iter().map(|&(sign, term)| (sign, self.divide(term, b))).collect()
                }
                _ => whole.clone(),
            };
            known.insert(node, if terms.len() <= MOST_ADDENDS { terms } else { whole });
        }
        known.remove(&id).expect("a node reaches itself")
    }

    /// The different factors of a node above and below the fraction bar, in order of appearance.
    pub fn factors(&self, id: Id) -> (Vec<Id>, Vec<Id>) {
        let (mut over, mut under) = (Vec::new(), Vec::new());
        let (mut seen, mut open) = (HashSet::new(), vec![(id, true)]);
        while let Some((node, above)) = open.pop() {
            if !seen.insert((node, above)) {
                continue;
            }
            match self.node(node) {
                Node::Unary(Unary::Negate, a) => open.push((a, above)),
                Node::Binary(Binary::Multiply, a, b) => open.extend([(b, above), (a, above)]),
                Node::Binary(Binary::Divide, a, b) => open.extend([(b, !above), (a, above)]),
                _ if above => over.push(node),
                _ => under.push(node),
            }
        }
        (over, under)
    }
}

fn flip(terms: &[(f64, Id)]) -> Vec<(f64, Id)> {
    terms.iter().map(|&(sign, term)| (-sign, term)).collect()
}
