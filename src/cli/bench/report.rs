//! What was measured, as a table for people and as JSON for machines.

use super::measure::{Data, Engine, Measured, Run, Scale};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;
use sweepfit::evaluate::instruction_set::InstructionSet;
use sweepfit::fit::{Loss, Space};
use sweepfit::pipeline::apart::Stages;
use sweepfit::verify::Verification;
use sweepfit::workload::Workload;

/// Where it was measured.
pub struct Machine {
    cores: usize,
    instruction_set: &'static str,
    adapters: Vec<String>,
}

impl Machine {
    pub fn of(cores: usize, engines: &[Engine]) -> Machine {
        let adapters = engines.iter().filter_map(|engine| engine.device.adapter.clone()).collect();
        Machine { cores, instruction_set: InstructionSet::detect().name(), adapters }
    }

    /// In one line.
    pub fn describe(&self) -> String {
        let cores = if self.cores == 1 { "1 core".to_string() } else { format!("{} cores", self.cores) };
        let adapters = if self.adapters.is_empty() { String::new() } else { format!(", {}", self.adapters.join(", ")) };
        let (version, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
        format!("sweepfit {version}, {arch} with {}, {cores}{adapters}", self.instruction_set)
    }

    fn json(&self) -> Value {
        json!({
            "cores": self.cores,
            "architecture": std::env::consts::ARCH,
            "system": std::env::consts::OS,
            "instruction_set": self.instruction_set,
            "adapters": self.adapters,
        })
    }
}

fn space(space: Space) -> &'static str {
    match space {
        Space::Log => "log",
        Space::Linear => "linear",
    }
}

fn loss(loss: Loss) -> String {
    match loss {
        Loss::Squares => "squares".into(),
        Loss::Huber { delta } => format!("huber:{delta}"),
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// Work per second; none where nothing was done or it took no time that a clock can tell.
fn rate(work: f64, seconds: f64) -> Option<f64> {
    (work > 0.0 && seconds > 0.0).then(|| work / seconds)
}

/// Evaluations of a point at a cell of the grid per second of search; none where nothing is searched.
fn evaluations(measured: &Measured, run: &Run) -> Option<f64> {
    let work = run.points as f64 * measured.grid_points as f64;
    rate(if measured.grid_points > 1 { work } else { 0.0 }, seconds(run.stages.search))
}

/// Everything, for machines. Times are seconds.
pub fn json(machine: &Machine, measured: &[Measured]) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine.json(),
        "workloads": measured.iter().map(workload_json).collect::<Vec<_>>(),
    })
}

fn data_json(data: &Data) -> Value {
    let mut told =
        json!({ "space": space(data.objective.space), "loss": loss(data.objective.loss), "file_bytes": data.bytes });
    let start = data.start.iter().map(|named| (named.parameter.clone(), json!(named.control.starts)));
    told["start"] = start.collect();
    if let Some((workload, seed)) = &data.generated {
        told["generated"] = generated_json(workload);
        told["generated"]["seed"] = json!(seed);
    }
    told
}

fn generated_json(workload: &Workload) -> Value {
    let parameters = workload.parameters.iter().map(|(name, draw)| (name.clone(), json!(format!("{draw:?}"))));
    json!({
        "law": workload.law,
        "curves": workload.curves,
        "points": [workload.points.0, workload.points.1],
        "noise": format!("{:?}", workload.noise),
        "parameters": parameters.collect::<serde_json::Map<_, _>>(),
    })
}

fn workload_json(measured: &Measured) -> Value {
    let mut told = data_json(&measured.data);
    told["name"] = json!(measured.data.name);
    told["formula"] = json!(measured.formula);
    told["inputs"] = json!(measured.inputs);
    told["curves"] = json!(measured.curves);
    told["rows"] = json!(measured.rows);
    told["grid_points"] = json!(measured.grid_points);
    told["runs"] = measured.runs.iter().map(|run| run_json(measured, run)).collect();
    told
}

fn run_json(measured: &Measured, run: &Run) -> Value {
    let (curves, rows) = (measured.curves as f64, measured.rows as f64);
    let stages = &run.stages;
    let counts = run.counts.iter().map(|(status, count)| (status.name().to_string(), json!(count)));
    json!({
        "backend": run.backend,
        "adapter": run.adapter,
        "threads": run.threads,
        "whole": {
            "seconds": run.best(),
            "all_seconds": run.whole,
            "curves_per_second": rate(curves, run.best()),
            "rows_per_second": rate(rows, run.best()),
        },
        "stages": {
            "read": seconds(stages.read),
            "pack": seconds(stages.pack),
            "search": seconds(stages.search),
            "refine": seconds(stages.refine),
            "judge": seconds(stages.judge),
            "write": seconds(stages.write),
            "wall": run.staged_seconds,
        },
        "fit": { "seconds": run.fit_seconds(), "curves_per_second": rate(curves, run.fit_seconds()) },
        "point_evaluations_per_second": evaluations(measured, run),
        "converged": run.converged(measured.curves),
        "counts": counts.collect::<serde_json::Map<_, _>>(),
        "verification": run.verification.as_ref().map(Verification::to_json),
        "reached": reached(run).map(|(reached, of)| reached as f64 / of as f64),
        "reached_of": reached(run).map(|(_, of)| of),
        "device": run.device.map(|device| json!({
            "compile": run.compile,
            "chunks": device.chunks,
            "curves": device.curves,
            "basins_refined": device.basins_refined,
            "unfinished": device.unfinished,
            "lay": seconds(device.lay),
            "upload": seconds(device.upload),
            "wait": seconds(device.wait),
            "collect": seconds(device.collect),
            "search": seconds(device.search),
            "basins": seconds(device.basins),
            "begin": seconds(device.begin),
            "refine": seconds(device.refine),
        })),
    })
}

/// How many of the curves that were fitted again by brute force are as low as that, and of how many.
fn reached(run: &Run) -> Option<(usize, usize)> {
    let found = run.verification.as_ref()?;
    let compared = run.sampled - found.unverified.len();
    (compared > 0).then(|| (compared - found.disagreements.len(), compared))
}

/// The largest of a difference, the last of its quantiles; none where nothing was compared.
fn largest(run: &Run, quantiles: fn(&Verification) -> &[f64]) -> String {
    let found = run.verification.as_ref().filter(|found| found.fits > 0);
    found.and_then(|found| quantiles(found).last()).map_or("-".into(), |value| format!("{value:.1e}"))
}

/// The scaling, for machines.
pub fn scaling_json(machine: &Machine, workload: &Workload, scales: &[Scale]) -> Value {
    let scale = |scale: &Scale| {
        let per_second = |seconds: f64| rate(scale.curves as f64, seconds);
        json!({
            "curves": scale.curves,
            "device": scale.label,
            "threads": scale.threads,
            "whole_seconds": scale.seconds.map(|(whole, _)| whole),
            "whole_curves_per_second": scale.seconds.and_then(|(whole, _)| per_second(whole)),
            "fit_seconds": scale.seconds.map(|(_, fit)| fit),
            "fit_curves_per_second": scale.seconds.and_then(|(_, fit)| per_second(fit)),
            "converged": scale.converged,
        })
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine.json(),
        "workload": {
            "name": workload.name,
            "space": space(workload.objective.space),
            "loss": loss(workload.objective.loss),
            "generated": generated_json(workload),
        },
        "scaling": scales.iter().map(scale).collect::<Vec<_>>(),
    })
}

/// Everything, for people.
pub fn text(machine: &Machine, measured: &[Measured]) -> String {
    let mut text = machine.describe() + "\n";
    for measured in measured {
        text += &workload_text(measured);
    }
    text += "\nwhole: from file to file, the best run; fits/s: pack to judge; evals/s: points x grid cells per second of search;\n\
             converged: at a bound or not; reached: random curves whose objective is within 1e-6 of the lowest that a brute\n\
             search in f64 finds, which shares nothing with the fit; d objective: the largest excess over it, as a share;\n\
             d parameters: the largest difference, in standard errors. Stages are measured one after the other on all threads.\n";
    text
}

fn workload_text(measured: &Measured) -> String {
    let data = &measured.data;
    let text = format!(
        "\n{}: {}, {} space, {}: {} curves, {} rows, {:.1} MB\n",
        data.name,
        measured.formula,
        space(data.objective.space),
        loss(data.objective.loss),
        measured.curves,
        measured.rows,
        data.bytes as f64 / 1e6
    );
    let device =
        |run: &Run| vec![run.adapter.clone().unwrap_or_else(|| run.backend.to_string()), run.threads.to_string()];
    let header = |rest: &[&str]| ["device", "threads"].iter().chain(rest).map(ToString::to_string).collect::<Vec<_>>();
    let outcome = ["whole", "curves/s", "fits/s", "evals/s", "converged", "reached", "d objective", "d parameters"];
    let mut outcomes = vec![header(&outcome)];
    let mut stages = vec![header(&["read", "pack", "search", "refine", "judge", "write", "seconds alone"])];
    for run in &measured.runs {
        let curves = measured.curves as f64;
        let outcome = [
            format!("{:.3} s", run.best()),
            short(rate(curves, run.best())),
            short(rate(curves, run.fit_seconds())),
            short(evaluations(measured, run)),
            percent(run.converged(measured.curves)),
            reached(run).map_or("-".into(), |(reached, of)| format!("{reached} of {of}")),
            largest(run, |found| &found.excess),
            largest(run, |found| &found.errors),
        ];
        outcomes.push([device(run), outcome.to_vec()].concat());
        let Stages { read, pack, search, refine, judge, write } = run.stages;
        let stage = [read, pack, search, refine, judge, write].map(|time| format!("{:.3}", seconds(time)));
        stages.push([device(run), stage.to_vec()].concat());
    }
    text + &aligned(&outcomes) + "\n" + &aligned(&stages)
}

/// The scaling, for people.
pub fn scaling_text(machine: &Machine, workload: &Workload, scales: &[Scale]) -> String {
    let mut text = format!(
        "{}\n\n{}: {} space, {}\n",
        machine.describe(),
        workload.name,
        space(workload.objective.space),
        loss(workload.objective.loss)
    );
    let header = ["curves", "device", "threads", "whole", "curves/s", "pack to judge", "fits/s", "converged"];
    let mut lines = vec![header.map(String::from).to_vec()];
    for scale in scales {
        let mut line = vec![scale.curves.to_string(), scale.label.clone(), scale.threads.to_string()];
        match scale.seconds {
            Some((whole, fit)) => {
                let curves = scale.curves as f64;
                line.extend([format!("{whole:.4} s"), short(rate(curves, whole))]);
                line.extend([format!("{fit:.4} s"), short(rate(curves, fit))]);
                line.push(percent(scale.converged.unwrap_or_default()));
            }
            None => line.push("not run: fewer curves took long".into()),
        }
        lines.push(line);
    }
    text += &aligned(&lines);
    text.push('\n');
    text
}

/// Three digits and a unit.
pub fn short(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".into() };
    let (scaled, unit) = match value {
        value if value >= 999.5e6 => (value / 1e9, " G"),
        value if value >= 999.5e3 => (value / 1e6, " M"),
        value if value >= 999.5 => (value / 1e3, " k"),
        value => (value, ""),
    };
    let digits = if scaled < 9.995 { 2 } else { usize::from(scaled < 99.95) };
    format!("{scaled:.digits$}{unit}")
}

/// A share; all of it only where it is all.
fn percent(share: f64) -> String {
    let text = format!("{:.2}%", 100.0 * share);
    if share < 1.0 && text == "100.00%" { "99.99%".into() } else { text }
}

/// Columns of equal width, the first one to the left.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        let joined = cells.collect::<Vec<_>>().join("  ");
        writeln!(text, "  {}", joined.trim_end()).expect("writing to a string cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_shares_do_not_round_up_to_all() {
        for (value, text) in [(0.5, "0.50"), (12.34, "12.3"), (999.4, "999"), (999.9, "1.00 k"), (1.5e6, "1.50 M")] {
            assert_eq!(short(Some(value)), text);
        }
        assert_eq!(short(rate(10.0, 0.0)), "-");
        assert_eq!((percent(1.0), percent(0.999_999)), ("100.00%".into(), "99.99%".into()));
    }
}
