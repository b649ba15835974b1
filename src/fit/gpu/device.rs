//! Adapters and the open device: what wgpu finds, which one is taken, and how a failing device becomes an error.
//!
//! Knows no models and no curves. Nothing here panics on a lost device: wgpu's callbacks leave a message behind, and
//! whoever submits or waits asks for it.

use crate::error::{Error, Result};
use std::borrow::Cow;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for one submission. Work is split so that a submission takes about a second on the slowest device; a
/// device that is silent for this long is lost without saying so.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a wait looks for a failure that a callback left behind.
const GLANCE: Duration = Duration::from_secs(2);

/// One adapter, as `sweepfit devices` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// What the driver calls it.
    pub name: String,
    /// Vulkan, Metal, Dx12 or Gl.
    pub backend: String,
    /// Discrete, integrated or virtual GPU, software, other.
    pub kind: &'static str,
    /// The driver's name and version, where the backend tells.
    pub driver: String,
    /// Whether it is a GPU, which `auto` may take, and not a program.
    pub hardware: bool,
}

impl Adapter {
    fn of(info: &wgpu::AdapterInfo) -> Adapter {
        let driver = [info.driver.as_str(), info.driver_info.as_str()];
        Adapter {
            name: info.name.clone(),
            backend: format!("{:?}", info.backend),
            kind: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => "discrete GPU",
                wgpu::DeviceType::IntegratedGpu => "integrated GPU",
                wgpu::DeviceType::VirtualGpu => "virtual GPU",
                wgpu::DeviceType::Cpu => "software",
                wgpu::DeviceType::Other => "other",
            },
            driver: driver.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(" "),
            hardware: is_hardware(info.device_type),
        }
    }
}

impl std::fmt::Display for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.backend, self.kind)
    }
}

fn is_hardware(kind: wgpu::DeviceType) -> bool {
    use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu, Other, VirtualGpu};
    match kind {
        DiscreteGpu | IntegratedGpu | VirtualGpu => true,
        Cpu | Other => false,
    }
}

/// Smaller is better: kind of device first, then the backend, GL being the last resort of any card.
fn preference(info: &wgpu::AdapterInfo) -> (u8, u8) {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    (kind, u8::from(info.backend == wgpu::Backend::Gl))
}

/// Every adapter that can run compute shaders, best first.
fn enumerate() -> Vec<wgpu::Adapter> {
    /// One for the whole run and never torn down: a driver that is unloaded while the process ends takes its exit
    /// handlers with it, and the process crashes after its work is done.
    static INSTANCE: OnceLock<wgpu::Instance> = OnceLock::new();
    let instance = INSTANCE.get_or_init(|| wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle()));
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    adapters.retain(|adapter| {
        let limits = adapter.limits();
        adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
            && limits.max_storage_buffers_per_shader_stage >= STORAGE_BUFFERS
    });
    adapters.sort_by_key(|adapter| preference(&adapter.get_info()));
    adapters
}

/// Storage buffers that the kernels bind; WebGPU promises eight.
pub const STORAGE_BUFFERS: u32 = 8;

/// What wgpu finds, best first; the first one that is hardware is what `auto` takes.
pub fn adapters() -> Vec<Adapter> {
    enumerate().iter().map(|adapter| Adapter::of(&adapter.get_info())).collect()
}

/// Takes the best hardware adapter, or the best one whose name holds `wanted`, case ignored.
fn choose(wanted: Option<&str>) -> Result<wgpu::Adapter> {
    let found = enumerate();
    let names = |found: &[wgpu::Adapter]| {
        let mut names: Vec<String> = found.iter().map(|a| Adapter::of(&a.get_info()).to_string()).collect();
        names.dedup();
        names.join(", ")
    };
    let fits = |adapter: &wgpu::Adapter| {
        let info = adapter.get_info();
        match wanted {
            Some(part) => info.name.to_lowercase().contains(&part.to_lowercase()),
            None => is_hardware(info.device_type),
        }
    };
    if let Some(position) = found.iter().position(fits) {
        let mut found = found;
        return Ok(found.swap_remove(position));
    }
    Err(Error::Device(match (wanted, found.is_empty()) {
        (_, true) => {
            "no GPU adapter was found: install a Vulkan, Metal, DX12 or GL driver, or use --backend cpu".into()
        }
        (Some(part), false) => format!("no adapter's name contains \"{part}\"; found: {}", names(&found)),
        (None, false) => format!(
            "no hardware GPU was found, only {}: use --backend cpu, or name one of these with --adapter NAME",
            names(&found)
        ),
    }))
}

/// What a callback of the device left behind.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<String>>>);

impl Failure {
    fn leave(&self, message: String) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The first message is the cause, later ones are its consequences.
        slot.get_or_insert(message);
    }

    fn look(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An open device.
pub struct Device {
    pub adapter: Adapter,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub limits: wgpu::Limits,
    /// Whether passes can be timed on the device.
    pub timestamps: bool,
    /// Stands for a driver that runs something else than it was given.
    pub alteration: Option<Alteration>,
    /// Stands for a card that is pulled out.
    pub loss: Option<(Stage, AtomicIsize)>,
    failure: Failure,
}

/// The stages of a search on the device, in their order: where tests let it be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before the pipelines of a model are asked for.
    Compile,
    /// Before the buffers of a chunk are made and filled.
    Upload,
    /// Before its commands are submitted.
    Submit,
    /// Before its end is waited for.
    Wait,
    /// Before its results are read.
    Read,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Stage; 5] = [Stage::Compile, Stage::Upload, Stage::Submit, Stage::Wait, Stage::Read];
}

/// What a made-up faulty driver makes of a shader's text.
pub type Alteration = Box<dyn Fn(&str) -> String + Send + Sync>;

impl Device {
    /// Opens the adapter that [`choose`] takes.
    ///
    /// # Errors
    /// [`Error::Device`] where there is none, naming those found, or where it cannot be opened.
    pub fn open(wanted: Option<&str>) -> Result<Device> {
        let chosen = choose(wanted)?;
        let adapter = Adapter::of(&chosen.get_info());
        let timestamps = chosen.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let limits = chosen.limits();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("sweepfit"),
            required_features: if timestamps { wgpu::Features::TIMESTAMP_QUERY } else { wgpu::Features::empty() },
            required_limits: limits.clone(),
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(chosen.request_device(&descriptor))
            .map_err(|error| Error::Device(format!("{adapter} cannot be opened: {error}")))?;
        let failure = Failure::default();
        let (on_error, on_loss, name) = (failure.clone(), failure.clone(), adapter.to_string());
        device.on_uncaptured_error(Arc::new(move |error| {
            on_error.leave(match error {
                wgpu::Error::OutOfMemory { .. } => {
                    format!("{name} is out of memory: close other programs that use it, or use --backend cpu")
                }
                other => format!("{name} refused a command: {other}"),
            });
        }));
        let name = adapter.to_string();
        device.set_device_lost_callback(move |reason, message| {
            // Dropping the device at the end of the run is a loss, too, but nobody will ask.
            on_loss.leave(format!("{name} was lost ({reason:?}): {message}"));
        });
        Ok(Device { adapter, device, queue, limits, timestamps, alteration: None, loss: None, failure })
    }

    /// Says that a stage begins; where the device is to be lost at it, it is.
    pub fn reach(&self, stage: Stage) {
        if let Some((at, left)) = &self.loss
            && *at == stage
            && left.fetch_sub(1, Ordering::Relaxed) == 0
        {
            self.device.destroy();
        }
    }

    /// What has gone wrong since the device was opened.
    ///
    /// # Errors
    /// [`Error::Device`] with the first message that wgpu's callbacks left.
    pub fn check(&self) -> Result<()> {
        match self.failure.look() {
            Some(message) => Err(Error::Device(message)),
            None => Ok(()),
        }
    }

    /// What has gone wrong up to now: a device that was lost is noticed although nothing is asked of it.
    ///
    /// # Errors
    /// As [`Device::check`].
    pub fn glance(&self) -> Result<()> {
        let polled = self.device.poll(wgpu::PollType::Poll);
        self.check()?;
        polled.map(drop).map_err(|error| Error::Device(format!("{}: {error}", self.adapter)))
    }

    /// Waits until a submission is done and its callbacks have run.
    ///
    /// # Errors
    /// [`Error::Device`] where the device failed or stayed silent.
    pub fn wait(&self, submission: &wgpu::SubmissionIndex) -> Result<()> {
        let start = Instant::now();
        loop {
            let poll = self
                .device
                .poll(wgpu::PollType::Wait { submission_index: Some(submission.clone()), timeout: Some(GLANCE) });
            self.check()?;
            match poll {
                Ok(_) => return Ok(()),
                Err(wgpu::PollError::Timeout) if start.elapsed() < PATIENCE => {}
                Err(wgpu::PollError::Timeout) => {
                    return Err(Error::Device(format!(
                        "{} did not answer for {} s: use --backend cpu",
                        self.adapter,
                        PATIENCE.as_secs()
                    )));
                }
                Err(error) => return Err(Error::Device(format!("{}: {error}", self.adapter))),
            }
        }
    }

    /// A buffer; check afterwards whether there was memory for it.
    pub fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            // Empty bindings are not allowed, and copies go by fours.
            size: bytes.next_multiple_of(4).max(16),
            usage,
            mapped_at_creation: false,
        })
    }

    /// What a kernel binds: a uniform, then storage buffers, those from `first_written` on to be written.
    pub fn bindings(&self, first_written: u32, storage: u32) -> wgpu::BindGroupLayout {
        let entry = |binding: u32, ty: wgpu::BufferBindingType| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform)];
        entries
            .extend((1..=storage).map(|binding| {
                entry(binding, wgpu::BufferBindingType::Storage { read_only: binding < first_written })
            }));
        let descriptor = wgpu::BindGroupLayoutDescriptor { label: Some("sweepfit"), entries: &entries };
        self.device.create_bind_group_layout(&descriptor)
    }

    /// The layout of a pipeline that binds these.
    pub fn pipeline_layout(&self, bindings: &wgpu::BindGroupLayout) -> wgpu::PipelineLayout {
        self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some("sweepfit"),
            bind_group_layouts: &[Some(bindings)],
            immediate_size: 0,
        })
    }

    /// Buffers at their bindings, 0 first.
    pub fn bind(&self, layout: &wgpu::BindGroupLayout, buffers: &[&wgpu::Buffer]) -> wgpu::BindGroup {
        let entries: Vec<wgpu::BindGroupEntry> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some("sweepfit"), layout, entries: &entries })
    }

    /// A compute pipeline of WGSL text.
    pub fn pipeline(&self, entry: &str, text: &str, layout: Option<&wgpu::PipelineLayout>) -> wgpu::ComputePipeline {
        let text = self.alteration.as_ref().map_or(Cow::Borrowed(text), |alter| Cow::Owned(alter(text)));
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(entry),
            source: wgpu::ShaderSource::Wgsl(text),
        });
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry),
            layout,
            module: &module,
            entry_point: Some(entry),
            compilation_options: Default::default(),
            cache: None,
        })
    }

    /// The bytes of a mapped buffer, after [`Device::wait`] on a submission that came after `map_async`.
    ///
    /// # Errors
    /// [`Error::Device`] where the buffer could not be mapped.
    pub fn read(&self, buffer: &wgpu::Buffer, bytes: u64) -> Result<wgpu::BufferView> {
        buffer
            .slice(..bytes)
            .get_mapped_range()
            .map_err(|error| Error::Device(format!("{}: results cannot be read: {error}", self.adapter)))
    }

    /// Starts mapping a buffer for reading; a failure is left for [`Device::check`].
    pub fn map(&self, buffer: &wgpu::Buffer, bytes: u64) {
        let (failure, name) = (self.failure.clone(), self.adapter.to_string());
        buffer.slice(..bytes).map_async(wgpu::MapMode::Read, move |outcome| {
            if let Err(error) = outcome {
                failure.leave(format!("{name}: results cannot be read: {error}"));
            }
        });
    }
}

/// Workgroups of a dispatch of `invocations`: two dimensions, since one holds 65,535 at most.
pub fn workgroups(invocations: usize, workgroup: u32, most: u32) -> (u32, u32) {
    let groups = invocations.div_ceil(workgroup as usize).max(1);
    let across = groups.min(most as usize);
    (across as u32, groups.div_ceil(across) as u32)
}
