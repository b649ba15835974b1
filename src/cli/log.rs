//! Where messages go: lines of text on stderr, or one JSON object per line for programs that read along.
//!
//! Every object has `time` (UTC), `level` (`info` or `error`), `event` and `message`; events other than `message` and
//! `note` have fields of their own. Results never come this way.

use chrono::{DateTime, SecondsFormat, Utc};
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use std::error::Error as _;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;
use sweepfit::Error;

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people
    Text,
    /// One JSON object per line: time, level, event, message, and fields by event
    Json,
}

static JSON: AtomicBool = AtomicBool::new(false);

/// Chooses the format for all that follows.
pub fn set(format: Format) {
    JSON.store(format == Format::Json, Ordering::Relaxed);
}

/// Whether messages are JSON.
pub fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Says lines of text.
pub fn say(text: &str) {
    if !is_json() {
        print(text);
        return;
    }
    for line in text.lines() {
        let (event, message) = line.strip_prefix("note: ").map_or(("message", line), |note| ("note", note));
        object("info", event, message.trim(), Map::new());
    }
}

/// Says something with fields; `text` is what people read instead, which may be nothing.
pub fn tell(event: &str, message: &str, fields: Value, text: &str) {
    match (is_json(), fields) {
        (false, _) => print(text),
        (true, Value::Object(fields)) => object("info", event, message, fields),
        (true, other) => object("info", event, message, Map::from_iter([("value".to_string(), other)])),
    }
}

/// Says why something could not run.
pub fn error(error: &Error) {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message += &format!(": {cause}");
        source = cause.source();
    }
    if is_json() {
        object("error", "error", &message, fields(error));
    } else {
        print(&format!("error: {message}\n"));
    }
}

/// Says why a run that was done does not count as a success.
pub fn fail(event: &str, message: &str) {
    if is_json() {
        object("error", event, message, Map::new());
    } else {
        print(&format!("error: {message}\n"));
    }
}

/// Says what the command line got wrong, in the words of its parser.
pub fn usage(error: &clap::Error) {
    let text = error.render().to_string();
    let message = text.strip_prefix("error: ").unwrap_or(&text);
    object("error", "error", message.trim(), Map::from_iter([("kind".to_string(), json!("usage"))]));
}

fn fields(error: &Error) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut field = |name: &str, value: String| drop(fields.insert(name.to_string(), json!(value)));
    let kind = match error {
        Error::Formula(_) => "formula",
        Error::Usage(_) => "usage",
        Error::Job(_) => "job",
        Error::Step { step, source } => {
            let mut inner = self::fields(source);
            inner.insert("step".to_string(), json!(step));
            return inner;
        }
        Error::Input { file, .. } => {
            field("file", file.display().to_string());
            "input"
        }
        Error::Column { column, .. } => {
            field("column", column.clone());
            "column"
        }
        Error::Output { file, .. } => {
            field("file", file.display().to_string());
            "output"
        }
        Error::Earlier { file, .. } => {
            field("file", file.display().to_string());
            "earlier"
        }
        Error::Device(_) => "device",
        Error::Interrupted => "interrupted",
    };
    field("kind", kind.to_string());
    fields
}

fn object(level: &str, event: &str, message: &str, fields: Map<String, Value>) {
    let time = DateTime::<Utc>::from(SystemTime::now()).to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut object = fields;
    for (name, value) in [("time", time.as_str()), ("level", level), ("event", event), ("message", message)] {
        object.insert(name.to_string(), json!(value));
    }
    print(&format!("{}\n", Value::Object(object)));
}

/// Whoever has closed stderr does not want to hear it.
fn print(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
