//! A law is a formula, written once: text, graph, derivatives, separation into linear and nonlinear parameters.
//!
//! Knows no data and no device. [`parse`] makes a tree of a text, [`graph`] shares and simplifies it, [`differentiate`]
//! derives it, [`separate`] finds what can be solved exactly.

pub mod differentiate;
pub mod graph;
pub mod parse;
pub mod separate;
