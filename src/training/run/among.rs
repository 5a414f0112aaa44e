//! A run of several processes: what they agree on, and what the first tells the others.
use crate::engine::cuda::{Gpu, Members};
use crate::engine::device::{DType, Device};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::training::checkpoint::Part;
use crate::training::job::Job;
use crate::training::log::Reporter;
use crate::training::optimizer::{LossScale, Optimizer};
use crate::training::ranks::{Fact, Ranks, agree, put, tensor};
use crate::training::sections::Reduce;
use crate::training::stepper::Buckets;

/// The lines of a rank that leaves them to the first.
pub(super) struct Silent;

impl Reporter for Silent {
    fn line(&mut self, _: &str) {}
    fn warn(&mut self, _: &str) {}
}

/// Makes sure that all ranks train the same, on the same, of the same.
///
/// # Errors
/// Exit code 2 with what differs.
pub(super) fn agree_on(ranks: &Ranks, job: &dyn Job, place: (&Device, DType)) -> Result<()> {
    if ranks.world() == 1 {
        return Ok(());
    }
    let device = match place.0 {
        Device::Cpu => "the CPU".to_owned(),
        Device::Cuda(gpu) => {
            let (major, minor) = gpu.compute_capability();
            format!("{}, compute capability {major}.{minor}", gpu.describe().name)
        }
    };
    let one = "start all of them with one command";
    let nccl = match joins(job, place.0) {
        Some(gpu) => gpu.driver().collectives().unwrap_or_else(|_| "none".to_owned()),
        None => "not needed".to_owned(),
    };
    let facts = [
        Fact { of: "configuration", is: job.toml(), help: one },
        Fact {
            of: "training images",
            is: job.listing()?,
            help: "give all of them the same folders",
        },
        Fact {
            of: "device",
            is: device,
            help: "--device cpu trains on the CPUs; GPUs of different kinds round differently",
        },
        Fact {
            of: "version of NCCL",
            is: nccl,
            help: "SRK_CUDA_LIBRARIES names its folder; run.reduce = \"fixed\" does without it",
        },
        Fact { of: "precision", is: format!("{:?}", place.1), help: "--precision f32 fits all" },
    ];
    agree(ranks, &facts)
}

/// The GPU whose gradients NCCL may add up: a sum with an order of its own is made in the memory of the host.
fn joins<'a>(job: &dyn Job, device: &'a Device) -> Option<&'a Gpu> {
    match device {
        Device::Cuda(gpu) if job.shared().run.reduce == Reduce::Fast => Some(gpu),
        _ => None,
    }
}

/// Joins the GPUs of all ranks, and says how gradients are added up; none where that is done by way of the host.
///
/// # Errors
/// If a rank is gone, or the library does not join them.
pub(super) fn join_gpus(
    ranks: &Ranks,
    job: &dyn Job,
    device: &Device,
    reporter: &mut dyn Reporter,
) -> Result<Option<Buckets>> {
    let Some(gpu) = joins(job, device).filter(|_| ranks.world() > 1) else { return Ok(None) };
    let version = match gpu.driver().collectives() {
        Ok(version) => version,
        Err(why) => {
            reporter
                .warn(&format!("gradients go through the memory of the host, without NCCL: {why}"));
            return Ok(None);
        }
    };
    let members = Members {
        rank: ranks.rank(),
        world: ranks.world(),
        share: &mut |id| ranks.spread(id),
        goes_on: &mut ranks.patience(),
    };
    let joined = gpu.driver().meet(members)?;
    reporter.line(&format!("NCCL {version} adds up gradients while they are found"));
    Ok(Some(Buckets::new(joined)))
}

/// What a run goes on from beside weights: the step, the optimizers, and the engines that were chosen for convolutions (none: empty).
pub(super) type State = (u64, Vec<Optimizer>, String);

/// Gives every rank the step, the weights, the optimizers and the choices of the first one.
///
/// # Errors
/// If a rank is gone, or its network has other shapes.
pub(super) fn share_state(
    ranks: &Ranks,
    parts: &[Part<'_>],
    (step, mut optimizers, engines): State,
) -> Result<State> {
    if ranks.world() == 1 {
        return Ok((step, optimizers, engines));
    }
    if ranks.is_first() {
        ranks.spread(Some(state(parts, step, &optimizers, &engines)?))?;
        return Ok((step, optimizers, engines));
    }
    let bytes = ranks.spread(None)?;
    let (step, engines) = take(&bytes, parts, &mut optimizers).ok_or_else(|| {
        let what = "weights of other shapes than this rank's".to_owned();
        Error::Unsupported { op: "sharing weights", what }
    })?;
    Ok((step, optimizers, engines))
}

fn state(
    parts: &[Part<'_>],
    step: u64,
    optimizers: &[Optimizer],
    engines: &str,
) -> Result<Vec<u8>> {
    let mut all = step.to_le_bytes().to_vec();
    all.extend((engines.len() as u64).to_le_bytes());
    all.extend(engines.as_bytes());
    for (part, by) in parts.iter().zip(optimizers) {
        all.extend(by.step.to_le_bytes());
        let scale = by.scale.map_or([0.0, 0.0], |scale| [scale.value, scale.good as f64]);
        scale.iter().for_each(|number| all.extend(number.to_le_bytes()));
        for parameter in part.state() {
            put(&mut all, &parameter.value())?;
        }
        for kept in [&by.first, &by.second, &by.average].into_iter().flatten() {
            put(&mut all, kept)?;
        }
    }
    Ok(all)
}

/// Puts what [`state`] wrote into parameters and optimizers; none if it does not fit.
fn take(
    mut from: &[u8],
    parts: &[Part<'_>],
    optimizers: &mut [Optimizer],
) -> Option<(u64, String)> {
    fn eight(from: &mut &[u8]) -> Option<[u8; 8]> {
        let (taken, rest) = from.split_first_chunk::<8>()?;
        *from = rest;
        Some(*taken)
    }
    let step = u64::from_le_bytes(eight(&mut from)?);
    let long = usize::try_from(u64::from_le_bytes(eight(&mut from)?)).ok()?;
    let (engines, rest) = from.split_at_checked(long)?;
    let engines = String::from_utf8(engines.to_vec()).ok()?;
    from = rest;
    for (part, by) in parts.iter().zip(optimizers) {
        by.step = u64::from_le_bytes(eight(&mut from)?);
        let [value, good] = [eight(&mut from)?, eight(&mut from)?].map(f64::from_le_bytes);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A count of steps.
        let good = good as u64;
        by.scale = (value > 0.0).then_some(LossScale { value, good });
        for parameter in part.state() {
            parameter.set(tensor(&mut from, parameter.value().shape())?);
        }
        for kept in [&mut by.first, &mut by.second, &mut by.average] {
            let like = |kept: &Tensor, from: &mut &[u8]| tensor(from, kept.shape());
            *kept = kept.iter().map(|t| like(t, &mut from)).collect::<Option<_>>()?;
        }
    }
    from.is_empty().then_some((step, engines))
}
