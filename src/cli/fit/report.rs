//! What `fit` tells the user: names in formulas, progress on a terminal or in a log, the summary as text.

use super::super::log;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::json;
use std::cell::Cell;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use sweepfit::fit::Status;
use sweepfit::law::Law;
use sweepfit::pipeline::{Broken, Changes, Progress, Report};
use sweepfit::verify::Verification;

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

/// A bar on a terminal; lines at intervals where messages are JSON; else nothing.
pub struct Watch {
    bar: ProgressBar,
    logged: Option<Logged>,
}

/// When progress was told last.
struct Logged {
    rows: Option<u64>,
    started: Instant,
    last: Cell<Option<Instant>>,
    newest: Cell<Progress>,
}

/// Between two lines of progress: often enough to see that a job lives, seldom enough for a log that is kept.
const INTERVAL: Duration = Duration::from_secs(10);

impl Watch {
    pub fn start(rows: Option<u64>, quiet: bool) -> Watch {
        let shown = !quiet && !log::is_json() && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(rows, target);
        let template = match rows {
            Some(_) => "{bar:30} {percent:>3}% of {human_len} rows, {msg} curves, {per_sec}, {eta} left",
            None => "{spinner} {human_pos} rows, {msg} curves, {per_sec}, {elapsed}",
        };
        let style = ProgressStyle::with_template(template).expect("both templates are well-formed");
        bar.set_style(style.with_key("per_sec", |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            // Nothing can be done about a terminal that does not take text.
            let _ = write!(text, "{} rows/s", grouped(state.per_sec() as u64));
        }));
        let logged = (!quiet && log::is_json()).then(|| Logged {
            rows,
            started: Instant::now(),
            last: Cell::new(None),
            newest: Cell::default(),
        });
        Watch { bar, logged }
    }

    pub fn show(&self, progress: Progress) {
        self.bar.set_message(grouped(progress.curves));
        self.bar.set_position(progress.rows_read);
        if let Some(logged) = &self.logged {
            logged.newest.set(progress);
            if logged.last.get().is_none_or(|last| last.elapsed() >= INTERVAL) {
                logged.tell();
            }
        }
    }

    /// Leaves no trace on a terminal.
    pub fn end(&self) {
        self.bar.finish_and_clear();
        if let Some(logged) = &self.logged {
            logged.tell();
        }
    }
}

impl Logged {
    fn tell(&self) {
        self.last.set(Some(Instant::now()));
        let Progress { rows_read, curves } = self.newest.get();
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = if seconds > 0.0 { rows_read as f64 / seconds } else { 0.0 };
        let left = self.rows.map(|rows| rows.saturating_sub(rows_read) as f64 / rate).filter(|left| left.is_finite());
        let of = self.rows.map_or(String::new(), |rows| format!(" of {}", grouped(rows)));
        let message = format!("{}{of} rows, {} curves", grouped(rows_read), grouped(curves));
        let fields = json!({
            "rows_read": rows_read,
            "rows": self.rows,
            "curves": curves,
            "rows_per_second": rate,
            "seconds": seconds,
            "seconds_left": left,
        });
        log::tell("progress", &message, fields, "");
    }
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
    if report.taken_over > 0 {
        line(format!("{} fitted by an earlier run and taken over", counted(report.taken_over, "curve")));
    }
    if let Some(Changes { same, changed, new }) = report.changes {
        let (same, changed, new) = (grouped(same), grouped(changed), grouped(new));
        let vanished = counted(report.vanished.len() as u64, "curve");
        line(format!("since the earlier run: {same} carried over, {changed} changed, {new} new; {vanished} vanished"));
        report.vanished.iter().take(NAMED).for_each(|key| line(format!("  vanished: {key}")));
        if report.vanished.len() > NAMED {
            let more = grouped((report.vanished.len() - NAMED) as u64);
            line(format!("  and {more} more: --summary lists them all"));
        }
    }
    if let Some(watched) = &report.watched {
        let (tested, broken) = (counted(watched.tested, "curve"), counted(watched.broken.len() as u64, "curve"));
        let (law, untested) = (&watched.law, grouped(watched.untested));
        line(format!("{law}: new points of {tested} tested, of {untested} could not be; {broken} broken"));
        for Broken { key, p, adjusted, points } in watched.broken.iter().take(NAMED) {
            let points = counted(*points, "new point");
            line(format!("  broken: {key}: {points}, p = {p:.1e}, adjusted {adjusted:.1e}"));
        }
        if watched.broken.len() > NAMED {
            let more = grouped((watched.broken.len() - NAMED) as u64);
            line(format!("  and {more} more: see broke_adjusted, or sweepfit.watch in the metadata"));
        }
    }
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
            line(format!("  {}", keep_out(&law.filter())));
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

/// Why `--strict` calls a run a failure, a line for every law and check: how many curves, the first one, and what helps.
pub fn broken_by_strict(report: &Report, dropping: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for law in &report.laws {
        let (mut failed, mut reasons) = (0, Vec::new());
        for (status, first) in Status::ALL.iter().zip(&law.tally.first) {
            let count = law.tally.count(*status);
            let Some(remedy) = remedy(*status, &law.filter(), dropping).filter(|_| count > 0) else { continue };
            let first = first.as_ref().map_or(String::new(), |key| format!(" (first {key})"));
            failed += count;
            reasons.push(format!("{} {}{first}: {remedy}", grouped(count), status.name()));
        }
        if failed > 0 {
            let (curves, name) = (counted(report.curves, "curve"), &law.name);
            lines.push(format!(
                "--strict: {name}: {} of {curves} neither converged nor at_bound: {}",
                grouped(failed),
                reasons.join("; ")
            ));
        }
    }
    for Verification { law, fits, disagreements, .. } in &report.verifications {
        if let Some(first) = disagreements.first() {
            lines.push(format!(
                "--strict: {law}: {} of {} verified by dense search disagree (first {}: {}): search more cells with --grid \
                 P=LO:HI:CELLS, or begin at better values with --start P=V",
                grouped(disagreements.len() as u64),
                counted(*fits as u64, "fit"),
                first.key,
                first.reason
            ));
        }
    }
    lines
}

/// What helps against rows outside a law's domain.
fn keep_out(filter: &str) -> String {
    format!("keep such rows out, for example with --where '{filter}', or with --drop-bad-rows")
}

/// What helps a curve of a status that is no success.
fn remedy(status: Status, filter: &str, dropping: bool) -> Option<String> {
    let remedy = match status {
        Status::Converged | Status::AtBound => return None,
        Status::TooFewPoints => "--fix parameters, or keep such curves out with --where",
        Status::BadDomain if dropping => "keep such curves out with --where",
        Status::BadDomain => return Some(keep_out(filter)),
        Status::Degenerate => "--fix what the data do not determine, or take a law of fewer parameters",
        Status::IterationLimit => "--bound or --fix what runs away, or take a law of fewer parameters",
        Status::NonFinite => "--bound parameters to where the law has a value",
    };
    Some(remedy.to_string())
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
