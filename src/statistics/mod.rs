//! What fits are for: how sure, what next, how much of what.
//!
//! In: fitted laws, as the table of fits holds them, or curves. Out: intervals, forecasts, allocations, designs, diagnoses.

pub mod allocation;
pub mod bootstrap;
pub mod calibration;
pub mod design;
pub mod diagnosis;
pub mod fits;
pub mod forecast;
pub mod frontier;
pub mod resources;
pub mod selection;
pub mod student;
pub mod surface;
pub mod variance_ratio;
