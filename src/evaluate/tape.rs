//! Block tape: a graph as a list of operations over blocks of points, eight curves side by side.
//!
//! In: graph nodes; then, block by block, input columns and one set of parameters per lane. Out: the nodes' values. Value
//! `point * LANES + lane` belongs to one curve per lane, so that everything that a fit does, the small linear algebra too,
//! runs eight curves per instruction. The dispatch is paid once per block, not per point.

use super::elementary;
use super::instruction_set::kernel;
use crate::formula::graph::{Binary, Graph, Id, Node, Unary};
use std::collections::HashMap;

/// Curves side by side: one AVX-512 register of f64.
pub const LANES: usize = 8;
/// Points per block: a register of the tape is 2 KiB, a typical tape stays within the first-level cache.
pub const POINTS: usize = 32;
/// Values per register.
pub const BLOCK: usize = LANES * POINTS;

/// One value per lane.
pub type Lane = [f64; LANES];

/// Length of [`repeat`].
pub const REPEATED: usize = 8 * LANES;

/// One value per lane, repeated: beside a block it makes a loop over plain arrays, which the compiler turns into vector
/// instructions, while of a loop over points with one over lanes inside it makes gathers.
#[inline(always)]
pub fn repeat(lane: &Lane) -> [f64; REPEATED] {
    let mut repeated = [0.0; REPEATED];
    for part in repeated.as_chunks_mut::<LANES>().0 {
        *part = *lane;
    }
    repeated
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Source {
    /// The same value at every point of a lane: parameters, constants and what is computed of them.
    Uniform(u32),
    /// A column of the data.
    Input(u32),
    /// A block register.
    Register(u32),
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    Unary(Unary),
    Binary(Binary),
    /// a·a, which the graph writes as a product.
    Square,
}

#[derive(Debug, Clone, Copy)]
struct Operation {
    operator: Operator,
    a: Source,
    b: Source,
    target: u32,
}

/// Compiled nodes.
#[derive(Debug, Clone)]
pub struct Tape {
    /// Uniforms `0..parameters` are the parameters; then the constants; then results of `uniform_operations`.
    parameters: usize,
    constants: Vec<f64>,
    uniform_operations: Vec<Operation>,
    uniforms: usize,
    operations: Vec<Operation>,
    registers: usize,
    outputs: Vec<Source>,
}

/// Memory that a tape works in; reusable between tapes.
#[derive(Debug, Default)]
pub struct Scratch {
    uniforms: Vec<Lane>,
    registers: Vec<f64>,
    /// Outputs that are uniform are spread here, so that callers read every output alike.
    spread: Vec<f64>,
}

impl Tape {
    /// Compiles `outputs` of a graph with `parameters` parameters.
    pub fn compile(graph: &Graph, outputs: &[Id], parameters: usize) -> Tape {
        let order = graph.reachable(outputs);
        let mut last_use: HashMap<Id, usize> = HashMap::new();
        for (position, &id) in order.iter().enumerate() {
            for child in graph.children(id) {
                last_use.insert(child, position);
            }
        }
        for &id in outputs {
            last_use.insert(id, usize::MAX);
        }
        let mut tape = Tape {
            parameters,
            constants: Vec::new(),
            uniform_operations: Vec::new(),
            uniforms: parameters,
            operations: Vec::new(),
            registers: 0,
            outputs: Vec::new(),
        };
        let mut place: HashMap<Id, Source> = HashMap::new();
        for &id in &order {
            if let Some(value) = graph.constant_value(id) {
                place.insert(id, Source::Uniform((parameters + tape.constants.len()) as u32));
                tape.constants.push(value);
            }
        }
        let divisions = shared_divisors(graph, &order);
        let one = Source::Uniform((parameters + tape.constants.len()) as u32);
        if !divisions.is_empty() {
            tape.constants.push(1.0);
        }
        let mut reciprocals: HashMap<Id, u32> = HashMap::new();
        tape.uniforms += tape.constants.len();
        let mut free: Vec<u32> = Vec::new();
        for (position, &id) in order.iter().enumerate() {
            let (operator, a, b) = match graph.node(id) {
                Node::Constant(_) => continue,
                Node::Input(k) => {
                    place.insert(id, Source::Input(k));
                    continue;
                }
                Node::Parameter(j) => {
                    place.insert(id, Source::Uniform(j));
                    continue;
                }
                Node::Unary(operator, a) => (Operator::Unary(operator), place[&a], place[&a]),
                Node::Binary(Binary::Multiply, a, b) if a == b => (Operator::Square, place[&a], place[&a]),
                Node::Binary(operator, a, b) => (Operator::Binary(operator), place[&a], place[&b]),
            };
            if !graph.uses_inputs(id) {
                let target = tape.uniforms as u32;
                tape.uniforms += 1;
                tape.uniform_operations.push(Operation { operator, a, b, target });
                place.insert(id, Source::Uniform(target));
                continue;
            }
            let mut take = || {
                free.pop().unwrap_or_else(|| {
                    tape.registers += 1;
                    (tape.registers - 1) as u32
                })
            };
            let mut operation = Operation { operator, a, b, target: 0 };
            let mut outlived = None;
            if let Node::Binary(Binary::Divide, _, divisor) = graph.node(id)
                && let Some(&last) = divisions.get(&divisor)
            {
                let reciprocal = *reciprocals.entry(divisor).or_insert_with(|| {
                    let target = take();
                    let operator = Operator::Binary(Binary::Divide);
                    tape.operations.push(Operation { operator, a: one, b, target });
                    target
                });
                operation.operator = Operator::Binary(Binary::Multiply);
                operation.b = Source::Register(reciprocal);
                outlived = (last == position).then_some(reciprocal);
            }
            // The target is taken before the operands are released: an operation never overwrites what it reads.
            operation.target = take();
            tape.operations.push(operation);
            place.insert(id, Source::Register(operation.target));
            free.extend(outlived);
            let mut children: Vec<Id> = graph.children(id).collect();
            children.dedup();
            for child in children {
                if last_use[&child] == position
                    && let Source::Register(register) = place[&child]
                {
                    free.push(register);
                }
            }
        }
        tape.outputs = outputs.iter().map(|id| place[id]).collect();
        tape
    }

    /// How many outputs there are.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// Computes what depends on parameters alone; `parameters[j]` holds one value per lane.
    #[inline(always)]
    pub fn prepare<const SET: u8>(&self, scratch: &mut Scratch, parameters: &[Lane]) {
        scratch.uniforms.resize(self.uniforms.max(scratch.uniforms.len()), [0.0; LANES]);
        scratch.registers.resize((self.registers * BLOCK).max(scratch.registers.len()), 0.0);
        scratch.spread.resize((self.outputs.len() * BLOCK).max(scratch.spread.len()), 0.0);
        scratch.uniforms[..self.parameters].copy_from_slice(&parameters[..self.parameters]);
        for (slot, &value) in scratch.uniforms[self.parameters..].iter_mut().zip(&self.constants) {
            *slot = [value; LANES];
        }
        for operation in &self.uniform_operations {
            let value = |source: Source| match source {
                Source::Uniform(u) => scratch.uniforms[u as usize],
                Source::Input(_) | Source::Register(_) => unreachable!("a uniform operation reads uniforms"),
            };
            let (a, b) = (value(operation.a), value(operation.b));
            let mut result = [0.0; LANES];
            apply_uniform::<SET>(operation.operator, &mut result, &a, &b);
            scratch.uniforms[operation.target as usize] = result;
        }
        for (slot, &output) in self.outputs.iter().enumerate() {
            if let Source::Uniform(u) = output {
                let value = scratch.uniforms[u as usize];
                for point in scratch.spread[slot * BLOCK..(slot + 1) * BLOCK].chunks_exact_mut(LANES) {
                    point.copy_from_slice(&value);
                }
            }
        }
    }

    /// Computes all outputs over points `first..first + points` (at most [`POINTS`]); column k of the data is
    /// `inputs[k * stride..]`, `stride` values long. [`Tape::prepare`] comes first.
    #[inline(always)]
    pub fn run<const SET: u8>(
        &self,
        scratch: &mut Scratch,
        inputs: &[f64],
        stride: usize,
        first: usize,
        points: usize,
    ) {
        run_kernel::<SET>(self, scratch, inputs, stride, first, points);
    }

    /// The values of output `slot` after [`Tape::run`] with the same arguments.
    #[inline(always)]
    pub fn output<'a>(
        &self,
        slot: usize,
        scratch: &'a Scratch,
        inputs: &'a [f64],
        stride: usize,
        first: usize,
        points: usize,
    ) -> &'a [f64] {
        let length = points * LANES;
        match self.outputs[slot] {
            Source::Uniform(_) => &scratch.spread[slot * BLOCK..][..length],
            Source::Input(k) => &inputs[k as usize * stride + first * LANES..][..length],
            Source::Register(r) => &scratch.registers[r as usize * BLOCK..][..length],
        }
    }

    /// Whether output `slot` is one constant.
    pub fn constant_output(&self, slot: usize) -> Option<f64> {
        match self.outputs[slot] {
            Source::Uniform(u) => {
                (u as usize).checked_sub(self.parameters).and_then(|c| self.constants.get(c).copied())
            }
            _ => None,
        }
    }
}

/// What more than one node is divided by, with the position of the last of them: a division takes as long as ten products, so
/// one gives the reciprocal and products the rest.
fn shared_divisors(graph: &Graph, order: &[Id]) -> HashMap<Id, usize> {
    let mut found: HashMap<Id, (usize, usize)> = HashMap::new();
    for (position, &id) in order.iter().enumerate() {
        if let Node::Binary(Binary::Divide, _, divisor) = graph.node(id)
            && graph.uses_inputs(divisor)
        {
            let (count, last) = found.entry(divisor).or_default();
            (*count, *last) = (*count + 1, position);
        }
    }
    found.into_iter().filter(|(_, (count, _))| *count > 1).map(|(divisor, (_, last))| (divisor, last)).collect()
}

kernel!(
    fn run_kernel(tape: &Tape, scratch: &mut Scratch, inputs: &[f64], stride: usize, first: usize, points: usize) = run_generic;
);

#[inline(always)]
fn run_generic<const SET: u8>(
    tape: &Tape,
    scratch: &mut Scratch,
    inputs: &[f64],
    stride: usize,
    first: usize,
    points: usize,
) {
    let length = points * LANES;
    let offset = first * LANES;
    let Scratch { uniforms, registers, .. } = scratch;
    for operation in &tape.operations {
        let target = operation.target as usize * BLOCK;
        // Target and operands are different registers: split the file around the target.
        let (below, rest) = registers.split_at_mut(target);
        let (result, above) = rest.split_at_mut(BLOCK);
        let files = Files { uniforms, inputs, stride, offset, length, below, above, target };
        let (a, b) = (files.operand(operation.a), files.operand(operation.b));
        apply::<SET>(operation.operator, &mut result[..length], a, b);
    }
}

kernel!(
    fn apply_uniform(operator: Operator, result: &mut Lane, a: &Lane, b: &Lane) = apply_uniform_generic;
);

#[inline(always)]
fn apply_uniform_generic<const SET: u8>(operator: Operator, result: &mut Lane, a: &Lane, b: &Lane) {
    apply::<SET>(operator, result, Operand::Block(a), Operand::Block(b));
}

/// Where an operation finds its operands: the register file is split around the target.
struct Files<'a> {
    uniforms: &'a [Lane],
    inputs: &'a [f64],
    stride: usize,
    offset: usize,
    length: usize,
    below: &'a [f64],
    above: &'a [f64],
    target: usize,
}

impl<'a> Files<'a> {
    #[inline(always)]
    fn operand(&self, source: Source) -> Operand<'a> {
        match source {
            Source::Uniform(u) => Operand::Uniform(&self.uniforms[u as usize]),
            Source::Input(k) => Operand::Block(&self.inputs[k as usize * self.stride + self.offset..][..self.length]),
            Source::Register(r) => {
                let start = r as usize * BLOCK;
                let file =
                    if start < self.target { &self.below[start..] } else { &self.above[start - self.target - BLOCK..] };
                Operand::Block(&file[..self.length])
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Operand<'a> {
    Uniform(&'a Lane),
    Block(&'a [f64]),
}

/// `map!(result, a, |x| value)`: one operation on every number. A macro, since a closure that is left out of line loses the
/// vector instructions, and pays a call per number.
macro_rules! map {
    ($result:expr, $a:expr, |$x:ident| $value:expr) => {
        match $a {
            Operand::Block(a) => {
                for (r, &$x) in $result.iter_mut().zip(a) {
                    *r = $value;
                }
            }
            Operand::Uniform(_) => unreachable!("what depends on parameters alone is computed by prepare"),
        }
    };
}

/// `combine!(result, a, b, |x, y| value)`: the same for operations on two.
macro_rules! combine {
    ($result:expr, $a:expr, $b:expr, |$x:ident, $y:ident| $value:expr) => {
        match ($a, $b) {
            (Operand::Block(a), Operand::Block(b)) => {
                for ((r, &$x), &$y) in $result.iter_mut().zip(a).zip(b) {
                    *r = $value;
                }
            }
            (Operand::Block(a), Operand::Uniform(b)) => {
                let b = repeat(b);
                for (r, x) in $result.chunks_mut(REPEATED).zip(a.chunks(REPEATED)) {
                    for ((r, &$x), &$y) in r.iter_mut().zip(x).zip(&b) {
                        *r = $value;
                    }
                }
            }
            (Operand::Uniform(a), Operand::Block(b)) => {
                let a = repeat(a);
                for (r, y) in $result.chunks_mut(REPEATED).zip(b.chunks(REPEATED)) {
                    for ((r, &$x), &$y) in r.iter_mut().zip(&a).zip(y) {
                        *r = $value;
                    }
                }
            }
            (Operand::Uniform(_), Operand::Uniform(_)) => {
                unreachable!("what depends on parameters alone is computed by prepare")
            }
        }
    };
}

#[inline(always)]
fn apply<const SET: u8>(operator: Operator, result: &mut [f64], a: Operand, b: Operand) {
    match operator {
        Operator::Square => map!(result, a, |x| x * x),
        Operator::Binary(operator) => match operator {
            Binary::Add => combine!(result, a, b, |x, y| x + y),
            Binary::Subtract => combine!(result, a, b, |x, y| x - y),
            Binary::Multiply => combine!(result, a, b, |x, y| x * y),
            Binary::Divide => combine!(result, a, b, |x, y| x / y),
            Binary::Minimum => combine!(result, a, b, |x, y| if y < x { y } else { x }),
            Binary::Maximum => combine!(result, a, b, |x, y| if y > x { y } else { x }),
        },
        Operator::Unary(operator) => match operator {
            Unary::Negate => map!(result, a, |x| -x),
            Unary::Exp => map!(result, a, |x| elementary::exp::<SET>(x)),
            Unary::Log => match a {
                Operand::Block(block) if elementary::are_normal(block) => {
                    map!(result, a, |x| elementary::log_of_normal::<SET>(x));
                }
                _ => map!(result, a, |x| elementary::log::<SET>(x)),
            },
            Unary::Log1p => map!(result, a, |x| elementary::log1p::<SET>(x)),
            Unary::Sqrt => map!(result, a, |x| x.sqrt()),
            Unary::Abs => map!(result, a, |x| x.abs()),
            Unary::Softplus => map!(result, a, |x| elementary::softplus::<SET>(x)),
            Unary::Sigmoid => map!(result, a, |x| elementary::sigmoid::<SET>(x)),
            Unary::Step => map!(result, a, |x| if x > 0.0 { 1.0 } else { 0.0 }),
            // Rare in laws: the standard library's, one lane at a time.
            Unary::Expm1 | Unary::Sin | Unary::Cos | Unary::Tan | Unary::Atan | Unary::Tanh => {
                map!(result, a, |x| operator.apply(x))
            }
        },
    }
}

/// Evaluates `outputs` row by row over plain columns, the rows taking the places of lanes and points.
pub fn map_columns(tape: &Tape, columns: &[&[f64]], rows: usize) -> Vec<Vec<f64>> {
    let mut results: Vec<Vec<f64>> = (0..tape.outputs()).map(|_| Vec::with_capacity(rows)).collect();
    map_columns_into(tape, columns, rows, &mut results);
    results
}

kernel!(
    fn map_columns_into, fn map_columns_kernel(tape: &Tape, columns: &[&[f64]], rows: usize, results: &mut [Vec<f64>]) = map_columns_generic;
);

#[inline(always)]
fn map_columns_generic<const SET: u8>(tape: &Tape, columns: &[&[f64]], rows: usize, results: &mut [Vec<f64>]) {
    let mut scratch = Scratch::default();
    tape.prepare::<SET>(&mut scratch, &[]);
    let mut inputs = vec![1.0; columns.len() * BLOCK];
    for start in (0..rows).step_by(BLOCK) {
        let length = BLOCK.min(rows - start);
        for (column, block) in columns.iter().zip(inputs.chunks_exact_mut(BLOCK)) {
            block[..length].copy_from_slice(&column[start..start + length]);
        }
        tape.run::<SET>(&mut scratch, &inputs, BLOCK, 0, POINTS);
        for (slot, result) in results.iter_mut().enumerate() {
            let values = tape.output(slot, &scratch, &inputs, BLOCK, 0, POINTS);
            result.extend_from_slice(&values[..length]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tape's own functions are within two units in the last place, and errors add up over a few operations.
    const AGREEMENT: f64 = 1e-13;

    #[test]
    fn every_operator_computes_what_the_graph_says() {
        let xs: Vec<f64> = (0..1000).map(|i| 0.013 * f64::from(i) + 0.01).collect();
        let ys: Vec<f64> = (0..1000).map(|i| 4.0 - 0.007 * f64::from(i)).collect();
        for operator in Unary::ALL {
            let mut graph = Graph::default();
            let x = graph.input(0);
            let id = graph.unary(operator, x);
            compare(&graph, id, &xs, &ys, &format!("{operator:?}"));
        }
        for operator in Binary::ALL {
            let mut graph = Graph::default();
            let (x, y) = (graph.input(0), graph.input(1));
            let id = graph.binary(operator, x, y);
            compare(&graph, id, &xs, &ys, &format!("{operator:?}"));
        }
    }

    fn compare(graph: &Graph, id: Id, xs: &[f64], ys: &[f64], label: &str) {
        let tape = Tape::compile(graph, &[id], 0);
        let found = map_columns(&tape, &[xs, ys], xs.len());
        for (row, found) in found[0].iter().enumerate() {
            let expected = graph.evaluate(id, &[xs[row], ys[row]], &[]);
            assert!(
                (found - expected).abs() <= AGREEMENT * expected.abs().max(1e-3),
                "{label} at {} and {}: {found}, expected {expected}",
                xs[row],
                ys[row]
            );
        }
    }

    #[test]
    fn quotients_of_one_divisor_share_its_reciprocal() {
        let mut graph = Graph::default();
        let (x, y) = (graph.input(0), graph.input(1));
        let shifted = graph.add(x, y);
        let divisor = graph.unary(Unary::Sqrt, shifted);
        let quotients = [x, y, shifted].map(|numerator| graph.divide(numerator, divisor));
        let first = graph.add(quotients[0], quotients[1]);
        let sum = graph.multiply(first, quotients[2]);
        let divisions = |tape: &Tape| {
            let divides = |o: &&Operation| matches!(o.operator, Operator::Binary(Binary::Divide));
            tape.operations.iter().filter(divides).count()
        };
        assert_eq!(divisions(&Tape::compile(&graph, &[sum], 0)), 1);
        assert_eq!(divisions(&Tape::compile(&graph, &[quotients[0]], 0)), 1);
        let xs: Vec<f64> = (0..300).map(|i| 0.5 + 0.01 * f64::from(i)).collect();
        compare(&graph, sum, &xs, &xs, "a product of quotients");
    }

    #[test]
    fn registers_are_reused_without_mixing_values() {
        // A polynomial by Horner with many live terms, against the graph's own evaluation.
        let mut graph = Graph::default();
        let x = graph.input(0);
        let terms: Vec<Id> = (1..12)
            .map(|i| {
                let c = graph.constant(1.0 / f64::from(i));
                let shifted = graph.add(x, c);
                graph.unary(Unary::Exp, shifted)
            })
            .collect();
        let mut sum = graph.constant(0.0);
        for pair in terms.windows(2) {
            let product = graph.divide(pair[0], pair[1]);
            let logged = graph.unary(Unary::Log1p, product);
            sum = graph.add(sum, logged);
        }
        let xs: Vec<f64> = (0..300).map(|i| -1.0 + 0.01 * f64::from(i)).collect();
        compare(&graph, sum, &xs, &xs, "a sum of quotients");
    }
}
