//! `srk doctor`.
use std::path::PathBuf;

use serde_json::{Value, json};

use super::common::{self, DeviceChoice};
use super::{defaults, print, voice};
use crate::diffusion::system::System;
use crate::engine::cuda::{self, images};
use crate::engine::files::{atomic_write, cache_folder};
use crate::engine::memory;
use crate::engine::outputs::Outputs;
use crate::engine::threads;
use crate::error::{Error, Report, Result};
use crate::ops::bf16;

const EXAMPLES: &str = "Examples:
  srk doctor
  srk doctor -q            problems only: a GPU that cannot be used, arithmetic that is wrong
  srk doctor --json
  srk doctor --device cuda             exit code 4 if that cannot be used
  srk doctor --no-self-test            at once, without a try of the arithmetic
  srk doctor --report srk.txt          the same in a file, to go with a question
";

/// Check this machine: processor, memory, devices, models, and the arithmetic.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct Args {
    /// A device that must work: auto (any), cpu, cuda, or one of several GPUs, such as cuda:1
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Leave out the try of the arithmetic, which takes most of the time
    #[arg(long)]
    no_self_test: bool,
    /// Also write the lines into this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Replace that file
    #[arg(long)]
    overwrite: bool,
}

/// Largest relative difference between f32 and f64 that passes the self-test.
const TOLERANCE: f64 = 1e-4;

const READS: [&str; 7] = ["PNG", "JPEG", "WebP", "TIFF", "BMP", "PNM", "GIF"];
const WRITES: &[&str] = match cfg!(feature = "avif") {
    true => &["PNG", "JPEG", "WebP", "TIFF", "BMP", "PNM", "AVIF"],
    false => &["PNG", "JPEG", "WebP", "TIFF", "BMP", "PNM"],
};

pub(super) fn run(args: &Args) -> Result<()> {
    if let Some(file) = &args.report {
        Outputs::overwriting(args.overwrite).claim(file, file)?;
    }
    let tried = (!args.no_self_test).then(self_test).transpose()?;
    let models = System::embedded().map(|name| {
        let system = if tried.is_some() { System::open(name)? } else { System::outline(name)? };
        Ok((name, system.network.parameter_count()))
    });
    let models = models.into_iter().collect::<Result<Vec<_>>>()?;
    let free = common::available_memory();
    let threads = threads::count();
    let worst = tried.map_or(0.0, |(_, worst)| worst);
    let passed = worst <= TOLERANCE;
    let gpus = Gpus::find();
    let test = match tried {
        None => "left out, as asked".to_owned(),
        Some((cases, worst)) => format!(
            "{}: {cases} op cases, f32 against f64, worst relative difference {worst:.1e}",
            if passed { "passed" } else { "FAILED" }
        ),
    };
    let of_model = |(name, count): &(&str, usize)| format!("{name}, {count} parameters");
    let lines = [
        ("srk", env!("CARGO_PKG_VERSION").to_owned()),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("processor", features()),
        ("threads", threads.to_string()),
        ("memory", format!("{} MiB free", free >> 20)),
        ("gpu", gpus.words()),
        ("kernels", kernels()),
        ("libraries", libraries()),
        ("reads", READS.join(" ")),
        ("writes", WRITES.join(" ")),
        ("models", models.iter().map(of_model).collect::<Vec<_>>().join("; ")),
        ("settings", settings()),
        ("cache", cache_folder().map_or("none".to_owned(), |path| path.display().to_string())),
        ("self-test", test.clone()),
    ];
    if let Some(file) = &args.report {
        let text: String =
            lines.iter().map(|(key, value)| format!("{key:<10} {value}\n")).collect();
        atomic_write(file, |writer| writer.write_all(text.as_bytes()))?;
    }
    let mut problems = gpus.problems();
    if !passed {
        problems.push(format!("self-test {test}"));
    }
    if voice::json() {
        // Sentences under the keys of the lines, and the same as numbers and lists.
        let mut map: serde_json::Map<String, Value> =
            lines.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        let of_model = |(name, count): &(&str, usize)| json!({"name": name, "parameters": count});
        let fields = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "thread_count": threads,
            "memory_free": free,
            "gpus": gpus.fields(),
            "kernel_architectures": images::architectures(),
            "library_files": cuda::libraries(),
            "formats_read": READS,
            "formats_written": WRITES,
            "model_list": models.iter().map(of_model).collect::<Vec<_>>(),
            "self_test": tried.map(|(cases, worst)| json!({"passed": passed, "cases": cases,
                "worst": worst, "tolerance": TOLERANCE})),
            "problems": problems,
        });
        if let Value::Object(fields) = fields {
            map.extend(fields);
        }
        print::line(Value::Object(map));
    } else if voice::quiet() {
        for problem in &problems {
            print::line(problem);
        }
    } else {
        for (key, value) in &lines {
            print::line(format_args!("{key:<10} {value}"));
        }
    }
    if passed {
        args.device.open(&mut |_| ())?;
        return print::check();
    }
    let cause =
        format!("an op differs by {worst:.1e} between f32 and f64; {TOLERANCE:.0e} is allowed");
    let report = Report::new("the self-test failed", cause);
    Err(Error::Check(report.help("report this with the output above")))
}

/// Runs every small op case in both precisions; cases run and the worst difference.
fn self_test() -> Result<(usize, f64)> {
    let mut worst = 0.0f64;
    let cases: Vec<_> = crate::ops::all().into_iter().filter(|c| !c.timed_only).collect();
    for case in &cases {
        let error = case.f32_error()?;
        // A NaN counts as the worst.
        worst = if error <= worst { worst } else { error };
    }
    Ok((cases.len(), worst))
}

/// The GPUs of the machine, or why there are none.
struct Gpus(std::result::Result<Vec<Found>, Error>);

/// A GPU.
struct Found {
    description: cuda::Description,
    /// Bytes of its memory that are free, or why it cannot be used.
    free: std::result::Result<Option<u64>, String>,
}

impl Gpus {
    fn find() -> Self {
        let of = |(ordinal, description): (usize, cuda::Description)| {
            let free = match cuda::open(ordinal) {
                Ok(gpu) => Ok(gpu.driver().memory().ok().map(|(free, _)| free as u64)),
                Err(error) => Err(sentence(&error)),
            };
            Found { description, free }
        };
        Self(cuda::devices().map(|found| found.into_iter().enumerate().map(of).collect()))
    }

    /// Every GPU and whether it can be used, or why there is none.
    fn words(&self) -> String {
        let found = match &self.0 {
            Ok(found) => found,
            Err(error) => return format!("no GPU: {}", sentence(error)),
        };
        let line = |(ordinal, found): (usize, &Found)| {
            let gpu = &found.description;
            let (major, minor) = gpu.compute_capability;
            let what = format!(
                "cuda:{ordinal} {}, compute capability {major}.{minor}, {} MiB, driver for CUDA {}",
                gpu.name,
                gpu.memory >> 20,
                gpu.driver
            );
            match &found.free {
                Ok(Some(free)) => format!("{what}, {} free", memory::in_words(*free)),
                Ok(None) => what,
                Err(why) => format!("{what}; no GPU: {why}"),
            }
        };
        found.iter().enumerate().map(line).collect::<Vec<_>>().join("\n           ")
    }

    fn fields(&self) -> Vec<Value> {
        let of = |(ordinal, found): (usize, &Found)| {
            let gpu = &found.description;
            let (major, minor) = gpu.compute_capability;
            json!({
                "device": format!("cuda:{ordinal}"),
                "name": gpu.name,
                "compute_capability": format!("{major}.{minor}"),
                "multiprocessors": gpu.multiprocessors,
                "memory": gpu.memory,
                "memory_free": found.free.as_ref().ok().copied().flatten(),
                "cuda": gpu.driver,
                "usable": found.free.is_ok(),
                "why_not": found.free.as_ref().err(),
            })
        };
        self.0.iter().flatten().enumerate().map(of).collect()
    }

    /// What is wrong: a GPU or a driver that is there and cannot be used. A machine without either is not.
    fn problems(&self) -> Vec<String> {
        match &self.0 {
            Err(Error::Device(report)) if report.cause.ends_with("is not on this machine") => {
                vec![]
            }
            Err(error) if cfg!(feature = "cuda") => {
                vec![format!("gpu        no GPU: {}", sentence(error))]
            }
            Err(_) => vec![],
            Ok(found) => {
                let of = |(ordinal, found): (usize, &Found)| {
                    let why = found.free.as_ref().err()?;
                    let name = &found.description.name;
                    Some(format!("gpu        cuda:{ordinal} {name} cannot be used: {why}"))
                };
                found.iter().enumerate().filter_map(of).collect()
            }
        }
    }
}

/// Cause and advice of an error in one line.
fn sentence(error: &Error) -> String {
    match error {
        Error::Device(r) | Error::Memory(r) => {
            let parts = [&r.cause, &r.help].map(String::as_str);
            let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
            parts.join("; ")
        }
        other => other.to_string(),
    }
}

/// Where defaults of options come from.
fn settings() -> String {
    match (defaults::used(), defaults::usual_place()) {
        (Some(path), _) => path.display().to_string(),
        (None, Some(path)) => format!("none; {} is not there, or not asked for", path.display()),
        (None, None) => "none".to_owned(),
    }
}

/// Where the GPU's kernels come from, and what for.
fn kernels() -> String {
    match images::architectures() {
        list if list.is_empty() => images::origin().to_owned(),
        list => format!("{}, for {}", images::origin(), list.join(" ")),
    }
}

/// The optional libraries that are found.
fn libraries() -> String {
    let found: Vec<_> = cuda::libraries().iter().map(|path| path.display().to_string()).collect();
    match found.is_empty() {
        true => "neither cuDNN nor cuBLASLt; they are optional".to_owned(),
        false => found.join(" "),
    }
}

/// The instruction sets that srk has fast code for.
fn features() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        let sets = [
            ("AVX-512", is_x86_feature_detected!("avx512f")),
            ("AVX2 with FMA", is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
        ];
        let mut found: Vec<&str> =
            sets.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
        if bf16::is_fast() {
            found.push("AMX for bf16");
        }
        match found.is_empty() {
            true => "x86-64 without AVX2: the portable code runs".to_owned(),
            false => found.join(", "),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        "the portable code runs".to_owned()
    }
}
