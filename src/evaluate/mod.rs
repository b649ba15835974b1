//! The faces of one graph: a block tape for the CPU, WGSL text for the GPU, and a plain reference for both.

pub mod elementary;
pub mod instruction_set;
pub mod reference;
pub mod tape;
pub mod wgsl;
