//! Runs a workload on a device: the whole, the stages alone, some answers against brute force.
//!
//! In: [`Data`] (a generated sweep or the user's files) and [`Engine`]s. Out: [`Measured`] and [`Scale`]s, numbers only.

use crate::cli::generate::{key, stream};
use crate::cli::interruption;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sweepfit::fit::gpu::{Gpu, Timings};
use sweepfit::fit::pack::{NamedControl, Plan, Weighting, check_names};
use sweepfit::fit::spell::Spelling;
use sweepfit::fit::{Loss, Objective, Space, Status};
use sweepfit::generate::Generated;
use sweepfit::law::{Law, Mapping};
use sweepfit::pipeline::apart::{self, Apart, Stages};
use sweepfit::pipeline::{self, Device, Extras, Request};
use sweepfit::table::sweep::SweepWriter;
use sweepfit::table::{Counts, Selection, Source};
use sweepfit::verify::Verification;
use sweepfit::workload::Workload;
use sweepfit::{Error, Result};
use tempfile::TempDir;

/// What a file is fitted by, unless somebody says otherwise.
pub const USUAL_OBJECTIVE: Objective = Objective { space: Space::Log, loss: Loss::Squares };
/// A device that took longer than this for a run is not asked for ten times as many curves.
const PATIENCE: f64 = 20.0;
/// Rows in a row group of a generated file: curves straddle its borders.
const ROW_GROUP: usize = 1_000_003;

/// What every measurement needs to know.
pub struct Settings {
    /// Runs, of which the fastest counts.
    pub repeat: u32,
    /// Of generated sweeps.
    pub seed: u64,
    /// Values that parameters are searched from, instead of a grid.
    pub start: Vec<NamedControl>,
    /// Random curves to fit again by brute force.
    pub verify: usize,
    /// Whether stderr stays silent.
    pub quiet: bool,
}

/// A device that fits.
pub struct Engine {
    pub device: Device,
    /// The same, where it is a GPU and has a clock of its own.
    pub gpu: Option<Arc<Gpu>>,
}

impl Engine {
    pub fn cpu() -> Engine {
        Engine { device: Device::cpu(), gpu: None }
    }

    /// `cpu`, or the GPU's name.
    pub fn label(&self) -> String {
        self.device.adapter.clone().unwrap_or_else(|| self.device.name.to_string())
    }
}

/// A sweep in files and the law that is fitted to it.
pub struct Data {
    pub name: String,
    paths: Vec<String>,
    law: String,
    x: Vec<String>,
    y: Option<String>,
    by: Vec<String>,
    pub objective: Objective,
    /// Values that parameters are searched from.
    pub start: Vec<NamedControl>,
    /// What generated it, and the seed.
    pub generated: Option<(Workload, u64)>,
    /// Bytes of the files.
    pub bytes: u64,
    /// Holds generated files, and the results.
    folder: TempDir,
}

/// A workload on every device.
pub struct Measured {
    pub data: Data,
    pub formula: String,
    pub inputs: Vec<String>,
    /// Points of the search's grid; 1 where nothing is searched.
    pub grid_points: usize,
    pub curves: u64,
    pub rows: u64,
    pub runs: Vec<Run>,
}

/// One device with one number of threads.
pub struct Run {
    pub backend: &'static str,
    pub adapter: Option<String>,
    pub threads: usize,
    /// Seconds from file to file, run by run.
    pub whole: Vec<f64>,
    /// The stages of the fastest run by stage.
    pub stages: Stages,
    /// How long that run took, with what it does twice.
    pub staged_seconds: f64,
    /// Points that entered the fits.
    pub points: u64,
    /// Curves of every status.
    pub counts: Vec<(Status, u64)>,
    /// Random curves that were fitted again by brute force, and how the answers compare.
    pub sampled: usize,
    pub verification: Option<Verification>,
    /// The GPU's own clock, over the fastest run by stage.
    pub device: Option<Timings>,
    /// Seconds that compiling the GPU's pipelines took, once.
    pub compile: Option<f64>,
}

/// One point of the scaling.
pub struct Scale {
    pub curves: u64,
    pub label: String,
    pub threads: usize,
    /// Best whole run and the time of pack to judge, in seconds; None where it was not run because fewer curves took long.
    pub seconds: Option<(f64, f64)>,
    /// Share of the curves that converged.
    pub converged: Option<f64>,
}

impl Run {
    /// The best whole run.
    pub fn best(&self) -> f64 {
        self.whole.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Pack to judge.
    pub fn fit_seconds(&self) -> f64 {
        let Stages { pack, search, refine, judge, .. } = self.stages;
        (pack + search + refine + judge).as_secs_f64()
    }

    pub fn count(&self, status: Status) -> u64 {
        self.counts.iter().filter(|(known, _)| *known == status).map(|(_, count)| count).sum()
    }

    /// Share of `curves` that converged, at a bound or not.
    pub fn converged(&self, curves: u64) -> f64 {
        (self.count(Status::Converged) + self.count(Status::AtBound)) as f64 / curves.max(1) as f64
    }
}

fn folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("sweepfit-bench-").tempdir().map_err(|error| Error::Output {
        file: std::env::temp_dir(),
        message: format!("no folder can be made there ({error}): set TMPDIR to a place with room"),
    })?;
    interruption::clear_away(folder.path().to_path_buf());
    Ok(folder)
}

fn say(settings: &Settings, text: &str) {
    if !settings.quiet {
        super::super::log::say(&format!("{text}\n"));
    }
}

fn text_of(path: &Path) -> Result<String> {
    path.to_str().map(str::to_string).ok_or_else(|| Error::Output {
        file: path.to_path_buf(),
        message: "is not named in UTF-8: choose another path".into(),
    })
}

/// The user's own files.
pub fn file(
    settings: &Settings,
    paths: &[String],
    law: &str,
    x: &[String],
    y: Option<&str>,
    by: &[String],
    objective: Objective,
) -> Result<Data> {
    let source = Source::open(paths)?;
    let bytes = source.bytes();
    let data = Data {
        name: law.to_string(),
        paths: paths.to_vec(),
        law: law.to_string(),
        x: x.to_vec(),
        y: y.map(str::to_string),
        by: by.to_vec(),
        objective,
        start: settings.start.clone(),
        generated: None,
        bytes,
        folder: folder()?,
    };
    data.plan(&source)?;
    Ok(data)
}

/// Generates a workload into a file, which is kept where `keep` says so and else lives as long as the [`Data`].
pub fn generate(settings: &Settings, workload: &Workload, keep: Option<&Path>) -> Result<Data> {
    say(settings, &format!("{}: generating {} curves", workload.name, workload.curves));
    let seed = settings.seed;
    let sweep = workload.sweep(seed)?;
    let folder = folder()?;
    let path = keep.map_or_else(|| folder.path().join("sweep.parquet"), Path::to_path_buf);
    let metadata = [("workload", workload.name.clone()), ("seed", seed.to_string())];
    let metadata = metadata.map(|(key, value)| (format!("sweepfit.bench.{key}"), value));
    let mut writer = SweepWriter::create(&path, "curve", &sweep.law.columns, ROW_GROUP, &metadata)?;
    stream(&sweep, workload.curves, 0, |first, Generated { curves, .. }| {
        let keys: Vec<String> = (first..first + curves.len() as u64).map(key).collect();
        writer.write(&keys, &curves.offsets, curves.columns)
    })?;
    writer.finish()?;
    let bytes = path.metadata().map_or(0, |file| file.len());
    Ok(Data {
        name: workload.name.clone(),
        paths: vec![text_of(&path)?],
        law: workload.law.clone(),
        x: workload.x.iter().map(|(name, _)| name.clone()).collect(),
        y: Some(workload.y.clone()),
        by: vec!["curve".into()],
        objective: workload.objective,
        start: settings.start.clone(),
        generated: Some((workload.clone(), seed)),
        bytes,
        folder,
    })
}

impl Data {
    fn bind(&self, source: &Source) -> Result<Law> {
        let columns: Vec<String> = source.columns().iter().map(|column| column.name.clone()).collect();
        Law::bind(&self.law, &columns, Mapping { x: &self.x, y: self.y.as_deref() })
    }

    /// The plan, and how the law is reported where that is another spelling.
    fn plan(&self, source: &Source) -> Result<(Arc<Plan>, Option<Spelling>)> {
        let law = self.bind(source)?;
        check_names(&self.start, std::slice::from_ref(&law))?;
        let numbers = law.columns.clone();
        let plan =
            |law, start: &[NamedControl]| Plan::new(law, self.objective, start, Weighting::Even, false, &numbers);
        let mut plans = pipeline::Fit::plan(vec![law], &self.start, plan)?;
        Ok(plans.pop().expect("a plan per law"))
    }

    fn request(&self, engine: &Engine, threads: usize) -> Result<Request> {
        let source = Source::open(&self.paths)?;
        let (plan, spelling) = self.plan(&source)?;
        // The columns that the plan was made for are those of the law as reported.
        let numbers = spelling.as_ref().map_or(&plan.law, |spelling| &spelling.law).columns.clone();
        Ok(Request {
            source,
            selection: Selection { keys: self.by.clone(), numbers, filter: None },
            fits: vec![pipeline::Fit { plan, spelling, device: engine.device.clone() }],
            extras: Extras::default(),
            parts: None,
            verify: 0,
            memory: None,
            rerun: pipeline::Rerun::default(),
            out: text_of(&self.folder.path().join("fits.parquet"))?,
            threads,
            // A signal ends the process: nothing is written that somebody waits for.
            interrupted: Arc::default(),
        })
    }
}

/// Measures one workload on every device with every number of threads.
pub fn workload(settings: &Settings, data: Data, engines: &[Engine], threads: &[usize]) -> Result<Measured> {
    let source = Source::open(&data.paths)?;
    let (plan, spelling) = data.plan(&source)?;
    let law = spelling.as_ref().map_or(&plan.law, |spelling| &spelling.law);
    let (grid_points, formula) = (plan.grid_points(), format!("{} ~ {}", law.response_text, law.formula));
    let inputs = law.inputs().into_iter().map(str::to_string).collect();
    let (mut runs, mut curves, mut rows) = (Vec::new(), 0, 0);
    for &threads in threads {
        for engine in engines {
            say(settings, &format!("{}: measuring {} with {threads} threads", data.name, engine.label()));
            let (run, counts) = measure(settings, &data, engine, threads, settings.verify)?;
            (curves, rows) = (counts.curves, counts.rows);
            runs.push(run);
        }
    }
    Ok(Measured { data, formula, inputs, grid_points, curves, rows, runs })
}

/// The fastest of several runs by stage and all whole runs.
fn measure(settings: &Settings, data: &Data, engine: &Engine, threads: usize, verify: usize) -> Result<(Run, Counts)> {
    let clock = || engine.gpu.as_ref().map(|gpu| gpu.take_timings());
    clock();
    let mut compile = None;
    let mut best: Option<(Apart, Option<Timings>)> = None;
    let (mut sampled, mut verification) = (0, None);
    for repetition in 0..settings.repeat {
        // All repetitions have the same answers.
        let verify = if repetition == 0 { verify } else { 0 };
        let mut apart = apart::measure(&Request { verify, ..data.request(engine, threads)? })?;
        if repetition == 0 {
            (sampled, verification) = (apart.sampled, apart.verification.take());
        }
        let timings = clock();
        if let Some(timings) = timings {
            // Compiled once, before the first search, and kept.
            compile = compile.or(Some(timings.compile.as_secs_f64()));
            apart.stages.search = apart.stages.search.saturating_sub(timings.compile);
            let refined = timings.refine.min(apart.stages.search);
            apart.stages.search -= refined;
            apart.stages.refine += refined;
        }
        if best.as_ref().is_none_or(|(known, _)| sum(&apart.stages) < sum(&known.stages)) {
            best = Some((apart, timings));
        }
    }
    let (apart, timings) = best.expect("--repeat is at least 1");
    let mut whole = Vec::new();
    for _ in 0..settings.repeat {
        let started = Instant::now();
        pipeline::run(data.request(engine, threads)?, &mut |_| {})?;
        whole.push(started.elapsed().as_secs_f64());
    }
    let run = Run {
        backend: engine.device.name,
        adapter: engine.device.adapter.clone(),
        threads,
        whole,
        stages: apart.stages,
        staged_seconds: apart.seconds,
        points: apart.points,
        counts: Status::ALL.iter().map(|&status| (status, apart.tally.count(status))).collect(),
        sampled,
        verification,
        device: timings,
        compile,
    };
    Ok((run, apart.counts))
}

fn sum(stages: &Stages) -> Duration {
    let Stages { read, pack, search, refine, judge, write } = *stages;
    read + pack + search + refine + judge + write
}

/// Throughput against the number of curves, on every device.
pub fn scaling(
    settings: &Settings,
    workload: &Workload,
    sizes: &[u64],
    engines: &[Engine],
    threads: &[usize],
) -> Result<Vec<Scale>> {
    let mut scales: Vec<Scale> = Vec::new();
    for &curves in sizes {
        let data = generate(settings, &Workload { curves, ..workload.clone() }, None)?;
        for &threads in threads {
            for engine in engines {
                let label = engine.label();
                let slow = scales.iter().any(|scale| {
                    let same = scale.label == label && scale.threads == threads;
                    same && scale.seconds.is_none_or(|(whole, _)| whole > PATIENCE)
                });
                let mut scale = Scale { curves, label, threads, seconds: None, converged: None };
                if !slow {
                    let (run, _) = measure(settings, &data, engine, threads, 0)?;
                    scale.converged = Some(run.converged(curves));
                    scale.seconds = Some((run.best(), run.fit_seconds()));
                }
                scales.push(scale);
            }
        }
    }
    Ok(scales)
}
