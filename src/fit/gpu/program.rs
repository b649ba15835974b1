//! One model's shaders: constants and the law's functions, written from Rust, before the named parts of `shaders/`.
//!
//! In: a [`Model`], the loss and the shape of the grid. Out: WGSL text of the three kernels. Knows no device and no data.

use crate::evaluate::wgsl::{Function, OPERATORS};
use crate::fit::model::{Coordinate, Model};
use crate::fit::problem::Grid;
use crate::fit::{Loss, Space};
use std::fmt::Write;

/// Most basins of one curve that are refined and proposed.
pub const MOST_BASINS: usize = 8;
/// Invocations in a workgroup: two warps of the widest common hardware, and small enough for every register file.
pub const WORKGROUP: u32 = 64;
/// Levenberg–Marquardt trials of one basin; a basin that needs more is proposed as it stands.
pub const ITERATIONS: u32 = 60;
/// Reweighted solutions at every grid point under Huber.
const HUBER_PASSES: u32 = 3;
/// Share of the reweighted curvature that rows beyond Huber's threshold keep.
const OUTLIER_CURVATURE: f32 = 0.2;
/// Attempts to find a start at which every prediction has a value: none of the constant solution, 1/16, …, all of it.
const BLENDS: u32 = 6;

/// What became of one basin; the words of `RESULT_WORDS` start with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ItemStatus {
    /// The buffer's fill: no invocation came here.
    NotRun = 0,
    /// The last step promised less than 1e-8 of the objective.
    Converged = 1,
    /// [`ITERATIONS`] ran out before that.
    IterationLimit = 2,
    /// No start was found at which every prediction has a value.
    Infeasible = 3,
}

/// How many numbers lie where; the constants of the shaders are written from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub coordinates: usize,
    pub inputs: usize,
    /// Whether rows carry a second response and weight for the projection's space.
    pub proxy: bool,
    /// Numbers of a row.
    pub stride: usize,
    /// Points of the grid.
    pub points: usize,
    /// Grid values of a curve.
    pub grid_stride: usize,
}

impl Layout {
    /// The layout for a model and grid.
    pub fn new(model: &Model, grid: &Grid) -> Layout {
        let proxy = model.projection.space != model.space;
        Layout {
            coordinates: model.len(),
            inputs: model.inputs.len(),
            proxy,
            stride: model.inputs.len() + if proxy { 4 } else { 2 },
            points: grid.points(),
            grid_stride: grid.stride(),
        }
    }

    /// Words of one refinement's result: status, objective, coordinates.
    pub fn result_words(&self) -> usize {
        2 + self.coordinates
    }

    /// Words of one curve's list of basins: 1 + their number, then grid points.
    pub fn basin_words(&self) -> usize {
        1 + MOST_BASINS
    }
}

/// The three kernels of one model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Program {
    pub search: String,
    pub basins: String,
    pub refine: String,
}

impl Program {
    /// Writes the kernels.
    pub fn compose(model: &Model, loss: Loss, grid: &Grid) -> Program {
        let layout = include_str!("../../../shaders/layout.wgsl");
        let projection = include_str!("../../../shaders/projection.wgsl");
        let constants = constants(model, loss, grid);
        let place = place(model, grid);
        let project = law_projection(model);
        let join = |parts: &[&str]| parts.join("\n");
        let search = include_str!("../../../shaders/search.wgsl");
        let basins = include_str!("../../../shaders/basins.wgsl");
        let refine = include_str!("../../../shaders/refine.wgsl");
        let refused = "const REFUSED: f32 = 3e38;\n";
        Program {
            search: join(&[&constants, layout, OPERATORS, &project, &place, projection, search]),
            basins: join(&[&constants, layout, refused, &neighbour(grid), basins]),
            refine: join(&[
                &constants,
                layout,
                OPERATORS,
                &project,
                &place,
                projection,
                &law_prediction(model),
                &set_linear(model),
                &change_chart(model),
                &blend(model),
                refine,
            ]),
        }
    }
}

fn constants(model: &Model, loss: Loss, grid: &Grid) -> String {
    let layout = Layout::new(model, grid);
    let linear = model.projection.linear.len();
    let huber = matches!(loss, Loss::Huber { .. });
    let n = layout.coordinates;
    let mut text = String::new();
    for (name, value) in [
        ("COORDINATES", n),
        ("TRIANGLE", n * (n + 1) / 2),
        ("INPUTS", layout.inputs),
        // Arrays may not be empty.
        ("INPUT_SLOTS", layout.inputs.max(1)),
        ("LINEAR", linear),
        ("LINEAR_SLOTS", linear.max(1)),
        ("STRIDE", layout.stride),
        ("PROXY", if layout.proxy { 2 } else { 0 }),
        ("POINTS", layout.points),
        ("GRID_STRIDE", layout.grid_stride),
        ("AXES", grid.axes()),
        ("NEIGHBOURS", if grid.listed.is_some() { 0 } else { 3usize.pow(grid.axes() as u32) }),
        ("MOST_BASINS", MOST_BASINS),
        ("BASIN_WORDS", layout.basin_words()),
        ("RESULT_WORDS", layout.result_words()),
        ("WORKGROUP", WORKGROUP as usize),
        ("ITERATIONS", ITERATIONS as usize),
        ("HUBER_PASSES", HUBER_PASSES as usize),
        ("BLENDS", if constant_basis(model).is_some() && needs_positive(model) { BLENDS as usize } else { 1 }),
        ("CONVERGED", ItemStatus::Converged as usize),
        ("ITERATION_LIMIT", ItemStatus::IterationLimit as usize),
        ("INFEASIBLE", ItemStatus::Infeasible as usize),
    ] {
        let _ = writeln!(text, "const {name}: u32 = {value}u;");
    }
    let _ = writeln!(text, "const HUBER: bool = {huber};");
    let _ = writeln!(text, "const CLOSED_FORM: bool = {};", model.is_closed_form() && !huber);
    let _ = writeln!(text, "const OUTLIER_CURVATURE: f32 = {OUTLIER_CURVATURE:?};");
    text
}

/// A log model whose linear projection may ask for negative predictions.
fn needs_positive(model: &Model) -> bool {
    model.space == Space::Log && model.projection.space == Space::Linear
}

/// Position among the linear parameters, and value, of a basis function that does not vary.
pub fn constant_basis(model: &Model) -> Option<(usize, f64)> {
    model.projection.basis.iter().enumerate().find_map(|(l, &id)| {
        let value = model.graph.constant_value(id)?;
        (value != 0.0).then_some((l, value))
    })
}

fn law_projection(model: &Model) -> String {
    let projection = &model.projection;
    let function = Function {
        name: "project_law",
        result: projection.offset,
        outputs: &projection.basis,
        output: ("basis", "Linear"),
    };
    let call = if projection.basis.is_empty() { "u, z, trusted" } else { "u, z, basis, trusted" };
    format!(
        "// The offset; `basis` takes the functions that the linear coordinates multiply.\n\
         fn project(u: Inputs, z: Coordinates, basis: ptr<function, Linear>, trusted: ptr<function, bool>) -> f32 {{\n    \
         return project_law({call});\n}}\n\n{}",
        function.emit(&model.graph)
    )
}

fn law_prediction(model: &Model) -> String {
    let function = Function {
        name: "predict_with_gradient",
        result: model.prediction,
        outputs: &model.gradient,
        output: ("gradient", "Coordinates"),
    };
    function.emit(&model.graph)
}

/// Writes a grid point's values into the searched coordinates.
fn place(model: &Model, grid: &Grid) -> String {
    let mut text = String::from("fn place(index: u32, point: u32, z: ptr<function, Coordinates>) {\n");
    let axes = grid.axes();
    let mut first = 0;
    for (axis, &j) in model.projection.nonlinear.iter().enumerate() {
        let cell = match &grid.listed {
            Some(_) => format!("listed[point * {axes}u + {axis}u]"),
            None => {
                let below: usize = grid.cells[axis + 1..].iter().product();
                format!("point / {below}u % {}u", grid.cells[axis])
            }
        };
        let _ = writeln!(text, "    (*z)[{j}] = grid[index * GRID_STRIDE + {first}u + {cell}];");
        first += grid.cells[axis];
    }
    text.push_str("}\n");
    text
}

/// The point next to another in direction `code` (a base-3 digit per axis: back, same, on); POINTS where there is none.
fn neighbour(grid: &Grid) -> String {
    let mut text = String::from("fn neighbour(point: u32, code: u32) -> u32 {\n    var other = 0u;\n");
    if grid.listed.is_none() {
        let mut digit = 1usize;
        for axis in 0..grid.axes() {
            let below: usize = grid.cells[axis + 1..].iter().product();
            let cells = grid.cells[axis];
            let _ = write!(
                text,
                "    let cell_{axis} = point / {below}u % {cells}u + code / {digit}u % 3u;\n    \
                 if cell_{axis} < 1u || cell_{axis} > {cells}u {{\n        return POINTS;\n    }}\n    \
                 other += (cell_{axis} - 1u) * {below}u;\n"
            );
            digit *= 3;
        }
    }
    text.push_str("    return other;\n}\n");
    text
}

fn set_linear(model: &Model) -> String {
    let mut text = String::from("fn set_linear(coefficients: Linear, z: ptr<function, Coordinates>) {\n");
    for (l, j) in model.projection.linear.iter().enumerate() {
        let _ = writeln!(text, "    (*z)[{j}] = coefficients[{l}];");
    }
    text.push_str("}\n");
    text
}

/// From the projection's coordinates to the model's own; false where one has no counterpart.
fn change_chart(model: &Model) -> String {
    let mut text = String::from(
        "fn change_chart(z: ptr<function, Coordinates>) -> bool {\n    var possible = true;\n",
    );
    for (j, (from, to)) in model.projection.coordinates.iter().zip(&model.coordinates).enumerate() {
        let _ = match (from, to) {
            (Coordinate::Identity, Coordinate::Log) => write!(
                text,
                "    possible = possible & is_tame_positive((*z)[{j}]);\n    \
                 (*z)[{j}] = operator_log(max((*z)[{j}], 1.2e-38));\n"
            ),
            (Coordinate::Log, Coordinate::Identity) => write!(
                text,
                "    (*z)[{j}] = operator_exp((*z)[{j}]);\n    possible = possible & is_tame((*z)[{j}]);\n"
            ),
            _ => Ok(()),
        };
    }
    text.push_str("    return possible;\n}\n");
    text
}

/// Moves the linear coordinates by `share` towards a prediction that is `level` everywhere.
fn blend(model: &Model) -> String {
    let mut text = String::from("fn blend(z: ptr<function, Coordinates>, level: f32, share: f32) {\n");
    if let Some((constant, value)) = constant_basis(model) {
        for (l, j) in model.projection.linear.iter().enumerate() {
            let _ = if l == constant {
                writeln!(
                    text,
                    "    (*z)[{j}] = mix((*z)[{j}], level / {}, share);",
                    crate::evaluate::wgsl::literal(value)
                )
            } else {
                writeln!(text, "    (*z)[{j}] *= 1.0 - share;")
            };
        }
    }
    text.push_str("}\n");
    text
}
