//! Graph to WGSL: straight-line f32 functions with shared subterms.
//!
//! In: nodes of a [`Graph`]. Out: text of one function that calls the operators of `shaders/operators.wgsl`. WGSL may be
//! compiled as if NaN and infinity never occurred, so every function reports by a flag whether its values can be trusted:
//! arguments outside an operator's domain and values beyond 1e37 clear it.

use crate::formula::graph::{Binary, Graph, Id, Node, Unary};
use std::collections::HashSet;
use std::fmt::Write;

/// The operators and the tests of magnitudes, a named part of every shader.
pub const OPERATORS: &str = include_str!("../../shaders/operators.wgsl");

/// The name of an operator's function in [`OPERATORS`].
pub fn operator_name(operator: Unary) -> &'static str {
    match operator {
        Unary::Negate => "operator_negate",
        Unary::Exp => "operator_exp",
        Unary::Log => "operator_log",
        Unary::Log1p => "operator_log1p",
        Unary::Expm1 => "operator_expm1",
        Unary::Sqrt => "operator_sqrt",
        Unary::Abs => "operator_abs",
        Unary::Sin => "operator_sin",
        Unary::Cos => "operator_cos",
        Unary::Tan => "operator_tan",
        Unary::Atan => "operator_atan",
        Unary::Tanh => "operator_tanh",
        Unary::Softplus => "operator_softplus",
        Unary::Sigmoid => "operator_sigmoid",
        Unary::Step => "operator_step",
    }
}

/// One function `name(u: Inputs, z: Coordinates, …, trusted: ptr<function, bool>) -> f32` that returns the value of
/// `result` and writes those of `outputs` through the pointer `output_name`, an array of `output_type`.
pub struct Function<'a> {
    /// What the text calls it.
    pub name: &'a str,
    /// The node whose value is returned.
    pub result: Id,
    /// Nodes written through a pointer.
    pub outputs: &'a [Id],
    /// Name and type of the array that takes the outputs; unused where there are none.
    pub output: (&'a str, &'a str),
}

impl Function<'_> {
    /// The function's text.
    pub fn emit(&self, graph: &Graph) -> String {
        let (output_name, output_type) = self.output;
        let mut text = format!("fn {}(u: Inputs, z: Coordinates, ", self.name);
        if !self.outputs.is_empty() {
            let _ = write!(text, "{output_name}: ptr<function, {output_type}>, ");
        }
        text.push_str("trusted: ptr<function, bool>) -> f32 {\n    var tame = true;\n");
        let mut roots = vec![self.result];
        roots.extend(self.outputs);
        let mut body = Body { graph, text, checked: HashSet::new() };
        for id in graph.reachable(&roots) {
            body.statement(id);
        }
        for &root in &roots {
            body.require("is_tame", root);
        }
        let mut text = body.text;
        for (k, id) in self.outputs.iter().enumerate() {
            let _ = writeln!(text, "    (*{output_name})[{k}] = {};", operand(graph, *id));
        }
        let _ = write!(text, "    *trusted = *trusted & tame;\n    return {};\n}}\n", operand(graph, self.result));
        text
    }
}

struct Body<'a> {
    graph: &'a Graph,
    text: String,
    checked: HashSet<(&'static str, Id)>,
}

impl Body<'_> {
    fn statement(&mut self, id: Id) {
        match self.graph.node(id) {
            Node::Constant(_) | Node::Input(_) | Node::Parameter(_) => {}
            Node::Unary(operator, a) => {
                match operator {
                    Unary::Log => self.require("is_tame_positive", a),
                    Unary::Log1p => {
                        let one_more = format!("1.0f + {}", operand(self.graph, a));
                        let _ = writeln!(self.text, "    tame = tame & is_tame_positive({one_more});");
                    }
                    Unary::Sqrt => {
                        self.require("is_tame", a);
                        let _ = writeln!(self.text, "    tame = tame & ({} >= 0.0f);", operand(self.graph, a));
                    }
                    Unary::Sin | Unary::Cos | Unary::Tan => self.require("is_tame_angle", a),
                    // What hides an infinity or a NaN in its argument.
                    Unary::Exp
                    | Unary::Expm1
                    | Unary::Atan
                    | Unary::Tanh
                    | Unary::Softplus
                    | Unary::Sigmoid
                    | Unary::Step => self.require("is_tame", a),
                    Unary::Negate | Unary::Abs => {}
                }
                let a = operand(self.graph, a);
                let _ = match operator {
                    Unary::Negate => writeln!(self.text, "    let v{} = -{a};", id.index()),
                    _ => writeln!(self.text, "    let v{} = {}({a});", id.index(), operator_name(operator)),
                };
            }
            Node::Binary(operator, a, b) => {
                match operator {
                    Binary::Divide => self.require("is_tame_divisor", b),
                    Binary::Minimum | Binary::Maximum => {
                        self.require("is_tame", a);
                        self.require("is_tame", b);
                    }
                    Binary::Add | Binary::Subtract | Binary::Multiply => {}
                }
                let (a, b) = (operand(self.graph, a), operand(self.graph, b));
                let value = match operator {
                    Binary::Add => format!("{a} + {b}"),
                    Binary::Subtract => format!("{a} - {b}"),
                    Binary::Multiply => format!("{a} * {b}"),
                    Binary::Divide => format!("{a} / {b}"),
                    Binary::Minimum => format!("min({a}, {b})"),
                    Binary::Maximum => format!("max({a}, {b})"),
                };
                let _ = writeln!(self.text, "    let v{} = {value};", id.index());
            }
        }
    }

    /// Clears the flag unless `test` holds for the node.
    fn require(&mut self, test: &'static str, id: Id) {
        if self.always_tame(id) && test == "is_tame" || !self.checked.insert((test, id)) {
            return;
        }
        let _ = writeln!(self.text, "    tame = tame & {test}({});", operand(self.graph, id));
    }

    /// Whether a node cannot be beyond 1e37: the host and the refinement keep inputs and coordinates below it, and these
    /// operators are bounded.
    fn always_tame(&self, id: Id) -> bool {
        match self.graph.node(id) {
            Node::Constant(bits) => f64::from_bits(bits).abs() < LARGEST,
            Node::Input(_) | Node::Parameter(_) => true,
            Node::Unary(
                Unary::Log | Unary::Sin | Unary::Cos | Unary::Atan | Unary::Tanh | Unary::Sigmoid | Unary::Step,
                _,
            ) => true,
            Node::Unary(Unary::Negate | Unary::Abs | Unary::Sqrt, a) => self.always_tame(a),
            _ => false,
        }
    }
}

/// Where f32 begins to be untrusted: beyond it a product with a small number may overflow (`LARGEST_BITS` in WGSL).
pub const LARGEST: f64 = 1e37;

fn operand(graph: &Graph, id: Id) -> String {
    match graph.node(id) {
        Node::Constant(bits) => literal(f64::from_bits(bits)),
        Node::Input(k) => format!("u[{k}]"),
        Node::Parameter(j) => format!("z[{j}]"),
        Node::Unary(..) | Node::Binary(..) => format!("v{}", id.index()),
    }
}

/// An f32 literal; what f32 cannot hold is written at the edge of its range, where the magnitude tests refuse it.
pub fn literal(value: f64) -> String {
    let clamped = if value.is_nan() { f32::MAX } else { value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32 };
    let normal = if clamped.is_subnormal() { 0.0 } else { clamped };
    let text = format!("{normal:e}f");
    if normal < 0.0 { format!("({text})") } else { text }
}
