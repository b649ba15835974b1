//! `sweepfit laws`: the catalogue as a list, or one law in full.

use super::print;
use clap::Args;
use std::fmt::Write;
use std::sync::Arc;
use sweepfit::error::nearest;
use sweepfit::fit::pack::{Plan, Weighting};
use sweepfit::fit::spell::Spelling;
use sweepfit::fit::{Loss, Objective, Space};
use sweepfit::law::catalogue::{self, CATALOGUE, Entry};
use sweepfit::law::{Law, Mapping};
use sweepfit::pipeline;
use sweepfit::{Error, Result};

const EXAMPLE: &str = "\
Example:
  sweepfit laws saturating_power";

/// List the built-in laws, or show one in full
///
/// Without a name: every law with its inputs, formula and meaning. With a name: also its source, and every parameter with
/// its default box and meaning. Any formula works like a built-in law: sweepfit fit --law 'loss ~ E + A*x^-alpha'.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Laws {
    /// The law to show in full
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl Laws {
    /// Prints to stdout.
    pub fn run(self) -> Result<()> {
        let Some(name) = self.name else {
            return print(&list());
        };
        let Some(entry) = catalogue::find(name.trim()) else {
            let known = CATALOGUE.iter().map(|entry| entry.name);
            let hint = nearest(&name, known).map_or(String::new(), |near| format!("; did you mean {near}?"));
            return Err(Error::Usage(format!("no law is called \"{name}\"{hint} (`sweepfit laws` lists them)")));
        };
        print(&in_full(entry)?)
    }
}

fn list() -> String {
    let mut text = String::new();
    for entry in CATALOGUE {
        let Entry { name, inputs, formula, meaning, .. } = entry;
        writeln!(text, "{name} ({})\n    {formula}\n    {meaning}", inputs.join(", "))
            .expect("writing to a string cannot fail");
    }
    text
}

fn in_full(entry: &'static Entry) -> Result<String> {
    let boxes = boxes(entry)?;
    let wide = |widths: &mut dyn Iterator<Item = usize>| widths.max().unwrap_or(0);
    let name_width = wide(&mut entry.parameters.iter().map(|parameter| parameter.name.len()));
    let box_width = wide(&mut boxes.iter().map(String::len));
    let mut lines = vec![
        entry.name.to_string(),
        format!("    {}", entry.meaning),
        String::new(),
        format!("formula     {}", entry.formula),
        format!("inputs      {}{}", entry.inputs.join(", "), domain(entry)),
        format!("source      {}", entry.source),
    ];
    let relatives: Vec<&str> = entry.relatives().map(|other| other.name).collect();
    if !relatives.is_empty() {
        lines.push(format!("same curve  {}: one search serves all of them", relatives.join(", ")));
    }
    lines.push("parameters, default box in log space, meaning".to_string());
    for (parameter, bounds) in entry.parameters.iter().zip(&boxes) {
        lines.push(format!("    {:name_width$}  {bounds:box_width$}  {}", parameter.name, parameter.meaning));
    }
    lines.push("example".to_string());
    lines.extend(example(entry).iter().map(|line| format!("    {line}")));
    Ok(lines.join("\n") + "\n")
}

/// Where the law is defined.
fn domain(entry: &Entry) -> String {
    match entry.above {
        f64::NEG_INFINITY => String::new(),
        above => format!(" (above {above})"),
    }
}

/// Two commands that work as they stand: a synthetic sweep with known truth, and its fit.
fn example(entry: &Entry) -> [String; 2] {
    let Entry { name, inputs, .. } = entry;
    [
        format!("sweepfit generate --law {name} --curves 100 --truth truth.parquet -o sweep.parquet"),
        format!("sweepfit fit sweep.parquet --law {name} --x {} --y y --by curve -o fits.parquet", inputs.join(",")),
    ]
}

/// What `fit` bounds the parameters by where nothing else is said.
fn boxes(entry: &'static Entry) -> Result<Vec<String>> {
    let mut columns: Vec<String> = entry.inputs.iter().map(|input| input.to_string()).collect();
    let x = columns.clone();
    // No input of a law can have this name.
    columns.push("the response".to_string());
    let law = Law::bind(entry.name, &columns, Mapping { x: &x, y: columns.last().map(String::as_str) })?;
    let objective = Objective { space: Space::Log, loss: Loss::Squares };
    let plan = |law, controls: &[_]| Plan::new(law, objective, controls, Weighting::Even, false, &columns);
    let planned = pipeline::Fit::plan(vec![law], &[], plan)?;
    let of = |(plan, spelling): &(Arc<Plan>, Option<Spelling>), j: usize| match spelling {
        Some(spelling) => spelling.describe_box(j, plan),
        None => plan.describe_box(j),
    };
    Ok((0..entry.parameters.len()).map(|j| of(&planned[0], j)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_law_is_listed_and_shown_in_full() {
        let list = list();
        for entry in CATALOGUE {
            assert!(list.contains(&format!("{} (", entry.name)) && list.contains(entry.formula), "{}", entry.name);
            let text = in_full(entry).expect(entry.name);
            for part in [entry.formula, entry.meaning, entry.source] {
                assert!(text.contains(part), "{}: {part} is missing in\n{text}", entry.name);
            }
            for parameter in entry.parameters {
                assert!(text.contains(parameter.meaning), "{}: {} is missing", entry.name, parameter.name);
            }
        }
    }
}
