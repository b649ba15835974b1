//! What a run tells those who watch it: messages as JSON, metrics as Prometheus reads them.

use crate::support::{Folder, SWEEP, SWEEP_FIT, Table, run};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// Every line of a log as an object with the fields that all have.
fn parsed(log: &str) -> Vec<Value> {
    let object = |line: &str| -> Value {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["time", "level", "event", "message"] {
            assert!(object[field].is_string(), "{field} is missing: {line}");
        }
        let time = object["time"].as_str().expect("a time");
        assert!(time.len() == 24 && time.ends_with('Z') && time.starts_with("20"), "{time}");
        object
    };
    log.lines().map(object).collect()
}

#[test]
fn every_line_of_a_json_log_is_an_object() {
    let folder = Folder::new();
    let out = folder.file("fits.parquet");
    let json = ["--log-format", "json", "-o", &out];
    let ran = run(&[&["fit", SWEEP, "--law", "power"], &SWEEP_FIT[..], &json].concat());
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    let events = parsed(&ran.stderr);
    let of = |event: &str| events.iter().filter(|object| object["event"] == event).collect::<Vec<_>>();
    assert!(
        of("note").iter().any(|note| note["message"].as_str().is_some_and(|text| text.contains("the CPU searches")))
    );
    let last = *of("progress").last().expect("progress");
    assert_eq!((last["rows_read"].as_u64(), last["rows"].as_u64()), (Some(17_431), Some(17_431)));
    assert!(
        last["rows_per_second"].as_f64().is_some_and(|rate| rate > 0.0) && last["seconds_left"].as_f64() == Some(0.0)
    );
    let summary = of("summary");
    assert_eq!((summary.len(), summary[0]["summary"]["curves"].as_u64()), (1, Some(500)));
    assert_eq!(summary[0]["summary"]["counts"]["converged"].as_u64(), Some(1000));
}

#[test]
fn errors_are_objects_with_what_they_are_about() {
    let folder = Folder::new();
    let out = folder.file("fits.parquet");
    let fit = |more: &[&str]| {
        let ran = run(&[&["--log-format=json", "fit", SWEEP, "-o", &out], more].concat());
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        parsed(&ran.stderr).pop().expect("an error")
    };
    let column = fit(&["--law", "power", "--x", "token", "--y", "loss"]);
    assert_eq!((column["level"].as_str(), column["column"].as_str()), (Some("error"), Some("token")));
    let formula = fit(&["--law", "loss ~ E + "]);
    assert_eq!(formula["kind"].as_str(), Some("formula"));
    assert!(formula["message"].as_str().is_some_and(|text| text.contains('^')), "{formula}");
    let usage = fit(&["--law", "power", "--loss", "hubble"]);
    assert_eq!(usage["kind"].as_str(), Some("usage"));
    let job =
        folder.text("night.toml", "log-format = 'json'\n[[fit]]\ninputs = 'no.parquet'\nlaw = 'power'\noutput = '-'\n");
    let ran = run(&["run", &job]);
    let error = parsed(&ran.stderr).pop().expect("an error");
    assert_eq!((error["kind"].as_str(), error["file"].as_str()), (Some("input"), Some("no.parquet")));
    assert!(error["step"].as_str().is_some_and(|step| step.ends_with("night.toml:2: fit 1")), "{error}");
    assert_eq!(run(&["--log-format", "json", "fit", SWEEP, "-q", "--law", "power", "-o", "-"]).code, 2);
}

/// Samples by name and labels; fails on a line that Prometheus would not take.
fn samples(text: &str) -> HashMap<String, f64> {
    let mut samples = HashMap::new();
    let mut announced = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(kind, "gauge");
            announced.push(name.to_string());
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            let family = name.split('{').next().expect("a name");
            assert_eq!(announced.last().map(String::as_str), Some(family), "samples stand below their type: {line}");
            let value: f64 = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(samples.insert(name.to_string(), value).is_none(), "twice: {line}");
        }
    }
    samples
}

#[test]
fn metrics_hold_what_the_table_holds() {
    let folder = Folder::new();
    let (out, metrics) = (folder.file("fits.parquet"), folder.file("fit.prom"));
    let more = ["--law", "power", "--where", "tokens > 1e8", "-o", &out, "--metrics", &metrics];
    let ran = run(&[&["fit", SWEEP], &SWEEP_FIT[..], &more].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let samples = samples(&std::fs::read_to_string(&metrics).expect("metrics"));
    let table = Table::read(Path::new(&out));
    for law in ["saturating_power", "power"] {
        for status in ["converged", "at_bound", "too_few_points", "degenerate", "iteration_limit"] {
            let rows = table.texts("law").iter().zip(table.texts("status"));
            let rows = rows.filter(|(own, own_status)| *own == law && *own_status == status).count();
            let name = format!("sweepfit_curves{{step=\"fit\",law=\"{law}\",status=\"{status}\"}}");
            assert_eq!(samples[&name], rows as f64, "{name}");
        }
    }
    assert_eq!(samples["sweepfit_exit_code"], 0.0);
    assert_eq!(samples["sweepfit_rows_read{step=\"fit\"}"], 17_431.0);
    let written = std::fs::metadata(&out).expect("the table").len();
    assert_eq!(samples["sweepfit_bytes_written{step=\"fit\"}"], written as f64);
    // The columns that are not needed are not read; pages are read through a buffer, which may fetch a little more.
    let size = std::fs::metadata(SWEEP).expect("the sweep").len() as f64;
    let read = samples["sweepfit_bytes_read{step=\"fit\"}"];
    assert!(read > 0.5 * size && read < 2.0 * size, "{read} of {size}");
    let (start, end) = (samples["sweepfit_start_timestamp_seconds"], samples["sweepfit_end_timestamp_seconds"]);
    assert!(start > 1.7e9 && end >= start);
    for stage in ["read", "pack", "search", "judge", "write"] {
        assert!(samples[&format!("sweepfit_stage_seconds{{step=\"fit\",stage=\"{stage}\"}}")] >= 0.0);
    }
}

#[test]
fn metrics_are_written_when_the_run_fails_and_say_so() {
    let folder = Folder::new();
    let (job, metrics) = (folder.file("night.toml"), folder.file("night.prom"));
    let text = format!(
        "metrics = '{metrics}'\n[[fit]]\nname = 'lost'\ninputs = 'no.parquet'\nlaw = 'power'\noutput = '-'\n\
         [[fit]]\ninputs = '{SWEEP}'\nlaw = 'power'\nx = 'tokens'\ny = 'loss'\noutput = '{}'\n",
        folder.file("fits.csv")
    );
    std::fs::write(&job, text).expect("a file");
    assert_eq!(run(&["run", &job]).code, 2);
    let samples = samples(&std::fs::read_to_string(&metrics).expect("metrics"));
    assert_eq!(samples["sweepfit_exit_code"], 2.0);
    assert_eq!(samples["sweepfit_step_exit_code{step=\"fit 1 \\\"lost\\\"\"}"], 2.0);
    assert_eq!(samples["sweepfit_step_exit_code{step=\"fit 2\"}"], 0.0);
    assert_eq!(folder.names(), ["fits.csv", "night.prom", "night.toml"]);
    let lost = run(&["fit", "no.parquet", "--law", "power", "-o", "-", "--metrics", &folder.file("none/m.prom")]);
    assert!(lost.code == 2 && lost.stderr.contains("choose another --metrics"), "{}", lost.stderr);
}
