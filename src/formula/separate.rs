//! Which parameters are linear: variable projection solves them exactly, so that only the others are searched.
//!
//! In: a node. Out: a largest set of parameters in which the node is jointly linear, with the basis functions and the
//! offset that remain.

use super::graph::{Graph, Id};

/// `node = offset + Σ_l parameter(linear[l]) · basis[l]`, none of `offset` and `basis` depending on a linear parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Separation {
    /// The linear parameters, ascending.
    pub linear: Vec<usize>,
    /// Their basis functions, in the same order.
    pub basis: Vec<Id>,
    /// What is left when all linear parameters are zero.
    pub offset: Id,
}

/// Separates `node` over the parameters of `candidates` (bit j for parameter j).
///
/// Of several largest sets the one whose basis functions come out simplest is taken: amplitudes are linear before the
/// parameters inside a function are.
pub fn separate(graph: &mut Graph, node: Id, candidates: u64) -> Separation {
    let used = graph.parameters(node) & candidates;
    let used: Vec<usize> = (0..64).filter(|j| used >> j & 1 == 1).collect();
    let derivatives: Vec<Id> = used.iter().map(|&j| graph.differentiate(node, j)).collect();
    // A parameter whose derivative holds itself is linear in no company.
    let (own, derivatives): (Vec<usize>, Vec<Id>) =
        used.into_iter().zip(derivatives).filter(|&(j, derivative)| !graph.uses(derivative, j)).unzip();
    // conflict[i]: the parameters that may not be linear together with own[i].
    let conflicts: Vec<u64> = derivatives.iter().map(|&derivative| graph.parameters(derivative)).collect();
    let mut best: (usize, usize, u64) = (0, 0, 0);
    let mut patience = MOST_SETS;
    largest_set(graph, &own, &derivatives, &conflicts, 0, 0, &mut best, &mut patience);
    let set = best.2;
    let linear: Vec<usize> = own.iter().copied().filter(|j| set >> j & 1 == 1).collect();
    let basis = own.iter().zip(&derivatives).filter(|(j, _)| set >> **j & 1 == 1).map(|(_, &d)| d).collect();
    let zero = graph.constant(0.0);
    let parameters: Vec<Id> = linear.iter().map(|&j| graph.parameter(j)).collect();
    let offset = graph.substitute(&[node], |_, id| parameters.contains(&id).then_some(zero))[0];
    Separation { linear, basis, offset }
}

/// Sets looked at; the first one is taken greedily and good already. Laws of the field need some dozen, a sum of thirty
/// products of two parameters would need 2^30.
const MOST_SETS: usize = 20_000;

fn largest_set(
    graph: &Graph,
    own: &[usize],
    derivatives: &[Id],
    conflicts: &[u64],
    next: usize,
    set: u64,
    best: &mut (usize, usize, u64),
    patience: &mut usize,
) {
    if *patience == 0 {
        return;
    }
    *patience -= 1;
    if set.count_ones() as usize + own.len() - next < best.0 {
        return;
    }
    if next == own.len() {
        let members = || own.iter().enumerate().filter(|(_, j)| set >> **j & 1 == 1);
        // Fewer inputs mixed into the basis reads as simpler: count nodes.
        let roots: Vec<Id> = members().map(|(i, _)| derivatives[i]).collect();
        let size = graph.reachable(&roots).len();
        if set.count_ones() as usize > best.0 || size < best.1 {
            *best = (set.count_ones() as usize, size, set);
        }
        return;
    }
    let bit = 1u64 << own[next];
    let clashes = conflicts[next] & (set | bit) != 0
        || own[..next].iter().enumerate().any(|(i, j)| set >> j & 1 == 1 && conflicts[i] & bit != 0);
    if !clashes {
        largest_set(graph, own, derivatives, conflicts, next + 1, set | bit, best, patience);
    }
    largest_set(graph, own, derivatives, conflicts, next + 1, set, best, patience);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_of_amplitudes_times_functions_separates() {
        let mut graph = Graph::default();
        // p0 + p1 exp(-p2 x)
        let (p0, p1, p2, x) = (graph.parameter(0), graph.parameter(1), graph.parameter(2), graph.input(0));
        let product = graph.multiply(p2, x);
        let negated = graph.negate(product);
        let exponential = graph.unary(super::super::graph::Unary::Exp, negated);
        let scaled = graph.multiply(p1, exponential);
        let node = graph.add(p0, scaled);
        let separation = separate(&mut graph, node, u64::MAX);
        assert_eq!(separation.linear, [0, 1]);
        assert_eq!(separation.basis, [graph.constant(1.0), exponential]);
        assert_eq!(separation.offset, graph.constant(0.0));
    }

    #[test]
    fn of_a_product_of_two_parameters_one_is_linear() {
        let mut graph = Graph::default();
        let (p0, p1, x) = (graph.parameter(0), graph.parameter(1), graph.input(0));
        let product = graph.multiply(p0, p1);
        let node = graph.multiply(product, x);
        assert_eq!(separate(&mut graph, node, u64::MAX).linear.len(), 1);
    }
}
