//! Damaged inputs: random mutations of tables and job files end in an answer or in a message, never in a panic or a wait.
//!
//! Everything is seeded. SWEEPFIT_MUTATIONS says how many mutations the shipped binary gets, the usual number being small.

#[path = "../../fuzz/targets.rs"]
mod targets;

use crate::support::{Folder, SWEEP, Table, command};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use sweepfit::pipeline::Ledger;
use sweepfit::random::Stream;

/// Pieces that mean something to one of the readers, or nearly.
const PIECES: [&str; 32] = [
    "[[",
    "]]",
    "[[fit]]",
    "[[predict]]\n",
    "${",
    "}",
    "${HOME}",
    "${X:-",
    "$${",
    "\"",
    "'",
    "\"\"\"",
    "\\",
    "\n",
    "\r\n",
    ",",
    ",,,,",
    "=",
    " = ",
    "#",
    "-",
    "1e999",
    "-1",
    "nan",
    "null",
    "999999999999999999999",
    "true",
    "2024-01-02",
    "\u{feff}",
    "\0",
    "größe",
    "[",
];

/// A few random changes of bytes.
fn mutated(bytes: &[u8], stream: &mut Stream) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..stream.integer(1, 6) {
        let last = bytes.len().saturating_sub(1) as u64;
        let at = stream.integer(0, last) as usize;
        let end = (at + stream.integer(1, 16) as usize).min(bytes.len());
        match stream.integer(0, 9) {
            0..=2 if !bytes.is_empty() => bytes[at] ^= 1 << stream.integer(0, 7),
            3 if !bytes.is_empty() => bytes[at] = stream.bits() as u8,
            4 => drop(bytes.drain(at.min(end)..end)),
            5 => {
                let copy = bytes[at.min(end)..end].to_vec();
                let to = stream.integer(0, bytes.len() as u64) as usize;
                bytes.splice(to..to, copy);
            }
            6 => bytes.truncate(at),
            7 => {
                let piece = PIECES[stream.integer(0, PIECES.len() as u64 - 1) as usize];
                bytes.splice(at..at, piece.bytes());
            }
            // Lengths and counts in binary headers.
            8 if bytes.len() > 8 => {
                let at = at.min(bytes.len() - 4);
                let value = [0, 1, u32::MAX, 1 << 31, stream.bits() as u32][stream.integer(0, 4) as usize];
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
            _ => bytes.insert(at, stream.bits() as u8),
        }
    }
    bytes
}

/// A small sweep: five curves.
fn small(folder: &Folder, name: &str) {
    let sweep = Table::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(SWEEP));
    let runs = sweep.texts("run").to_vec();
    let rows: Vec<usize> = (0..sweep.rows).filter(|&row| runs[row].as_str() < "c00000005").collect();
    sweep.take(&rows).write(&folder.path(name), 100);
}

fn small_csv() -> Vec<u8> {
    let mut text = String::from("run,tokens,loss,day,ok\n");
    for run in 0..5 {
        for x in 1..12 {
            let loss = 2.0 + 30.0 * f64::from(x).powf(-0.5);
            text += &format!("\"c{run}\",{x},{loss},2024-01-{x:02},{}\n", x % 2 == 0);
        }
    }
    text.into_bytes()
}

const JOB: &str = "\
[[fit]]
name = 'losses'
inputs = ['${IN:-t.parquet}']
law = ['power', 'E + A*tokens^-alpha']
x = 'tokens'
y = 'loss'
by = ['run']
where = \"tokens > 0 and run != 'c'\"
bound = ['E=0:']
threads = 2
backend = 'cpu'
covariance = true
output = 'fits.parquet'

[[predict]]
fits = 'fits.parquet'
at = ['tokens=1e12']
output = 'ahead.csv'
";

/// How long one attempt may take; it takes some hundredths of a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the binary in the folder; `None` where it ended as it may: 0, or 2 with a message.
fn misbehaves(folder: &Folder, arguments: &[&str]) -> Option<String> {
    let mut command = command(arguments);
    let errors = fs::File::create(folder.path("stderr")).expect("a file");
    command.current_dir(folder.path("")).env_remove("IN").stdout(Stdio::null()).stderr(errors);
    let mut child = command.spawn().expect("the binary starts");
    let began = Instant::now();
    let status = loop {
        match child.try_wait().expect("its state") {
            Some(status) => break status,
            None if began.elapsed() > PATIENCE => {
                child.kill().expect("it runs");
                child.wait().expect("its end");
                return Some("did not end".into());
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let said = String::from_utf8_lossy(&fs::read(folder.path("stderr")).expect("its words")).into_owned();
    let fine = match status.code() {
        Some(0) => true,
        Some(2) => said.contains("error: ") && said.len() > "error: ".len() + 1,
        _ => false,
    };
    (!fine || said.contains("panicked")).then(|| format!("{status}\n{said}"))
}

#[test]
fn mutated_tables_and_jobs_end_in_an_answer_or_a_message() {
    let attempts: u64 = std::env::var("SWEEPFIT_MUTATIONS").map_or(240, |count| count.parse().expect("a number"));
    let folder = Folder::new();
    small(&folder, "t.parquet");
    let parquet = fs::read(folder.path("t.parquet")).expect("a table");
    let csv = small_csv();
    let flags =
        ["--law", "power", "--x", "tokens", "--y", "loss", "--by", "run", "--backend", "cpu", "-o", "o.parquet"];
    let mut refused = [0, 0, 0];
    let mut found = Vec::new();
    for seed in 0..attempts {
        let mut stream = Stream::new(6, seed);
        let kind = (seed % 3) as usize;
        let (name, bytes): (&str, &[u8]) =
            [("m.parquet", &parquet[..]), ("m.csv", &csv), ("m.toml", JOB.as_bytes())][kind];
        let bytes = mutated(bytes, &mut stream);
        fs::write(folder.path(name), &bytes).expect("a file");
        let _ = fs::remove_file(folder.path("o.parquet"));
        let job = ["run", name];
        let fit = [&["fit", name], &flags[..]].concat();
        let arguments: &[&str] = if kind == 2 { &job } else { &fit };
        if let Some(how) = misbehaves(&folder, arguments) {
            let kept = std::env::temp_dir().join(format!("mutation-{seed}-{name}"));
            fs::write(&kept, &bytes).expect("a file");
            found.push(format!("seed {seed}, kept as {}: {how}", kept.display()));
        }
        refused[kind] += u64::from(kind < 2 && !folder.path("o.parquet").exists());
    }
    println!("{attempts} mutations; tables refused: {} Parquet, {} CSV", refused[0], refused[1]);
    assert!(found.is_empty(), "{} of {attempts}\n{}", found.len(), found.join("\n"));
    // The mutations do reach the readers: some are refused, some go through.
    assert!(refused[..2].iter().all(|&count| count > 0 && count < attempts / 3), "{refused:?}");
}

/// Attempts of every fuzz target within this process.
const ATTEMPTS: u64 = 1500;

fn fuzzed(target: fn(&[u8]), seeds: &[Vec<u8>]) {
    for attempt in 0..ATTEMPTS {
        let mut stream = Stream::new(7, attempt);
        let seed = &seeds[stream.integer(0, seeds.len() as u64 - 1) as usize];
        target(&mutated(seed, &mut stream));
    }
}

#[test]
fn fuzz_targets_of_texts_take_whatever_comes() {
    let texts = |texts: &[&str]| -> Vec<Vec<u8>> { texts.iter().map(|text| text.as_bytes().to_vec()).collect() };
    fuzzed(
        targets::formula,
        &texts(&["y ~ E + A*x^-alpha", "log1p(y) ~ log(a*x) + `tokens (1e9)`/b", "n = exp(-x)^2"]),
    );
    fuzzed(targets::filter, &texts(&["x > 0 and k != 'a''b'", "not t or d < '2024-06-01'", "`y`/x == 1e3 and true"]));
    fuzzed(targets::job, &texts(&["metrics = 'm'\n[[fit]]\ninputs = '${A:-b}'\nlaw = ['p']\nthreads = 2\n", JOB]));
}

#[test]
fn the_fuzz_target_of_ledgers_takes_whatever_comes() {
    let folder = Folder::new();
    let path = folder.path("l.ledger");
    let mut ledger = Ledger::open(&path, &targets::ledger_owner()).expect("a ledger");
    ledger.keep(&[1; 100]).expect("kept");
    ledger.restart("rows lie apart").expect("kept");
    [&[2; 10][..], &[], &[3; 50]].iter().for_each(|batch| ledger.keep(batch).expect("kept"));
    fuzzed(targets::ledger, &[fs::read(&path).expect("bytes")]);
}

#[test]
fn fuzz_targets_of_tables_take_whatever_comes() {
    let folder = Folder::new();
    small(&folder, "t.parquet");
    fuzzed(targets::parquet, &[fs::read(folder.path("t.parquet")).expect("a table")]);
    fuzzed(targets::csv, &[small_csv()]);
    let arrow = folder.file("t.arrow");
    let made = command(&[
        "fit",
        &folder.file("t.parquet"),
        "--law",
        "power",
        "--x",
        "tokens",
        "--y",
        "loss",
        "--by",
        "run",
        "-o",
        &arrow,
    ]);
    assert!({ made }.output().expect("the binary").status.success());
    fuzzed(targets::arrow, &[fs::read(&arrow).expect("a table")]);
}
