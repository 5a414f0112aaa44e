//! What several subcommands share: signals, sizes, devices, opening a model.
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::habits;
use crate::diffusion::process::Process;
use crate::diffusion::sampler::Rule;
use crate::diffusion::system::System;
use crate::engine::cuda;
use crate::engine::device::{DType, Device};
use crate::engine::interrupt;
use crate::engine::memory;
use crate::engine::threads;
use crate::error::{Error, Report, Result};
use crate::import::open;
use crate::ops::bf16;
use crate::upscale::Upscaler;
use crate::upscale::choice::Models;

/// The number of the signal that asked to stop; 0 while none did.
pub(super) type Stop = Arc<AtomicUsize>;

/// A number that the first SIGINT, SIGTERM or SIGHUP (of a terminal that is closed) sets; the second one ends the process.
pub(super) fn stop_on_signals() -> Result<Stop> {
    let stop: Stop = Arc::new(AtomicUsize::new(0));
    let asked = Arc::new(AtomicBool::new(false));
    for (signal, number) in [(SIGINT, 2), (SIGTERM, 15), (SIGHUP, 1)] {
        if signal == SIGHUP && interrupt::is_ignored(signal) {
            // As nohup asks.
            continue;
        }
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

/// The value of a variable of the environment that stands in for an option.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// An error about the variable `name`, whose value is no good.
fn wrong_variable(name: &str, value: &str, cause: impl std::fmt::Display) -> Error {
    let report = Report::new(format!("{name}={value} in the environment is wrong"), cause);
    Error::Usage(report.help(format!("unset {name}, or give the option in its place")))
}

/// The variable that stands in for `--device`.
const DEVICE: &str = "SRK_DEVICE";

/// Where the work runs: `auto`, `cpu`, `cuda`, `cuda:N`, or several GPUs, `cuda:N,M` and `cuda:all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeviceChoice(String);

impl std::str::FromStr for DeviceChoice {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        cuda::is_device_name(name)
            .then(|| Self(name.to_owned()))
            .ok_or_else(|| {
                "auto, cpu, cuda, one of several GPUs, such as cuda:1, or several: cuda:0,2, cuda:all".into()
            })
    }
}

impl DeviceChoice {
    /// The device that `name` stands for.
    pub(super) fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Refuses the CPU where it would be taken for want of a GPU, and not because it was asked for.
    ///
    /// # Errors
    /// Why no GPU can be used.
    pub(super) fn refuse_fallback(&self) -> Result<()> {
        let asked = variable(DEVICE).unwrap_or_else(|| self.0.clone());
        match self.0 == "auto" && asked == "auto" {
            true => cuda::choose("cuda", &mut |_| ()).map(drop),
            false => Ok(()),
        }
    }

    /// The device of the process that is number `local` on its machine, one of `world` that work together: the GPU of
    /// that number, or the one that the process sees alone.
    ///
    /// # Errors
    /// Exit code 2 if one GPU was named for all, 4 if there are too few.
    pub(super) fn of_several(&self, local: usize, world: usize) -> Result<Device> {
        let name = variable(DEVICE).filter(|_| self.0 == "auto").unwrap_or_else(|| self.0.clone());
        let listed = cuda::ordinals(&name)?;
        if name.starts_with("cuda:") && listed.is_none() {
            let report = Report::new(
                format!("{name} is one GPU for {world} processes"),
                "each has one of its own: that of its number on the machine",
            );
            let help = "--device cuda, or --device cuda:0,2 for these";
            return Err(Error::Usage(report.help(help)));
        }
        let gpus: Vec<usize> = match (name.as_str(), listed) {
            (_, Some(listed)) => listed,
            ("cpu", _) => return Ok(Device::Cpu),
            ("auto", _) => match cuda::devices() {
                Ok(gpus) => (0..gpus.len()).collect(),
                Err(_) => return Ok(Device::Cpu),
            },
            _ => (0..cuda::devices()?.len()).collect(),
        };
        match gpus[..] {
            // Of those of a machine, Slurm and others show a process its own alone.
            [one] => cuda::choose(&format!("cuda:{one}"), &mut |_| ()),
            _ if local < gpus.len() => cuda::choose(&format!("cuda:{}", gpus[local]), &mut |_| ()),
            _ => {
                let what = format!("there is no GPU for process {local} of this machine");
                let cause = format!("there are {}, counted from 0", gpus.len());
                let help = format!("start {} processes, or --device cpu", gpus.len());
                Err(Error::Device(Report::new(what, cause).help(help)))
            }
        }
    }

    /// The device; `note` hears why a GPU is not used where that is left to us. `auto` is what SRK_DEVICE says, if it
    /// says something.
    ///
    /// # Errors
    /// If the GPU that was asked for cannot be used, or several were.
    pub(super) fn open(&self, note: &mut dyn FnMut(&Error)) -> Result<Device> {
        cuda::choose(&self.asked()?, note)
    }

    /// The devices, where work can be spread over several.
    ///
    /// # Errors
    /// If a GPU that was asked for cannot be used.
    pub(super) fn open_all(&self) -> Result<Vec<Device>> {
        cuda::choose_several(&self.asked()?, &mut |_| ())
    }

    /// The name that was given, or that SRK_DEVICE has.
    fn asked(&self) -> Result<String> {
        match variable(DEVICE).filter(|_| self.0 == "auto") {
            None => Ok(self.0.clone()),
            Some(name) => match name.parse::<Self>() {
                Ok(Self(device)) => Ok(device),
                Err(cause) => Err(wrong_variable(DEVICE, &name, cause)),
            },
        }
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
    #[value(alias = "seed001")]
    DualDomain,
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
            Some(SamplerName::DualDomain) if !shifts => return refuse("--sampler dual-domain"),
            Some(SamplerName::DualDomain) => diffusion.sampler.rule = Rule::DualDomain,
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
    /// bfloat16, 8 bits and the range of f32; GPUs since Ampere, CPUs that have AMX (others compute the same, slowly)
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
            (Self::Bf16, Device::Cpu) => Ok(DType::BF16),
            (Self::F16, Device::Cpu) => refuse("the CPU computes in f32 or bf16"),
            (Self::Bf16, Device::Cuda(gpu)) if gpu.compute_capability() < (8, 0) => {
                refuse("GPUs before compute capability 8.0 have no bf16")
            }
            (Self::Bf16, _) => Ok(DType::BF16),
            (Self::Auto | Self::F16, _) => Ok(DType::F16),
        }
    }
}

/// Refuses names by which a file would be taken for one of torch.save.
pub(super) fn refuse_ending_of_torch(output: &Path) -> Result<()> {
    let ending = output.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if !["pth", "pt", "ckpt", "pkl", "bin"].contains(&ending.as_str()) {
        return Ok(());
    }
    let what = format!("{} would be no file of torch", output.display());
    let report =
        Report::new(what, format!("srk writes safetensors, and others take .{ending} for torch's"));
    let name = output.with_extension("safetensors");
    Err(Error::Usage(report.help(format!("name it {}", name.display()))))
}

/// What `-m` calls the choice by what a picture shows.
pub(super) use crate::upscale::choice::AUTO;

/// The models that `name` stands for, each put where it runs by `place`.
///
/// # Errors
/// If there is none of this name, and those of `place`.
pub(super) fn models(name: &str, place: impl Fn(System) -> Result<Upscaler>) -> Result<Models> {
    match name {
        AUTO => Models::auto(place),
        _ => Ok(Models::One(Box::new(place(open::open(name)?)?))),
    }
}

/// Which model.
#[derive(Debug, clap::Args)]
pub(super) struct ModelChoice {
    /// A model of this binary (srk models list), a weights file (srk's own, .pth, .pt, .safetensors), the folder of a
    /// training run or of one of its checkpoints, hf:ORG/REPO (or hf:ORG/REPO@REVISION:FILE) of what Hugging Face's programs have
    /// downloaded, or with -n a folder of models [default: SRK_MODEL, or auto, by what each picture shows]
    #[arg(short, long, value_name = "MODEL", aliases = ["model_path", "upscale-model"])]
    model: Option<String>,
    /// The model's name in the folder -m; alone, the same as -m
    #[arg(short = 'n', long = "model-name", value_name = "NAME", alias = "model_name")]
    name: Option<String>,
}

/// The variable that stands in for `--model` where neither it nor a name is given.
const MODEL: &str = "SRK_MODEL";

/// What was named, with the environment.
enum Named {
    Auto,
    Model(String),
    InFolder(String, String),
}

impl std::fmt::Display for ModelChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.named() {
            Named::Auto => f.write_str(AUTO),
            Named::Model(model) => f.write_str(&model),
            Named::InFolder(folder, name) => write!(f, "{name} of {folder}"),
        }
    }
}

impl ModelChoice {
    fn named(&self) -> Named {
        let one = |model: String| if model == AUTO { Named::Auto } else { Named::Model(model) };
        match (self.model.clone(), self.name.clone()) {
            (Some(folder), Some(name)) => Named::InFolder(folder, name),
            (Some(model), None) | (None, Some(model)) => one(model),
            (None, None) => variable(MODEL).map_or(Named::Auto, one),
        }
    }

    /// Whether each picture is to choose.
    pub(super) fn is_auto(&self) -> bool {
        matches!(self.named(), Named::Auto)
    }

    /// The file or folder that it is read from, if it is no model of the binary.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let path = match self.named() {
            Named::Auto => None,
            Named::Model(model) => Some(PathBuf::from(model)),
            Named::InFolder(folder, name) => open::in_folder(folder.as_ref(), &name).ok(),
        };
        path.into_iter().filter(|path| path.exists()).collect()
    }

    /// The models that it stands for, each put where it runs by `place`: where each picture is to choose, both.
    ///
    /// # Errors
    /// As [`open`](Self::open), and those of `place`.
    pub(super) fn models(&self, place: impl Fn(System) -> Result<Upscaler>) -> Result<Models> {
        match self.is_auto() {
            true => models(AUTO, place),
            false => Ok(Models::One(Box::new(place(self.open()?)?))),
        }
    }

    /// Opens it; where each picture is to choose, what clean ones take.
    pub(super) fn open(&self) -> Result<System> {
        let is_level = |name: &String| matches!(name.as_str(), "0" | "1" | "2" | "3");
        match self.named() {
            Named::Auto => System::open(System::CLEAN),
            Named::Model(model) => {
                let by_name = self.model.is_none() && self.name.is_some();
                match by_name && is_level(&model) && !std::path::Path::new(&model).exists() {
                    true => Err(habits::noise_level(&model)),
                    false => open::open(&model),
                }
            }
            Named::InFolder(folder, name) => match open::in_folder(folder.as_ref(), &name) {
                Ok(path) => open::open(&path.display().to_string()),
                Err(_) if is_level(&name) => Err(habits::noise_level(&name)),
                Err(error) => Err(error),
            },
        }
    }
}

/// What is worth knowing about a model that was imported on the fly, and about the precision asked for.
pub(super) fn notes_of(system: &System) -> Vec<String> {
    let known = |key: &str| system.metadata.get(key);
    let arch = known("srk.arch").map_or("", String::as_str);
    let assumed = |what: &String| format!("{arch}: assumed {what}; srk models import changes it");
    let imported = |kind: &String| {
        format!("{arch} of a {kind} file; srk models import makes a file of srk of it")
    };
    let mut notes: Vec<String> = match known("srk.assumed").map(assumed) {
        Some(note) => vec![note],
        None => known(open::IMPORTED).map(imported).into_iter().collect(),
    };
    let on_cpu = matches!(system.network.device(), Device::Cpu);
    if on_cpu && system.dtype() == DType::BF16 && !bf16::is_fast() {
        notes.push("without AMX bf16 takes longer than f32".to_owned());
    }
    notes
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

/// `system` on each of `devices`, in the precision asked for.
pub(super) fn place_over(
    system: System,
    devices: &[Device],
    precision: Precision,
) -> Result<Upscaler> {
    let types = devices.iter().map(|device| precision.on(device)).collect::<Result<Vec<_>>>()?;
    Upscaler::over(system, devices, types.first().copied().unwrap_or(DType::F32))
}

/// What the choice of libraries has to say, such as results that were wrong.
pub(super) fn notes_of_libraries(system: &System) -> Vec<String> {
    match system.network.device() {
        Device::Cpu => vec![],
        Device::Cuda(gpu) => gpu.take_warnings(),
    }
}

/// `cpu` or `cuda`, as programs read it.
pub(super) fn device_name(system: &System) -> &'static str {
    match system.network.device() {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
    }
}

/// What the driver calls the GPU of `system`; `CPU` without one.
pub(super) fn gpu_name(system: &System) -> String {
    match system.network.device() {
        Device::Cpu => "CPU".to_owned(),
        Device::Cuda(gpu) => gpu.describe().name.clone(),
    }
}

/// `fp32`, `fp16` or `bf16`, as programs read it.
pub(super) fn precision_name(system: &System) -> &'static str {
    match system.dtype() {
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
            format!("{name} on the CPU in {precision}, {} threads", threads::count())
        }
        Device::Cuda(_) => format!("{name} on {} in {precision}", gpu_name(system)),
    }
}

pub(super) use crate::engine::spelling::counted;

/// The variable that stands in for `--threads`.
const THREADS: &str = "SRK_THREADS";

/// The number of threads that was asked for: by the option, or by SRK_THREADS.
///
/// # Errors
/// If the variable holds no number of threads.
pub(super) fn threads(option: Option<u32>) -> Result<Option<usize>> {
    let count = match variable(THREADS).filter(|_| option.is_none()) {
        None => option,
        Some(given) => match given.trim().parse() {
            Ok(count @ 1..) => Some(count),
            _ => return Err(wrong_variable(THREADS, &given, "a number of at least 1 is needed")),
        },
    };
    Ok(count.map(|n| n as usize))
}

/// Sets the number of threads, once, before any work.
///
/// # Errors
/// As [`threads`](fn@threads).
pub(super) fn set_threads(option: Option<u32>) -> Result<()> {
    if let Some(count) = threads(option)? {
        threads::set_count(count);
    }
    Ok(())
}

/// Bytes from `512M`, `2GiB`, `1.5G`, a plain number of bytes, or a share such as `50%` of what is
/// free.
pub(super) fn parse_bytes(text: &str) -> std::result::Result<u64, String> {
    memory::parse(text)
}

/// The memory that was asked for: by the option, or by SRK_RAM.
///
/// # Errors
/// If the variable holds no size.
pub(super) fn ram(option: Option<u64>) -> Result<Option<u64>> {
    match variable("SRK_RAM").filter(|_| option.is_none()) {
        None => Ok(option),
        Some(size) => match parse_bytes(&size) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(cause) => Err(wrong_variable("SRK_RAM", &size, cause)),
        },
    }
}

/// A value of `--seed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seed {
    /// The number, given or drawn.
    pub(super) number: u64,
    /// Whether it was drawn, and nobody knows it yet.
    pub(super) drawn: bool,
}

impl std::str::FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.parse()) {
            ("random", _) => {
                // The standard library draws the keys of its hash tables from the system. Few enough digits to type,
                // and for numbers of JSON.
                let drawn = std::hash::RandomState::new().hash_one(std::process::id());
                Ok(Self { number: drawn >> 32, drawn: true })
            }
            (_, Ok(number)) => Ok(Self { number, drawn: false }),
            _ => Err("a whole number from 0 on, or random".into()),
        }
    }
}

impl Seed {
    /// What the first line of a command says of it.
    pub(super) fn words(self) -> String {
        if self.drawn { format!(", seed {}", self.number) } else { String::new() }
    }
}

/// Bytes that the process can take more than it has.
pub(super) fn available_memory() -> u64 {
    memory::available()
}

/// The beginning of a text that fills pages, such as the layers of a graph.
pub(super) fn brief(text: String) -> String {
    match text.char_indices().nth(1000) {
        None => text,
        Some(_) => {
            let begin: String = text.chars().take(200).collect();
            format!("{begin} ... ({} characters; --json shows the model's numbers)", text.len())
        }
    }
}
