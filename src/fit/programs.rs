//! The tapes of a model: everything that the CPU evaluates, compiled once.

use super::decay::Decay;
use super::model::Projection;
use crate::evaluate::tape::Tape;
use crate::formula::graph::{Graph, Id};

/// Tapes over a model's derived inputs and coordinates.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The projection's basis functions and, last, its offset; one tape each.
    pub columns: Vec<Tape>,
    /// The grid axes (positions in [`Projection::nonlinear`]) that each of `columns` depends on.
    pub axes: Vec<Vec<usize>>,
    /// The basis function that is a constant, and its value.
    pub constant: Option<(usize, f64)>,
    /// Where the one searched parameter enters one exponential alone, that.
    pub decay: Option<Decay>,
    /// h, then ∂h/∂z_j.
    pub slope: Tape,
    /// h, then ∂h/∂z_j, then the second derivatives of `curved`.
    pub curvature: Tape,
    /// Positions in the packed Hessian that are not zero everywhere.
    pub curved: Vec<usize>,
    /// The amplitudes' scales K and their derivatives, over decoded parameters and, as inputs, centres.
    pub scale: Tape,
    /// The parameters whose K comes first in `scale`, in order.
    pub scaled: Vec<usize>,
    /// (position in `scaled`, parameter i) of every ∂K/∂θ_i that follows.
    pub scale_slopes: Vec<(usize, usize)>,
}

/// The nodes that [`Programs`] are compiled from.
#[derive(Debug)]
pub struct Roots<'a> {
    pub projection: &'a Projection,
    pub prediction: Id,
    pub gradient: &'a [Id],
    pub hessian: &'a [Id],
    pub scale: &'a [Option<Id>],
}

impl Programs {
    /// Compiles all tapes; `graph` grows by the derivatives of the scales.
    pub fn compile(graph: &mut Graph, roots: Roots) -> Programs {
        let parameters = roots.gradient.len();
        let Roots { projection, .. } = roots;
        let sources: Vec<Id> = projection.basis.iter().copied().chain([projection.offset]).collect();
        let axes: Vec<Vec<usize>> = sources
            .iter()
            .map(|&id| {
                let nonlinear = projection.nonlinear.iter().enumerate();
                nonlinear.filter(|(_, j)| graph.uses(id, **j)).map(|(axis, _)| axis).collect()
            })
            .collect();
        let constant = projection.basis.iter().enumerate().find_map(|(l, &id)| Some((l, graph.constant_value(id)?)));
        let decay = Decay::find(graph, &sources, &axes);
        let columns = sources.iter().map(|&id| Tape::compile(graph, &[id], parameters)).collect();
        let first: Vec<Id> = [roots.prediction].into_iter().chain(roots.gradient.iter().copied()).collect();
        let curved: Vec<usize> =
            (0..roots.hessian.len()).filter(|&k| graph.constant_value(roots.hessian[k]) != Some(0.0)).collect();
        let second: Vec<Id> = first.iter().copied().chain(curved.iter().map(|&k| roots.hessian[k])).collect();
        let scaled: Vec<usize> = (0..parameters).filter(|&j| roots.scale[j].is_some()).collect();
        let mut scale_roots: Vec<Id> = scaled.iter().filter_map(|&j| roots.scale[j]).collect();
        let mut scale_slopes = Vec::new();
        for position in 0..scaled.len() {
            for i in 0..parameters {
                if graph.uses(scale_roots[position], i) {
                    let slope = graph.differentiate(scale_roots[position], i);
                    scale_roots.push(slope);
                    scale_slopes.push((position, i));
                }
            }
        }
        Programs {
            columns,
            axes,
            constant,
            decay,
            slope: Tape::compile(graph, &first, parameters),
            curvature: Tape::compile(graph, &second, parameters),
            curved,
            scale: Tape::compile(graph, &scale_roots, parameters),
            scaled,
            scale_slopes,
        }
    }
}
