//! What is fuzzed: every reader of this project, given any bytes, reads them or refuses them with a message.
//!
//! Each function takes the bytes of one attempt and panics where a reader misbehaves. `cargo fuzz run NAME` drives them with
//! coverage (`fuzz_targets`), and `tests/sweepfit/mutations.rs` with seeded mutations on every run of the tests.

use std::path::Path;
use std::sync::LazyLock;
use sweepfit::Error;
use sweepfit::fit::pack::{Plan, Weighting};
use sweepfit::fit::{Loss, Objective, Space};
use sweepfit::formula::parse::{parse_filter, parse_formula};
use sweepfit::job::{Job, Key, Kind, Takes};
use sweepfit::law::{Law, Mapping};
use sweepfit::pipeline::Ledger;
use sweepfit::table::{ColumnKind, Event, ReadOptions, Selection, Source, read};

/// Longer texts only cost time.
const LONGEST: usize = 4096;

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok().filter(|text| text.len() <= LONGEST)
}

/// A message, never empty; that of a text shows the text and points into it.
fn refused(error: &Error, pointed: bool) {
    let message = error.to_string();
    assert!(!message.trim().is_empty(), "{error:?}");
    assert!(!pointed || message.trim_end().ends_with('^'), "{message}");
}

/// A formula is parsed, bound to columns and compiled.
pub fn formula(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Err(error) = parse_formula(text) {
        return refused(&error, true);
    }
    let columns = ["x", "y", "tokens (1e9)"].map(String::from);
    let law = match Law::bind(text, &columns, Mapping { x: &[], y: Some("y") }) {
        Ok(law) => law,
        Err(error) => return refused(&error, false),
    };
    let numbers = law.columns.clone();
    for space in [Space::Log, Space::Linear] {
        let objective = Objective { space, loss: Loss::Squares };
        if let Err(error) = Plan::new(law.clone(), objective, &[], Weighting::Even, false, &numbers) {
            refused(&error, false);
        }
    }
}

/// A filter is parsed, typed against a table's columns, and evaluated on its rows.
pub fn filter(data: &[u8]) {
    static TABLE: LazyLock<(tempfile::TempDir, Source)> = LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.csv");
        let rows = "k,x,y,t,d\na,1,2.5,true,2024-01-02\nb,-3,,false,\nc,,1e300,true,2025-12-31\n";
        std::fs::write(&path, rows).expect("a file");
        let source = Source::open(&[path.display().to_string()]).expect("a table");
        (folder, source)
    });
    let Some(text) = text(data) else { return };
    let tree = match parse_filter(text) {
        Ok(tree) => tree,
        Err(error) => return refused(&error, true),
    };
    let selection =
        Selection { keys: vec!["k".into()], numbers: vec!["x".into()], filter: Some((text.to_string(), tree)) };
    rows(&TABLE.1, &selection);
}

/// A job file is read.
pub fn job(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let key = |name: &str, takes, positional| Key { name: name.into(), takes, positional };
    let keys = vec![
        key("inputs", Takes::Several, true),
        key("law", Takes::Several, false),
        key("threads", Takes::One, false),
        key("covariance", Takes::Nothing, false),
        key("output", Takes::One, false),
    ];
    let options = Kind { name: "run".into(), keys: vec![key("metrics", Takes::One, false)] };
    let kinds = [Kind { name: "fit".into(), keys }];
    let variable = |name: &str| (name.len() < 3).then(|| "value".to_string());
    match Job::parse("job.toml", text, &options, &kinds, &variable) {
        Ok(job) => {
            for step in &job.steps {
                let arguments = step.arguments("fit");
                assert!(arguments.iter().any(|argument| argument == "--"), "{arguments:?}");
                assert!(job.place(step).starts_with("job.toml:"));
            }
        }
        Err(error) => refused(&error, true),
    }
}

/// A CSV file is opened, its types are inferred, and its rows are read.
pub fn csv(data: &[u8]) {
    table("csv", data);
}

/// An Arrow IPC file or stream is opened and read.
pub fn arrow(data: &[u8]) {
    table("arrow", data);
}

/// A Parquet file is opened and read.
pub fn parquet(data: &[u8]) {
    table("parquet", data);
}

/// What the ledger's owner is, here.
pub fn ledger_owner() -> Vec<(String, String)> {
    vec![("version".to_string(), "1".to_string()), ("law".to_string(), "power".to_string())]
}

/// A ledger is looked at, which changes nothing, opened, and every batch that it says it holds is read.
pub fn ledger(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("l.ledger");
    std::fs::write(&path, data).expect("a file");
    let looked = Ledger::look(&path, &ledger_owner());
    assert!(std::fs::read(&path).expect("the file") == data, "looking changed it");
    match (looked, Ledger::open(&path, &ledger_owner())) {
        (Ok(()), Ok(mut ledger)) => {
            (0..ledger.batches()).for_each(|batch| drop(ledger.read(batch).expect("a batch that was counted")));
            ledger.keep(b"next").expect("room for another");
        }
        (Err(one), Err(other)) => {
            assert_eq!(one.to_string(), other.to_string());
            names(&one, &path);
        }
        (looked, opened) => panic!("{looked:?}, but {opened:?}"),
    }
}

fn table(ending: &str, data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(format!("t.{ending}"));
    std::fs::write(&path, data).expect("a file");
    let source = match Source::open(&[path.display().to_string()]) {
        Ok(source) => source,
        Err(error) => return names(&error, &path),
    };
    let of = |kinds: &[ColumnKind]| -> Vec<String> {
        source
            .columns()
            .iter()
            .filter(|column| kinds.contains(&column.kind))
            .map(|column| column.name.clone())
            .collect()
    };
    let keys: Vec<String> = of(&[ColumnKind::Text, ColumnKind::Truth, ColumnKind::Time]).into_iter().take(2).collect();
    let numbers: Vec<String> = of(&[ColumnKind::Number]).into_iter().take(4).collect();
    rows(&source, &Selection { keys, numbers, filter: None });
}

fn names(error: &Error, path: &Path) {
    refused(error, false);
    let message = error.to_string();
    let name = path.file_name().expect("a name").to_string_lossy();
    assert!(message.contains(&*name) || message.starts_with("column"), "{message}");
}

/// Reads all batches; what comes out is whole.
fn rows(source: &Source, selection: &Selection) {
    let options = ReadOptions { threads: 1, ..ReadOptions::default() };
    let reader = match read(source, selection, &options) {
        Ok(reader) => reader,
        Err(error) => return refused(&error, false),
    };
    for event in reader {
        match event {
            Ok(Event::Batch(batch)) => {
                let curves = &batch.curves;
                assert_eq!(batch.keys.len(), curves.len());
                assert_eq!(curves.columns.len(), selection.numbers.len());
            }
            Ok(Event::Restarted) => {}
            Err(error) => return refused(&error, false),
        }
    }
}
