//! What a GPU does, as lines of JSON: its ceilings, networks, and every op of real sizes.
//!
//! `cargo bench --bench gpu`; `SRK_CONV=all|native|wgmma|cudnn|cublas` compares engines. Without a GPU it says
//! so, and fails only where `SRK_REQUIRE_GPU=1`. Inputs are random: zeros run faster than real data.
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};
use srk::diffusion::walk::condition;
use srk::engine::cuda::{self, Gpu};
use srk::engine::device::{DType, Device};
use srk::engine::op_case::OpCase;
use srk::engine::parameter::Parameter;
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::error::{Error, Result};
use srk::models::ModelConfig;
use srk::models::sr3_unet::Sr3UNetConfig;
use srk::ops::adam::{Adam, FusedAdam, Moved, Scalars};
use srk::ops::clip_by_norm::{self, Measured};
use srk::training::optimizer::{self, Gradients};

/// Times of one thing, of which the median is reported; of one that takes long, fewer.
const SAMPLES: usize = 11;
const FEW: usize = 3;
/// Seconds that are long.
const LONG: f64 = 0.05;
/// Seconds that a sample should take, so that its start and end do not count.
const SAMPLE: f64 = 5e-3;

fn main() -> ExitCode {
    let done = cuda::open_best().and_then(|gpu| {
        gpu.ask_for_libraries();
        say(&json!({"what": "gpu", "name": gpu.describe().name,
            "compute_capability": gpu.compute_capability(), "driver": gpu.describe().driver,
            "SRK_CONV": std::env::var("SRK_CONV").unwrap_or_default()}));
        ceilings(&gpu)?;
        networks(&gpu)?;
        ops(&gpu)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let required = std::env::var("SRK_REQUIRE_GPU").is_ok_and(|v| v == "1");
            eprintln!("nothing is measured: {error}");
            if required || error.exit_code() != 4 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}

fn say(line: &Value) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Median seconds of `work`, warm.
fn seconds(gpu: &Gpu, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    for _ in 0..3 {
        work()?;
    }
    let once = gpu.driver().time(work)?;
    let runs = (SAMPLE / once.max(1e-9)).clamp(1.0, 1000.0).ceil();
    let mut samples = vec![];
    for _ in 0..if once > LONG { FEW } else { SAMPLES } {
        let mut left = runs;
        let all = gpu.driver().time(&mut || {
            while left > 0.0 {
                work()?;
                left -= 1.0;
            }
            Ok(())
        })?;
        samples.push(all / runs);
    }
    samples.sort_by(f64::total_cmp);
    Ok(samples[samples.len() / 2])
}

/// Numbers in [-1, 1) without a pattern.
fn random(device: &Device, dtype: DType, shape: &[usize]) -> Result<Tensor> {
    let mut state = 88_172_645_463_325_252u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
    Tensor::from_slice_on(device, &values, shape)?.cast(dtype)
}

/// The fastest copy, and the fastest product of large matrices.
fn ceilings(gpu: &Gpu) -> Result<()> {
    const BYTES: usize = 1 << 30;
    let (from, to) = (gpu.allocate(BYTES)?, gpu.allocate(BYTES)?);
    // SAFETY: both buffers have as many bytes.
    unsafe { gpu.driver().fill(from.pointer(), 0x3c, BYTES)? };
    // SAFETY: likewise.
    let copy = || unsafe { gpu.driver().copy(to.pointer(), from.pointer(), BYTES) };
    let time = seconds(gpu, &mut { copy })?;
    say(&json!({"what": "copy", "seconds": time, "gb_per_s": 2.0 * BYTES as f64 / time / 1e9}));
    drop((from, to));
    const SIDE: usize = 8192;
    for dtype in dtypes(gpu) {
        let (x, w) = (
            random(&gpu.into(), dtype, &[SIDE, SIDE])?,
            random(&gpu.into(), dtype, &[SIDE, SIDE])?,
        );
        let time = seconds(gpu, &mut || product(&x, &w))?;
        let flops = 2.0 * (SIDE as f64).powi(3);
        say(&json!({"what": "product", "dtype": format!("{dtype:?}"), "side": SIDE,
            "seconds": time, "tflop_per_s": flops / time / 1e12}));
    }
    Ok(())
}

fn product(x: &Tensor, w: &Tensor) -> Result<()> {
    let case = OpCase::new(|| srk::ops::linear::Linear, &[]);
    case.op().forward(&[x, w]).map(|_| ())
}

/// Tensor cores multiply bf16 from compute capability 8.0 on.
fn dtypes(gpu: &Gpu) -> Vec<DType> {
    let all = [DType::F16, DType::BF16, DType::F32];
    all.into_iter().filter(|d| *d != DType::BF16 || gpu.compute_capability() >= (8, 0)).collect()
}

/// Forward, and forward with backward, of every op at the sizes of real networks.
fn ops(gpu: &Gpu) -> Result<()> {
    let device = Device::from(gpu);
    for case in srk::ops::all().into_iter().filter(|case| case.timed_only) {
        for dtype in dtypes(gpu) {
            let place = |t: &Tensor| t.to_device(&device)?.cast(dtype);
            let inputs = case.tensors(DType::F32).iter().map(place).collect::<Result<Vec<_>>>()?;
            let all: Vec<&Tensor> = inputs.iter().collect();
            let op = case.op();
            let forward = seconds(gpu, &mut || op.forward(&all).map(|_| ()))?;
            let step = seconds(gpu, &mut || step(&case, &inputs))?;
            say(&json!({"what": "op", "op": case.name(), "case": case.label(),
                "dtype": format!("{dtype:?}"), "forward_s": forward, "step_s": step,
                "gflop": case.flops() as f64 / 1e9}));
        }
    }
    Ok(())
}

fn step(case: &OpCase, inputs: &[Tensor]) -> Result<()> {
    let mut tape = Tape::training();
    let vars = inputs.iter().map(|t| Ok(tape.variable(t.try_clone()?)));
    let vars = vars.collect::<Result<Vec<_>>>()?;
    let y = tape.apply_boxed(case.op(), &vars.iter().collect::<Vec<_>>())?;
    let dy = y.value().try_clone()?;
    tape.backward(&y, dy).map(|_| ())
}

/// The UNet of SR3 with 64 base channels, of 17.5 M parameters, at 128 pixels.
fn unet_64() -> ModelConfig {
    ModelConfig::Sr3UNet(Sr3UNetConfig {
        multipliers: vec![1, 2, 2, 4],
        scale: 4,
        ..Default::default()
    })
}

/// What is timed as a whole: a network, its batch, and the side of the low-resolution images. Those that
/// benches/peers/torch_unet.py times, too, come first.
fn sizes() -> Vec<(&'static str, ModelConfig, usize, usize)> {
    let grid = || ModelConfig::DualDomainGrid(Default::default());
    let attention = || ModelConfig::AttentionUNet(Default::default());
    vec![
        ("dual_domain_grid", grid(), 1, 64),
        ("dual_domain_grid", grid(), 16, 64),
        ("unet_64", unet_64(), 1, 32),
        ("unet_64", unet_64(), 16, 32),
        ("attention_unet", attention(), 1, 64),
        ("attention_unet", attention(), 16, 64),
        ("dual_domain_unet", ModelConfig::DualDomainUNet(Default::default()), 4, 64),
        ("residual_unet", ModelConfig::ResidualUNet(Default::default()), 4, 64),
        ("srddpm_unet", ModelConfig::SrddpmUNet(Default::default()), 4, 64),
        ("srdiff_unet", ModelConfig::SrdiffUNet(Default::default()), 4, 64),
        ("rrdb", ModelConfig::Rrdb(Default::default()), 4, 64),
    ]
}

/// One denoising call of each network, and one training step, launched and as recorded graphs.
fn networks(gpu: &Gpu) -> Result<()> {
    for (name, config, batch, low) in sizes() {
        // Large batches are for half precision, in which PyTorch runs them, too.
        for dtype in dtypes(gpu).into_iter().filter(|d| *d != DType::F32 || batch < 16) {
            match network(gpu, &config, dtype, batch, low) {
                Ok((times, parameters)) => say(&json!({"what": "network", "network": name,
                    "batch": batch, "low": low, "dtype": format!("{dtype:?}"),
                    "parameters": parameters, "launched_s": times[0], "replayed_s": times[1],
                    "training_launched_s": times[2], "training_replayed_s": times[3],
                    "peak_mib": gpu.usage().peak >> 20})),
                // A smaller GPU than the network wants.
                Err(Error::Memory(report)) => say(&json!({"what": "network", "network": name,
                    "batch": batch, "dtype": format!("{dtype:?}"), "full": report.to_string()})),
                Err(other) => return Err(other),
            }
        }
    }
    Ok(())
}

/// Seconds of a call and of a training step, each launched and replayed, and the parameters that a step moves.
fn network(
    gpu: &Gpu,
    config: &ModelConfig,
    dtype: DType,
    batch: usize,
    low: usize,
) -> Result<([f64; 4], usize)> {
    let device = Device::from(gpu);
    let network = config.build(1);
    network.to_device(&device, DType::F32)?;
    let mut update = Update::new(gpu, network.parameters(), dtype)?;
    let high = config.scale() * low;
    let y0 = random(&device, DType::F32, &[batch, high, high, 3])?;
    let small = random(&device, DType::F32, &[batch, low, low, 3])?;
    let seen = condition(&*network, &small, &y0, None)?;
    let state = Arc::new(y0.cast(dtype)?);
    let t = Tensor::from_slice_on(&device, &vec![0.5; batch], &[batch])?;
    let one = Tensor::from_slice_on(&device, &[1.0], &[1])?;
    let call = |tape: &mut Tape| {
        let (x, seen) = (tape.input(Arc::clone(&state)), tape.input(Arc::clone(&seen)));
        network.forward(tape, &x, &seen, &t)
    };
    let gradients = || {
        let mut tape = Tape::training();
        let y = call(&mut tape)?;
        let y = if dtype == DType::F32 { y } else { tape.cast(&y, DType::F32)? };
        let target = tape.input(y0.try_clone()?);
        let loss = tape.l1_loss(&y, &target)?;
        let mut grads = tape.backward(&loss, one.try_clone()?)?;
        optimizer::take(&mut grads, network.parameters())
    };
    let launched = seconds(gpu, &mut || call(&mut Tape::inference()).map(|_| ()))?;
    let (graph, _kept) = gpu.capture(|| call(&mut Tape::inference()))?;
    // SAFETY: what the call reads and gave is alive.
    let replayed = seconds(gpu, &mut || unsafe { graph.replay() })?;
    drop((graph, _kept));
    let trained = seconds(gpu, &mut || {
        let gradients = gradients()?;
        update.set(&gradients)?;
        update.launch()
    })?;
    let (graph, kept) = gpu.capture(gradients)?;
    update.set(&kept)?;
    let (moved, ()) = gpu.capture(|| update.launch())?;
    let again = seconds(gpu, &mut || {
        // SAFETY: likewise, and what the update moves is.
        unsafe {
            graph.replay()?;
            moved.replay()
        }
    })?;
    let parameters = kept.iter().flatten().map(Tensor::len).sum();
    Ok(([launched, replayed, trained, again], parameters))
}

/// The norm of the gradients clipped, Adam, and the moving average, as training has them.
struct Update {
    adam: FusedAdam,
    scalars: Scalars,
    measured: Measured,
}

impl Update {
    /// For `parameters`, which are f32 and compute in `dtype` from here on.
    fn new(gpu: &Gpu, parameters: &[Parameter], dtype: DType) -> Result<Self> {
        let values: Vec<_> = parameters.iter().map(Parameter::value).collect();
        let zeros = || {
            let zeros = values.iter().map(|v| Ok(Arc::new(Tensor::zeros_as(v, v.shape())?)));
            zeros.collect::<Result<Vec<_>>>()
        };
        let (first, second, average) = (zeros()?, zeros()?, zeros()?);
        let copies = match dtype {
            DType::F32 => values.clone(),
            _ => values.iter().map(|v| Ok(Arc::new(v.cast(dtype)?))).collect::<Result<_>>()?,
        };
        parameters.iter().zip(&copies).for_each(|(p, copy)| p.set(Arc::clone(copy)));
        let moved = Moved {
            values: &values,
            first: &first,
            second: &second,
            average: &average,
            copies: (dtype != DType::F32).then_some(&copies),
        };
        let (betas, eps) = ([0.9, 0.999], 1e-8);
        let mut scalars = Scalars::new(gpu)?;
        let constants = Adam { lr: 1e-4, betas, eps, decay: 0.0, step: 1, scale: 1.0 };
        scalars.write(&constants, 1.0, 0.999)?;
        let (adam, measured) =
            (FusedAdam::new(gpu, moved, dtype, betas, eps)?, Measured::new(gpu)?);
        Ok(Self { adam, scalars, measured })
    }

    fn set(&mut self, gradients: &Gradients) -> Result<()> {
        let gradients: Vec<_> = gradients.iter().map(Option::as_ref).collect();
        self.adam.set_gradients(&gradients)
    }

    fn launch(&mut self) -> Result<()> {
        clip_by_norm::clip(self.adam.tables(), &mut self.scalars, &self.measured)?;
        self.adam.step(&self.scalars)
    }
}
