//! Values of single nodes on the device, to be held against the graph's own f64 values.
//!
//! What the self-test and the operators' tests ask; the fit never comes here.

use super::Gpu;
use super::device::workgroups;
use super::program::WORKGROUP;
use crate::error::Result;
use crate::evaluate::wgsl::{Function, OPERATORS};
use crate::formula::graph::{Graph, Id};

/// Nodes' values at many points, and where the device vouches for them.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// Node k at point i lies at `i * nodes + k`; meaningless where the point is not trusted.
    pub values: Vec<f32>,
    /// Per point: whether every argument was in its operator's domain and every magnitude within f32's.
    pub trusted: Vec<bool>,
}

const KERNEL: &str = "
@group(0) @binding(0) var<storage, read> points: array<f32>;
// A code (0 is \"not written\", 2 \"trusted\"), then OUTPUTS values a point.
@group(0) @binding(1) var<storage, read_write> results: array<u32>;

// One invocation is one point: INPUTS numbers, then COORDINATES.
@compute @workgroup_size(WORKGROUP)
fn evaluate(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let point = (group.y * groups.x + group.x) * WORKGROUP + local;
    if point >= arrayLength(&results) / (OUTPUTS + 1u) {
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
    var outputs: Outputs;
    _ = node_values(u, z, &outputs, &trusted);
    results[point * (OUTPUTS + 1u)] = select(1u, 2u, trusted);
    for (var k = 0u; k < OUTPUTS; k++) {
        results[point * (OUTPUTS + 1u) + 1u + k] = bitcast<u32>(outputs[k]);
    }
}
";

impl Gpu {
    /// The values of `nodes` (at least one) at every point. `points` holds `inputs` and then `coordinates` numbers a point,
    /// at least one of each kind.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) where the device fails.
    pub fn evaluate(
        &self,
        graph: &Graph,
        nodes: &[Id],
        (inputs, coordinates): (usize, usize),
        points: &[f32],
    ) -> Result<Evaluated> {
        let outputs = nodes.len();
        let function =
            Function { name: "node_values", result: nodes[0], outputs: nodes, output: ("outputs", "Outputs") };
        let text = format!(
            "const INPUTS: u32 = {inputs}u;\nconst COORDINATES: u32 = {coordinates}u;\n\
             const OUTPUTS: u32 = {outputs}u;\nconst WORKGROUP: u32 = {WORKGROUP}u;\n\
             alias Inputs = array<f32, INPUTS>;\nalias Coordinates = array<f32, COORDINATES>;\n\
             alias Outputs = array<f32, OUTPUTS>;\n{OPERATORS}\n{}{KERNEL}",
            function.emit(graph)
        );
        let device = &self.device;
        let pipeline = device.pipeline("evaluate", &text, None);
        device.check()?;
        let count = points.len() / (inputs + coordinates);
        let words = outputs + 1;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let bytes = 4 * (words * count) as u64;
        let given = device.buffer("points", 4 * points.len() as u64, usage);
        let results = device.buffer("results", bytes, usage);
        let back = device.buffer("back", bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        device.queue.write_buffer(&given, 0, bytemuck::cast_slice(points));
        let group = device.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("evaluate"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: given.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 1, resource: results.as_entire_binding() },
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
        encoder.copy_buffer_to_buffer(&results, 0, &back, 0, bytes);
        let submission = device.queue.submit([encoder.finish()]);
        device.map(&back, bytes);
        device.wait(&submission)?;
        let view = device.read(&back, bytes)?;
        let mut evaluated = Evaluated { values: Vec::with_capacity(outputs * count), trusted: Vec::new() };
        for point in bytemuck::cast_slice::<u8, u32>(&view).chunks_exact(words) {
            if point[0] == 0 {
                return Err(crate::Error::Device(format!("{} left a value unwritten", device.adapter)));
            }
            evaluated.trusted.push(point[0] == 2);
            evaluated.values.extend(point[1..].iter().map(|&bits| f32::from_bits(bits)));
        }
        Ok(evaluated)
    }
}
