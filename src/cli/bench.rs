//! `sweepfit bench`: arguments to workloads and devices; figures to standard output.
//!
//! `measure` runs, `report` shows for people and machines, `plot` draws the scaling.

mod measure;
mod plot;
mod report;

use super::fit::{Space, all_cores, loss, start};
use super::generate::points;
use super::interruption;
use super::print;
use clap::Args;
use measure::{Data, Engine, Measured, Scale};
use report::Machine;
use std::path::PathBuf;
use std::sync::Arc;
use sweepfit::fit::gpu::{Gpu, adapters};
use sweepfit::fit::pack::NamedControl;
use sweepfit::fit::{Loss, Objective};
use sweepfit::pipeline::Device;
use sweepfit::workload::Workload;
use sweepfit::{Error, Result};

const EXAMPLES: &str = "\
Examples:
  # A short representative set on every device that is present
  sweepfit bench

  # One workload on one core and on two, as JSON
  sweepfit bench --workload W1 --threads 1,2 --json

  # A law's own sweep, on the software adapter too
  sweepfit bench --law saturating_power --curves 100000 --adapter llvmpipe

  # Your own file
  sweepfit bench sweep.parquet --law saturating_power --x tokens --y loss --by run

  # Curves/s against the number of curves, CPU beside GPU, drawn
  sweepfit bench --scaling --law chinchilla --loss huber:1e-3 --curves 100000 --plot scaling.svg";

/// Measure fits: each stage alone and the whole, on every device, with the accuracy beside the speed
///
/// Generates its workload, or takes a file. `whole` is a run from file to file, the best of --repeat; read, pack, search,
/// refine, judge and write are the stages measured alone, one after the other, each on all threads; `fits/s` counts pack
/// to judge. Some random answers are held against a brute-force search in f64.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES, after_help = "Examples: see --help")]
pub struct Bench {
    /// Files to fit instead of a generated sweep, as for `sweepfit fit`
    #[arg(value_name = "FILE", conflicts_with_all = ["workloads", "curves", "points", "noise", "seed", "scaling", "keep"])]
    inputs: Vec<String>,

    /// W1: Gaussian spots, 5x5 points, searched (Gpufit's, which is given starts). W3: Chinchilla's law by Huber, 100 to 240
    /// points. W7: 1 million ragged curves. Repeatable
    #[arg(long = "workload", value_name = "W1|W3|W7", conflicts_with_all = ["laws", "space", "loss"],
          help_heading = "What is measured")]
    workloads: Vec<String>,
    /// A catalogue law, whose typical curves are generated; with FILE any law, as for `sweepfit fit`. Repeatable
    #[arg(long = "law", value_name = "LAW", help_heading = "What is measured")]
    laws: Vec<String>,
    /// How many curves to generate [default: the workload's own; 100,000 for a law]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000),
          help_heading = "What is measured")]
    curves: Option<u64>,
    /// Points of a curve, or fewest and most [default: the workload's own; 32 for a law]
    #[arg(long, value_name = "N|LO:HI", value_parser = points, help_heading = "What is measured")]
    points: Option<(usize, usize)>,
    /// Standard deviation of the noise: relative in log space, absolute in linear space, a share of each curve's mean in W1
    /// [default: 0.005; the workload's own]
    #[arg(long, value_name = "SD", value_parser = noise, help_heading = "What is measured")]
    noise: Option<f64>,
    /// Workloads of different seeds are independent
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "What is measured")]
    seed: u64,
    /// Where residuals are taken [default: log]
    #[arg(long, value_name = "SPACE", value_enum, help_heading = "What is measured")]
    space: Option<Space>,
    /// `squares` or `huber:DELTA` [default: squares]
    #[arg(long, value_name = "LOSS", value_parser = loss, help_heading = "What is measured")]
    loss: Option<Loss>,
    /// Search a parameter from these values only, as programs without a search do. Repeatable
    #[arg(long, value_name = "P=V[,V…]", value_parser = start, help_heading = "What is measured")]
    start: Vec<NamedControl>,
    /// The response of FILE
    #[arg(long, value_name = "COL", requires = "inputs", help_heading = "What is measured")]
    y: Option<String>,
    /// The inputs of FILE for catalogue laws
    #[arg(long, value_name = "COL,…", value_delimiter = ',', requires = "inputs", help_heading = "What is measured")]
    x: Vec<String>,
    /// The key columns of FILE
    #[arg(long, value_name = "COL,…", value_delimiter = ',', requires = "inputs", help_heading = "What is measured")]
    by: Vec<String>,
    /// 100, 1,000 … curves up to --curves [default: 1,000,000]: throughput against the number of curves
    #[arg(long, help_heading = "What is measured")]
    scaling: bool,

    /// Devices to measure: `gpu` is every hardware adapter
    #[arg(long, value_enum, default_value_t = Choice::All, help_heading = "Where it runs")]
    backend: Choice,
    /// The adapters whose name holds this, case ignored; the only way to measure a software adapter
    #[arg(long, value_name = "NAME", help_heading = "Where it runs")]
    adapter: Option<String>,
    /// Numbers of threads to measure with [default: all cores]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..),
          help_heading = "Where it runs")]
    threads: Vec<u16>,
    /// Whole runs and runs by stage, of which the fastest counts
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000),
          help_heading = "Where it runs")]
    repeat: u32,

    /// Random curves of every run to fit again by brute force, which tells how many answers are the global optimum
    #[arg(long, value_name = "K", default_value_t = 50, help_heading = "What comes out")]
    verify: usize,
    /// Print JSON instead of a table
    #[arg(long, help_heading = "What comes out")]
    json: bool,
    /// Draw the scaling as SVG
    #[arg(long, value_name = "FILE.svg", requires = "scaling", help_heading = "What comes out")]
    plot: Option<PathBuf>,
    /// Keep the generated sweep
    #[arg(long, value_name = "FILE.parquet", conflicts_with = "scaling", help_heading = "What comes out")]
    keep: Option<PathBuf>,
    /// Do not say on stderr what is being measured
    #[arg(short, long, help_heading = "What comes out")]
    quiet: bool,
}

/// `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    Cpu,
    Gpu,
    All,
}

/// Curves of the workloads that run where nothing is named: the set ends within a minute on two cores.
const SHORT_SET: [(&str, u64); 4] = [("power", 100_000), ("saturating_power", 100_000), ("W1", 1000), ("W3", 100)];
/// Fewest and most curves of a scaling.
const SMALLEST: u64 = 100;
const LARGEST: u64 = 1_000_000;

impl Bench {
    /// Measures and prints.
    pub fn run(self) -> Result<()> {
        interruption::watch();
        let engines = self.engines()?;
        let threads = self.threads();
        let machine = Machine::of(all_cores(), &engines);
        let text = if self.scaling {
            let workload = self.only_workload()?;
            let sizes = self.sizes()?;
            let scales = measure::scaling(&self.measure(), &workload, &sizes, &engines, &threads)?;
            self.show_scaling(&machine, &workload, &scales)?
        } else {
            let mut measured = Vec::new();
            for data in self.data()? {
                measured.push(measure::workload(&self.measure(), data, &engines, &threads)?);
            }
            self.show(&machine, &measured)
        };
        print(&text)
    }

    fn show(&self, machine: &Machine, measured: &[Measured]) -> String {
        if self.json {
            return format!("{:#}\n", report::json(machine, measured));
        }
        report::text(machine, measured)
    }

    fn show_scaling(&self, machine: &Machine, workload: &Workload, scales: &[Scale]) -> Result<String> {
        if let Some(path) = &self.plot {
            let title = format!("{} ({})", workload.name, machine.describe());
            plot::write(path, &plot::svg(&title, scales))?;
        }
        if self.json {
            return Ok(format!("{:#}\n", report::scaling_json(machine, workload, scales)));
        }
        Ok(report::scaling_text(machine, workload, scales) + &plot::text(scales))
    }

    fn measure(&self) -> measure::Settings {
        measure::Settings {
            repeat: self.repeat,
            seed: self.seed,
            start: self.start.clone(),
            verify: self.verify,
            quiet: self.quiet,
        }
    }

    fn threads(&self) -> Vec<usize> {
        if self.threads.is_empty() {
            return vec![all_cores()];
        }
        let mut threads: Vec<usize> = self.threads.iter().map(|&count| usize::from(count)).collect();
        threads.sort_unstable();
        threads.dedup();
        threads
    }

    /// The devices side by side, the CPU first. Software adapters are measured only where --adapter names them.
    fn engines(&self) -> Result<Vec<Engine>> {
        if self.backend == Choice::Cpu && self.adapter.is_some() {
            return Err(Error::Usage(
                "--adapter names a GPU and --backend cpu uses none: leave one of them out".into(),
            ));
        }
        let mut engines = Vec::new();
        if self.backend != Choice::Gpu {
            engines.push(Engine::cpu());
        }
        if self.backend == Choice::Cpu {
            return Ok(engines);
        }
        let found = adapters();
        let wanted =
            |name: &str| self.adapter.as_ref().is_some_and(|part| name.to_lowercase().contains(&part.to_lowercase()));
        let mut names: Vec<&str> = found
            .iter()
            .filter(|adapter| if self.adapter.is_some() { wanted(&adapter.name) } else { adapter.hardware })
            .map(|adapter| adapter.name.as_str())
            .collect();
        // The same card under several backends is measured once, under the best.
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
        if names.is_empty() && (self.backend == Choice::Gpu || self.adapter.is_some()) {
            // Opening explains what is missing.
            Gpu::open(self.adapter.as_deref())?;
        }
        for name in names {
            let gpu = Arc::new(Gpu::open(Some(name))?);
            let adapter = Some(gpu.adapter().to_string());
            engines.push(Engine { device: Device { backend: gpu.clone(), name: "gpu", adapter }, gpu: Some(gpu) });
        }
        Ok(engines)
    }

    /// What is measured, one after the other.
    fn data(&self) -> Result<Vec<Data>> {
        let settings = self.measure();
        if !self.inputs.is_empty() {
            if self.laws.is_empty() {
                return Err(Error::Usage("FILE needs --law LAW: what shall be fitted to it?".into()));
            }
            let objective = self.objective(measure::USUAL_OBJECTIVE);
            let each = self.laws.iter().map(|law| {
                measure::file(&settings, &self.inputs, law, &self.x, self.y.as_deref(), &self.by, objective)
            });
            return each.collect();
        }
        let workloads = self.generated(&SHORT_SET)?;
        if self.keep.is_some() && workloads.len() != 1 {
            return Err(Error::Usage("--keep keeps one sweep: name one --workload or one --law".into()));
        }
        workloads.iter().map(|workload| measure::generate(&settings, workload, self.keep.as_deref())).collect()
    }

    /// The workloads and laws named, else `usual`, as the other options change them.
    fn generated(&self, usual: &[(&str, u64)]) -> Result<Vec<Workload>> {
        let named = self.workloads.iter().map(|name| Workload::named(name));
        let laws = self.laws.iter().map(|law| Workload::of_law(law));
        let mut workloads: Vec<Workload> = named.chain(laws).collect::<Result<_>>()?;
        if workloads.is_empty() {
            for &(name, curves) in usual {
                let workload = Workload::named(name).or_else(|_| Workload::of_law(name))?;
                workloads.push(Workload { curves, ..workload });
            }
        }
        for workload in &mut workloads {
            workload.curves = self.curves.unwrap_or(workload.curves);
            if let Some(points) = self.points {
                if workload.x.iter().any(|(_, axis)| axis.cells.is_some()) {
                    return Err(Error::Usage(format!("--points: the points of {} are a grid", workload.name)));
                }
                workload.points = points;
            }
            workload.objective = self.objective(workload.objective);
            workload.with_noise(self.noise);
        }
        Ok(workloads)
    }

    fn objective(&self, usual: Objective) -> Objective {
        Objective { space: self.space.map_or(usual.space, Into::into), loss: self.loss.unwrap_or(usual.loss) }
    }

    /// The one workload that a scaling takes.
    fn only_workload(&self) -> Result<Workload> {
        let mut workloads = self.generated(&[("saturating_power", LARGEST)])?;
        match (workloads.pop(), workloads.is_empty()) {
            (Some(workload), true) => Ok(workload),
            _ => Err(Error::Usage("--scaling measures one workload: name one --workload or one --law".into())),
        }
    }

    /// Powers of ten from 100 curves to --curves, and that number itself.
    fn sizes(&self) -> Result<Vec<u64>> {
        let most = self.curves.unwrap_or(LARGEST);
        if most < SMALLEST {
            return Err(Error::Usage(format!(
                "--scaling begins at {SMALLEST} curves: give --curves {SMALLEST} or more"
            )));
        }
        let mut sizes: Vec<u64> = std::iter::successors(Some(SMALLEST), |size| size.checked_mul(10))
            .take_while(|&size| size < most)
            .collect();
        sizes.push(most);
        Ok(sizes)
    }
}

fn noise(text: &str) -> std::result::Result<f64, String> {
    let value = super::number(text)?;
    if value < 0.0 { Err("give a standard deviation of 0 or more".into()) } else { Ok(value) }
}
