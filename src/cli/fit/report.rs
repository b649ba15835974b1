//! What `fit` tells the user: names in formulas, progress on a terminal, the summary as text and as a file.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use sweepfit::fit::Status;
use sweepfit::law::Law;
use sweepfit::pipeline::{Progress, Report};
use sweepfit::verify::Verification;
use sweepfit::{Error, Result};
use tempfile::NamedTempFile;

/// Which names of each formula are columns and which are parameters, a line each.
pub fn names(laws: &[Law]) -> String {
    let mut text = String::new();
    for law in laws.iter().filter(|law| law.entry.is_none()) {
        if laws.len() > 1 {
            text += &format!("{}: ", law.name);
        }
        text += &format!("inputs: {}; parameters: {}\n", law.inputs().join(", "), law.parameters.join(", "));
    }
    text
}

/// A bar on a terminal, nothing elsewhere.
pub struct Watch(ProgressBar);

impl Watch {
    pub fn start(rows: Option<u64>, quiet: bool) -> Watch {
        let shown = !quiet && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(rows, target);
        let template = match rows {
            Some(_) => "{bar:30} {percent:>3}% of {human_len} rows, {msg} curves, {eta} left",
            None => "{spinner} {human_pos} rows, {msg} curves, {elapsed}",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("both templates are well-formed"));
        Watch(bar)
    }

    pub fn show(&self, progress: Progress) {
        self.0.set_message(grouped(progress.curves));
        self.0.set_position(progress.rows_read);
    }

    /// Leaves no trace.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// The file of `--summary`, made before the run so that it cannot fail after it.
pub struct SummaryFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl SummaryFile {
    pub fn create(path: &Path) -> Result<SummaryFile> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".sweepfit-").suffix(".part");
        // An ordinary file, not a private one as temporary files are.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(|error| unwritable(path, &error))?;
        Ok(SummaryFile { path: path.to_path_buf(), file })
    }

    pub fn write(mut self, summary: &Value) -> Result<()> {
        writeln!(self.file, "{summary:#}").map_err(|error| unwritable(&self.path, &error))?;
        self.file.persist(&self.path).map_err(|error| unwritable(&self.path, &error.error))?;
        Ok(())
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::Output { file: path.to_path_buf(), message: format!("cannot be written: {error}; choose another --summary") }
}

/// The summary for people.
pub fn text(report: &Report, dropping: bool) -> String {
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("writing to a string cannot fail");
    for note in &report.notes {
        line(format!("note: {note}"));
    }
    let (curves, rows) = (counted(report.curves, "curve"), counted(report.rows_read, "row"));
    line(format!("{curves} of {rows}{}", left_out(report)));
    let several = report.laws.len() > 1;
    for law in &report.laws {
        let counts: Vec<String> = Status::ALL
            .iter()
            .zip(&law.tally.first)
            .filter(|(status, _)| law.tally.count(**status) > 0)
            .map(|(status, first)| {
                let count = format!("{} {}", grouped(law.tally.count(*status)), status.name());
                match first {
                    // Of the rest, one to look at.
                    Some(key) if !matches!(status, Status::Converged | Status::AtBound) => {
                        format!("{count} (first {key})")
                    }
                    _ => count,
                }
            })
            .collect();
        let counts = if counts.is_empty() { "nothing to fit".to_string() } else { counts.join(", ") };
        let best = law.tally.best.map_or(String::new(), |best| format!("; best on {}", grouped(best)));
        line(format!("{}: {counts}{best}", law.name));
        let tally = &law.tally;
        for (fits, reason) in [
            (tally.without_freedom, "as many parameters as points"),
            (tally.without_curvature, "a curvature without an inverse"),
        ] {
            if fits > 0 {
                line(format!("  standard errors are null for {}: {reason}", grouped(fits)));
            }
        }
        if tally.replicates > 0 {
            let (failed, pinned) = (grouped(tally.replicates_failed), grouped(tally.replicates_pinned));
            let replicates = counted(tally.replicates, "replicate");
            line(format!("  {replicates}, {failed} could not be fitted, {pinned} at a bound"));
            let unjudged = tally.replicates - tally.replicates_judged;
            if unjudged > 0 {
                line(format!(
                    "  {} of them stand as the device left them: on a sample judged in f64 they are at most {:.2e} standard \
                     deviations off (root mean square of a curve)",
                    grouped(unjudged),
                    tally.replicates_apart
                ));
            }
        }
        for (fits, reason) in [
            (tally.not_resampled, "nothing to resample: one row or cluster, or no residual to spare"),
            (tally.too_few_replicates, "fewer than half of the replicates could be fitted"),
        ] {
            if fits > 0 {
                line(format!("  bootstrap intervals are null for {}: {reason}", grouped(fits)));
            }
        }
        if tally.not_held_out > 0 {
            line(format!(
                "  no error on held-out points for {}: too few points left, or no prediction there",
                grouped(tally.not_held_out)
            ));
        }
        if several && tally.missing_rows + tally.dropped_rows > 0 {
            line(format!("  rows left out: {} missing, {} outside its domain", tally.missing_rows, tally.dropped_rows));
        }
        if let Some((key, reason)) = &tally.first_bad
            && !dropping
        {
            line(format!("  {key}: {reason}"));
            line(format!("  keep such rows out, for example with --where '{}', or with --drop-bad-rows", law.filter));
        }
    }
    for verification in &report.verifications {
        verified(verification).into_iter().for_each(&mut line);
    }
    if let Some(law) = report.laws.first().filter(|law| law.tally.incomparable > 0) {
        let curves = counted(law.tally.incomparable, "curve");
        line(format!("note: {curves} without a best law: the laws could use different rows (see --where)"));
    }
    let devices: Vec<String> = report
        .devices()
        .into_iter()
        .map(|(name, adapter)| adapter.map_or(name.to_string(), |adapter| format!("{name}: {adapter}")))
        .collect();
    let out = if report.out == "-" { "standard output" } else { &report.out };
    line(format!("{out} in {:.2} s ({})", report.seconds, devices.join("; ")));
    text
}

/// Curves that are named in the summary; the rest stand in the metadata.
const NAMED: usize = 10;

/// How one law's fits compare with brute force.
fn verified(verification: &Verification) -> Vec<String> {
    let Verification { law, fits, excess, relative, errors, ahead, disagreements, unverified } = verification;
    let [.., worst] = excess;
    let (fits, off) = (counted(*fits as u64, "fit"), disagreements.len());
    let mut lines = vec![format!("{law}: {fits} verified by dense search, {off} disagree")];
    if worst.is_finite() {
        let [median, _, most, largest] = relative;
        lines.push(format!(
            "  objectives at most {worst:.1e} above its own; parameters apart by {median:.1e} (median), {most:.1e} (99%), \
             {largest:.1e} (worst), at most {:.1e} standard errors",
            errors[3]
        ));
    }
    if *ahead > 0 {
        lines.push(format!("  the run found better than the dense search for {}", grouped(*ahead as u64)));
    }
    lines.extend(disagreements.iter().take(NAMED).map(|found| format!("  {}: {}", found.key, found.reason)));
    if off > NAMED {
        lines.push(format!("  and {} more: see sweepfit.verification in the metadata", grouped((off - NAMED) as u64)));
    }
    if let Some(first) = unverified.first() {
        lines.push(format!("  {} could not be searched (first {first})", counted(unverified.len() as u64, "curve")));
    }
    lines
}

fn left_out(report: &Report) -> String {
    let missing = report.laws.iter().map(|law| law.tally.missing_rows).max().unwrap_or(0);
    let dropped = report.laws.iter().map(|law| law.tally.dropped_rows).max().unwrap_or(0);
    let reasons = [
        (report.rows_filtered, "by --where"),
        (missing, "null, NaN or of weight zero"),
        (dropped, "outside the law's domain"),
    ];
    let reasons: Vec<String> = reasons
        .into_iter()
        .filter(|(rows, _)| *rows > 0)
        .map(|(rows, reason)| format!("{} {reason}", grouped(rows)))
        .collect();
    if reasons.is_empty() { String::new() } else { format!("; rows left out: {}", reasons.join(", ")) }
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and what it counts.
fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(counted(1, "curve") + &counted(0, "row"), "1 curve0 rows");
    }
}
