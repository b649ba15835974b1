//! The 27 nonlinear regression problems of NIST's Statistical Reference Datasets, fitted by the shipped binary and held
//! against the certified values.

use super::{Folder, Table, relative, run};
use std::fmt::Write;
use std::path::Path;

const DATA: &str = "datasets/nist_strd.parquet";
const CERTIFIED: &str = include_str!("../../datasets/nist_strd_certified.csv");
/// Digits to which the values are certified; no agreement counts for more.
const CERTIFIED_DIGITS: f64 = 11.0;
/// Digits asked of every parameter, of the residual sum of squares and of every standard error.
const ASKED: [f64; 3] = [8.0, 9.0, 6.0];
/// Its residual sum of squares, 1.4e-25, is rounding in f64, and so are its standard errors.
const ROUNDING: &str = "Lanczos1";
/// A residual sum of squares that is all rounding.
const NOTHING: f64 = 1e-20;

/// Where a fit starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum From {
    First,
    Second,
    /// No starting values: the search alone.
    Nowhere,
}

pub const STARTS: [From; 3] = [From::First, From::Second, From::Nowhere];

struct Parameter {
    name: String,
    starts: [String; 2],
    value: f64,
    deviation: f64,
}

/// One problem: its law as a formula, and what is certified.
pub struct Problem {
    pub name: String,
    law: String,
    parameters: Vec<Parameter>,
    residual: f64,
}

/// How far an answer agrees with what is certified, in digits: the worst parameter, the residual sum of squares, the worst
/// standard error.
#[derive(Debug, Clone)]
pub struct Agreement {
    pub status: String,
    pub digits: [f64; 3],
    /// The residual sum of squares is the certified one to six digits: the global minimum was found.
    pub reached: bool,
}

/// All problems, in the order of the file.
pub fn problems() -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for line in CERTIFIED.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [name, _, _, _, model, parameter, first, second, value, deviation, residual, _, _] = fields[..] else {
            panic!("{CERTIFIED}: 13 fields were expected in {line}")
        };
        let number = |text: &str| -> f64 { text.parse().unwrap_or_else(|_| panic!("{text} in {line}")) };
        if problems.last().is_none_or(|known| known.name != name) {
            problems.push(Problem {
                name: name.into(),
                law: formula(model),
                parameters: Vec::new(),
                residual: number(residual),
            });
        }
        problems.last_mut().expect("just pushed").parameters.push(Parameter {
            name: parameter.into(),
            starts: [first.into(), second.into()],
            value: number(value),
            deviation: number(deviation),
        });
    }
    problems
}

/// NIST writes `y = b1*(1-exp[-b2*x])  +  e`.
fn formula(model: &str) -> String {
    let model = match model.strip_prefix("pi = ") {
        Some(rest) => rest.split_once(' ').expect("the model behind the value of pi").1,
        None => model,
    };
    let (left, right) = model.split_once('=').expect("an equation");
    let right = right.trim().strip_suffix('e').expect("the error term").trim_end().trim_end_matches('+');
    let spell = |text: &str| {
        let text = text.replace("**", "^").replace("arctan", "atan").replace("x1", "x");
        text.replace('[', "(").replace(']', ")").trim().to_string()
    };
    format!("{} ~ {}", spell(left), spell(right))
}

fn digits(found: f64, certified: f64) -> f64 {
    let digits = -relative(found, certified).log10();
    if digits.is_nan() { f64::NEG_INFINITY } else { digits.min(CERTIFIED_DIGITS) }
}

impl Problem {
    /// Fits the problem; `backend` are flags.
    pub fn fit(&self, from: From, backend: &[&str]) -> Agreement {
        let condition = format!("problem == '{}'", self.name);
        let starts: Vec<String> = match from {
            From::Nowhere => Vec::new(),
            From::First => self.parameters.iter().map(|p| format!("--start={}={}", p.name, p.starts[0])).collect(),
            From::Second => self.parameters.iter().map(|p| format!("--start={}={}", p.name, p.starts[1])).collect(),
        };
        let folder = Folder::new();
        let out = folder.file("fits.parquet");
        let mut arguments =
            vec!["fit", DATA, "--where", &condition, "--law", &self.law, "--space", "linear", "-o", &out];
        arguments.extend(starts.iter().map(String::as_str));
        arguments.extend(backend);
        let ran = run(&arguments);
        assert_eq!(ran.code, 0, "{}: {}", self.name, ran.stderr);
        let fits = Table::read(Path::new(&out));
        let worst = |value: &dyn Fn(&Parameter) -> f64| self.parameters.iter().map(value).fold(f64::INFINITY, f64::min);
        let residual = 2.0 * fits.number("objective");
        Agreement {
            status: fits.texts("status")[0].clone(),
            digits: [
                worst(&|p| digits(fits.number(&p.name), p.value)),
                digits(residual, self.residual),
                worst(&|p| digits(fits.number(&format!("{}_se", p.name)), p.deviation)),
            ],
            reached: digits(residual, self.residual) >= 6.0 || self.name == ROUNDING && residual < NOTHING,
        }
    }

    /// Whether the agreement is as close as is asked.
    pub fn passes(&self, agreement: &Agreement) -> bool {
        let certain = if self.name == ROUNDING { 1 } else { 3 };
        (0..certain).all(|k| agreement.digits[k] >= ASKED[k])
    }
}

/// Fits every problem from everywhere on every backend. Out: the table in Markdown; what fell short of the accuracy asked;
/// how many problems each backend solved without starting values.
pub fn report(backends: &[(&str, &[&str])]) -> (String, Vec<String>, Vec<usize>) {
    let (mut failures, mut reached) = (Vec::new(), vec![0; backends.len()]);
    let mut table = String::from("| problem |");
    for from in STARTS {
        for (backend, _) in backends {
            let from = match from {
                From::First => "start 1",
                From::Second => "start 2",
                From::Nowhere => "no start",
            };
            write!(table, " {from}, {backend} |").expect("a string");
        }
    }
    table += "\n|---|";
    table += &"---|".repeat(STARTS.len() * backends.len());
    for problem in problems() {
        write!(table, "\n| {} |", problem.name).expect("a string");
        for from in STARTS {
            for (position, (backend, flags)) in backends.iter().enumerate() {
                let found = problem.fit(from, flags);
                let [parameters, residual, errors] = found.digits;
                let cell = match (from, found.reached) {
                    (From::Nowhere, false) => format!("another minimum ({})", found.status),
                    _ => format!("{parameters:.1}, {residual:.1}, {errors:.1}"),
                };
                write!(table, " {cell} |").expect("a string");
                match from {
                    From::Nowhere => reached[position] += usize::from(found.reached),
                    _ if problem.passes(&found) => {}
                    _ => failures.push(format!("{} from {from:?} on {backend}: {found:?}", problem.name)),
                }
            }
        }
    }
    (table, failures, reached)
}
