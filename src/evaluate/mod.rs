//! The faces of one graph: a law's nodes as something that runs.
//!
//! Knows nodes, no laws and no data. [`wgsl`] writes text for the GPU.

pub mod wgsl;
