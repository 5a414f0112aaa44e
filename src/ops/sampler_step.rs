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
use super::noise::{Drawn, Noise};
use super::same_shape;
use crate::engine::cuda::Grid;
use crate::engine::cuda::kernels::{self, Factor};
use crate::engine::device::{Device, Real};
use crate::engine::tensor::Tensor;
use crate::engine::threads;
use crate::error::Result;
use crate::ops::simd::vectorized;

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
        let table = Tensor::from_slice_on(device, &factors.table(), &[Factor::COUNT])?;
        Ok(Self { factors, table })
    }

    /// Takes those of `other`, on the same device; a recorded graph follows.
    ///
    /// # Errors
    /// If the copy on a GPU fails.
    pub fn copy_from(&mut self, other: &Self) -> Result<()> {
        self.factors = other.factors;
        self.table.copy_from(&other.table)
    }
}

impl Factors {
    /// Whether y0 counts.
    pub fn looks_at_y0(&self) -> bool {
        self.x0_hat[2] != 0.0 || self.next.is_some_and(|next| next[2] != 0.0)
    }

    /// Whether the state counts.
    pub fn looks_at_x(&self) -> bool {
        self.x0_hat[1] != 0.0 || self.next.is_some_and(|next| next[0] != 0.0)
    }

    /// Each at its place in [`Factor`].
    fn table(&self) -> [f32; Factor::COUNT] {
        let [slope, from_x, from_y0] = self.x0_hat;
        let [x, x0, y0, noise] = self.next.unwrap_or([0.0, 1.0, 0.0, 0.0]);
        let mut table = [0.0; Factor::COUNT];
        for (factor, value) in [
            (Factor::SLOPE, slope),
            (Factor::FROM_X, from_x),
            (Factor::FROM_Y0, from_y0),
            (Factor::X, x),
            (Factor::X0, x0),
            (Factor::Y0, y0),
            (Factor::NOISE, noise),
            (Factor::INPUT, self.input),
            (Factor::CLAMP_X0, f64::from(self.clamp_x0)),
            (Factor::CLAMP_XT, f64::from(self.clamp_xt)),
        ] {
            table[factor as usize] = f32::from_f64(value);
        }
        // The kernel adds it as an integer.
        table[Factor::DRAW as usize] = f32::from_bits(self.draw);
        table
    }
}

/// Replaces the state `x` `[N, H, W, C]`, of at most 3 channels, by the next one, and writes the predicted clean image and the next
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
    let [n, h, w, c] = x.nhwc(OP)?;
    let others = [Some(output), Some(y0), x0_hat.as_deref(), input.as_deref()];
    others.into_iter().flatten().try_for_each(|other| same_shape(OP, x, other))?;
    noise.check(OP, x)?;
    let Device::Cuda(gpu) = x.device() else {
        return on_cpu(&factors.factors, [output, y0], noise, x, x0_hat, input);
    };
    let repeated = noise.repeated(x, factors.factors.draw)?;
    let noise = &repeated.as_ref().map_or(*noise, Noise::Given);
    let Drawn { given, origins, seed, purpose, step, .. } = noise.drawn();
    kernels::sampler_step {
        factors: &factors.table,
        output,
        x,
        y0,
        z: given,
        origins,
        x0_hat,
        input,
        seed,
        purpose,
        step,
        count: n * h * w,
        height: h,
        width: w,
        channels: c,
    }
    .launch(&gpu, Grid::elements(n * h * w))
}

/// What a task of the CPU works on: the same elements of every tensor.
struct Piece<'a> {
    output: &'a [f32],
    y0: &'a [f32],
    z: Option<&'a [f32]>,
    x: &'a mut [f32],
    x0_hat: Option<&'a mut [f32]>,
    input: Option<&'a mut [f32]>,
}

fn on_cpu(
    factors: &Factors,
    [output, y0]: [&Tensor; 2],
    noise: &Noise,
    x: &mut Tensor,
    x0_hat: Option<&mut Tensor>,
    input: Option<&mut Tensor>,
) -> Result<()> {
    let noisy = factors.next.is_some_and(|[_, _, _, noise]| noise != 0.0);
    let z = noisy.then(|| noise.on_cpu(x, factors.draw)).transpose()?;
    let z = z.as_ref().map(Tensor::cpu::<f32>).transpose()?;
    let mut z = z.map(|z| z.chunks(CHUNK));
    let mut x0_hat = x0_hat.map(Tensor::cpu_mut::<f32>).transpose()?.map(|v| v.chunks_mut(CHUNK));
    let mut input = input.map(Tensor::cpu_mut::<f32>).transpose()?.map(|v| v.chunks_mut(CHUNK));
    let from = output.cpu::<f32>()?.chunks(CHUNK).zip(y0.cpu::<f32>()?.chunks(CHUNK));
    let pieces = x.cpu_mut::<f32>()?.chunks_mut(CHUNK).zip(from).map(|(x, (output, y0))| Piece {
        output,
        y0,
        z: z.as_mut().and_then(Iterator::next),
        x,
        x0_hat: x0_hat.as_mut().and_then(Iterator::next),
        input: input.as_mut().and_then(Iterator::next),
    });
    let mut pieces: Vec<Piece> = pieces.collect();
    threads::pieces(&mut pieces, 1, |_, piece| step(&mut piece[0], factors));
    Ok(())
}

vectorized! {
    /// One pass over memory; each number is rounded to f32 once.
    fn step(piece: &mut Piece<'_>, factors: &Factors) {
        let [slope, from_x, from_y0] = factors.x0_hat;
        let Piece { output, y0, z, x, x0_hat, input } = piece;
        let mut clean = [0.0; BLOCK];
        // Flags are looked at once a block, so that its loops are plain.
        for from in (0..x.len()).step_by(BLOCK) {
            let at = from..(from + BLOCK).min(x.len());
            let (x, output, y0) = (&mut x[at.clone()], &output[at.clone()], &y0[at.clone()]);
            let clean = &mut clean[..at.len()];
            for i in 0..clean.len() {
                clean[i] = mix([slope, from_x, from_y0, 0.0], [output[i], x[i], y0[i], y0[i]]);
            }
            if factors.clamp_x0 {
                clean.iter_mut().for_each(|v| *v = clamped(*v));
            }
            match factors.next {
                None => x.copy_from_slice(clean),
                Some(k) => {
                    let z = z.map_or(y0, |z| &z[at.clone()]);
                    for i in 0..clean.len() {
                        x[i] = mix(k, [x[i], clean[i], y0[i], z[i]]);
                    }
                }
            }
            if factors.clamp_xt {
                x.iter_mut().for_each(|v| *v = clamped(*v));
            }
            if let Some(x0_hat) = x0_hat {
                x0_hat[at.clone()].copy_from_slice(clean);
            }
            if let Some(input) = input {
                let input = &mut input[at];
                for i in 0..input.len() {
                    input[i] = mix([factors.input, 0.0, 0.0, 0.0], [x[i], 0.0, 0.0, 0.0]);
                }
            }
        }
    }
}

/// Elements that a task steps at a time.
const BLOCK: usize = 512;

/// Elements of a task.
const CHUNK: usize = 1 << 14;

/// To `[-1, 1]`; NaN where `v` is infinite, so that a tile which half precision cannot hold is seen.
#[inline(always)] // As the loops that call it.
fn clamped(v: f32) -> f32 {
    if v.is_infinite() { f32::NAN } else { v.clamp(-1.0, 1.0) }
}

/// A sum in double precision, rounded once.
#[allow(clippy::cast_possible_truncation)] // The one rounding.
#[inline(always)] // As the loops that call it.
fn mix(k: [f64; 4], v: [f32; 4]) -> f32 {
    let [a, b, c, d] = v;
    let terms =
        [k[0] * f64::from(a), k[1] * f64::from(b), k[2] * f64::from(c), k[3] * f64::from(d)];
    (terms[0] + terms[1] + terms[2] + terms[3]) as f32
}

/// `x <- k0 x + k1 a + k2 b + k3 c`, elementwise, in double precision and rounded once.
pub(crate) fn combine(x: &mut [f32], k: [f64; 4], a: &[f32], b: &[f32], c: &[f32]) {
    debug_assert!(x.len() == a.len() && x.len() == b.len() && x.len() == c.len());
    threads::pieces(x, CHUNK, |i, x| {
        let at = i * CHUNK..i * CHUNK + x.len();
        let (a, b, c) = (&a[at.clone()], &b[at.clone()], &c[at]);
        for i in 0..x.len() {
            x[i] = mix(k, [x[i], a[i], b[i], c[i]]);
        }
    });
}
