//! The faces of one graph: a block tape for the CPU, WGSL text for the GPU.

pub mod elementary;
pub mod instruction_set;
pub mod tape;
pub mod wgsl;
