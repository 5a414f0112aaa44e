//! `srk doctor`.
use serde_json::json;

use super::{common, print, voice};
use crate::diffusion::system::System;
use crate::engine::cuda::{self, images};
use crate::error::{Error, Report, Result};

/// Check this machine: processor, memory, devices, models, and the arithmetic.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Largest relative difference between f32 and f64 that passes the self-test.
const TOLERANCE: f64 = 1e-4;

pub(super) fn run(_: &Args) -> Result<()> {
    let (cases, worst) = self_test()?;
    let models = System::embedded().map(|name| {
        let parameters = System::open(name)?.network.parameter_count();
        Ok(format!("{name}, {parameters} parameters"))
    });
    let models = models.into_iter().collect::<Result<Vec<_>>>()?.join("; ");
    let memory_mib = common::available_memory() >> 20;
    let threads = rayon::current_num_threads();
    let passed = worst <= TOLERANCE;
    let lines = [
        ("srk", env!("CARGO_PKG_VERSION").to_owned()),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("processor", features()),
        ("threads", threads.to_string()),
        ("memory", format!("{memory_mib} MiB free")),
        ("gpu", gpu()),
        ("kernels", kernels()),
        ("libraries", libraries()),
        ("reads", "PNG JPEG WebP TIFF BMP PNM GIF".to_owned()),
        ("writes", "PNG JPEG WebP TIFF BMP".to_owned()),
        ("models", models),
        (
            "self-test",
            format!(
                "{}: {cases} op cases, f32 against f64, worst relative difference {worst:.1e}",
                if passed { "passed" } else { "FAILED" }
            ),
        ),
    ];
    if voice::json() {
        let map: serde_json::Map<String, serde_json::Value> =
            lines.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        print::line(serde_json::Value::Object(map));
    } else {
        for (key, value) in &lines {
            print::line(format_args!("{key:<10} {value}"));
        }
    }
    if passed {
        return Ok(());
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

/// Every GPU and whether it can be used, or why there is none.
fn gpu() -> String {
    let found = match cuda::devices() {
        Ok(found) => found,
        Err(error) => return format!("no GPU: {}", sentence(&error)),
    };
    let line = |(ordinal, gpu): (usize, &cuda::Description)| {
        let (major, minor) = gpu.compute_capability;
        let what = format!(
            "cuda:{ordinal} {}, compute capability {major}.{minor}, {} MiB, driver for CUDA {}",
            gpu.name,
            gpu.memory >> 20,
            gpu.driver
        );
        match cuda::open(ordinal) {
            Ok(_) => what,
            Err(error) => format!("{what}; no GPU: {}", sentence(&error)),
        }
    };
    found.iter().enumerate().map(line).collect::<Vec<_>>().join("\n           ")
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
        let found: Vec<&str> = sets.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
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
