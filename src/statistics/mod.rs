//! What fits are for: how sure, what next, how much of what.
//!
//! In: fitted laws, as the table of fits holds them, or curves. Out: intervals, forecasts, allocations, designs, diagnoses.

pub mod calibration;
pub mod fits;
pub mod forecast;
pub mod student;
pub mod surface;
