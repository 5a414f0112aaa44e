//! Linear maps of channels between transforms and their inverses, with ReLU behind: the two streams of the blocks of
//! `dual-domain-grid` in one pass.
//!
//! ```text
//! y[.., ..f] = D^-1 max(0, U D x[.., ..f])        y[.., f..] = H^-1 max(0, V H x[.., f..] + b)
//! ```
//!
//! x, y: `[N, H, W, f + w]`, H and W multiples of 8. D is the [cosine transform](super::dct2) of blocks of 8x8, with U
//! `[f, 1, 1, f]` and no bias, which would be a spike in the corner of each block; H the [Haar wavelet](super::haar),
//! with V `[4w, 1, 1, 4w]` and b `[4w]`. Both are orthogonal, so that the gradients of the coefficients are the
//! transforms of dy; with `m` 1 where the sum behind U is positive,
//!
//! ```text
//! g = m D dy        dU = sum over pixels of g (D x)^T        dx = D^-1 U^T g        and the same of V, with db = sum of g
//! ```
use super::concat::Concat;
use super::conv2d::Conv2d;
use super::dct2::Dct2;
use super::haar::Haar;
use super::slice_channels::SliceChannels;
use crate::engine::cuda::{Gpu, Grid, kernels};
use crate::engine::device::{DType, Device};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};

/// The side of what is transformed together.
const BLOCK: usize = 8;

/// Shared memory of a block that every GPU has without being asked for more.
const SHARED: usize = 48 << 10;
/// Numbers that a product of the kernels maps at most.
const MOST: usize = 64;
/// Blocks that share the tiles on the way back. Not asked of the GPU: the order of sums depends on it.
const BLOCKS: usize = 128;

impl Tape {
    /// What `op` makes of `x` by `[u, v, b]`.
    pub fn spectral_product(
        &mut self,
        x: &Var,
        [u, v, b]: [&Var; 3],
        op: SpectralProduct,
    ) -> Result<Var> {
        self.apply(op, &[x, u, v, b])
    }
}

/// See the [module](self) for the formulas; inputs are x, U, V and b.
#[derive(Clone, Copy, Debug)]
pub struct SpectralProduct {
    /// Channels of the cosine transform: f.
    pub cosines: usize,
    /// Channels of the wavelet: w.
    pub wavelets: usize,
}

/// One of the transforms.
#[derive(Clone, Copy)]
enum Transform {
    Cosine,
    Haar,
}

impl Transform {
    fn of(self, x: &Tensor, inverse: bool) -> Result<Tensor> {
        let (y, _) = match self {
            Self::Cosine => Dct2 { inverse, block: Some(BLOCK) }.forward(&[x])?,
            Self::Haar => Haar { inverse }.forward(&[x])?,
        };
        Ok(y)
    }
}

impl SpectralProduct {
    fn check(&self, inputs: &[&Tensor]) -> Result<[usize; 4]> {
        let [x, u, v, b] = inputs else { unreachable!("spectral_product takes four inputs") };
        let shape @ [_, height, width, channels] = x.nhwc(self.name())?;
        let (f, w) = (self.cosines, self.wavelets);
        if height % BLOCK != 0 || width % BLOCK != 0 || channels != f + w {
            let wanted = format!("sides of multiples of {BLOCK}, and {} channels", f + w);
            return Err(Error::shape(self.name(), wanted, x.shape()));
        }
        let sizes: [(&Tensor, &[usize]); 3] =
            [(u, &[f, 1, 1, f]), (v, &[4 * w, 1, 1, 4 * w]), (b, &[4 * w])];
        match sizes.into_iter().find(|(given, wanted)| given.shape() != *wanted) {
            Some((given, wanted)) => {
                Err(Error::shape(self.name(), format!("{wanted:?}"), given.shape()))
            }
            None => Ok(shape),
        }
    }

    /// Bytes of shared memory that a block takes with so many tiles, if the kernels serve.
    fn shared(&self, tiles: usize) -> Option<usize> {
        let of =
            |count: usize, size: usize| 4 * (tiles * BLOCK * BLOCK * count + size * (size + 1));
        let (f, w) = (self.cosines, self.wavelets);
        let bytes = of(f, f).max(of(w, 4 * w));
        (bytes <= SHARED && f.max(4 * w) <= MOST).then_some(bytes)
    }

    /// The transform of each stream, and where its channels are.
    const fn streams(&self) -> [(Transform, SliceChannels); 2] {
        let (f, w) = (self.cosines, self.wavelets);
        [
            (Transform::Cosine, SliceChannels { from: 0, len: f }),
            (Transform::Haar, SliceChannels { from: f, len: w }),
        ]
    }

    /// One op after the other; what is saved are the coefficients before and behind the products.
    fn by_ops(&self, x: &Tensor, parameters: [&[&Tensor]; 2]) -> Result<(Tensor, Saved)> {
        let (mut saved, mut made) = (Saved::new(), Vec::new());
        for ((transform, part), parameters) in self.streams().into_iter().zip(parameters) {
            let before = transform.of(&part.forward(&[x])?.0, false)?;
            let inputs: Vec<&Tensor> =
                [&before].into_iter().chain(parameters.iter().copied()).collect();
            let behind = Conv2d::same(1).relu().forward(&inputs)?.0;
            made.push(transform.of(&behind, true)?);
            saved.extend([before, behind]);
        }
        Ok((Concat.forward(&[&made[0], &made[1]])?.0, saved))
    }

    fn back_by_ops(
        &self,
        call: &Call,
        parameters: [&[&Tensor]; 2],
        dy: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let (mut made, mut gradients) = (Vec::new(), Vec::new());
        let held = call.saved.chunks_exact(2);
        for (((transform, part), parameters), held) in
            self.streams().into_iter().zip(parameters).zip(held)
        {
            let dy = transform.of(&part.forward(&[dy])?.0, false)?;
            let inputs: Vec<&Tensor> =
                [&held[0]].into_iter().chain(parameters.iter().copied()).collect();
            let wants = vec![true; inputs.len()];
            let product =
                Call { inputs: &inputs, output: &held[1], saved: &Saved::new(), wants: &wants };
            let mut of_product = Conv2d::same(1).relu().backward(&product, &dy)?.into_iter();
            let Some(Some(dx)) = of_product.next() else { unreachable!("it is wanted") };
            made.push(transform.of(&dx, true)?);
            gradients.extend(of_product);
        }
        let dx = Concat.forward(&[&made[0], &made[1]])?.0;
        Ok([Some(dx)].into_iter().chain(gradients).collect())
    }

    fn back_on_gpu(
        &self,
        gpu: &Gpu,
        shared: usize,
        inputs: &[&Tensor],
        dy: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let [x, cosine, wavelet, bias] = *inputs else { unreachable!("as forward found") };
        let [n, height, width, _] = x.nhwc(self.name())?;
        let empty = |like: &Tensor| Tensor::empty_as(like, like.shape());
        let [mut dx, mut du] = [empty(x)?, empty(cosine)?];
        let [mut dv, mut db] = [empty(wavelet)?, empty(bias)?];
        let tiles = n * (height / BLOCK) * (width / BLOCK);
        let blocks = tiles.min(BLOCKS);
        let columns = du.len() + dv.len() + db.len();
        let mut partial = Tensor::empty_on(&x.device(), DType::F32, &[blocks, columns])?;
        kernels::spectral_product_backward {
            x,
            dy,
            cosine,
            wavelet,
            bias,
            dx: &mut dx,
            partial: &mut partial,
            width,
            cosines: self.cosines,
            wavelets: self.wavelets,
            tiles,
        }
        .launch(gpu, Grid::new([blocks, 2, 1], 256).shared(shared))?;
        let (of_cosine, of_wavelet, of_bias) = (du.len(), dv.len(), db.len());
        kernels::spectral_product_sum {
            partial: &partial,
            cosine: &mut du,
            wavelet: &mut dv,
            bias: &mut db,
            blocks,
            of_cosine,
            of_wavelet,
            of_bias,
        }
        .launch(gpu, Grid::elements(columns))?;
        Ok([dx, du, dv, db].map(Some).into())
    }
}

impl Op for SpectralProduct {
    fn name(&self) -> &'static str {
        "spectral_product"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [n, height, width, _] = self.check(inputs)?;
        let x = inputs[0];
        let (Device::Cuda(gpu), Some(_), Some(shared)) =
            (x.device(), self.shared(3), self.shared(2))
        else {
            return self.by_ops(x, [&inputs[1..2], &inputs[2..]]);
        };
        let mut y = Tensor::empty_as(x, x.shape())?;
        let tiles = n * (height / BLOCK) * (width / BLOCK);
        kernels::spectral_product_forward {
            x,
            cosine: inputs[1],
            wavelet: inputs[2],
            bias: inputs[3],
            y: &mut y,
            width,
            cosines: self.cosines,
            wavelets: self.wavelets,
        }
        .launch(&gpu, Grid::new([tiles, 2, 1], 256).shared(shared))?;
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let gradients = match (dy.device(), self.shared(3)) {
            (Device::Cuda(gpu), Some(shared)) => self.back_on_gpu(&gpu, shared, call.inputs, dy)?,
            _ => self.back_by_ops(call, [&call.inputs[1..2], &call.inputs[2..]], dy)?,
        };
        let gradients = gradients.into_iter().zip(call.wants);
        Ok(gradients.map(|(gradient, &wanted)| gradient.filter(|_| wanted)).collect())
    }

    fn flops(&self, inputs: &[&[usize]]) -> u64 {
        let pixels: usize = inputs[0][..3].iter().product();
        let (f, w) = (self.cosines, self.wavelets);
        2 * (pixels * (f * f + 4 * w * w)) as u64
    }
}

/// One tile and several, more than a block takes on the way back; too many channels for shared memory, and for a thread's
/// sums; a decoder's map.
pub fn cases() -> Vec<OpCase> {
    let case = |[n, h, w]: [usize; 3], cosines: usize, wavelets: usize| {
        let op = SpectralProduct { cosines, wavelets };
        let (f, s) = (cosines, 4 * wavelets);
        let shapes: [&[usize]; 4] = [&[n, h, w, f + wavelets], &[f, 1, 1, f], &[s, 1, 1, s], &[s]];
        OpCase::new(move || op, &shapes)
    };
    // Coefficients are rounded on their way from op to op, and a few sums that are nearly 0 fall to the other side of
    // ReLU.
    let by_ops = |shape, f, w| case(shape, f, w).kernel_only().kernel_tols([1e-5, 1e-3, 5e-2]);
    vec![
        case([1, 8, 16], 5, 2),
        case([2, 16, 8], 8, 3),
        case([1, 8, 8], 3, 1),
        case([3, 24, 120], 4, 2).kernel_only(),
        case([1, 16, 24], 32, 16).kernel_only(),
        by_ops([1, 8, 16], 70, 5),
        by_ops([1, 8, 16], 9, 17),
        case([1, 128, 128], 32, 16).timed_only(),
    ]
}
