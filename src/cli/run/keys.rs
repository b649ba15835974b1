//! The options of the command line as the keys of a job file, and the parser's complaints as messages about the file.
//!
//! Keys are taken from the parser's own list of options, so that none can be forgotten.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};
use std::error::Error as _;
use sweepfit::Error;
use sweepfit::error::nearest;
use sweepfit::job::{Job, Key, Kind, Step, Takes};

/// Options that make no sense in a file: help, and what asks for the file.
const NOT_IN_A_FILE: [&str; 5] = ["help", "version", "print_job", "check", "job"];

/// The options of `command` that a table of its name may hold.
pub fn kind(command: &Command) -> Kind {
    let own = command.get_arguments().filter(|argument| !argument.is_global_set());
    Kind { name: command.get_name().to_string(), keys: own.filter_map(key).collect() }
}

/// The options of a job as a whole: those of `run`, and those of every subcommand.
pub fn whole(run: &Command) -> Kind {
    Kind { name: run.get_name().to_string(), keys: run.get_arguments().filter_map(key).collect() }
}

/// What an option is called in a file; `None` where it has no place there.
pub fn key(argument: &Arg) -> Option<Key> {
    if NOT_IN_A_FILE.contains(&argument.get_id().as_str()) {
        return None;
    }
    let positional = argument.is_positional();
    let takes = match argument.get_action() {
        ArgAction::SetTrue => Takes::Nothing,
        ArgAction::Append => Takes::Several,
        _ => Takes::One,
    };
    let name = argument.get_long().unwrap_or(argument.get_id().as_str());
    Some(Key { name: name.to_string(), takes, positional })
}

/// What the parser says about the arguments of a step, said about the file.
pub fn located(job: &Job, step: &Step, command: &Command, error: &clap::Error) -> Error {
    let texts = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    };
    // The parser names an option as its usage does: `--bound <P=LO:HI>`.
    let key_of = |shown: &String| {
        let argument = command.get_arguments().find(|argument| argument.to_string() == *shown);
        argument.and_then(key).map_or_else(|| shown.clone(), |key| key.name)
    };
    let names: Vec<String> = texts(ContextKind::InvalidArg).iter().map(key_of).collect();
    let value = texts(ContextKind::InvalidValue).pop().unwrap_or_default();
    let first = names.first().cloned().unwrap_or_default();
    let entry = step.values(&first).find(|entry| holds(&entry.value, &value)).or_else(|| step.values(&first).next());
    let span = entry.map_or(&step.span, |entry| &entry.span);
    let message = match error.kind() {
        ErrorKind::MissingRequiredArgument => {
            return job.error(&step.span, &format!("{} lacks {}", step.title, names.join(", ")));
        }
        ErrorKind::ArgumentConflict => {
            let others: Vec<String> = texts(ContextKind::PriorArg).iter().map(key_of).collect();
            format!("cannot stand beside {}; leave one of them out", others.join(", "))
        }
        ErrorKind::InvalidValue => {
            let known = texts(ContextKind::ValidValue);
            let hint = nearest(&value, known.iter().map(String::as_str));
            let hint = hint.map_or(String::new(), |near| format!("did you mean \"{near}\"? "));
            format!("\"{value}\" is unknown; {hint}(known: {})", known.join(", "))
        }
        _ => match error.source() {
            Some(reason) => format!("\"{value}\": {reason}"),
            None => error.render().to_string().lines().next().unwrap_or_default().replacen("error: ", "", 1),
        },
    };
    job.error(span, &format!("{first}: {message}"))
}

/// Whether a value is, or holds as one of its parts, what the parser complains of.
fn holds(value: &str, part: &str) -> bool {
    value == part || value.split(',').any(|own| own == part)
}
