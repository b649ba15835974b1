//! Values of single nodes on the device, to be held against the graph's own f64 values.
//!
//! What the operators' tests and the self-test ask; the fit never comes here.

use super::Gpu;
use super::device::workgroups;
use super::program::WORKGROUP;
use crate::error::Result;
use crate::evaluate::wgsl::Function;
use crate::formula::graph::{Graph, Id};

/// A node's value at one point, and whether the device vouches for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluated {
    /// The value; meaningless where it is not trusted.
    pub value: f32,
    /// Whether every argument was in its operator's domain and every magnitude within f32's.
    pub trusted: bool,
}

const KERNEL: &str = "
struct Evaluated {
    value: f32,
    trusted: u32,
}
@group(0) @binding(0) var<storage, read> points: array<f32>;
@group(0) @binding(1) var<storage, read_write> values: array<Evaluated>;

// One invocation is one point: INPUTS numbers, then COORDINATES.
@compute @workgroup_size(WORKGROUP)
fn evaluate(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let point = (group.y * groups.x + group.x) * WORKGROUP + local;
    if point >= arrayLength(&values) {
        return;
    }
    var u: Inputs;
    for (var k = 0u; k < INPUTS; k++) {
        u[k] = points[point * (INPUTS + COORDINATES) + k];
    }
    var z: Coordinates;
    for (var j = 0u; j < COORDINATES; j++) {
        z[j] = points[point * (INPUTS + COORDINATES) + INPUTS + j];
    }
    var trusted = true;
    let value = node_value(u, z, &trusted);
    values[point] = Evaluated(value, select(1u, 2u, trusted));
}
";

impl Gpu {
    /// The value of `node` at every point. `points` holds `inputs` and then `coordinates` numbers a point, at least one of
    /// each kind; `operators` is [`OPERATORS`](crate::evaluate::wgsl::OPERATORS), or a sabotaged one in tests.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) where the device fails.
    pub fn evaluate(
        &self,
        graph: &Graph,
        node: Id,
        (inputs, coordinates): (usize, usize),
        points: &[f32],
        operators: &str,
    ) -> Result<Vec<Evaluated>> {
        let function = Function { name: "node_value", result: node, outputs: &[], output: ("", "") };
        let text = format!(
            "const INPUTS: u32 = {inputs}u;\nconst COORDINATES: u32 = {coordinates}u;\n\
             const WORKGROUP: u32 = {WORKGROUP}u;\n\
             alias Inputs = array<f32, INPUTS>;\nalias Coordinates = array<f32, COORDINATES>;\n{operators}\n{}{KERNEL}",
            function.emit(graph)
        );
        let device = &self.device;
        let pipeline = device.pipeline("evaluate", &text, None);
        device.check()?;
        let count = points.len() / (inputs + coordinates);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let bytes = 8 * count as u64;
        let given = device.buffer("points", 4 * points.len() as u64, usage);
        let values = device.buffer("values", bytes, usage);
        let back = device.buffer("back", bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        device.queue.write_buffer(&given, 0, bytemuck::cast_slice(points));
        let group = device.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("evaluate"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: given.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 1, resource: values.as_entire_binding() },
            ],
        });
        let mut encoder = device.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            let (across, down) = workgroups(count, WORKGROUP, device.limits.max_compute_workgroups_per_dimension);
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(across, down, 1);
        }
        encoder.copy_buffer_to_buffer(&values, 0, &back, 0, bytes);
        let submission = device.queue.submit([encoder.finish()]);
        device.map(&back, bytes);
        device.wait(&submission)?;
        let view = device.read(&back, bytes)?;
        let words: &[u32] = bytemuck::cast_slice(&view);
        words
            .chunks_exact(2)
            .map(|pair| match pair[1] {
                0 => Err(crate::Error::Device(format!("{} left a value unwritten", device.adapter))),
                code => Ok(Evaluated { value: f32::from_bits(pair[0]), trusted: code == 2 }),
            })
            .collect()
    }
}
