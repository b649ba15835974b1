//! The GPU backend: search, basins and refinement in f32 on any adapter of wgpu.
//!
//! In: a [`Problem`]. Out: [`Proposals`], which the judge finishes in f64. Curves are laid out in chunks of bounded work,
//! so that no dispatch trips a watchdog; while the device works on one chunk the host lays out the next. A curve that f32
//! cannot carry gets no proposal and is left to the host's own search: see [`Gpu::propose`].

mod algebra;
mod device;
mod evaluate;
mod lay;
pub mod program;
mod replicate;

pub use device::{Adapter, Stage, adapters};
pub use evaluate::Evaluated;

use super::exact;
use super::problem::Problem;
use super::replicates::Replication;
use super::search::MOST_BASINS;
use super::{Backend, Proposals, Replicated};
use crate::error::{Error, Result};
use device::{Device, STORAGE_BUFFERS, workgroups};
use lay::{Laid, Layer};
use program::{ITERATIONS, ItemStatus, Layout, Program, WORKGROUP};
use replicate::Expansion;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where the time of [`Gpu::propose`] went, summed since the last [`Gpu::take_timings`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// Chunks that went to the device.
    pub chunks: usize,
    /// Curves in them.
    pub curves: usize,
    /// Basins that were refined.
    pub basins_refined: usize,
    /// How many of those ran out of iterations.
    pub unfinished: usize,
    /// Writing the program and compiling pipelines, once per model.
    pub compile: Duration,
    /// Host: laying out in f32.
    pub lay: Duration,
    /// Host: handing bytes and commands to the driver.
    pub upload: Duration,
    /// Host: waiting for the device.
    pub wait: Duration,
    /// Host: reading results and telling proposals apart.
    pub collect: Duration,
    /// Device, where it has timestamps, else zero: the search.
    pub search: Duration,
    /// Device: finding basins.
    pub basins: Duration,
    /// Device: starting the descents.
    pub begin: Duration,
    /// Device: the descents. The last dispatch of each chunk only, where long curves need several.
    pub refine: Duration,
}

/// How much goes into one chunk.
#[derive(Debug, Clone, Copy)]
struct Budget {
    /// Estimated f32 operations of the longest dispatch.
    work: u64,
    /// Bytes of the largest buffer.
    bytes: u64,
    /// Rows that one invocation visits in one dispatch, at most.
    visits: usize,
    /// Rows of a curve beyond which it is left to the host, which spreads one curve's rows over vector lanes: a start looks
    /// at every row twenty times.
    rows: usize,
}

impl Budget {
    fn of(device: &Device) -> Budget {
        let bytes = device.limits.max_storage_buffer_binding_size.min(device.limits.max_buffer_size);
        match device.adapter.hardware {
            // Half a second on the slowest integrated GPU (0.1 Tflop/s, a tenth of it reached), milliseconds on a fast one.
            true => Budget { work: 1 << 36, bytes: bytes.min(256 << 20), visits: 1 << 20, rows: 1 << 14 },
            // A software adapter does some Gflop/s and must not fill the host's memory. lavapipe ends an invocation after
            // 65,535 rounds of its loops, silently.
            false => Budget { work: 1 << 31, bytes: bytes.min(32 << 20), visits: 48_000, rows: 2048 },
        }
    }
}

/// Basins per curve and iterations per basin that the work of a chunk is estimated with.
const TYPICAL_BASINS: u64 = 2;
const TYPICAL_ITERATIONS: u64 = ITERATIONS as u64 / 3;

struct Pipelines {
    search: wgpu::ComputePipeline,
    basins: wgpu::ComputePipeline,
    begin: wgpu::ComputePipeline,
    refine: wgpu::ComputePipeline,
}

/// An open GPU.
pub struct Gpu {
    device: Device,
    budget: Budget,
    bindings: wgpu::BindGroupLayout,
    pipeline_layout: wgpu::PipelineLayout,
    /// Compiled once per model: the text is the key.
    programs: Mutex<HashMap<Program, Arc<Pipelines>>>,
    /// The kernels that make replicates, and what they bind.
    resamplers: Mutex<HashMap<String, Arc<wgpu::ComputePipeline>>>,
    resampled: wgpu::BindGroupLayout,
    /// Buffers of chunks that are done, to be used again.
    idle: Mutex<Vec<Slot>>,
    timings: Mutex<Timings>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Gpu({})", self.device.adapter)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// Opens the best hardware adapter, or the best one of any kind whose name holds `adapter`, case ignored.
    ///
    /// # Errors
    /// [`Error::Device`] where there is none, naming what was found, or where it cannot be opened.
    pub fn open(adapter: Option<&str>) -> Result<Gpu> {
        let device = Device::open(adapter)?;
        let bindings = device.bindings(FIRST_WRITTEN, STORAGE_BUFFERS);
        let resampled = device.bindings(replicate::FIRST_WRITTEN, replicate::BUFFERS);
        let pipeline_layout = device.pipeline_layout(&bindings);
        device.check()?;
        let budget = Budget::of(&device);
        Ok(Gpu {
            device,
            budget,
            bindings,
            pipeline_layout,
            programs: Mutex::default(),
            resamplers: Mutex::default(),
            resampled,
            idle: Mutex::default(),
            timings: Mutex::default(),
        })
    }

    /// This GPU with a faulty driver, one that makes `alteration` of every shader it is given: with it tests show that wrong
    /// arithmetic is found out.
    pub fn with_faulty_driver(mut self, alteration: impl Fn(&str) -> String + Send + Sync + 'static) -> Gpu {
        self.device.alteration = Some(Box::new(alteration));
        self
    }

    /// This GPU, which is lost at a stage of the search once that was reached `times` times before: with it tests show
    /// what becomes of the run.
    pub fn with_loss_at(mut self, stage: Stage, times: usize) -> Gpu {
        self.device.loss = Some((stage, (times as isize).into()));
        self
    }

    /// The adapter that is open.
    pub fn adapter(&self) -> &Adapter {
        &self.device.adapter
    }

    /// Rows of a curve beyond which it gets no proposal here.
    pub fn most_rows(&self) -> usize {
        self.budget.rows
    }

    /// The curves that are open and got no proposal: the host's own search takes them.
    pub fn left_to_host(problem: &Problem, proposals: &Proposals) -> Vec<usize> {
        (0..problem.len())
            .filter(|&curve| problem.status[curve].is_none())
            .filter(|&curve| proposals.offsets[curve] == proposals.offsets[curve + 1])
            .collect()
    }

    /// Every adapter, best first.
    pub fn adapters() -> Vec<Adapter> {
        adapters()
    }

    /// Where the time went since the last call.
    pub fn take_timings(&self) -> Timings {
        std::mem::take(&mut lock(&self.timings))
    }

    fn pipelines(&self, problem: &Problem) -> Result<Arc<Pipelines>> {
        self.device.reach(Stage::Compile);
        let start = Instant::now();
        let program = Program::compose(problem.model, problem.loss, &problem.grid);
        let mut programs = lock(&self.programs);
        if let Some(known) = programs.get(&program) {
            return Ok(Arc::clone(known));
        }
        let layout = Some(&self.pipeline_layout);
        let pipelines = Arc::new(Pipelines {
            search: self.device.pipeline("search", &program.search, layout),
            basins: self.device.pipeline("basins_of_curve", &program.basins, layout),
            begin: self.device.pipeline("begin", &program.begin, layout),
            refine: self.device.pipeline("refine", &program.refine, layout),
        });
        self.device.check()?;
        programs.insert(program, Arc::clone(&pipelines));
        lock(&self.timings).compile += start.elapsed();
        Ok(pipelines)
    }

    /// The curves that are to be fitted here, sorted by length: neighbours of like length keep a warp's invocations together.
    fn order(&self, layer: &Layer) -> Vec<u32> {
        let problem = layer.problem;
        let mut order: Vec<u32> = (0..problem.len() as u32)
            .filter(|&curve| {
                let curve = curve as usize;
                let points = problem.points(curve);
                problem.status[curve].is_none()
                    && (1..=self.budget.rows).contains(&points)
                    && layer.has_projection(curve)
            })
            .collect();
        order.sort_by_key(|&curve| problem.points(curve as usize));
        order
    }

    /// Whether items of so many rows together may be one chunk.
    fn is_chunk(&self, layout: Layout, cost: &Cost, items: usize, rows: usize) -> bool {
        let fits = |words: usize| (words as u64 * 4) <= self.budget.bytes;
        cost.work(rows) <= self.budget.work
            && fits(rows * layout.stride)
            && fits(items * layout.points)
            && fits(items * MOST_BASINS * layout.state_words())
            && fits(items * layout.grid_stride)
            && fits(items * MOST_BASINS * layout.result_words())
    }

    /// Cuts items of so many rows each into chunks that the budget allows: the first item of each.
    fn cut(&self, layer: &Layer, rows: impl Iterator<Item = usize>) -> Vec<usize> {
        let cost = Cost::of(layer.problem);
        let mut cuts = vec![0];
        let (mut items, mut sum, mut count) = (0, 0, 0);
        for own in rows {
            if items > 0 && !self.is_chunk(layer.layout, &cost, items + 1, sum + own) {
                cuts.push(count);
                (items, sum) = (0, 0);
            }
            (items, sum, count) = (items + 1, sum + own, count + 1);
        }
        cuts.push(count);
        cuts
    }

    /// Sends chunks to the device, one after the other; while it works on one, `next` lays out another.
    fn fly(
        &self,
        layer: &Layer,
        pipelines: &Pipelines,
        mut next: impl FnMut() -> Option<Job>,
        gathered: &mut Gathered,
    ) -> Result<()> {
        let listed: Vec<u32> = layer.problem.grid.listed.iter().flatten().map(|&cell| u32::from(cell)).collect();
        let mut in_flight: Option<(Flight, Job)> = None;
        loop {
            let start = Instant::now();
            let job = next();
            let laid_in = start.elapsed();
            let start = Instant::now();
            let flight = job.as_ref().map(|job| self.launch(pipelines, layer.layout, job, &listed)).transpose()?;
            {
                let mut timings = lock(&self.timings);
                timings.lay += laid_in;
                timings.upload += start.elapsed();
            }
            let earlier = std::mem::replace(&mut in_flight, flight.zip(job));
            if let Some((earlier, job)) = earlier {
                self.collect(layer, earlier, &job, gathered)?;
            }
            if in_flight.is_none() {
                break;
            }
        }
        let mut timings = lock(&self.timings);
        timings.basins_refined += gathered.refined;
        timings.unfinished += gathered.unfinished;
        Ok(())
    }

    /// Hands one chunk to the device.
    fn launch(&self, pipelines: &Pipelines, layout: Layout, job: &Job, listed: &[u32]) -> Result<Flight> {
        let Job { laid, owners, expansion } = job;
        let curves = owners.len();
        let rows = expansion.as_ref().map_or(laid.rows.len(), |expansion| expansion.rows * layout.stride);
        let sizes = Sizes {
            listed: 4 * listed.len() as u64,
            curves: 16 * curves as u64,
            rows: 4 * rows as u64,
            grid: 4 * laid.grid.len() as u64,
            bounds: 4 * laid.bounds.len() as u64,
            counts: expansion.as_ref().map_or(0, |expansion| 4 * expansion.rows as u64),
            residuals: 4 * (curves * layout.points) as u64,
            state: 4 * (curves * MOST_BASINS * layout.state_words()) as u64,
            basins: 4 * (curves * layout.basin_words()) as u64,
            results: 4 * (curves * MOST_BASINS * layout.result_words()) as u64,
        };
        self.device.reach(Stage::Upload);
        let mut slot = lock(&self.idle).pop().unwrap_or_else(|| Slot::new(&self.device));
        slot.grow(&self.device, &sizes);
        let Device { device, queue, .. } = &self.device;
        let longest = laid.curves.iter().map(|curve| curve[1] as usize).max().unwrap_or(1).max(1);
        let passes = (self.budget.visits / longest).clamp(2, ITERATIONS as usize + 1);
        let rounds = (ITERATIONS as usize).div_ceil(passes - 1);
        let [replicates, first] =
            expansion.as_ref().map_or([0, 0], |expansion| [expansion.replicates, expansion.first]);
        queue.write_buffer(&slot.chunk, 0, bytemuck::cast_slice(&[curves as u32, passes as u32, replicates, first]));
        if expansion.is_none() {
            queue.write_buffer(&slot.storage[0], 0, bytemuck::cast_slice(&laid.curves));
            queue.write_buffer(&slot.storage[1], 0, bytemuck::cast_slice(&laid.rows));
        }
        queue.write_buffer(&slot.storage[2], 0, bytemuck::cast_slice(&laid.grid));
        queue.write_buffer(&slot.storage[3], 0, bytemuck::cast_slice(listed));
        queue.write_buffer(&slot.storage[4], 0, bytemuck::cast_slice(&laid.bounds));
        let buffers: Vec<&wgpu::Buffer> = std::iter::once(&slot.chunk).chain(&slot.storage).collect();
        let group = self.device.bind(&self.bindings, &buffers);
        let mut encoder = device.create_command_encoder(&Default::default());
        if let Some(expansion) = expansion {
            self.expand(expansion, curves, &mut slot, &mut encoder);
        }
        // What is not written must not look like an answer: 0 is `NotRun` everywhere.
        let written = [sizes.residuals, sizes.basins, sizes.results];
        for (buffer, bytes) in slot.storage[FIRST_WRITTEN as usize - 1..].iter().zip(written) {
            encoder.clear_buffer(buffer, 0, Some(bytes));
        }
        let stages = [
            (&pipelines.search, curves * layout.points),
            (&pipelines.basins, curves),
            (&pipelines.begin, curves * MOST_BASINS),
            (&pipelines.refine, curves * MOST_BASINS),
        ];
        let repeated = std::iter::repeat_n((3, stages[3]), rounds - 1);
        for (stage, (pipeline, invocations)) in (0..).zip(stages).chain(repeated) {
            let timestamp_writes = slot.clock.as_ref().map(|clock| wgpu::ComputePassTimestampWrites {
                query_set: &clock.queries,
                beginning_of_pass_write_index: Some(2 * stage),
                end_of_pass_write_index: Some(2 * stage + 1),
            });
            if rounds > 1 {
                // A watchdog counts submissions.
                queue.submit([
                    std::mem::replace(&mut encoder, device.create_command_encoder(&Default::default())).finish()
                ]);
            }
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            let most = self.device.limits.max_compute_workgroups_per_dimension;
            let (across, down) = workgroups(invocations, WORKGROUP, most);
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(across, down, 1);
        }
        if let Some(clock) = &slot.clock {
            encoder.resolve_query_set(&clock.queries, 0..CLOCK_TICKS, &clock.resolved, 0);
            encoder.copy_buffer_to_buffer(&clock.resolved, 0, &slot.back, 0, CLOCK_BYTES);
        }
        encoder.copy_buffer_to_buffer(&slot.storage[6], 0, &slot.back, CLOCK_BYTES, sizes.basins);
        let at = CLOCK_BYTES + sizes.basins;
        encoder.copy_buffer_to_buffer(&slot.storage[7], 0, &slot.back, at, sizes.results);
        let bytes = at + sizes.results;
        self.device.reach(Stage::Submit);
        let submission = queue.submit([encoder.finish()]);
        self.device.map(&slot.back, bytes);
        self.device.check()?;
        Ok(Flight { slot, submission, bytes, basin_bytes: sizes.basins })
    }

    /// Waits for a chunk and takes its proposals.
    fn collect(&self, layer: &Layer, flight: Flight, job: &Job, into: &mut Gathered) -> Result<()> {
        let start = Instant::now();
        self.device.reach(Stage::Wait);
        self.device.wait(&flight.submission)?;
        self.device.reach(Stage::Read);
        self.device.glance()?;
        let waited = start.elapsed();
        let start = Instant::now();
        {
            let view = self.device.read(&flight.slot.back, flight.bytes)?;
            let words: &[u32] = bytemuck::cast_slice(&view[CLOCK_BYTES as usize..]);
            let (basins, results) = words.split_at(flight.basin_bytes as usize / 4);
            self.gather(layer, job, basins, results, into)?;
            let mut timings = lock(&self.timings);
            if flight.slot.clock.is_some() {
                let ticks: &[u64] = bytemuck::cast_slice(&view[..CLOCK_BYTES as usize]);
                let period = f64::from(self.device.queue.get_timestamp_period());
                let spent = |stage: usize| {
                    Duration::from_nanos((ticks[2 * stage + 1].saturating_sub(ticks[2 * stage]) as f64 * period) as u64)
                };
                timings.search += spent(0);
                timings.basins += spent(1);
                timings.begin += spent(2);
                timings.refine += spent(3);
            }
            timings.wait += waited;
            timings.collect += start.elapsed();
            timings.chunks += 1;
            timings.curves += job.owners.len();
        }
        flight.slot.back.unmap();
        lock(&self.idle).push(flight.slot);
        Ok(())
    }

    /// The refined basins of every curve of a chunk: best first, those that met told as one.
    fn gather(&self, layer: &Layer, job: &Job, basins: &[u32], results: &[u32], into: &mut Gathered) -> Result<()> {
        let Layout { coordinates, .. } = layer.layout;
        let (basin_words, result_words) = (layer.layout.basin_words(), layer.layout.result_words());
        let silent = || {
            Error::Device(format!(
                "{} left results unwritten without an error: its driver is faulty, use --backend cpu",
                self.device.adapter
            ))
        };
        let mut items: Vec<(f32, &[u32], bool)> = Vec::with_capacity(MOST_BASINS);
        for (i, owner) in job.owners.iter().enumerate() {
            let found = basins[i * basin_words];
            if found == 0 || found as usize > MOST_BASINS + 1 {
                return Err(silent());
            }
            items.clear();
            for rank in 0..found as usize - 1 {
                let at = (rank * job.owners.len() + i) * result_words;
                let words = &results[at..at + result_words];
                let objective = f32::from_bits(words[1]);
                into.refined += 1;
                into.unfinished += usize::from(words[0] == ItemStatus::Running as u32);
                match words[0] {
                    status if status == ItemStatus::Infeasible as u32 => {}
                    status if status == ItemStatus::Converged as u32 || status == ItemStatus::Running as u32 => {
                        if objective.is_finite() && words[2..].iter().all(|&z| f32::from_bits(z).is_finite()) {
                            items.push((objective, &words[2..], words[0] == ItemStatus::Converged as u32));
                        }
                    }
                    _ => return Err(silent()),
                }
            }
            items.sort_by(|a, b| a.0.total_cmp(&b.0));
            let first = into.coordinates.len();
            for (k, (objective, z, _)) in items.iter().enumerate() {
                if items[..k].iter().any(|(better, other, _)| is_same(*objective, z, *better, other)) {
                    continue;
                }
                let scale = job.laid.scales[owner.frame];
                let restored = (0..coordinates).map(|j| layer.restore(owner.curve, j, f32::from_bits(z[j]), scale));
                into.coordinates.extend(restored);
            }
            into.stretch[owner.place] = (first, (into.coordinates.len() - first) / coordinates);
            if let (Some(end), Some((_, z, settled))) = (into.ends.get_mut(owner.place), items.first()) {
                let held = |j: usize| {
                    let bounds = &job.laid.bounds[2 * (owner.frame * coordinates + j)..][..2];
                    bounds.contains(&f32::from_bits(z[j]))
                };
                *end = (*settled, (0..coordinates).filter(|&j| held(j)).fold(0, |bits, j| bits | 1 << j));
            }
        }
        Ok(())
    }
}

/// Whether two refinements ended in one basin. Coordinates that the data hardly determine differ by more than f32's
/// rounding between two ends of one descent; the judge, who sees more, tells the rest.
fn is_same(objective: f32, z: &[u32], better: f32, other: &[u32]) -> bool {
    const OBJECTIVES: f32 = 1e-3;
    const COORDINATES: f32 = 1e-2;
    objective - better <= OBJECTIVES * objective
        && z.iter().zip(other).all(|(&a, &b)| {
            let (a, b) = (f32::from_bits(a), f32::from_bits(b));
            (a - b).abs() <= COORDINATES * a.abs().max(b.abs())
        })
}

impl Backend for Gpu {
    /// Searches, finds basins and refines them on the device. Every curve that is to be fitted gets the distinct basins,
    /// best first, at most [`MOST_BASINS`].
    ///
    /// **A curve that is open (`status` None) and gets no proposal is left to the host's own search**: one with more
    /// rows than the adapter is trusted with ([`Gpu::most_rows`]), with numbers beyond f32's range, with a proxy projection in log space over a y ≤ 0, or with no
    /// grid point at which the law has a value in f32.
    fn propose(&self, problem: &Problem) -> Result<Proposals> {
        let layer = Layer::new(problem);
        let mut gathered = Gathered { stretch: vec![(0, 0); problem.len()], ..Gathered::default() };
        let order = self.order(&layer);
        if !order.is_empty() {
            let cuts = self.cut(&layer, order.iter().map(|&curve| problem.points(curve as usize)));
            let mut chunks = cuts.windows(2).map(|ends| &order[ends[0]..ends[1]]);
            let job = || {
                let chunk = chunks.next()?;
                let owner =
                    |(frame, &curve): (usize, &u32)| Owner { place: curve as usize, curve: curve as usize, frame };
                let owners = chunk.iter().enumerate().map(owner).collect();
                Some(Job { laid: layer.lay(chunk), owners, expansion: None })
            };
            self.fly(&layer, &*self.pipelines(problem)?, job, &mut gathered)?;
        }
        Ok(gathered.into_proposals(problem.model.len()))
    }

    fn replicate(&self, replication: &Replication) -> Result<Option<Replicated>> {
        self.make_replicates(replication).map(Some)
    }
}

/// What goes to the device at once.
struct Job {
    laid: Laid,
    /// What is fitted: the laid curves, or replicates of theirs.
    owners: Vec<Owner>,
    /// How the device makes the replicates, where it does.
    expansion: Option<Expansion>,
}

/// Whose an item is.
struct Owner {
    /// Where its proposals go.
    place: usize,
    /// The curve of the problem, and its place among those that are laid.
    curve: usize,
    frame: usize,
}

/// Proposals as chunks deliver them.
#[derive(Default)]
struct Gathered {
    /// Per curve: where its coordinates begin, and how many proposals there are.
    stretch: Vec<(usize, usize)>,
    coordinates: Vec<f64>,
    /// Of replicates: whether the best descent came to its end, and bits of the coordinates that are held by the box.
    ends: Vec<(bool, u64)>,
    refined: usize,
    unfinished: usize,
}

impl Gathered {
    fn into_proposals(self, coordinates: usize) -> Proposals {
        let mut proposals = Proposals {
            offsets: Vec::with_capacity(self.stretch.len() + 1),
            coordinates: Vec::with_capacity(self.coordinates.len()),
        };
        proposals.offsets.push(0);
        for (first, count) in self.stretch {
            proposals.coordinates.extend_from_slice(&self.coordinates[first..first + count * coordinates]);
            proposals.offsets.push(proposals.coordinates.len() / coordinates);
        }
        proposals
    }
}

/// Operations per row, for the estimate of a chunk's work.
struct Cost {
    search: u64,
    refine: u64,
}

impl Cost {
    fn of(problem: &Problem) -> Cost {
        let model = problem.model;
        let nodes = |roots: &[crate::formula::graph::Id]| 8 * model.graph.reachable(roots).len() as u64;
        let mut projected = model.projection.basis.clone();
        projected.push(model.projection.offset);
        let mut predicted = model.gradient.clone();
        predicted.push(model.prediction);
        let (linear, all) = (model.projection.linear.len() as u64 + 1, model.len() as u64);
        let passes = match problem.loss {
            super::Loss::Squares if exact::is_looked_at(model, problem.loss, &problem.grid) => 1 + exact::STEPS as u64,
            super::Loss::Squares => 1,
            super::Loss::Huber { .. } => 8,
        };
        Cost {
            search: passes * problem.grid.points() as u64 * (nodes(&projected) + 8 * linear * linear),
            refine: TYPICAL_BASINS * TYPICAL_ITERATIONS * (nodes(&predicted) + all * all),
        }
    }

    fn work(&self, rows: usize) -> u64 {
        self.search.max(self.refine).saturating_mul(rows as u64)
    }
}

/// Bytes of every buffer that a chunk needs.
struct Sizes {
    curves: u64,
    rows: u64,
    grid: u64,
    listed: u64,
    bounds: u64,
    /// What replicates count their draws in, before the search.
    counts: u64,
    residuals: u64,
    state: u64,
    basins: u64,
    results: u64,
}

/// The first binding that kernels write.
const FIRST_WRITTEN: u32 = 6;
/// A tick before and after each of four stages.
const CLOCK_TICKS: u32 = 8;
const CLOCK_BYTES: u64 = 8 * CLOCK_TICKS as u64;

/// Queries for the time on the device.
struct Clock {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

/// The buffers of one chunk in flight. Bindings 1..=8 of the kernels are `storage`, in this order.
struct Slot {
    chunk: wgpu::Buffer,
    storage: Vec<wgpu::Buffer>,
    /// What replicates are made from: their parents and their parents' rows.
    parents: wgpu::Buffer,
    sources: wgpu::Buffer,
    back: wgpu::Buffer,
    clock: Option<Clock>,
}

/// A chunk on the device.
struct Flight {
    slot: Slot,
    submission: wgpu::SubmissionIndex,
    bytes: u64,
    basin_bytes: u64,
}

const STORAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_DST).union(wgpu::BufferUsages::COPY_SRC);
const BACK: wgpu::BufferUsages = wgpu::BufferUsages::MAP_READ.union(wgpu::BufferUsages::COPY_DST);

impl Slot {
    fn new(device: &Device) -> Slot {
        let clock = device.timestamps.then(|| Clock {
            queries: device.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("clock"),
                ty: wgpu::QueryType::Timestamp,
                count: CLOCK_TICKS,
            }),
            resolved: device.buffer(
                "clock",
                CLOCK_BYTES,
                wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            ),
        });
        Slot {
            chunk: device.buffer("chunk", 16, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST),
            storage: (0..STORAGE_BUFFERS).map(|_| device.buffer("empty", 16, STORAGE)).collect(),
            parents: device.buffer("empty", 16, STORAGE),
            sources: device.buffer("empty", 16, STORAGE),
            back: device.buffer("back", CLOCK_BYTES, BACK),
            clock,
        }
    }

    fn grow(&mut self, device: &Device, sizes: &Sizes) {
        let wanted = [
            ("curves", sizes.curves),
            ("rows", sizes.rows),
            ("grid", sizes.grid),
            ("listed", sizes.listed),
            ("bounds", sizes.bounds),
            ("scratch", sizes.counts.max(sizes.residuals).max(sizes.state)),
            ("basins", sizes.basins),
            ("results", sizes.results),
        ];
        for (buffer, (label, bytes)) in self.storage.iter_mut().zip(wanted) {
            if buffer.size() < bytes {
                *buffer = device.buffer(label, bytes, STORAGE);
            }
        }
        let bytes = CLOCK_BYTES + sizes.basins + sizes.results;
        if self.back.size() < bytes {
            self.back = device.buffer("back", bytes, BACK);
        }
    }
}
