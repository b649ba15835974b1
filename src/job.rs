//! Job files: TOML with one table per step becomes the command lines that the steps mean.
//!
//! In: the text, the kinds of steps with the options that each has, and a way to look environment variables up. Out: a
//! [`Job`], each step's arguments with the place in the file of every one. The options themselves are read by the same
//! code as those of the command line, so that a value means one thing and is refused in one way; this file knows only
//! their names.

mod substitute;

use crate::error::{Error, Result, nearest};
use crate::formula::parse::picture;
use std::ops::Range;
use substitute::substitute;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// A kind of step: a subcommand and what may stand in its table.
#[derive(Debug, Clone)]
pub struct Kind {
    /// The subcommand, and the name of its tables: `[[fit]]`.
    pub name: String,
    /// Its options, positional ones in their order.
    pub keys: Vec<Key>,
}

/// An option as a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// As on the command line, without dashes; for a positional argument what it stands for.
    pub name: String,
    /// How it takes values.
    pub takes: Takes,
    /// Whether the command line takes it by its place and not by its name.
    pub positional: bool,
}

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: it is there or not, `true` or `false`.
    Nothing,
    /// One value.
    One,
    /// A value or a list of them.
    Several,
}

/// A job file that was read.
#[derive(Debug, Clone)]
pub struct Job {
    /// How messages call the file.
    pub file: String,
    /// Options of the job as a whole, which stand above the first step.
    pub options: Step,
    /// In the order in which they stand in the file, which is that in which they run.
    pub steps: Vec<Step>,
    text: String,
}

/// A step, or the options of the whole job.
#[derive(Debug, Clone)]
pub struct Step {
    /// Index into the kinds that [`Job::parse`] was given.
    pub kind: usize,
    /// `fit 2`, or `fit 2 "losses"` where the table has a name.
    pub title: String,
    /// Values in the order of the command line.
    pub entries: Vec<Entry>,
    /// Where its table begins.
    pub span: Range<usize>,
}

/// One value of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The option.
    pub key: Key,
    /// The value after substitution; empty for an option that takes none.
    pub value: String,
    /// Where it stands.
    pub span: Range<usize>,
}

impl Job {
    /// Reads a job. `options` are those of the job as a whole; `variable` looks a variable of the environment up.
    ///
    /// # Errors
    /// [`Error::Job`] with file, line, column and a caret: text that is not TOML, an unknown table or key (with the nearest
    /// name), a value of the wrong kind, a variable that is not set and has no default.
    pub fn parse(
        file: &str,
        text: &str,
        options: &Kind,
        kinds: &[Kind],
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Job> {
        let reader = Reader { file, text, variable };
        let document = DeTable::parse(text).map_err(|error| {
            let message = error.message().lines().collect::<Vec<_>>().join("; ");
            reader.error(&error.span().unwrap_or(0..0), &format!("is not TOML: {message}"))
        })?;
        let mut job = Job {
            file: file.to_string(),
            options: Step { kind: 0, title: "the job".into(), entries: Vec::new(), span: 0..0 },
            steps: Vec::new(),
            text: text.to_string(),
        };
        for (name, value) in document.get_ref() {
            let (name, span) = (name.get_ref().as_ref(), name.span());
            if let Some(kind) = kinds.iter().position(|kind| kind.name == name) {
                let DeValue::Array(tables) = value.get_ref() else {
                    return Err(reader.error(&span, &format!("\"{name}\" is a list of steps: write [[{name}]]")));
                };
                job.steps.extend(reader.steps(kind, &kinds[kind], tables)?);
            } else if let Some(key) = options.keys.iter().find(|key| key.name == name) {
                reader.entry(key, value, &mut job.options.entries)?;
            } else {
                return Err(reader.unknown_table(name, &span, options, kinds));
            }
        }
        job.steps.sort_by_key(|step| step.span.start);
        for (index, step) in job.steps.iter_mut().enumerate() {
            step.title = match step.title.as_str() {
                "" => format!("{} {}", kinds[step.kind].name, index + 1),
                title => format!("{} {} \"{title}\"", kinds[step.kind].name, index + 1),
            };
        }
        if job.steps.is_empty() {
            return Err(reader.error(
                &(0..0),
                "holds no step: write a table [[fit]], for example what `sweepfit fit … --print-job` prints",
            ));
        }
        Ok(job)
    }

    /// The error for what stands at `span`.
    pub fn error(&self, span: &Range<usize>, message: &str) -> Error {
        Reader { file: &self.file, text: &self.text, variable: &|_| None }.error(span, message)
    }

    /// Where a step stands, for messages: `nightly.toml:12: fit 2 "losses"`.
    pub fn place(&self, step: &Step) -> String {
        format!("{}:{}: {}", self.file, position(&self.text, step.span.start).0, step.title)
    }
}

impl Step {
    /// The command line that the step means, behind the program's name and `subcommand`.
    pub fn arguments(&self, subcommand: &str) -> Vec<String> {
        let named = self.entries.iter().filter(|entry| !entry.key.positional).map(|entry| match entry.key.takes {
            Takes::Nothing => format!("--{}", entry.key.name),
            _ => format!("--{}={}", entry.key.name, entry.value),
        });
        let mut arguments = vec!["sweepfit".to_string(), subcommand.to_string()];
        arguments.extend(named);
        arguments.push("--".into());
        arguments.extend(self.entries.iter().filter(|entry| entry.key.positional).map(|entry| entry.value.clone()));
        arguments
    }

    /// The values of a key.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.key.name == key)
    }
}

/// Line and column of a byte, both from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let at = (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    fn error(&self, span: &Range<usize>, message: &str) -> Error {
        let (line, column) = position(self.text, span.start);
        Error::Job(format!("{}:{line}:{column}: {message}{}", self.file, picture(self.text, span)))
    }

    fn unknown_table(&self, name: &str, span: &Range<usize>, options: &Kind, kinds: &[Kind]) -> Error {
        let tables = kinds.iter().map(|kind| kind.name.as_str());
        let known: Vec<&str> = tables.clone().chain(options.keys.iter().map(|key| key.name.as_str())).collect();
        // Keys of a step that stand above its table are the likeliest mistake of all.
        if nearest(name, known.iter().copied()).is_none()
            && let Some(kind) = kinds.iter().find(|kind| kind.keys.iter().any(|key| key.name == name))
        {
            let kind = &kind.name;
            return self.error(span, &format!("\"{name}\" belongs to a step: write it below [[{kind}]]"));
        }
        let listed: Vec<String> =
            tables.map(|name| format!("[[{name}]]")).chain(options.keys.iter().map(|key| key.name.clone())).collect();
        self.unknown("table or key", name, span, &known, &listed.join(", "))
    }

    fn unknown(&self, what: &str, name: &str, span: &Range<usize>, known: &[&str], listed: &str) -> Error {
        let hint = nearest(name, known.iter().copied());
        let hint = hint.map_or(String::new(), |near| format!("did you mean \"{near}\"? "));
        self.error(span, &format!("unknown {what} \"{name}\"; {hint}(known: {listed})"))
    }

    fn steps(&self, index: usize, kind: &Kind, tables: &DeArray<'_>) -> Result<Vec<Step>> {
        let step = |table: &Spanned<DeValue<'_>>| {
            let DeValue::Table(entries) = table.get_ref() else {
                let message = format!("\"{0}\" is a list of steps: write [[{0}]]", kind.name);
                return Err(self.error(&table.span(), &message));
            };
            let mut step = Step { kind: index, title: String::new(), entries: Vec::new(), span: table.span() };
            for (name, value) in entries {
                let (name, span) = (name.get_ref().as_ref(), name.span());
                if name == "name" {
                    step.title = self.text_of("name", value)?;
                    continue;
                }
                let Some(key) = kind.keys.iter().find(|key| key.name == name) else {
                    let known: Vec<&str> = kind.keys.iter().map(|key| key.name.as_str()).chain(["name"]).collect();
                    return Err(self.unknown("key", name, &span, &known, &known.join(", ")));
                };
                self.entry(key, value, &mut step.entries)?;
            }
            // Positional arguments in the order of the command line; the others in that of the file.
            step.entries.sort_by_key(|entry| match entry.key.positional {
                true => (1, kind.keys.iter().position(|key| *key == entry.key).unwrap_or(0)),
                false => (0, entry.span.start),
            });
            Ok(step)
        };
        tables.iter().map(step).collect()
    }

    fn entry(&self, key: &Key, value: &Spanned<DeValue<'_>>, entries: &mut Vec<Entry>) -> Result<()> {
        let mut push = |value: String, span| entries.push(Entry { key: key.clone(), value, span });
        let name = &key.name;
        match (key.takes, value.get_ref()) {
            (Takes::Nothing, DeValue::Boolean(true)) => push(String::new(), value.span()),
            (Takes::Nothing, DeValue::Boolean(false)) => {}
            (Takes::Nothing, DeValue::String(_)) => match self.text_of(name, value)?.as_str() {
                "true" => push(String::new(), value.span()),
                "false" => {}
                other => {
                    let message = format!("{name} is \"{other}\" and takes true or false");
                    return Err(self.error(&value.span(), &message));
                }
            },
            (Takes::Nothing, other) => {
                let message = format!("{name} is {} and takes true or false", described(other));
                return Err(self.error(&value.span(), &message));
            }
            (Takes::Several, DeValue::Array(values)) => {
                for value in values.iter() {
                    push(self.text_of(name, value)?, value.span());
                }
            }
            (Takes::One, DeValue::Array(_)) => {
                return Err(self.error(&value.span(), &format!("{name} is a list and takes one value")));
            }
            _ => push(self.text_of(name, value)?, value.span()),
        }
        Ok(())
    }

    /// A value as the command line would have it.
    fn text_of(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<String> {
        let wrong = |what: String| Err(self.error(&value.span(), &format!("{key} is {what}")));
        match value.get_ref() {
            DeValue::String(text) => substitute(text, self.variable).map_err(|mistake| {
                // Found in the file's own text, where escapes may have moved it.
                let span = value.span();
                let start = self.text[span.clone()].find(&mistake.text).map_or(span.start, |at| span.start + at);
                self.error(&(start..span.end), &format!("{key}: {}", mistake.message))
            }),
            DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_string()),
            DeValue::Integer(number) => wrong(format!("{} in base {}; write it in base 10", number, number.radix())),
            DeValue::Float(number) => Ok(number.as_str().to_string()),
            other => wrong(format!("{} and takes text or a number", described(other))),
        }
    }
}

fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time (put it in quotes)",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> (Kind, Vec<Kind>) {
        let key = |name: &str, takes, positional| Key { name: name.into(), takes, positional };
        let fit = vec![
            key("inputs", Takes::Several, true),
            key("law", Takes::Several, false),
            key("threads", Takes::One, false),
            key("covariance", Takes::Nothing, false),
            key("output", Takes::One, false),
        ];
        let predict = vec![key("fits", Takes::One, true), key("at", Takes::Several, false)];
        let kind = |name: &str, keys| Kind { name: name.into(), keys };
        (kind("run", vec![key("metrics", Takes::One, false)]), vec![kind("fit", fit), kind("predict", predict)])
    }

    fn parse(text: &str) -> Result<Job> {
        let (options, kinds) = kinds();
        let variable = |name: &str| match name {
            "DAY" => Some("2026-11-22".to_string()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        Job::parse("night.toml", text, &options, &kinds, &variable)
    }

    fn message(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    #[test]
    fn steps_come_in_the_order_of_the_file_as_command_lines() {
        let job = parse(
            "metrics = 'm.prom'\n\
             [[fit]]\nlaw = ['power', 'E + A*x^-a']\ninputs = 'runs/${DAY}/'\ncovariance = true\nthreads = 4\noutput = 'a'\n\
             [[predict]]\nname = 'ahead'\nat = 'x=1e12'\nfits = 'a'\n\
             [[fit]]\ninputs = ['-b', 'c']\nlaw = 'power'\ncovariance = false\n",
        )
        .expect("a job");
        let lines: Vec<String> =
            job.steps.iter().map(|step| step.arguments(["fit", "predict"][step.kind])[1..].join(" ")).collect();
        assert_eq!(
            lines,
            [
                "fit --law=power --law=E + A*x^-a --covariance --threads=4 --output=a -- runs/2026-11-22/",
                "predict --at=x=1e12 -- a",
                "fit --law=power -- -b c",
            ]
        );
        let titles: Vec<&str> = job.steps.iter().map(|step| step.title.as_str()).collect();
        assert_eq!(titles, ["fit 1", "predict 2 \"ahead\"", "fit 3"]);
        assert_eq!(job.place(&job.steps[1]), "night.toml:8: predict 2 \"ahead\"");
        assert_eq!(job.options.entries[0].value, "m.prom");
    }

    #[test]
    fn mistakes_are_pointed_at_with_the_repair() {
        let table = [
            (
                "[[fit]]\nlaws = 'power'\n",
                "night.toml:2:1: unknown key \"laws\"; did you mean \"law\"? (known: inputs, law,",
            ),
            (
                "[[fits]]\n",
                "night.toml:1:3: unknown table or key \"fits\"; did you mean \"fit\"? (known: [[fit]], [[predict]], metrics)",
            ),
            ("metric = 'x'\n", "did you mean \"metrics\"?"),
            (
                "covariance = true\n[[fit]]\n",
                "night.toml:1:1: \"covariance\" belongs to a step: write it below [[fit]]",
            ),
            ("[fit]\nlaw = 'power'\n", "write [[fit]]"),
            ("fit = [1]\n", "night.toml:1:8: \"fit\" is a list of steps: write [[fit]]"),
            ("[[fit]]\ncovariance = 1\n", "night.toml:2:14: covariance is a number and takes true or false"),
            ("[[fit]]\ncovariance = 'yes'\n", "covariance is \"yes\" and takes true or false"),
            ("[[fit]]\nthreads = [1, 2]\n", "threads is a list and takes one value"),
            ("[[fit]]\nthreads = 0x10\n", "base 16; write it in base 10"),
            ("[[fit]]\nlaw = [['a']]\n", "law is a list and takes text or a number"),
            ("[[fit]]\noutput = 2026-11-22\n", "put it in quotes"),
            ("[[fit]]\noutput = 'a'\noutput = 'b'\n", "night.toml:3:1: is not TOML: duplicate key"),
            ("[[fit]\n", "night.toml:1:"),
            ("# nothing\n", "holds no step"),
            ("[[fit]]\noutput = 'x/${NIGHT}/y'\n", "night.toml:2:13: output: the variable NIGHT is not set"),
            ("[[fit]]\noutput = 'x/${NIGHT'\n", "night.toml:2:13: output: ${ without its }"),
        ];
        for (text, expected) in table {
            let message = message(text);
            assert!(message.contains(expected), "{text}\n{message}\nexpected: {expected}");
            assert!(message.lines().last().expect("a line").trim() == "^", "{message}");
        }
    }
}
