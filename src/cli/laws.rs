//! `sweepfit laws`: the catalogue as a list, or one law in full.

use super::print;
use clap::Args;
use std::fmt::Write;
use sweepfit::error::nearest;
use sweepfit::fit::pack::{Plan, Weighting};
use sweepfit::fit::{Loss, Objective, Space};
use sweepfit::law::catalogue::{self, CATALOGUE, Entry};
use sweepfit::law::{Law, Mapping};
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
        format!("inputs      {}", entry.inputs.join(", ")),
        format!("source      {}", entry.source),
        "parameters, default box in log space, meaning".to_string(),
    ];
    for (parameter, bounds) in entry.parameters.iter().zip(&boxes) {
        lines.push(format!("    {:name_width$}  {bounds:box_width$}  {}", parameter.name, parameter.meaning));
    }
    let columns: Vec<String> = entry.inputs.iter().map(|input| format!("COL_{input}")).collect();
    lines.push("example".to_string());
    lines.push(format!(
        "    sweepfit fit sweep.parquet --law {} --x {} --y COL --by KEY -o fits.parquet",
        entry.name,
        columns.join(",")
    ));
    Ok(lines.join("\n") + "\n")
}

/// What `fit` bounds the parameters by where nothing else is said.
fn boxes(entry: &'static Entry) -> Result<Vec<String>> {
    let mut columns: Vec<String> = entry.inputs.iter().map(|input| input.to_string()).collect();
    let x = columns.clone();
    // No input of a law can have this name.
    columns.push("the response".to_string());
    let law = Law::bind(entry.name, &columns, Mapping { x: &x, y: columns.last().map(String::as_str) })?;
    let objective = Objective { space: Space::Log, loss: Loss::Squares };
    let plan = Plan::new(law, objective, &[], Weighting::Even, false, &columns)?;
    Ok((0..plan.model.len()).map(|j| plan.describe_box(j)).collect())
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
