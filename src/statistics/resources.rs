//! Resources: which of two inputs holds a run back.
//!
//! In: runs of parameters, tokens and loss. Out: for every run the shares of Chinchilla's two residual terms, and how much
//! the loss would fall if either input doubled. Knows no files.

use crate::curves::CurveBatch;
use crate::error::Result;
use crate::fit::cpu::Cpu;
use crate::fit::judge::judge;
use crate::fit::pack::{Plan, Weighting};
use crate::fit::{Backend, Loss, Objective, Space};
use crate::law::{Law, Mapping};

/// What holds one run back; NaN where its curve has no fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Binding {
    /// Shares of the residual terms A N^-alpha and B D^-beta in their sum.
    pub shares: [f64; 2],
    /// What the loss falls by when the input doubles: term·(1 − 2^-exponent).
    pub gains: [f64; 2],
}

impl Binding {
    /// The input whose doubling gains more.
    pub fn binds(&self) -> Option<usize> {
        let [first, second] = self.gains;
        (first.is_finite() && second.is_finite()).then_some(usize::from(second > first))
    }
}

/// Fits Chinchilla's law to every curve of columns N, D, loss and takes it apart at every row.
///
/// # Errors
/// What a backend refuses; the CPU refuses nothing.
pub fn bindings(batch: &CurveBatch) -> Result<Vec<Binding>> {
    let columns = ["N", "D", "loss"].map(String::from);
    let law = Law::bind("chinchilla", &columns, Mapping { x: &columns[..2], y: Some("loss") })?;
    let objective = Objective { space: Space::Log, loss: Loss::Squares };
    let plan = Plan::new(law, objective, &[], Weighting::Even, false, &columns)?;
    let packed = plan.pack(batch);
    let verdicts = judge(&packed.problem, &Cpu.propose(&packed.problem)?, false);
    let p = plan.model.len();
    let mut found = Vec::with_capacity(batch.rows());
    for curve in 0..batch.len() {
        let theta = &verdicts.parameters[curve * p..(curve + 1) * p];
        let &[_, a, b, alpha, beta] = theta else { unreachable!("Chinchilla's law has five parameters") };
        for row in batch.offsets[curve]..batch.offsets[curve + 1] {
            let terms = [a * batch.columns[0][row].powf(-alpha), b * batch.columns[1][row].powf(-beta)];
            let sum = terms[0] + terms[1];
            found.push(Binding {
                shares: terms.map(|term| term / sum),
                gains: [terms[0] * (1.0 - 2f64.powf(-alpha)), terms[1] * (1.0 - 2f64.powf(-beta))],
            });
        }
    }
    Ok(found)
}
