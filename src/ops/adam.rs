//! Adam and AdamW, one step of one parameter (Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter
//! 2019, algorithm 2).
//!
//! ```text
//! m <- b1 m + (1 - b1) g          mhat = m / (1 - b1^k)
//! v <- b2 v + (1 - b2) g^2        vhat = v / (1 - b2^k)
//! p <- p - lr (mhat / (sqrt(vhat) + eps) + decay p)
//! ```
//!
//! On a GPU one launch moves all parameters and their averages.
use std::sync::Arc;

use super::multi_tensor::{self, MultiTensor};
use super::parallel::CHUNK;
use crate::engine::cuda::kernels::Scalar;
use crate::engine::cuda::{Gpu, kernels};
use crate::engine::device::{DType, Device, Real};
use crate::engine::tensor::{Later, Tensor};
use crate::engine::threads::pieces3;
use crate::error::{Error, Result};

/// The constants of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first and of the second moment.
    pub betas: [f64; 2],
    /// What keeps the quotient finite.
    pub eps: f64,
    /// Decoupled weight decay; 0 is plain Adam.
    pub decay: f64,
    /// The number k of this step, counted from 1.
    pub step: u64,
    /// What gradients are multiplied by first: the factor of clipping.
    pub scale: f64,
}

impl Adam {
    /// What the mean is multiplied by, the root of the second moment, and the value. Narrowed once, the
    /// powers before it in double precision.
    fn rates(&self) -> [f32; 3] {
        let k = i32::try_from(self.step).unwrap_or(i32::MAX);
        let [left1, left2] = self.betas.map(|b| 1.0 - b.powi(k));
        let shrink = 1.0 - self.lr * self.decay;
        [self.lr / left1, 1.0 / left2.sqrt(), shrink].map(f32::from_f64)
    }

    /// What the moments keep and take.
    fn weights(&self) -> [f32; 4] {
        let [b1, b2] = self.betas;
        [b1, b2, 1.0 - b1, 1.0 - b2].map(f32::from_f64)
    }
}

/// Moves `p` and its moments `m` and `v` by the gradient `g`; all of one length.
pub fn adam(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], c: &Adam) {
    debug_assert!(p.len() == m.len() && p.len() == v.len() && p.len() == g.len());
    let [rate, root, shrink] = c.rates();
    let [keep1, keep2, new1, new2] = c.weights();
    let [eps, scale] = [c.eps, c.scale].map(f32::from_f64);
    pieces3([p, m, v], CHUNK, |at, [p, m, v]| {
        let g = &g[at * CHUNK..][..p.len()];
        for i in 0..p.len() {
            let g = g[i] * scale;
            m[i] = keep1 * m[i] + new1 * g;
            v[i] = keep2 * v[i] + new2 * g * g;
            p[i] = p[i] * shrink - rate * m[i] / (v[i].sqrt() * root + eps);
        }
    });
}

/// The tensors of a step over all parameters on a GPU, and the tables that tell kernels where they are.
///
/// A step is [`set_gradients`](Self::set_gradients), [`write`](Scalars::write),
/// [`clip`](super::clip_by_norm::clip), [`step`](Self::step). The first two upload, the last two only
/// launch: those can be in a graph, which is then replayed after the first two.
#[derive(Debug)]
pub struct FusedAdam {
    tables: MultiTensor,
    /// `[5, count]`: addresses of values, both moments, averages, and copies or 0.
    tensors: Tensor,
    // Kernels hold addresses of these.
    _held: Vec<Arc<Tensor>>,
    weights: [f32; 4],
    eps: f64,
}

/// What [`FusedAdam`] moves, tensor by tensor; all F32 but the copies.
#[derive(Clone, Copy, Debug)]
pub struct Moved<'a> {
    /// The parameters.
    pub values: &'a [Arc<Tensor>],
    /// Their first moments.
    pub first: &'a [Arc<Tensor>],
    /// Their second moments.
    pub second: &'a [Arc<Tensor>],
    /// Their moving averages.
    pub average: &'a [Arc<Tensor>],
    /// What the network computes with, in the element type of the gradients; none if it is `values`.
    pub copies: Option<&'a [Arc<Tensor>]>,
}

impl FusedAdam {
    /// Tables for `moved`, whose gradients are `dtype`; `betas` and `eps` as of [`Adam`].
    ///
    /// # Errors
    /// If tensors do not match or the memory of the GPU is full.
    pub fn new(gpu: &Gpu, moved: Moved, dtype: DType, betas: [f64; 2], eps: f64) -> Result<Self> {
        let lengths: Vec<usize> = moved.values.iter().map(|v| v.len()).collect();
        let single = [moved.values, moved.first, moved.second, moved.average];
        let lists = single.iter().map(|list| (*list, DType::F32));
        let mut addresses = vec![];
        for (list, wanted) in lists.chain(moved.copies.map(|list| (list, dtype))) {
            assert_eq!(list.len(), lengths.len(), "one tensor a parameter");
            for (tensor, &len) in list.iter().zip(&lengths) {
                if tensor.len() != len || tensor.dtype() != wanted {
                    let wanted = format!("{len} elements of {wanted:?}");
                    return Err(Error::shape("adam", wanted, tensor.shape()));
                }
                addresses.push(multi_tensor::address(tensor)?);
            }
        }
        addresses.resize(5 * lengths.len(), 0);
        let held = single.into_iter().chain(moved.copies).flatten().cloned().collect();
        let weights = Adam { lr: 0.0, betas, eps, decay: 0.0, step: 1, scale: 1.0 }.weights();
        let tables = MultiTensor::new(gpu, &lengths, dtype)?;
        let tensors = multi_tensor::addresses_on(gpu, &addresses)?;
        Ok(Self { tables, tensors, _held: held, weights, eps })
    }

    /// As [`MultiTensor::set_gradients`]: once for each step, or after a graph was recorded.
    pub fn set_gradients(&mut self, gradients: &[Option<&Tensor>]) -> Result<()> {
        self.tables.set_gradients(gradients)
    }

    /// The tables, for [`clip`](super::clip_by_norm::clip).
    pub const fn tables(&self) -> &MultiTensor {
        &self.tables
    }

    /// Moves everything, unless `scalars` say that the step is skipped.
    pub fn step(&self, scalars: &Scalars) -> Result<()> {
        let (tables, [keep1, keep2, new1, new2]) = (&self.tables, self.weights);
        kernels::adam_step {
            blocks: tables.blocks(),
            lengths: tables.lengths(),
            tensors: &self.tensors,
            gradients: tables.gradients(),
            scalars: &scalars.0,
            count: tables.count(),
            keep1,
            keep2,
            new1,
            new2,
            eps: f32::from_f64(self.eps),
        }
        .launch(tables.gpu(), tables.dtype(), tables.grid())
    }
}

/// What changes from step to step, in device memory: uploaded before a step, then read and completed by
/// kernels. Each is at its place in [`Scalar`].
#[derive(Debug)]
pub struct Scalars(pub(super) Tensor);

/// What a step did, as [`Scalars::read`] finds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The L2 norm of the mean gradient before clipping.
    pub norm: f32,
    /// What gradients were multiplied by.
    pub factor: f32,
    /// Whether nothing was changed, because the norm is not finite.
    pub skipped: bool,
}

impl Scalars {
    /// Memory for them.
    ///
    /// # Errors
    /// If the memory of the GPU is full.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        Ok(Self(Tensor::zeros_on(&Device::from(gpu), DType::F32, &[Scalar::COUNT])?))
    }

    /// Uploads the constants of a step. `constants.scale` is what gradients are multiplied by before their
    /// norm is taken: 1 / accumulated batches, / loss scale. `limit` is that of the norm, 0 for none;
    /// `keep` the decay of the moving average.
    pub fn write(&mut self, constants: &Adam, limit: f64, keep: f64) -> Result<()> {
        let [rate, root, shrink] = constants.rates();
        let [take, scale, limit] = [1.0 - keep, constants.scale, limit].map(f32::from_f64);
        let mut all = [0.0; Scalar::COUNT];
        for (scalar, value) in [
            (Scalar::RATE, rate),
            (Scalar::ROOT, root),
            (Scalar::SHRINK, shrink),
            (Scalar::TAKE, take),
            (Scalar::MEAN, scale),
            (Scalar::LIMIT, limit),
            (Scalar::FACTOR, scale),
        ] {
            all[scalar as usize] = value;
        }
        self.0.write(&all)
    }

    /// Waits for the step and says what it did.
    ///
    /// # Errors
    /// If the GPU failed.
    pub fn read(&self) -> Result<Outcome> {
        self.read_later()?.wait()
    }

    /// The same without a wait.
    ///
    /// # Errors
    /// If the copy cannot begin.
    pub fn read_later(&self) -> Result<LaterOutcome> {
        Ok(LaterOutcome(self.0.to_f32_later()?))
    }
}

/// What a step did, once it is done.
#[derive(Debug)]
pub struct LaterOutcome(Later);

impl LaterOutcome {
    /// Waits for it.
    ///
    /// # Errors
    /// If the GPU failed.
    pub fn wait(self) -> Result<Outcome> {
        let all = self.0.wait()?;
        let of = |scalar: Scalar| all[scalar as usize];
        let skipped = of(Scalar::SKIP) != 0.0;
        Ok(Outcome { norm: of(Scalar::NORM), factor: of(Scalar::FACTOR), skipped })
    }
}
