//! `--metrics`: what a run did, in the text format of Prometheus.
//!
//! The file is for a collector of text files (node_exporter's, for example). It is written when the run ends, also when it
//! failed, under a temporary name and renamed. What a kill leaves is the file of the run before, so an alert should look
//! at the age of `sweepfit_end_timestamp_seconds` as well as at `sweepfit_exit_code`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use sweepfit::Result;
use sweepfit::fit::Status;
use sweepfit::pipeline::Report;

/// What a step left behind.
pub enum Outcome {
    /// A fit: its exit code and its report.
    Fitted(u8, Box<Fitted>),
    /// Another subcommand that went well.
    Done,
}

/// A fit that ran to its end.
pub struct Fitted {
    pub report: Report,
    /// Of the input, as stored.
    pub bytes_read: u64,
    /// Of the table of fits and that of draws; `None` on standard output.
    pub bytes_written: Option<u64>,
}

impl Outcome {
    pub fn code(&self) -> u8 {
        match self {
            Outcome::Fitted(code, _) => *code,
            Outcome::Done => 0,
        }
    }
}

/// The worse of two exit codes: a step that could not run (2) is worse than broken curves (3), and these than failed ones (1).
pub fn worse(one: u8, other: u8) -> u8 {
    const FROM_GOOD_TO_BAD: [u8; 4] = [0, 1, 3, 2];
    let place = |code: u8| FROM_GOOD_TO_BAD.iter().position(|known| *known == code).unwrap_or(FROM_GOOD_TO_BAD.len());
    if place(one) >= place(other) { one } else { other }
}

/// Gathers what the steps did.
pub struct Metrics {
    start: SystemTime,
    code: u8,
    /// By name, in the order of the names; samples in that of the steps.
    samples: BTreeMap<&'static str, Vec<(String, f64)>>,
}

/// Names, and what they mean.
const HELP: [(&str, &str); 13] = [
    ("sweepfit_build_info", "The version that ran."),
    ("sweepfit_start_timestamp_seconds", "When the run began."),
    ("sweepfit_end_timestamp_seconds", "When the run ended."),
    ("sweepfit_exit_code", "0 done, 1 done but --strict found failures, 2 could not run."),
    ("sweepfit_step_exit_code", "The same for each step."),
    ("sweepfit_step_seconds", "Seconds that each step took."),
    ("sweepfit_stage_seconds", "Seconds in each stage, summed over batches that run side by side."),
    ("sweepfit_curves", "Curves by law and status."),
    ("sweepfit_rows_read", "Rows of the input."),
    ("sweepfit_rows_left_out", "Rows not used: by --where, missing values, outside a law's domain."),
    ("sweepfit_bytes_read", "Bytes read of the input, as stored."),
    ("sweepfit_bytes_written", "Bytes of the tables written."),
    ("sweepfit_verify_disagreements", "Verified fits that a dense search found better, with --verify."),
];

impl Metrics {
    pub fn start() -> Metrics {
        let start = SystemTime::now();
        Metrics { start, code: 0, samples: BTreeMap::new() }
    }

    /// Takes in what a step did.
    pub fn step(&mut self, step: &str, outcome: &Result<Outcome>, took: Duration) {
        let code = outcome.as_ref().map_or(2, Outcome::code);
        self.code = worse(self.code, code);
        self.add("sweepfit_step_exit_code", &[("step", step)], f64::from(code));
        self.add("sweepfit_step_seconds", &[("step", step)], took.as_secs_f64());
        if let Ok(Outcome::Fitted(_, fitted)) = outcome {
            self.fitted(step, fitted);
        }
    }

    fn fitted(&mut self, step: &str, fitted: &Fitted) {
        let report = &fitted.report;
        for (stage, time) in report.stages.named() {
            self.add("sweepfit_stage_seconds", &[("step", step), ("stage", stage)], time.as_secs_f64());
        }
        for law in &report.laws {
            for status in Status::ALL {
                let labels = [("step", step), ("law", law.name.as_str()), ("status", status.name())];
                self.add("sweepfit_curves", &labels, law.tally.count(status) as f64);
            }
            for (reason, rows) in [("missing", law.tally.missing_rows), ("domain", law.tally.dropped_rows)] {
                let labels = [("step", step), ("law", law.name.as_str()), ("reason", reason)];
                self.add("sweepfit_rows_left_out", &labels, rows as f64);
            }
        }
        self.add("sweepfit_rows_left_out", &[("step", step), ("reason", "where")], report.rows_filtered as f64);
        self.add("sweepfit_rows_read", &[("step", step)], report.rows_read as f64);
        self.add("sweepfit_bytes_read", &[("step", step)], fitted.bytes_read as f64);
        if let Some(bytes) = fitted.bytes_written {
            self.add("sweepfit_bytes_written", &[("step", step)], bytes as f64);
        }
        if !report.verifications.is_empty() {
            self.add("sweepfit_verify_disagreements", &[("step", step)], report.disagreements() as f64);
        }
    }

    fn add(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.samples.entry(name).or_default().push((labels, value));
    }

    /// The file's text at the end of the run.
    pub fn text(mut self) -> String {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        self.add("sweepfit_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        self.add("sweepfit_start_timestamp_seconds", &[], seconds(self.start));
        self.add("sweepfit_end_timestamp_seconds", &[], seconds(SystemTime::now()));
        self.add("sweepfit_exit_code", &[], f64::from(self.code));
        let mut text = String::new();
        for (name, help) in HELP {
            let Some(samples) = self.samples.get(name) else { continue };
            let mut line = |line: std::fmt::Arguments| writeln!(text, "{line}").expect("a string takes all");
            line(format_args!("# HELP {name} {help}"));
            line(format_args!("# TYPE {name} gauge"));
            for (labels, value) in samples {
                line(format_args!("{name}{labels} {value}"));
            }
        }
        text
    }
}

/// A label's value as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sweepfit::Error;

    #[test]
    fn a_step_that_could_not_run_is_the_worst() {
        for (one, other, expected) in [(0, 1, 1), (1, 3, 3), (3, 2, 2), (2, 3, 2), (2, 0, 2)] {
            assert_eq!(worse(one, other), expected);
        }
    }

    #[test]
    fn every_sample_has_its_help_and_labels_are_escaped() {
        let mut metrics = Metrics::start();
        metrics.step("predict 1 \"a\\b\"", &Ok(Outcome::Done), Duration::from_millis(1500));
        metrics.step("fit 2", &Err(Error::Interrupted), Duration::ZERO);
        let text = metrics.text();
        for name in ["sweepfit_exit_code 2", "sweepfit_step_exit_code{step=\"fit 2\"} 2"] {
            assert!(text.lines().any(|line| line == name), "{text}");
        }
        assert!(text.contains(r#"sweepfit_step_seconds{step="predict 1 \"a\\b\""} 1.5"#), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().expect("a name");
            assert!(
                text.contains(&format!("# HELP {name} ")) && text.contains(&format!("# TYPE {name} gauge")),
                "{line}"
            );
        }
    }
}
