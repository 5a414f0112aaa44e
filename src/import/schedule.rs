//! The noise schedule that a checkpoint's buffers hold.
use crate::diffusion::process::Process;
use crate::diffusion::sampler::Diffusion;
use crate::diffusion::schedule::Betas;

/// Whether a schedule makes these betas, as far as f32 tells.
fn makes(schedule: &Betas, betas: &[f32]) -> bool {
    let made = schedule.betas(betas.len());
    let near = |(a, b): (&f64, &f32)| (a - f64::from(*b)).abs() <= 1e-5 * a.abs() + 1e-9;
    made.len() == betas.len() && made.iter().zip(betas).all(near)
}

/// Gives a DDPM the length and the schedule of `betas`; what to say about it.
pub(super) fn adopt(diffusion: &mut Diffusion, betas: &[f32]) -> Option<String> {
    let (Process::Ddpm { steps, beta, .. } | Process::ResidualDdpm { steps, beta, .. }) =
        &mut diffusion.process
    else {
        return None;
    };
    let (Some(&first), Some(&last)) = (betas.first(), betas.last()) else { return None };
    if betas.len() > 100_000 {
        return Some(format!("the file's schedule of {} steps is left out", betas.len()));
    }
    // Numbers as people write them, not what f32 makes of them.
    let [start, end] = [first, last].map(|v| v.to_string().parse().unwrap_or(f64::from(v)));
    let schedules = [
        *beta,
        Betas::Linear { start, end },
        Betas::Quad { start, end },
        Betas::Const { end },
        Betas::Cosine { offset: 0.008 },
        Betas::Warmup10 { start, end },
        Betas::Warmup50 { start, end },
    ];
    let known = schedules.into_iter().find(|schedule| makes(schedule, betas));
    match known {
        Some(schedule) if schedule == *beta && *steps == betas.len() => None,
        Some(schedule) => {
            *steps = betas.len();
            *beta = schedule;
            Some(format!("the schedule is the file's: {} steps, {schedule:?}", betas.len()))
        }
        None => Some(format!(
            "the file's schedule of {} steps is none that srk knows; the recipe's is kept",
            betas.len()
        )),
    }
}
