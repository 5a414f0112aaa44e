//! What several subcommands share: signals, sizes, devices, opening a model.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::diffusion::process::Process;
use crate::diffusion::sampler::Rule;
use crate::diffusion::system::System;
use crate::engine::cuda;
use crate::engine::device::{DType, Device};
use crate::engine::interrupt;
use crate::engine::memory;
use crate::error::{Error, Report, Result};
use crate::import::open;
use crate::upscale::Upscaler;

/// The number of the signal that asked to stop; 0 while none did.
pub(super) type Stop = Arc<AtomicUsize>;

/// A number that the first SIGINT or SIGTERM sets; the second one ends the process.
pub(super) fn stop_on_signals() -> Result<Stop> {
    let stop: Stop = Arc::new(AtomicUsize::new(0));
    let asked = Arc::new(AtomicBool::new(false));
    for (signal, number) in [(SIGINT, 2), (SIGTERM, 15)] {
        // In this order: the first signal finds `asked` unset, and sets it.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))
            .and_then(|_| flag::register(signal, Arc::clone(&asked)))
            .and_then(|_| flag::register_usize(signal, Arc::clone(&stop), number))
            .map_err(|e| Error::Failed(Report::new("cannot listen for Ctrl-C", e)))?;
    }
    interrupt::listen(Arc::clone(&stop));
    Ok(stop)
}

/// An error if `stop` was asked for.
pub(super) fn check(stop: &Stop) -> Result<()> {
    match i32::try_from(stop.load(Ordering::Relaxed)).unwrap_or(2) {
        0 => Ok(()),
        signal => Err(Error::Interrupted { signal, what: "nothing half-written was left".into() }),
    }
}

/// Where the work runs: `auto`, `cpu`, `cuda`, or `cuda:N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeviceChoice(String);

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        cuda::is_device_name(name)
            .then(|| Self(name.to_owned()))
            .ok_or_else(|| "auto, cpu, cuda, or one of several GPUs, such as cuda:1".into())
    }
}

impl DeviceChoice {
    /// The device that `name` stands for.
    pub(super) fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Whether a GPU was asked for by name.
    pub(super) fn is_a_gpu(&self) -> bool {
        self.0.starts_with("cuda")
    }

    /// The device; `note` hears why a GPU is not used where that is left to us.
    ///
    /// # Errors
    /// If the GPU that was asked for cannot be used.
    pub(super) fn open(&self, note: &mut dyn FnMut(&Error)) -> Result<Device> {
        cuda::choose(&self.0, note)
    }
}

/// How the chain of a model is walked, where not as its file says.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Sampling {
    /// The rule of a step
    #[arg(long, value_enum)]
    sampler: Option<SamplerName>,
    /// ResShift: the strength of the noise, in place of the one trained with; 0 adds none
    #[arg(long, value_name = "KAPPA", value_parser = not_negative)]
    kappa: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum SamplerName {
    /// Ancestral: the posterior of the process
    Posterior,
    /// DDPM with the variance beta
    LargeVariance,
    /// Deterministic DDIM; ResShift keeps the noise it finds
    Ddim,
    /// The DualDomainUNet system's mean; ResShift only
    Seed001,
}

fn not_negative(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(v) if v.is_finite() && v >= 0.0 => Ok(v),
        _ => Err("a number of at least 0".into()),
    }
}

impl Sampling {
    /// What was asked for, for the stamp of an output.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let sampler = self.sampler.as_ref().and_then(clap::ValueEnum::to_possible_value);
        let sampler = sampler.map(|value| ("sampler", value.get_name().to_owned()));
        let kappa = self.kappa.map(|kappa| ("kappa", kappa.to_string()));
        sampler.into_iter().chain(kappa).collect()
    }

    /// Changes how `system` samples.
    ///
    /// # Errors
    /// If its process knows no such thing.
    pub(super) fn apply(&self, system: &mut System) -> Result<()> {
        let diffusion = &mut system.config.diffusion;
        let shifts = matches!(diffusion.process, Process::ResShift { .. });
        let refuse = |what: &str| {
            let report = Report::new(what, format!("{} is no ResShift model", system.name));
            Err(Error::Usage(report.help("srk models info MODEL    shows its process")))
        };
        match self.sampler {
            Some(SamplerName::Seed001) if !shifts => return refuse("--sampler seed001"),
            Some(SamplerName::Seed001) => diffusion.sampler.rule = Rule::Seed001,
            Some(SamplerName::Posterior) => diffusion.sampler.rule = Rule::Posterior,
            Some(SamplerName::LargeVariance) => diffusion.sampler.rule = Rule::LargeVariance,
            Some(SamplerName::Ddim) => diffusion.sampler.rule = Rule::Ddim { eta: 0.0 },
            None => {}
        }
        match (&mut diffusion.process, self.kappa) {
            (Process::ResShift { kappa, .. }, Some(wanted)) => *kappa = wanted,
            (_, Some(_)) => return refuse("--kappa"),
            (_, None) => {}
        }
        Ok(())
    }
}

/// What is computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Precision {
    /// f16 on a GPU, f32 on the CPU
    #[default]
    Auto,
    /// Half precision, 11 bits
    #[value(alias = "fp16")]
    F16,
    /// bfloat16, 8 bits and the range of f32; GPUs since Ampere
    Bf16,
    /// Single precision
    #[value(alias = "fp32")]
    F32,
}

impl Precision {
    /// The element type on `device`.
    ///
    /// # Errors
    /// If the device does not compute in it.
    pub(super) fn on(self, device: &Device) -> Result<DType> {
        let refuse = |cause: &str| {
            let report = Report::new("cannot compute in the precision asked for", cause);
            Err(Error::Usage(report.help("leave --precision out")))
        };
        match (self, device) {
            (Self::F32, _) | (Self::Auto, Device::Cpu) => Ok(DType::F32),
            (_, Device::Cpu) => refuse("the CPU computes in f32"),
            (Self::Bf16, Device::Cuda(gpu)) if gpu.compute_capability() < (8, 0) => {
                refuse("GPUs before compute capability 8.0 have no bf16")
            }
            (Self::Bf16, _) => Ok(DType::BF16),
            (Self::Auto | Self::F16, _) => Ok(DType::F16),
        }
    }
}

/// What `-m` calls the choice by what a picture shows.
pub(super) use crate::upscale::choice::AUTO;

/// Which model.
#[derive(Debug, clap::Args)]
pub(super) struct ModelChoice {
    /// A model of this binary (srk models list), a weights file (srk's own, .pth, .pt, .safetensors), the folder of a
    /// training run, or with -n a folder of models [default: auto, by what each picture shows]
    #[arg(short, long, value_name = "MODEL", aliases = ["model_path", "upscale-model"])]
    model: Option<String>,
    /// The model's name in the folder -m; alone, the same as -m
    #[arg(short = 'n', long = "model-name", value_name = "NAME", alias = "model_name")]
    name: Option<String>,
}

impl std::fmt::Display for ModelChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.model, &self.name) {
            (None, None) => f.write_str(AUTO),
            (Some(model), None) | (None, Some(model)) => f.write_str(model),
            (Some(folder), Some(name)) => write!(f, "{name} of {folder}"),
        }
    }
}

impl ModelChoice {
    /// Whether each picture is to choose.
    pub(super) fn is_auto(&self) -> bool {
        let named = self.model.as_deref().or(self.name.as_deref());
        !(self.model.is_some() && self.name.is_some()) && named.is_none_or(|name| name == AUTO)
    }

    /// Opens it; where each picture is to choose, what clean ones take.
    pub(super) fn open(&self) -> Result<System> {
        match (&self.model, &self.name) {
            _ if self.is_auto() => System::open(System::CLEAN),
            (None, None) => unreachable!("that is auto"),
            (Some(model), None) | (None, Some(model)) => open::open(model),
            (Some(folder), Some(name)) => {
                let path = open::in_folder(folder.as_ref(), name)?;
                open::open(&path.display().to_string())
            }
        }
    }
}

/// What is worth knowing about a model that was imported on the fly.
pub(super) fn notes_of_model(system: &System) -> Vec<String> {
    let known = |key: &str| system.metadata.get(key);
    let arch = known("srk.arch").map_or("", String::as_str);
    let assumed = |what: &String| format!("{arch}: assumed {what}; srk models import changes it");
    let imported = |kind: &String| {
        format!("{arch} of a {kind} file; srk models import makes a file of srk of it")
    };
    match known("srk.assumed").map(assumed) {
        Some(note) => vec![note],
        None => known(open::IMPORTED).map(imported).into_iter().collect(),
    }
}

/// `system` on the device and in the precision asked for.
pub(super) fn place(
    system: System,
    device: &DeviceChoice,
    precision: Precision,
) -> Result<Upscaler> {
    // Where the choice is ours, `srk doctor` says why a GPU is not used.
    let device = device.open(&mut |_| ())?;
    let dtype = precision.on(&device)?;
    Upscaler::new(system, &device, dtype)
}

/// What the choice of libraries has to say, such as results that were wrong.
pub(super) fn notes_of_libraries(system: &System) -> Vec<String> {
    match system.network.device() {
        Device::Cpu => vec![],
        Device::Cuda(gpu) => gpu.tuner().take_warnings(),
    }
}

/// `cpu` or `cuda`, as programs read it.
pub(super) fn device_name(system: &System) -> &'static str {
    match system.network.device() {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
    }
}

/// `fp32`, `fp16` or `bf16`, as programs read it.
pub(super) fn precision_name(system: &System) -> &'static str {
    match system.network.dtype() {
        DType::F16 => "fp16",
        DType::BF16 => "bf16",
        DType::F32 | DType::F64 => "fp32",
    }
}

/// Model, device and precision for people.
pub(super) fn where_it_runs(name: &str, system: &System) -> String {
    let precision = precision_name(system);
    match system.network.device() {
        Device::Cpu => {
            format!("{name} on the CPU in {precision}, {} threads", rayon::current_num_threads())
        }
        Device::Cuda(gpu) => format!("{name} on {} in {precision}", gpu.describe().name),
    }
}

/// `n` things in words: `1 tile`, `12 tiles`.
pub(super) fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Sets the number of threads, once, before any work.
pub(super) fn set_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|e| Error::Usage(Report::new(format!("cannot use {threads} threads"), e)))
}

/// Bytes from `512M`, `2GiB`, `1.5G`, a plain number of bytes, or a share such as `50%` of what is
/// free.
pub(super) fn parse_bytes(text: &str) -> std::result::Result<u64, String> {
    memory::parse(text)
}

/// Bytes that the process can take more than it has.
pub(super) fn available_memory() -> u64 {
    memory::available()
}
