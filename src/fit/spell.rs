//! Spelling: from the parameters that were searched to those that a law reports.
//!
//! In: a catalogue law, and the verdicts on the law of its family in whose parameters it was searched. Out: verdicts in its
//! own parameters: values, covariance and standard errors by the delta method, the condition of its own Jacobian. What does
//! not depend on the parametrisation stays as it is: one search and one verdict serve all spellings of a curve.

use super::Status;
use super::judge::Verdicts;
use super::lanes::{pair, triangle};
use super::pack::Plan;
use crate::evaluate::tape::{Tape, map_columns};
use crate::formula::graph::{Id, Node};
use crate::law::Law;

/// How a law's parameters follow from those that were searched.
#[derive(Debug, Clone)]
pub struct Spelling {
    /// The law as reported.
    pub law: Law,
    /// Number of parameters searched, and reported.
    parameters: usize,
    /// The law's parameters, then ∂(reported j)/∂(searched i) at `parameters + j * parameters + i`; inputs are the searched.
    tape: Tape,
    /// Per reported parameter: bit i for every searched parameter that it depends on.
    depends: Vec<u64>,
}

impl Spelling {
    /// How `law` is spelled, and the law that is searched for it; None where a law is reported as it was searched.
    pub fn of(law: &Law) -> Option<(Law, Spelling)> {
        let (mut searched, own) = law.representative()?;
        let parameters = own.len();
        assert_eq!(parameters, searched.parameters.len(), "{}: spellings have as many parameters", law.name);
        let graph = &mut searched.graph;
        let depends = own.iter().map(|&id| graph.parameters(id)).collect();
        let mut outputs: Vec<Id> = own.clone();
        for &id in &own {
            outputs.extend((0..parameters).map(|i| graph.differentiate(id, i)));
        }
        let inputs: Vec<Id> = (0..parameters).map(|i| graph.input(i)).collect();
        let outputs = graph.substitute(&outputs, |graph, id| match graph.node(id) {
            Node::Parameter(i) => Some(inputs[i as usize]),
            _ => None,
        });
        let tape = Tape::compile(graph, &outputs, 0);
        Some((searched, Spelling { law: law.clone(), parameters, tape, depends }))
    }

    /// The box of reported parameter `j` in words, `plan` being that of the law searched.
    pub fn describe_box(&self, j: usize, plan: &Plan) -> String {
        let expression = self.law.entry.and_then(|entry| entry.alias.as_ref()).map(|alias| alias.parameters[j]);
        let sources: Vec<usize> = (0..self.parameters).filter(|&i| self.depends[j] >> i & 1 == 1).collect();
        match (&sources[..], expression) {
            (&[i], None) => plan.describe_box(i),
            (&[i], Some(text)) if text == plan.law.parameters[i] => plan.describe_box(i),
            _ if sources.iter().all(|&i| plan.describe_box(i) == "unbounded") => "unbounded".to_string(),
            (_, text) => {
                let boxed = sources.iter().map(|&i| (&plan.law.parameters[i], plan.describe_box(i)));
                let boxed = boxed.filter(|(_, bounds)| bounds != "unbounded");
                let boxed: Vec<String> = boxed.map(|(name, bounds)| format!("{name} in {bounds}")).collect();
                format!("{}, {}", text.unwrap_or_default(), boxed.join(", "))
            }
        }
    }

    /// The verdicts in the law's own parameters.
    pub fn spell(&self, searched: &Verdicts) -> Verdicts {
        let p = self.parameters;
        let curves = searched.status.len();
        let columns: Vec<Vec<f64>> =
            (0..p).map(|i| (0..curves).map(|curve| searched.parameters[curve * p + i]).collect()).collect();
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let values = map_columns(&self.tape, &columns, curves);
        let mut spelled = searched.clone();
        let mut covariance = vec![0.0; triangle(p)];
        for curve in (0..curves).filter(|&curve| searched.status[curve].has_parameters()) {
            let own = &mut spelled.parameters[curve * p..(curve + 1) * p];
            for (own, column) in own.iter_mut().zip(&values) {
                *own = column[curve];
            }
            if own.iter().any(|value| !value.is_finite()) {
                spelled.refuse(curve, p, Status::NonFinite);
                continue;
            }
            let known = &searched.covariance[curve * triangle(p)..(curve + 1) * triangle(p)];
            let slope = |j: usize, i: usize| values[p + j * p + i][curve];
            for j in 0..p {
                for k in 0..=j {
                    let term = |m: usize| (0..p).map(|l| slope(j, m) * known[pair(m, l)] * slope(k, l)).sum::<f64>();
                    covariance[pair(j, k)] = (0..p).map(term).sum();
                }
            }
            let bits = self.pinned(searched.pinned[curve]);
            spelled.pinned[curve] = bits;
            for j in 0..p {
                let error = covariance[pair(j, j)].sqrt();
                spelled.standard_errors[curve * p + j] = if bits >> j & 1 == 1 { f64::NAN } else { error };
            }
            if let Some(condition) = self.condition(&slope, known, searched.pinned[curve], bits) {
                spelled.condition[curve] = condition;
            }
            spelled.covariance[curve * triangle(p)..(curve + 1) * triangle(p)].copy_from_slice(&covariance);
        }
        spelled
    }

    /// Reported parameters are held where all that they depend on is; where that is none, where anything is.
    fn pinned(&self, searched: u64) -> u64 {
        let those = |held: &dyn Fn(u64) -> bool| {
            (0..self.parameters).filter(|&j| held(self.depends[j])).fold(0, |bits, j| bits | 1 << j)
        };
        match those(&|depends| depends & !searched == 0) {
            0 => those(&|depends| depends & searched != 0),
            bits => bits,
        }
    }

    /// The condition number of the Jacobian in the reported parameters with unit columns: J' = J T⁻¹, and J may be any
    /// matrix with (JᵀJ)⁻¹ = C, such as L⁻¹ of C = L Lᵀ. None where the held parameters of both spellings do not agree in
    /// number, or C is not positive definite to working precision; the searched parameters' own stands then.
    fn condition(
        &self,
        slope: &impl Fn(usize, usize) -> f64,
        covariance: &[f64],
        held: u64,
        spelled_held: u64,
    ) -> Option<f64> {
        let free = |bits: u64| (0..self.parameters).filter(move |j| bits >> j & 1 == 0).collect::<Vec<_>>();
        let (from, to) = (free(held), free(spelled_held));
        if from.len() != to.len() {
            return None;
        }
        let n = from.len();
        let root = cholesky(n, |a, b| covariance[pair(from[a], from[b])])?;
        // M = T L; J' = M⁻¹.
        let product = |a: usize, b: usize| (b..n).map(|m| slope(to[a], from[m]) * root[m * n + b]).sum::<f64>();
        let jacobian = inverse(n, product)?;
        Some(condition_of_columns(n, jacobian))
    }
}

/// L of A = L Lᵀ, row by row; None where A is not positive definite.
fn cholesky(n: usize, a: impl Fn(usize, usize) -> f64) -> Option<Vec<f64>> {
    let mut root = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let known: f64 = (0..j).map(|m| root[i * n + m] * root[j * n + m]).sum();
            let left = a(i, j) - known;
            if i == j && !(left > 0.0 && left.is_finite()) {
                return None;
            }
            root[i * n + j] = if i == j { left.sqrt() } else { left / root[j * n + j] };
        }
    }
    Some(root)
}

/// The inverse, row by row, by elimination with row pivots; None where the matrix is singular.
fn inverse(n: usize, a: impl Fn(usize, usize) -> f64) -> Option<Vec<f64>> {
    let width = 2 * n;
    let mut rows = vec![0.0; n * width];
    for i in 0..n {
        for j in 0..n {
            rows[i * width + j] = a(i, j);
        }
        rows[i * width + n + i] = 1.0;
    }
    for column in 0..n {
        let size = |row: &usize| rows[row * width + column].abs();
        let pivot = (column..n).max_by(|a, b| size(a).total_cmp(&size(b)))?;
        let value = rows[pivot * width + column];
        if value == 0.0 || !value.is_finite() {
            return None;
        }
        for k in 0..width {
            rows.swap(pivot * width + k, column * width + k);
            rows[column * width + k] /= value;
        }
        for row in (0..n).filter(|&row| row != column) {
            let factor = rows[row * width + column];
            for k in 0..width {
                rows[row * width + k] -= factor * rows[column * width + k];
            }
        }
    }
    Some((0..n).flat_map(|i| rows[i * width + n..(i + 1) * width].to_vec()).collect())
}

/// Largest over smallest singular value of a matrix whose columns are first made units: one-sided Jacobi (Hestenes 1958).
fn condition_of_columns(n: usize, mut a: Vec<f64>) -> f64 {
    let dot = |a: &[f64], i: usize, j: usize| (0..n).map(|row| a[row * n + i] * a[row * n + j]).sum::<f64>();
    for j in 0..n {
        let norm = dot(&a, j, j).sqrt();
        (0..n).for_each(|row| a[row * n + j] /= norm);
    }
    // Sweeps converge quadratically; a dozen are never needed at these sizes.
    for _ in 0..12 {
        for i in 0..n {
            for j in i + 1..n {
                let (own, other, both) = (dot(&a, i, i), dot(&a, j, j), dot(&a, i, j));
                if both == 0.0 {
                    continue;
                }
                let ratio = (other - own) / (2.0 * both);
                let tangent = ratio.signum() / (ratio.abs() + ratio.hypot(1.0));
                let cosine = tangent.hypot(1.0).recip();
                for row in 0..n {
                    let (x, y) = (a[row * n + i], a[row * n + j]);
                    a[row * n + i] = cosine * (x - tangent * y);
                    a[row * n + j] = cosine * (tangent * x + y);
                }
            }
        }
    }
    let norms = (0..n).map(|j| dot(&a, j, j).sqrt());
    norms.clone().fold(0.0, f64::max) / norms.fold(f64::INFINITY, f64::min)
}
