//! Runs a workload on a device: the whole, the stages alone, the answers against the reference.
//!
//! In: [`Data`] (a generated sweep or the user's files) and [`Engine`]s. Out: [`Measured`] and [`Scale`]s, numbers only.

use crate::cli::generate::{key, stream};
use crate::cli::interruption;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sweepfit::fit::gpu::{Gpu, Timings};
use sweepfit::fit::judge::Verdicts;
use sweepfit::fit::pack::{NamedControl, Plan, Weighting, check_names};
use sweepfit::fit::reference::{self, Disagreement};
use sweepfit::fit::{Loss, Objective, Space, Status};
use sweepfit::generate::Generated;
use sweepfit::law::{Law, Mapping};
use sweepfit::pipeline::apart::{self, Apart, Sample, Stages};
use sweepfit::pipeline::{self, Device, Extras, Request};
use sweepfit::table::sweep::SweepWriter;
use sweepfit::table::{Selection, Source};
use sweepfit::workload::Workload;
use sweepfit::{Error, Result};
use tempfile::TempDir;

/// What a file is fitted by, unless somebody says otherwise.
pub const USUAL_OBJECTIVE: Objective = Objective { space: Space::Log, loss: Loss::Squares };
/// Curves whose answers are held against the reference, at most.
const SAMPLE: usize = 1000;
/// And so few that the reference takes some seconds: evaluations of a point that it may take in all.
const REFERENCE_EVALUATIONS: f64 = 2e9;
/// Passes over the data at every point of the grid that a robust projection takes.
const ROBUST_PASSES: f64 = 8.0;
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
    /// Points of the reference's grid.
    pub reference_points: usize,
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
    pub disagreement: Disagreement,
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
        eprintln!("{text}");
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
    let bytes = source.files().iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum();
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
    data.plan(&source, &data.start)?;
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

    fn plan(&self, source: &Source, start: &[NamedControl]) -> Result<Plan> {
        let law = self.bind(source)?;
        check_names(start, std::slice::from_ref(&law))?;
        let numbers = law.columns.clone();
        Plan::new(law, self.objective, start, Weighting::Even, false, &numbers)
    }

    fn request(&self, engine: &Engine, threads: usize) -> Result<Request> {
        let source = Source::open(&self.paths)?;
        let plan = Arc::new(self.plan(&source, &self.start)?);
        Ok(Request {
            source,
            selection: Selection { keys: self.by.clone(), numbers: plan.law.columns.clone(), filter: None },
            fits: vec![pipeline::Fit { plan, spelling: None, device: engine.device.clone() }],
            verify: 0,
            extras: Extras::default(),
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
    let plan = data.plan(&source, &data.start)?;
    let (grid_points, formula) = (plan.grid_points(), format!("{} ~ {}", plan.law.response_text, plan.law.formula));
    let inputs = plan.law.inputs().into_iter().map(str::to_string).collect();
    // The reference searches everywhere, whatever the starts.
    let dense = reference::dense(data.plan(&source, &[])?);
    let mut reference: Option<Verdicts> = None;
    let (mut runs, mut curves, mut rows) = (Vec::new(), 0, 0);
    for &threads in threads {
        for engine in engines {
            say(settings, &format!("{}: measuring {} with {threads} threads", data.name, engine.label()));
            let (mut run, apart) = measure(settings, &data, engine, threads)?;
            (curves, rows) = (apart.counts.curves, apart.counts.rows);
            let sample = thinned(apart.sample, &dense);
            // Every run samples the same curves.
            let reference = match &reference {
                Some(reference) => reference,
                None => reference.insert(reference_of(&data, &dense, &sample)?),
            };
            run.disagreement = reference::compare(&sample.status, &sample.objective, &sample.parameters, reference);
            runs.push(run);
        }
    }
    let reference_points = dense.grid_points();
    Ok(Measured { data, formula, inputs, grid_points, reference_points, curves, rows, runs })
}

/// So many curves of a sample that the reference takes some seconds.
fn thinned(sample: Sample, dense: &Plan) -> Sample {
    let known = sample.index.len();
    let passes = if dense.objective.loss == Loss::Squares { 1.0 } else { ROBUST_PASSES };
    let cost = passes * (dense.grid_points() * sample.curves.rows()) as f64;
    let stride = ((cost / REFERENCE_EVALUATIONS).ceil() as usize).max(1);
    if stride == 1 || known == 0 {
        return sample;
    }
    let p = sample.parameters.len() / known;
    let kept: Vec<usize> = (0..known).step_by(stride).collect();
    let mut curves = sweepfit::curves::CurveBatch { offsets: vec![0], columns: Vec::new() };
    let rows = |i: usize| sample.curves.offsets[i]..sample.curves.offsets[i + 1];
    curves.columns.extend(
        sample.curves.columns.iter().map(|column| kept.iter().flat_map(|&i| column[rows(i)].to_vec()).collect()),
    );
    for &i in &kept {
        curves.offsets.push(curves.rows() + rows(i).len());
    }
    Sample {
        index: kept.iter().map(|&i| sample.index[i]).collect(),
        status: kept.iter().map(|&i| sample.status[i]).collect(),
        objective: kept.iter().map(|&i| sample.objective[i]).collect(),
        parameters: kept.iter().flat_map(|&i| sample.parameters[i * p..(i + 1) * p].to_vec()).collect(),
        curves,
    }
}

/// The reference's answers on a sample: dense, and from the truth where the sweep was generated.
fn reference_of(data: &Data, dense: &Plan, sample: &Sample) -> Result<Verdicts> {
    let Some((workload, seed)) = &data.generated else {
        return reference::answers(dense, &sample.curves, None);
    };
    // A curve depends on the seed and its position alone, so the truth need not be kept.
    let sweep = workload.sweep(*seed)?;
    let each = sample.index.iter().map(|&index| Ok(sweep.batch(index, 1)?.truth));
    let each: Vec<Vec<Vec<f64>>> = each.collect::<Result<_>>()?;
    let truth: Vec<Vec<f64>> =
        (0..sweep.law.parameters.len()).map(|j| each.iter().map(|curve| curve[j][0]).collect()).collect();
    reference::answers(dense, &sample.curves, Some(&truth))
}

/// The fastest of several runs by stage and all whole runs.
fn measure(settings: &Settings, data: &Data, engine: &Engine, threads: usize) -> Result<(Run, Apart)> {
    let clock = || engine.gpu.as_ref().map(|gpu| gpu.take_timings());
    clock();
    let mut compile = None;
    let mut best: Option<(Apart, Option<Timings>)> = None;
    for _ in 0..settings.repeat {
        let mut apart = apart::measure(&data.request(engine, threads)?, SAMPLE)?;
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
        disagreement: Disagreement::default(),
        device: timings,
        compile,
    };
    Ok((run, apart))
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
                    let (run, _) = measure(settings, &data, engine, threads)?;
                    scale.converged = Some(run.converged(curves));
                    scale.seconds = Some((run.best(), run.fit_seconds()));
                }
                scales.push(scale);
            }
        }
    }
    Ok(scales)
}
