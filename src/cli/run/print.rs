//! `fit … --print-job`: the job that a command line means, as TOML.

use super::keys::{self, key};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use std::any::TypeId;
use std::path::PathBuf;
use sweepfit::job::Takes;
use toml::Value;

/// The job with the one step that `matches` holds: every option that was given, under its key.
///
/// # Panics
/// Where `matches` is not of `command`.
pub fn job(command: &Command, matches: &ArgMatches) -> String {
    let given: Vec<&Arg> = command
        .get_arguments()
        .filter(|argument| source(matches, argument) == Some(ValueSource::CommandLine))
        .collect();
    let lines = |global: bool| -> String {
        let arguments = given.iter().filter(|argument| argument.is_global_set() == global);
        arguments.filter_map(|argument| line(argument, matches)).collect()
    };
    let (whole, own) = (lines(true), lines(false));
    let gap = if whole.is_empty() { "" } else { "\n" };
    format!("{whole}{gap}[[{}]]\n{own}", keys::kind(command).name)
}

fn source(matches: &ArgMatches, argument: &Arg) -> Option<ValueSource> {
    let id = argument.get_id().as_str();
    // Asking for an option that the matches do not know would be a panic.
    matches.try_contains_id(id).ok()?;
    matches.value_source(id)
}

fn line(argument: &Arg, matches: &ArgMatches) -> Option<String> {
    let key = key(argument)?;
    let raw = matches.get_raw(argument.get_id().as_str()).into_iter().flatten();
    let mut values = raw.map(|value| value_of(argument, &value.to_string_lossy()));
    let value = match key.takes {
        Takes::Nothing => Value::Boolean(true),
        Takes::One => values.next()?,
        Takes::Several => Value::Array(values.collect()),
    };
    Some(format!("{} = {value}\n", key.name))
}

/// Numbers as numbers where they come back as they were written; a dollar that would ask for a variable is escaped.
fn value_of(argument: &Arg, text: &str) -> Value {
    let parser = argument.get_value_parser().type_id();
    let is_text = parser == TypeId::of::<String>() || parser == TypeId::of::<PathBuf>();
    if !is_text {
        match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => return Value::Integer(number),
            _ => {}
        }
        match text.parse::<f64>() {
            Ok(number) if Value::Float(number).to_string() == text => return Value::Float(number),
            _ => {}
        }
    }
    Value::String(text.replace("${", "$${"))
}

#[cfg(test)]
mod tests {
    use super::super::{Language, subcommand};
    use super::*;
    use sweepfit::job::Job;

    /// Values for an option that takes some, as odd as its type allows.
    fn samples(option: &str) -> Vec<&'static str> {
        match option {
            "law" => vec!["power", "a name = E + A*tokens^-al"],
            "x" => vec!["tokens,batch"],
            "by" => vec!["run,größe \"q\""],
            "where" => vec!["run < 'c1' and `a b` != \"${HOME}\\\""],
            "y" | "weight" | "sigma" | "cluster" => vec!["no plain\tname"],
            "space" => vec!["linear"],
            "loss" => vec!["huber:0.001"],
            "bound" => vec!["E=0:", "A=:2"],
            "fix" => vec!["alpha=0.34"],
            "grid" => vec!["alpha=0.01:2:24"],
            "start" => vec!["alpha=0.3,-0.5", "E=1"],
            "backend" => vec!["cpu"],
            "adapter" => vec!["1e3"],
            "threads" => vec!["3"],
            "select" => vec!["holdout:0.25"],
            "se" => vec!["robust"],
            "level" => vec!["0.95"],
            "bootstrap" => vec!["100"],
            "bootstrap-start" => vec!["best"],
            "seed" => vec!["7"],
            "verify" => vec!["12"],
            "log-format" => vec!["json"],
            "memory" => vec!["4GiB"],
            "since" => vec!["last night.parquet"],
            "watch-law" => vec!["power"],
            "watch-rate" => vec!["0.01"],
            "partition-by" => vec!["law"],
            "part-rows" => vec!["1000"],
            "draws" | "output" | "summary" | "metrics" | "spill" | "ledger" => vec!["-odd $${NAME} 12"],
            _ => Vec::new(),
        }
    }

    #[test]
    fn every_option_of_fit_comes_back_from_the_job_that_it_prints() {
        let language = Language::new();
        let command = subcommand(&language.parser, "fit");
        let matches = |line: &[String]| {
            let matches =
                language.parser.clone().try_get_matches_from(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
            matches.subcommand_matches("fit").expect("fit").clone()
        };
        let mut seen = 0;
        for argument in command.get_arguments() {
            let Some(option) = key(argument) else { continue };
            let mut samples: Vec<String> = samples(&option.name).into_iter().map(String::from).collect();
            if samples.is_empty() && option.takes != Takes::Nothing {
                // One of a fixed choice is any of them.
                let choice = argument.get_possible_values();
                samples.extend(choice.last().map(|value| value.get_name().to_string()));
            }
            let is_flag = option.takes == Takes::Nothing;
            let known = is_flag || option.positional || !samples.is_empty();
            assert!(known, "--{} is new: give it a sample here, and see that it has its key", option.name);
            let mut line: Vec<String> = ["sweepfit", "fit"].map(String::from).to_vec();
            line.extend(is_flag.then(|| format!("--{}", option.name)));
            line.extend(samples.iter().map(|sample| format!("--{}={sample}", option.name)));
            // What the parser asks for besides.
            let needed = [
                ("law", "power"),
                ("output", "out.parquet"),
                ("bootstrap", "50:wild"),
                ("level", "0.9"),
                ("memory", "1GiB"),
                ("since", "old.parquet"),
                ("watch-law", "power"),
            ];
            let is_option = |name: &str| command.get_arguments().any(|argument| argument.get_long() == Some(name));
            let conflicts = command.get_arg_conflicts_with(argument);
            for (needed, value) in needed.into_iter().filter(|(needed, _)| is_option(needed)) {
                if option.name != needed && conflicts.iter().all(|other| other.get_long() != Some(needed)) {
                    line.push(format!("--{needed}={value}"));
                }
            }
            line.extend((option.name == "ledger").then(|| "--resume".to_string()));
            line.extend(["--", "-odd.parquet", "runs/*.csv"].map(String::from));
            let given = matches(&line);
            let printed = job(command, &given);
            let parsed = Job::parse("job.toml", &printed, &language.whole, &language.kinds, &|_| None);
            let parsed = parsed.unwrap_or_else(|error| panic!("{printed}\n{error}"));
            let mut again = parsed.steps[0].arguments("fit");
            again.splice(2..2, parsed.options.arguments("run")[2..].iter().filter(|part| *part != "--").cloned());
            let again = matches(&again);
            for other in command.get_arguments().filter(|other| key(other).is_some()) {
                let id = other.get_id().as_str();
                assert_eq!(source(&given, other), source(&again, other), "--{id} in\n{printed}");
                let raw = |matches: &ArgMatches| -> Vec<_> {
                    matches.get_raw(id).into_iter().flatten().map(|value| value.to_os_string()).collect()
                };
                assert_eq!(raw(&given), raw(&again), "--{id} in\n{printed}");
            }
            seen += 1;
        }
        assert!(seen > 30, "{seen} options");
    }
}
