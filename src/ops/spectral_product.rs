//! A linear map of channels between a transform and its inverse, of some channels of a map: a stream of the default
//! network's blocks in one pass.
//!
//! ```text
//! y = transform^-1(relu?(W transform(x[.., first..]) + b))
//! ```
//!
//! x: `[N, H, W, C]`, H and W multiples of 8; y: `[N, H, W, count]`. The transform is the [cosine transform](super::dct2)
//! of blocks of 8x8, with W `[count, 1, 1, count]`, or the [Haar wavelet](super::haar), with W
//! `[4 count, 1, 1, 4 count]`; b is `[count]` or `[4 count]`. It has no gradient: networks that train call the ops one
//! by one.
use super::conv2d::Conv2d;
use super::dct2::Dct2;
use super::haar::Haar;
use super::slice_channels::SliceChannels;
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::Device;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};

/// The side of what is transformed together.
const BLOCK: usize = 8;

/// Shared memory of a block that every GPU has without being asked for more.
const SHARED: usize = 48 << 10;

/// Which transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// Of blocks of 8x8 pixels.
    Cosine,
    /// One level.
    Haar,
}

impl Tape {
    /// What `op` makes of `x` by the weights `w` and perhaps the bias `b`.
    pub fn spectral_product(
        &mut self,
        x: &Var,
        w: &Var,
        b: Option<&Var>,
        op: SpectralProduct,
    ) -> Result<Var> {
        let inputs: Vec<&Var> = [x, w].into_iter().chain(b).collect();
        self.apply(op, &inputs)
    }
}

/// See the [module](self) for the formulas; inputs are x, w and perhaps a bias.
#[derive(Clone, Copy, Debug)]
pub struct SpectralProduct {
    /// Which transform.
    pub transform: Transform,
    /// The first channel that is transformed.
    pub first: usize,
    /// How many are.
    pub count: usize,
    /// Whether ReLU follows the product.
    pub relu: bool,
}

impl SpectralProduct {
    /// Numbers that the product maps.
    const fn size(&self) -> usize {
        match self.transform {
            Transform::Cosine => self.count,
            Transform::Haar => 4 * self.count,
        }
    }

    /// Bytes of shared memory that a block takes.
    const fn shared(&self) -> usize {
        4 * (2 * BLOCK * BLOCK * self.count + self.size() * (self.size() + 1))
    }

    fn check(&self, x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<[usize; 4]> {
        let shape @ [_, height, width, channels] = x.nhwc(self.name())?;
        let size = self.size();
        if height % BLOCK != 0 || width % BLOCK != 0 || self.first + self.count > channels {
            let end = self.first + self.count;
            let wanted = format!("sides of multiples of {BLOCK}, and {end} channels or more");
            return Err(Error::shape(self.name(), wanted, x.shape()));
        }
        if w.shape() != [size, 1, 1, size] || b.is_some_and(|b| b.shape() != [size]) {
            let wanted = format!("weights [{size}, 1, 1, {size}] and a bias [{size}]");
            return Err(Error::shape(self.name(), wanted, w.shape()));
        }
        Ok(shape)
    }

    /// One op after the other.
    fn by_ops(&self, x: &Tensor, rest: &[&Tensor]) -> Result<Tensor> {
        let part = SliceChannels { from: self.first, len: self.count }.forward(&[x])?.0;
        let transformed = |x: &Tensor, inverse: bool| match self.transform {
            Transform::Cosine => Dct2 { inverse, block: Some(BLOCK) }.forward(&[x]),
            Transform::Haar => Haar { inverse }.forward(&[x]),
        };
        let coefficients = transformed(&part, false)?.0;
        let conv = Conv2d { relu: self.relu, ..Conv2d::same(1) };
        let inputs: Vec<&Tensor> =
            [&coefficients].into_iter().chain(rest.iter().copied()).collect();
        Ok(transformed(&conv.forward(&inputs)?.0, true)?.0)
    }
}

impl Op for SpectralProduct {
    fn name(&self) -> &'static str {
        "spectral_product"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let (x, w, bias) = (inputs[0], inputs[1], inputs.get(2).copied());
        let [n, height, width, channels] = self.check(x, w, bias)?;
        let Device::Cuda(gpu) = x.device() else {
            return Ok((self.by_ops(x, &inputs[1..])?, Saved::new()));
        };
        if self.shared() > SHARED {
            return Ok((self.by_ops(x, &inputs[1..])?, Saved::new()));
        }
        let mut y = Tensor::empty_as(x, &[n, height, width, self.count])?;
        let tiles = n * (height / BLOCK) * (width / BLOCK);
        kernels::spectral_product {
            x,
            w,
            bias,
            y: &mut y,
            width,
            channels,
            first: self.first,
            count: self.count,
            haar: (self.transform == Transform::Haar).into(),
            relu: self.relu.into(),
        }
        .launch(&gpu, Grid::new([tiles, 1, 1], 256).shared(self.shared()))?;
        Ok((y, Saved::new()))
    }
}

/// Both transforms, with and without a bias, of all and of some channels, too many for shared memory.
pub fn cases() -> Vec<OpCase> {
    let case = |transform: Transform, x: [usize; 4], [first, count]: [usize; 2], bias: bool| {
        let op = SpectralProduct { transform, first, count, relu: bias };
        let size = op.size();
        let mut shapes = vec![x.to_vec(), vec![size, 1, 1, size]];
        shapes.extend(bias.then(|| vec![size]));
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let case = OpCase::new(move || op, &shapes);
        (0..shapes.len()).fold(case, OpCase::without_grad)
    };
    vec![
        case(Transform::Cosine, [1, 8, 16, 5], [0, 5], false),
        case(Transform::Cosine, [2, 16, 8, 12], [3, 8], true),
        case(Transform::Haar, [1, 8, 8, 3], [0, 3], true),
        case(Transform::Haar, [2, 8, 16, 9], [1, 8], false),
        case(Transform::Haar, [1, 8, 8, 30], [0, 30], true),
    ]
}
