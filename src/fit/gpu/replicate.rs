//! Replicates of the bootstrap, made on the device: a curve goes there once, whatever the number of its replicates.
//!
//! In: a [`Replication`]. Out: where its replicates end. `shaders/resample.wgsl` draws the random numbers and writes every
//! replicate's rows; search and descent then find them as they find any curve.

use super::device::{Device, workgroups};
use super::lay::Layer;
use super::program::{Layout, WORKGROUP, resampling};
use super::{Gathered, Gpu, Job, Owner, STORAGE, Slot, lock};
use crate::error::{Error, Result};
use crate::fit::Replicated;
use crate::fit::replicates::Replication;
use std::sync::Arc;
use std::time::Instant;

/// Storage buffers of the kernel, and the first that it writes.
pub(super) const BUFFERS: u32 = 5;
pub(super) const FIRST_WRITTEN: u32 = 3;
/// Words of a parent.
const PARENT: usize = 8;

/// How the device makes the replicates of one chunk.
pub(super) struct Expansion {
    pipeline: Arc<wgpu::ComputePipeline>,
    parents: Vec<[u32; PARENT]>,
    sources: Vec<f32>,
    /// Replicates of each parent, and where the chunk begins among those of its first.
    pub replicates: u32,
    pub first: u32,
    /// Rows of all replicates.
    pub rows: usize,
}

impl Gpu {
    /// Makes and fits replicates, chunk by chunk. What is left to the host are those of a curve that would be left to it
    /// itself, those with fewer distinct rows than parameters, and those that f32 cannot carry.
    pub(super) fn make_replicates(&self, replication: &Replication) -> Result<Replicated> {
        let problem = replication.problem;
        let layer = Layer::new(problem);
        let count = problem.len() * replication.replicates as usize;
        let mut gathered =
            Gathered { stretch: vec![(0, 0); count], ends: vec![(false, 0); count], ..Gathered::default() };
        let jobs = self.jobs(&layer, replication)?;
        if !jobs.is_empty() {
            let mut jobs = jobs.into_iter();
            let job = || jobs.next().map(|plan| plan.lay(&layer, replication));
            self.fly(&layer, &*self.pipelines(problem)?, job, &mut gathered)?;
        }
        let (settled, pinned) = std::mem::take(&mut gathered.ends).into_iter().unzip();
        Ok(Replicated { proposals: gathered.into_proposals(problem.model.len()), settled, pinned })
    }

    /// The chunks: stretches of the sequence of all replicates, those of one curve side by side.
    fn jobs(&self, layer: &Layer, replication: &Replication) -> Result<Vec<Plan>> {
        let each = replication.replicates as usize;
        let mut order = self.order(layer);
        order.retain(|&curve| replication.groups[curve as usize] > 0);
        if order.is_empty() {
            return Ok(Vec::new());
        }
        let pipeline = self.resampler(replication)?;
        let points = |&curve: &u32| std::iter::repeat_n(layer.problem.points(curve as usize), each);
        let cuts = self.cut(layer, order.iter().flat_map(points));
        let plan = |ends: &[usize]| {
            let [from, to] = [ends[0], ends[1]];
            let curves = order[from / each..to.div_ceil(each)].to_vec();
            Plan { pipeline: pipeline.clone(), curves, first: from % each, items: to - from }
        };
        Ok(cuts.windows(2).map(plan).collect())
    }

    fn resampler(&self, replication: &Replication) -> Result<Arc<wgpu::ComputePipeline>> {
        let start = Instant::now();
        let problem = replication.problem;
        let text = resampling(problem.model, problem.loss, &problem.grid, replication.scheme);
        let mut known = lock(&self.resamplers);
        if let Some(pipeline) = known.get(&text) {
            return Ok(pipeline.clone());
        }
        let layout = self.device.pipeline_layout(&self.resampled);
        let pipeline = Arc::new(self.device.pipeline("resample", &text, Some(&layout)));
        self.device.check()?;
        known.insert(text, pipeline.clone());
        lock(&self.timings).compile += start.elapsed();
        Ok(pipeline)
    }

    /// Lets the device write the records and rows of a chunk's replicates into the slot.
    pub(super) fn expand(
        &self,
        expansion: &Expansion,
        items: usize,
        slot: &mut Slot,
        encoder: &mut wgpu::CommandEncoder,
    ) {
        let Device { queue, limits, .. } = &self.device;
        let (parents, sources) = (bytemuck::cast_slice(&expansion.parents), bytemuck::cast_slice(&expansion.sources));
        for (buffer, label, bytes) in [(&mut slot.parents, "parents", parents), (&mut slot.sources, "sources", sources)]
        {
            if buffer.size() < bytes.len() as u64 {
                *buffer = self.device.buffer(label, bytes.len() as u64, STORAGE);
            }
            queue.write_buffer(buffer, 0, bytes);
        }
        let storage = &slot.storage;
        let buffers = [&slot.chunk, &slot.parents, &slot.sources, &storage[0], &storage[1], &storage[5]];
        let group = self.device.bind(&self.resampled, &buffers);
        let mut pass = encoder.begin_compute_pass(&Default::default());
        let (across, down) = workgroups(items, WORKGROUP, limits.max_compute_workgroups_per_dimension);
        pass.set_pipeline(&expansion.pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(across, down, 1);
    }

    /// The rows of every replicate as the device makes them: response and root of the weight in the scale of the kernels
    /// (where a curve's largest response is 1, and so its heaviest weight); replicate r of curve i at
    /// `i * replicates + r`, empty where it is left to the host. For tests.
    ///
    /// # Errors
    /// [`Error::Device`] where the device fails.
    pub fn rows_of_replicates(&self, replication: &Replication) -> Result<Vec<Vec<[f32; 2]>>> {
        let layer = Layer::new(replication.problem);
        let Layout { stride, inputs, .. } = layer.layout;
        let mut all = vec![Vec::new(); replication.problem.len() * replication.replicates as usize];
        for plan in self.jobs(&layer, replication)? {
            let Job { owners, expansion, .. } = plan.lay(&layer, replication);
            let expansion = expansion.ok_or_else(|| Error::Device("nothing to make".into()))?;
            let mut slot = Slot::new(&self.device);
            let (records, rows) = (16 * owners.len() as u64, 4 * (expansion.rows * stride) as u64);
            for (place, bytes) in [(0, records), (1, rows), (5, 4 * expansion.rows as u64)] {
                slot.storage[place] = self.device.buffer("replicates", bytes, STORAGE);
            }
            let Device { device, queue, .. } = &self.device;
            let chunk = [owners.len() as u32, 0, expansion.replicates, expansion.first];
            queue.write_buffer(&slot.chunk, 0, bytemuck::cast_slice(&chunk));
            let mut encoder = device.create_command_encoder(&Default::default());
            self.expand(&expansion, owners.len(), &mut slot, &mut encoder);
            let back = self.device.buffer("back", records + rows, super::BACK);
            encoder.copy_buffer_to_buffer(&slot.storage[0], 0, &back, 0, records);
            encoder.copy_buffer_to_buffer(&slot.storage[1], 0, &back, records, rows);
            let submission = queue.submit([encoder.finish()]);
            self.device.map(&back, records + rows);
            self.device.wait(&submission)?;
            let view = self.device.read(&back, records + rows)?;
            let (records, rows) = view.split_at(records as usize);
            let (records, rows): (&[[u32; 4]], &[f32]) = (bytemuck::cast_slice(records), bytemuck::cast_slice(rows));
            for (owner, [first, count, ..]) in owners.iter().zip(records) {
                let own = (*first as usize..(*first + *count) as usize).map(|row| row * stride + inputs);
                all[owner.place] = own.map(|at| [rows[at], rows[at + 1]]).collect();
            }
        }
        Ok(all)
    }
}

/// One chunk, not laid out yet.
struct Plan {
    pipeline: Arc<wgpu::ComputePipeline>,
    /// Whose replicates: of the first curve from `first` on, `items` in all.
    curves: Vec<u32>,
    first: usize,
    items: usize,
}

impl Plan {
    fn lay(self, layer: &Layer, replication: &Replication) -> Job {
        let Plan { pipeline, curves, first, items } = self;
        let each = replication.replicates as usize;
        let laid = layer.lay(&curves);
        let (mut parents, mut sources) = (Vec::with_capacity(curves.len()), Vec::new());
        // Rows of the replicates before a parent's first, counted from the chunk's first: less than none for its first parent.
        let mut base = 0u32.wrapping_sub((first * layer.problem.points(curves[0] as usize)) as u32);
        for (frame, &curve) in curves.iter().enumerate() {
            let points = layer.problem.points(curve as usize);
            let own = layer.lay_sources(replication, &laid, frame, curve as usize);
            let [high, low] = replication.keys[curve as usize];
            let source = (sources.len() / layer.layout.source_stride()) as u32;
            let rows = if own.is_some() { points as u32 } else { 0 };
            parents.push([source, rows, replication.groups[curve as usize], laid.curves[frame][2], high, low, base, 0]);
            sources.extend(own.into_iter().flatten());
            base = base.wrapping_add((each * points) as u32);
        }
        let owner = |item: usize| {
            let frame = (first + item) / each;
            let curve = curves[frame] as usize;
            Owner { place: curve * each + (first + item) % each, curve, frame }
        };
        let owners: Vec<Owner> = (0..items).map(owner).collect();
        let rows = owners.iter().map(|owner| layer.problem.points(owner.curve)).sum();
        let expansion = Expansion { pipeline, parents, sources, replicates: each as u32, first: first as u32, rows };
        Job { laid, owners, expansion: Some(expansion) }
    }
}
