//! One model's shaders: constants and the law's functions, written from Rust, before the named parts of `shaders/`.
//!
//! In: a [`Model`], the loss and the shape of the grid. Out: WGSL text of the kernels. Knows no device and no data.

use super::algebra::{column_sizes, normal_equations, orthogonalisation, row_inputs};
use crate::evaluate::wgsl::{Function, OPERATORS, literal};
use crate::fit::exact;
use crate::fit::model::{Coordinate, Model};
use crate::fit::problem::Grid;
use crate::fit::replicates::Scheme;
use crate::fit::search::{MOST_BASINS, PLAUSIBLE, ends_are_tried};
use crate::fit::{Loss, Space};
use std::fmt::Write;

/// Invocations in a workgroup: two warps of the widest common hardware, and small enough for every register file.
pub const WORKGROUP: u32 = 64;
/// Levenberg–Marquardt trials of one basin; a basin that needs more is proposed as it stands.
pub const ITERATIONS: u32 = 60;
/// Reweighted solutions at every grid point under Huber: with three, one curve in 500 of the tests ends in a worse basin.
const HUBER_PASSES: u32 = 6;
/// Share of the reweighted curvature that rows beyond Huber's threshold keep. Between 0.05 and 1 this value comes nearest to
/// the optimum in [`ITERATIONS`] passes.
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
    /// [`ITERATIONS`] ran out before that; between two dispatches: to be carried on.
    Running = 2,
    /// No start was found at which every prediction has a value.
    Infeasible = 3,
}

/// How many numbers lie where; the constants of the shaders are written from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Coordinates of the model.
    pub coordinates: usize,
    /// Inputs of a row.
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

    /// Words of a descent's state between two dispatches: damping, δ, scale and largest curvature of every coordinate.
    pub fn state_words(&self) -> usize {
        2 + 2 * self.coordinates
    }

    /// Numbers of a row that replicates are made from: those of a row, its group, what the law predicts for it, its residual.
    pub fn source_stride(&self) -> usize {
        self.stride + 3
    }

    /// Words of one curve's list of basins: 1 + their number, then grid points.
    pub fn basin_words(&self) -> usize {
        1 + MOST_BASINS
    }
}

/// The kernels of one model, in the order in which they run; the last one as often as it takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Program {
    /// The projected objective at every grid point.
    pub search: String,
    /// The lowest grid points of every curve.
    pub basins: String,
    /// The start of every basin's descent.
    pub begin: String,
    /// The descent.
    pub refine: String,
}

impl Program {
    /// Writes the kernels.
    pub fn compose(model: &Model, loss: Loss, grid: &Grid) -> Program {
        let part = |parts: &[&str]| parts.join("\n");
        let records = include_str!("../../../shaders/records.wgsl");
        let shared = part(&[&constants(model, loss, grid), records, include_str!("../../../shaders/layout.wgsl")]);
        let rows = part(&[OPERATORS, &row_inputs(model.inputs.len())]);
        let projection = part(&[
            &law_projection(model),
            &place(model, grid),
            &orthogonalisation(model.projection.linear.len()),
            include_str!("../../../shaders/projection.wgsl"),
        ]);
        let descent = part(&[&law_prediction(model), include_str!("../../../shaders/descent.wgsl")]);
        let chart = part(&[&set_linear(model), &change_chart(model), &blend(model)]);
        let (columns, equations) = (column_sizes(model.len()), normal_equations(model.len()));
        let [search, basins, begin, refine] = [
            include_str!("../../../shaders/search.wgsl"),
            include_str!("../../../shaders/basins.wgsl"),
            include_str!("../../../shaders/begin.wgsl"),
            include_str!("../../../shaders/refine.wgsl"),
        ];
        Program {
            search: part(&[&shared, &rows, &projection, search]),
            basins: part(&[&shared, &is_basin(grid), basins]),
            begin: part(&[&shared, &rows, &projection, &descent, &chart, &columns, begin]),
            refine: part(&[&shared, &rows, &descent, &equations, refine]),
        }
    }
}

/// The kernel that makes replicates of one model's curves.
pub fn resampling(model: &Model, loss: Loss, grid: &Grid, scheme: Scheme) -> String {
    let layout = Layout::new(model, grid);
    let mut text = constants(model, loss, grid);
    for (code, scheme) in (0u32..).zip(Scheme::ALL) {
        let _ = writeln!(text, "const {}: u32 = {code}u;", scheme.name().to_uppercase());
    }
    let _ = writeln!(text, "const SCHEME: u32 = {};", scheme.name().to_uppercase());
    let _ = writeln!(text, "const SOURCE_STRIDE: u32 = {}u;", layout.source_stride());
    let _ = writeln!(text, "const IN_LOG_SPACE: bool = {};", model.space == Space::Log);
    let parts = [
        include_str!("../../../shaders/records.wgsl"),
        OPERATORS,
        include_str!("../../../shaders/random.wgsl"),
        include_str!("../../../shaders/resample.wgsl"),
    ];
    text + &parts.join("\n")
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
        ("LINEAR_TRIANGLE", (linear * (linear + 1) / 2).max(1)),
        ("STRIDE", layout.stride),
        ("PROXY", if layout.proxy { 2 } else { 0 }),
        ("POINTS", layout.points),
        ("GRID_STRIDE", layout.grid_stride),
        ("MOST_BASINS", MOST_BASINS),
        ("ENDS", usize::from(ends_are_tried(model, grid))),
        ("BASIN_WORDS", layout.basin_words()),
        ("RESULT_WORDS", layout.result_words()),
        ("WORKGROUP", WORKGROUP as usize),
        ("STATE_WORDS", layout.state_words()),
        ("HUBER_PASSES", HUBER_PASSES as usize),
        ("BLENDS", if constant_basis(model).is_some() && needs_positive(model) { BLENDS as usize } else { 1 }),
        ("EXACT_STEPS", exact::STEPS),
        ("CONVERGED", ItemStatus::Converged as usize),
        ("RUNNING", ItemStatus::Running as usize),
        ("INFEASIBLE", ItemStatus::Infeasible as usize),
    ] {
        let _ = writeln!(text, "const {name}: u32 = {value}u;");
    }
    let _ = writeln!(text, "const HUBER: bool = {huber};");
    let _ = writeln!(text, "const CLOSED_FORM: bool = {};", model.is_closed_form() && !huber);
    let _ = writeln!(text, "const BEHIND_PROXY: bool = {};", exact::is_behind_a_proxy(model, loss));
    let _ = writeln!(text, "const LOOKED_AT: bool = {};", exact::is_looked_at(model, loss, grid));
    let _ = writeln!(text, "const CLIPPED: f32 = {:?};", exact::CLIPPED as f32);
    let _ = writeln!(text, "const EXACT_NEGLIGIBLE: f32 = {:?};", exact::NEGLIGIBLE as f32);
    let _ = writeln!(text, "const OUTLIER_CURVATURE: f32 = {OUTLIER_CURVATURE:?};");
    let _ = writeln!(text, "const PLAUSIBLE: f32 = {PLAUSIBLE:?};");
    let _ = writeln!(text, "// The objective of a point that cannot be evaluated.\nconst REFUSED: f32 = 3e38;");
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
    let mut text = String::from("fn place(frame: u32, point: u32, z: ptr<function, Coordinates>) {\n");
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
        let _ = writeln!(text, "    (*z)[{j}] = grid[frame * GRID_STRIDE + {first}u + {cell}];");
        first += grid.cells[axis];
    }
    text.push_str("}\n");
    text
}

/// Whether a grid point is lower than all its neighbours. Of equal neighbours the first one counts as lower: a flat stretch
/// neither vanishes nor multiplies. Listed points have no neighbours: each is a basin.
fn is_basin(grid: &Grid) -> String {
    let mut text = String::from("fn is_basin(first: u32, point: u32, value: f32) -> bool {\n");
    if grid.listed.is_none() {
        let axes = grid.axes();
        let below = |axis: usize| grid.cells[axis + 1..].iter().product::<usize>() as i64;
        for axis in 0..axes {
            let cells = grid.cells[axis];
            let _ = writeln!(text, "    let cell{axis} = point / {}u % {cells}u;", below(axis));
            let _ = writeln!(text, "    let from{axis} = cell{axis} > 0u;");
            let _ = writeln!(text, "    let to{axis} = cell{axis} < {}u;", cells - 1);
        }
        // Every direction is a base-3 digit per axis: back, same, on.
        for code in 0..3usize.pow(axes as u32) {
            let digits: Vec<i64> = (0..axes).map(|axis| (code / 3usize.pow(axis as u32) % 3) as i64 - 1).collect();
            let offset: i64 = digits.iter().enumerate().map(|(axis, digit)| digit * below(axis)).sum();
            if digits.iter().all(|&digit| digit == 0) || digits.iter().zip(&grid.cells).any(|(d, c)| *d != 0 && *c < 2)
            {
                continue;
            }
            let exists: Vec<String> = digits
                .iter()
                .enumerate()
                .filter(|(_, digit)| **digit != 0)
                .map(|(axis, &digit)| format!("{}{axis}", if digit < 0 { "from" } else { "to" }))
                .collect();
            // The neighbour's index is larger where the offset is positive.
            let (sign, lower) = if offset < 0 { ('-', "<=") } else { ('+', "<") };
            let _ = write!(
                text,
                "    if {} && scratch[first + point {sign} {}u] {lower} value {{\n        return false;\n    }}\n",
                exists.join(" && "),
                offset.abs()
            );
        }
    }
    text.push_str("    return true;\n}\n");
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
    let mut text = String::from("fn change_chart(z: ptr<function, Coordinates>) -> bool {\n    var possible = true;\n");
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
                writeln!(text, "    (*z)[{j}] = mix((*z)[{j}], level / {}, share);", literal(value))
            } else {
                writeln!(text, "    (*z)[{j}] *= 1.0 - share;")
            };
        }
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::wgsl::operator_name;
    use crate::fit::Objective;
    use crate::fit::pack::{Plan, Weighting};
    use crate::formula::graph::Unary;
    use crate::law::catalogue::CATALOGUE;
    use crate::law::{Law, Mapping};

    fn plan(formula: &str, space: Space, loss: Loss) -> Plan {
        let columns = ["x", "w", "v", "y"].map(String::from).to_vec();
        let law = Law::bind(formula, &columns, Mapping { x: &columns[..3], y: Some("y") }).expect(formula);
        Plan::new(law, Objective { space, loss }, &[], Weighting::Even, false, &columns).expect(formula)
    }

    /// An empty batch has the grid's shape, which is all that a program needs.
    fn compose(plan: &Plan) -> Program {
        let batch = crate::curves::CurveBatch { offsets: vec![0], columns: vec![Vec::new(); 4] };
        Program::compose(&plan.model, plan.objective.loss, &plan.pack(&batch).problem.grid)
    }

    fn validate(text: &str) -> std::result::Result<(), String> {
        let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
        let mut validator =
            naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
        validator.validate(&module).map(|_| ()).map_err(|error| format!("{error:?}"))
    }

    /// Formulas that reach what the catalogue does not: no linear parameter, many searched ones, every operator.
    fn formulas() -> Vec<String> {
        let mut formulas: Vec<String> = CATALOGUE.iter().map(|entry| entry.name.to_string()).collect();
        formulas.extend(
            [
                "exp(-a*x^-b)",
                "a*b^x",
                "b1*(1-exp(-b2*x))",
                "amp*exp(-((x-x0)^2+(w-w0)^2)/(2*s^2)) + bg",
                "b0 + b1*exp(-c1*x) + b2*exp(-c2*x) + b3*exp(-c3*x)",
                "a*abs(x - b)^c + d*1e-50 + 1e50*f*x",
                "a + b*max(x - c, 0) + d*min(x, f)",
            ]
            .map(String::from),
        );
        let functions = "exp log log1p expm1 sqrt abs sin cos tan atan tanh softplus sigmoid";
        formulas.extend(functions.split(' ').map(|name| format!("a + b*{name}(c*x + d)")));
        formulas
    }

    #[test]
    fn every_program_of_every_law_is_valid_wgsl() {
        for formula in formulas() {
            for space in [Space::Log, Space::Linear] {
                for loss in [Loss::Squares, Loss::Huber { delta: 1e-3 }] {
                    let program = compose(&plan(&formula, space, loss));
                    for text in [&program.search, &program.basins, &program.begin, &program.refine] {
                        if let Err(error) = validate(text) {
                            panic!("{formula} in {space:?} under {loss:?}: {error}\n{text}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_scheme_has_a_valid_kernel_in_every_space() {
        for (formula, space) in [("chinchilla", Space::Log), ("power", Space::Log), ("power", Space::Linear)] {
            let plan = plan(formula, space, Loss::Squares);
            let batch = crate::curves::CurveBatch { offsets: vec![0], columns: vec![Vec::new(); 4] };
            for scheme in Scheme::ALL {
                let text = resampling(&plan.model, Loss::Squares, &plan.pack(&batch).problem.grid, scheme);
                if let Err(error) = validate(&text) {
                    panic!("{formula} in {space:?}, {scheme:?}: {error}\n{text}");
                }
                assert_eq!((stride_of(&text, "parents"), stride_of(&text, "curves")), (32, 16));
            }
        }
    }

    #[test]
    fn the_validation_can_fail() {
        let program = compose(&plan("power", Space::Linear, Loss::Squares));
        assert!(validate(&program.search.replace("fn place(", "fn displace(")).is_err());
    }

    #[test]
    fn every_operator_has_a_function() {
        for operator in Unary::ALL {
            assert!(OPERATORS.contains(&format!("fn {}(", operator_name(operator))), "{operator:?}");
        }
    }

    /// Bytes between two elements of an array bound to `name`.
    fn stride_of(text: &str, name: &str) -> u32 {
        let module = naga::front::wgsl::parse_str(text).expect("valid text");
        let (_, global) =
            module.global_variables.iter().find(|(_, g)| g.name.as_deref() == Some(name)).expect("a global");
        match module.types[global.ty].inner {
            naga::TypeInner::Array { stride, .. } => stride,
            _ => panic!("{name} is no array"),
        }
    }

    #[test]
    fn buffers_are_laid_out_as_the_host_writes_them() {
        let program = compose(&plan("chinchilla", Space::Log, Loss::Squares));
        assert_eq!(stride_of(&program.begin, "curves"), 16, "the host writes [u32; 4] a curve");
        for name in ["rows", "grid", "listed", "bounds", "scratch", "basins", "results"] {
            assert_eq!(stride_of(&program.begin, name), 4, "{name}");
        }
    }
}
