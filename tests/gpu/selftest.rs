//! The self-test: it passes on a device that computes what it should, and names what one with a faulty driver gets wrong.

use crate::support::{command, run};
use libtest_mimic::Failed;
use std::collections::BTreeSet;
use sweepfit::evaluate::wgsl::{Function, OPERATORS};
use sweepfit::fit::Space;
use sweepfit::fit::gpu::Gpu;
use sweepfit::formula::graph::{Binary, Unary};
use sweepfit::law::catalogue::{CATALOGUE, find};
use sweepfit::selftest::{self, Check, Measure};

/// Values of each operator and law, and curves of each law, that have to be compared at least.
const VALUES: usize = 2000;
const CURVES: usize = 12;

pub fn device_ideal_f32_and_f64_agree_on_every_operator_and_law(gpu: &Gpu) -> Result<(), Failed> {
    let checks = selftest::run(gpu, &mut |_| {})?;
    let operators = Unary::ALL.len() + Binary::ALL.len();
    let fitted = CATALOGUE.iter().filter(|entry| entry.parameters.len() <= selftest::laws::MOST_PARAMETERS).count();
    if checks.len() != operators + CATALOGUE.len() + 2 * fitted {
        return Err(format!("{} checks of {operators} operators and {} laws", checks.len(), CATALOGUE.len()).into());
    }
    let few = |check: &Check| {
        let asked = if matches!(check.measure, Measure::Operator | Measure::Values) { VALUES } else { CURVES };
        check.samples < asked
    };
    // Ideal f32 arithmetic has to be within the tolerances, too, or they would ask more than f32 can give.
    let coarse = |check: &Check| check.single.is_some_and(|single| single > check.tolerance || single.is_nan());
    let bad: Vec<&Check> = checks.iter().filter(|check| !check.passed() || few(check) || coarse(check)).collect();
    if bad.is_empty() { Ok(()) } else { Err(format!("{bad:#?}").into()) }
}

/// This adapter with another driver.
fn faulty(gpu: &Gpu, alteration: impl Fn(&str) -> String + Send + Sync + 'static) -> Result<Gpu, Failed> {
    Ok(Gpu::open(Some(&gpu.adapter().name))?.with_faulty_driver(alteration))
}

fn failed(checks: &[Check]) -> BTreeSet<(&'static str, String)> {
    checks.iter().filter(|check| !check.passed()).map(|c| (c.measure.name(), c.subject.clone())).collect()
}

/// Changes that a typing slip could make; the self-test has to see each, and call it by its name.
pub fn sabotaged_operators_are_found_out_by_name(gpu: &Gpu) -> Result<(), Failed> {
    let sabotages = [
        ("exp", "1.6666665459e-1", "1.6667665459e-1"),
        ("log", "k * 90851", "k * 90852"),
        ("log1p", "z > -0.29 && z < 0.41", "false"),
        ("expm1", "abs(z) < 0.35", "false"),
        ("tanh", "operator_expm1(-2.0 * abs(z))", "operator_exp(-2.0 * abs(z)) - 1.0"),
        ("softplus", "max(z, 0.0) + operator_log1p(operator_exp(-abs(z)))", "operator_log(1.0 + operator_exp(z))"),
        ("sigmoid", "select(e, 1.0, z >= 0.0)", "select(1.0, e, z >= 0.0)"),
        ("sin", "quarters * 2029", "quarters * 2028"),
        ("step", "z > 0.0", "z >= 0.0"),
        ("atan", "a > 2.414213562373095", "a > 1e38"),
        ("sqrt", "return sqrt(z)", "return 1.000001 * sqrt(z)"),
    ];
    for (name, from, to) in sabotages {
        if !OPERATORS.contains(from) {
            return Err(format!("{name}: `{from}` is not in the text, the sabotage does nothing").into());
        }
        let gpu = faulty(gpu, move |text| text.replacen(from, to, 1))?;
        let mut checks = Vec::new();
        selftest::operators::run(&gpu, &mut |check| checks.push(check))?;
        if !failed(&checks).contains(&("operator", name.to_string())) {
            return Err(format!("{name} sabotaged by `{to}` passes: {checks:#?}").into());
        }
    }
    Ok(())
}

/// The statements of a law's prediction and gradient, as every kernel that calls them holds them.
fn statements(law: &str, space: Space) -> String {
    let plan = selftest::laws::plan(find(law).expect(law), space);
    let model = &plan.model;
    let function =
        Function { name: "f", result: model.prediction, outputs: &model.gradient, output: ("gradient", "Coordinates") };
    let text = function.emit(&model.graph);
    let (_, body) = text.split_once("var tame = true;\n").expect("the opening line");
    body.split_once("    (*gradient)").expect("what is written out").0.to_string()
}

pub fn a_law_without_a_term_is_found_out_by_name(gpu: &Gpu) -> Result<(), Failed> {
    let whole = statements("chinchilla", Space::Log);
    let line = whole.lines().find(|line| line.contains(" + v")).expect("a sum of two terms");
    let (kept, _) = line.split_once(" + v").expect("found by it");
    let sabotaged = whole.replacen(line, &format!("{kept};"), 1);
    let gpu = faulty(gpu, move |text| text.replace(&whole, &sabotaged))?;
    let mut checks = Vec::new();
    selftest::laws::run(&gpu, &mut |check| checks.push(check))?;
    let found = failed(&checks);
    let named: BTreeSet<&str> = found.iter().map(|(_, law)| law.as_str()).collect();
    if named != BTreeSet::from(["chinchilla"]) || !found.contains(&("values", "chinchilla".to_string())) {
        return Err(format!("chinchilla lacks a term, found: {found:?}").into());
    }
    Ok(())
}

/// Operators and laws may be right and the fit still wrong.
pub fn a_kernel_that_reads_shifted_responses_is_found_out(gpu: &Gpu) -> Result<(), Failed> {
    let gpu = faulty(gpu, |text| {
        text.replace("return rows[row * STRIDE + INPUTS];", "return 1.001 * rows[row * STRIDE + INPUTS];")
    })?;
    let mut checks = Vec::new();
    selftest::laws::run(&gpu, &mut |check| checks.push(check))?;
    let found = failed(&checks);
    match found.iter().any(|(measure, _)| *measure == "proposal")
        && !found.iter().any(|(measure, _)| *measure == "values")
    {
        true => Ok(()),
        false => Err(format!("{found:?}").into()),
    }
}

pub fn the_command_tells_its_verdict(gpu: &Gpu) -> Result<(), Failed> {
    let adapter = gpu.adapter().name.as_str();
    let ran = run(&["selftest", "--adapter", adapter]);
    let told = ["adapter: ", "backend: ", "driver: ", env!("CARGO_PKG_VERSION"), "softplus", "chinchilla", "passed in"];
    if ran.code != 0 || told.iter().any(|part| !ran.stdout.contains(part)) || !ran.stdout.contains(adapter) {
        return Err(format!("{ran:?}").into());
    }
    let ran = run(&["selftest", "--adapter", adapter, "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).map_err(|error| error.to_string())?;
    let checks = report["checks"].as_array().map_or(0, Vec::len);
    if ran.code != 0 || report["passed"] != true || report["adapter"]["name"] != *adapter || checks < 40 {
        return Err(format!("{ran:?}").into());
    }
    let ran = command(&["selftest", "--adapter", "no such card"]).output().expect("the binary starts");
    match ran.status.code() {
        Some(2) => Ok(()),
        code => Err(format!("a missing card: exit {code:?}").into()),
    }
}
