//! One step of a sampler, from a network's output to the next state. Not differentiated.
//!
//! ```text
//! x0_hat = slope output + from_x x + from_y0 y0,      kept within [-1, 1] if asked
//! x     <- k_x x + k_x0 x0_hat + k_y0 y0 + k_noise z, kept within [-1, 1] if asked; x0_hat at the end
//! input  = scale x
//! ```
//!
//! Every sampler here is linear, so these factors are all that tells them apart. State, y0, z and x0_hat
//! are F32; output and input are what the network computes in.
use rayon::prelude::*;

use super::noise::Noise;
use super::same_shape;
use crate::engine::cuda::{Arg, Grid};
use crate::engine::device::{Device, Real};
use crate::engine::tensor::Tensor;
use crate::error::Result;

/// The factors of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// Of output, x and y0 in x0_hat.
    pub x0_hat: [f64; 3],
    /// Whether x0_hat is kept within `[-1, 1]`.
    pub clamp_x0: bool,
    /// Of x, x0_hat, y0 and z in the next state; none if that is x0_hat.
    pub next: Option<[f64; 4]>,
    /// Whether the next state is kept within `[-1, 1]`.
    pub clamp_xt: bool,
    /// Of the next state in the next input.
    pub input: f64,
    /// Added to the step of the stream that the noise is drawn from.
    pub draw: u32,
}

/// Factors where kernels read them: a recorded graph follows when they are replaced.
#[derive(Debug)]
pub struct StepFactors {
    factors: Factors,
    table: Tensor,
}

impl StepFactors {
    /// `factors` on `device`.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn new(device: &Device, factors: Factors) -> Result<Self> {
        let table = Tensor::from_slice_on(device, &factors.table(), &[11])?;
        Ok(Self { factors, table })
    }

    /// Replaces them.
    ///
    /// # Errors
    /// If the copy to a GPU fails; while a graph is recorded it does.
    pub fn set(&mut self, factors: Factors) -> Result<()> {
        self.factors = factors;
        self.table.write(&factors.table())
    }
}

impl Factors {
    fn table(&self) -> [f32; 11] {
        let ([a, b, c], [x, x0, y0, noise]) =
            (self.x0_hat, self.next.unwrap_or([0.0, 1.0, 0.0, 0.0]));
        let flag = |on: bool| if on { 1.0 } else { 0.0 };
        let [clamp_x0, clamp_xt] = [flag(self.clamp_x0), flag(self.clamp_xt)];
        let numbers = [a, b, c, x, x0, y0, noise, self.input, clamp_x0, clamp_xt, 0.0];
        let mut table = numbers.map(f32::from_f64);
        table[10] = f32::from_bits(self.draw);
        table
    }
}

/// Replaces the state `x` `[N, H, W, 3]` by the next one, and writes the predicted clean image and the next
/// input of the network where they are wanted. All tensors have the shape of `x`.
///
/// # Errors
/// If shapes or element types do not match.
pub fn sampler_step(
    factors: &StepFactors,
    [output, y0]: [&Tensor; 2],
    noise: &Noise,
    x: &mut Tensor,
    x0_hat: Option<&mut Tensor>,
    input: Option<&mut Tensor>,
) -> Result<()> {
    const OP: &str = "sampler_step";
    let [n, h, w, _] = x.nhwc(OP)?;
    let others = [Some(output), Some(y0), x0_hat.as_deref(), input.as_deref()];
    others.into_iter().flatten().try_for_each(|other| same_shape(OP, x, other))?;
    noise.check(OP, x)?;
    let Device::Cuda(gpu) = x.device() else {
        return on_cpu(&factors.factors, [output, y0], noise, x, x0_hat, input);
    };
    let [z, origins, _, seed, purpose, step] = noise.args();
    let from = [(&factors.table).into(), output.into(), x.into(), y0.into(), z, origins];
    let to = [Arg::optional(x0_hat.as_deref()), Arg::optional(input.as_deref())];
    let sizes = [n * h * w, h, w].map(Arg::from);
    let args = [&from[..], &to, &[seed, purpose, step], &sizes].concat();
    gpu.launch(OP, output.dtype(), Grid::elements(n * h * w), &args)
}

fn on_cpu(
    factors: &Factors,
    [output, y0]: [&Tensor; 2],
    noise: &Noise,
    x: &mut Tensor,
    x0_hat: Option<&mut Tensor>,
    input: Option<&mut Tensor>,
) -> Result<()> {
    let mut clean = output.try_clone()?;
    let y0 = y0.cpu::<f32>()?;
    let [slope, from_x, from_y0] = factors.x0_hat;
    combine(clean.cpu_mut()?, [slope, from_x, from_y0, 0.0], x.cpu()?, y0, y0);
    if factors.clamp_x0 {
        clamp(clean.cpu_mut()?);
    }
    let clean = clean.cpu::<f32>()?;
    match factors.next {
        None => x.cpu_mut()?.copy_from_slice(clean),
        Some(k @ [_, _, _, 0.0]) => combine(x.cpu_mut()?, k, clean, y0, y0),
        Some(k) => {
            let z = noise.on_cpu(x, factors.draw)?;
            combine(x.cpu_mut()?, k, clean, y0, z.cpu()?);
        }
    }
    if factors.clamp_xt {
        clamp(x.cpu_mut()?);
    }
    if let Some(x0_hat) = x0_hat {
        x0_hat.cpu_mut()?.copy_from_slice(clean);
    }
    if let Some(input) = input {
        let x = x.cpu()?;
        let input = input.cpu_mut()?;
        combine(input, [0.0, factors.input, 0.0, 0.0], x, x, x);
    }
    Ok(())
}

/// `x <- k0 x + k1 a + k2 b + k3 c`, elementwise, in double precision and rounded once.
#[allow(clippy::cast_possible_truncation)] // The one rounding.
pub(crate) fn combine(x: &mut [f32], k: [f64; 4], a: &[f32], b: &[f32], c: &[f32]) {
    const CHUNK: usize = 1 << 14;
    debug_assert!(x.len() == a.len() && x.len() == b.len() && x.len() == c.len());
    x.par_chunks_mut(CHUNK).enumerate().for_each(|(i, x)| {
        let at = i * CHUNK..i * CHUNK + x.len();
        let (a, b, c) = (&a[at.clone()], &b[at.clone()], &c[at]);
        for i in 0..x.len() {
            let sum = k[0] * f64::from(x[i])
                + k[1] * f64::from(a[i])
                + k[2] * f64::from(b[i])
                + k[3] * f64::from(c[i]);
            x[i] = sum as f32;
        }
    });
}

/// Limits `x` to `[-1, 1]`; a NaN stays one, so that it is seen.
pub fn clamp(x: &mut [f32]) {
    x.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
}
