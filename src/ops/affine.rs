//! Constants times each channel plus constants: from one range of values to another, such as to the
//! colours that a network was trained with.
//!
//! ```text
//! y[.., c] = factor[c] x[.., c] + shift[c]
//! dx[.., c] = factor[c] dy[.., c]
//! ```
//!
//! One factor and shift serve all channels; else there is one of each for a channel, up to four.
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::Real;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `factor * x + shift`, elementwise.
    pub fn affine(&mut self, x: &Var, factor: f64, shift: f64) -> Result<Var> {
        self.apply(Affine { channels: vec![[factor, shift]] }, &[x])
    }

    /// `x` from `[-1, 1]` to `[0, 1]`.
    pub fn to_unit(&mut self, x: &Var) -> Result<Var> {
        self.affine(x, 0.5, 0.5)
    }

    /// `x` from `[0, 1]` to `[-1, 1]`.
    pub fn to_signed(&mut self, x: &Var) -> Result<Var> {
        self.affine(x, 2.0, -1.0)
    }

    /// `factor * x + shift` with `[factor, shift]` for each channel of `x` `[.., C]`, where C is up to 4.
    pub fn affine_channels(&mut self, x: &Var, channels: &[[f64; 2]]) -> Result<Var> {
        self.apply(Affine { channels: channels.to_vec() }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Affine {
    /// Factor and shift of all channels, or of each.
    pub channels: Vec<[f64; 2]>,
}

/// As many as the kernel takes.
const MOST: usize = 4;

impl Op for Affine {
    fn name(&self) -> &'static str {
        "affine"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("affine takes one input") };
        let count = self.channels.len();
        let fits = count == 1 || x.shape().last() == Some(&count) && count <= MOST;
        if !fits {
            let wanted = format!("{count} channels, of 1 to {MOST}");
            return Err(Error::shape(self.name(), wanted, x.shape()));
        }
        Ok((apply(&self.channels, x)?, Saved::new()))
    }

    fn backward(&self, _: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let slopes: Vec<[f64; 2]> =
            self.channels.iter().map(|&[factor, _]| [factor, 0.0]).collect();
        Ok(vec![Some(apply(&slopes, dy)?)])
    }
}

fn apply(channels: &[[f64; 2]], x: &Tensor) -> Result<Tensor> {
    let mut y = Tensor::empty_as(x, x.shape())?;
    on_device!(x,
        cpu::<T> => cpu::forward::<T>(channels, x.cpu()?, y.cpu_mut()?),
        cuda(gpu) => {
            let (n, dtype) = (x.len(), x.dtype());
            let of = |i: usize| channels.get(i).copied().unwrap_or_default().map(f32::from_f64);
            let [[f0, s0], [f1, s1], [f2, s2], [f3, s3]]: [[f32; 2]; MOST] = [0, 1, 2, 3].map(of);
            let (y, channels) = (&mut y, channels.len());
            kernels::affine { x, y, n, channels, f0, s0, f1, s1, f2, s2, f3, s3 }
                .launch(&gpu, Grid::packs(n, dtype))?;
        }
    );
    Ok(y)
}

/// All channels alike, one each, as many as there may be; a training batch.
pub fn cases() -> Vec<OpCase> {
    let alike = || Affine { channels: vec![[0.5, 0.5]] };
    let colours = || Affine { channels: vec![[0.5, 0.1], [-0.4, 0.2], [0.25, -0.3]] };
    let most = || Affine { channels: vec![[2.0, 0.0], [1.0, 1.0], [-1.0, 0.3], [0.1, -0.2]] };
    vec![
        OpCase::new(alike, &[&[2, 3, 5, 7]]),
        OpCase::new(colours, &[&[2, 3, 5, 3]]),
        OpCase::new(most, &[&[3, 4]]),
        OpCase::new(colours, &[&[16, 96, 96, 3]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::engine::threads::pieces;
    use crate::ops::parallel::{CHUNK, zip2};

    /// Pixels whose factors stand side by side.
    const PIXELS: usize = 16;

    pub(super) fn forward<T: Real>(channels: &[[f64; 2]], x: &[T], y: &mut [T]) {
        let constants: Vec<[T; 2]> = channels.iter().map(|c| c.map(T::from_f64)).collect();
        if let [[factor, shift]] = constants[..] {
            return zip2(y, x, move |y, &x| *y = factor * x + shift);
        }
        // Of several pixels at a time: one has too few numbers for a loop.
        let (factors, shifts): (Vec<T>, Vec<T>) = (0..PIXELS)
            .flat_map(|_| constants.iter().map(|&[factor, shift]| (factor, shift)))
            .unzip();
        let len = factors.len();
        pieces(y, (CHUNK / len).max(1) * len, |i, y| {
            let x = &x[i * (CHUNK / len).max(1) * len..][..y.len()];
            for (y, x) in y.chunks_mut(len).zip(x.chunks(len)) {
                let (factors, shifts, x) = (&factors[..y.len()], &shifts[..y.len()], &x[..y.len()]);
                for k in 0..y.len() {
                    y[k] = factors[k] * x[k] + shifts[k];
                }
            }
        });
    }
}
