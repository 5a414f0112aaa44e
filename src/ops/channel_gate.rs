//! Multiplies each channel of each image by the sigmoid of a number: the excitation of a squeeze.
//!
//! ```text
//! y[n,h,w,c] = x[n,h,w,c] s[n,c],    s = 1 / (1 + exp(-g))
//! dx = dy s,    dg[n,c] = s (1 - s) sum over h, w of dy[n,h,w,c] x[n,h,w,c]
//! ```
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `x` of `[N, H, W, C]` times the sigmoid of `g` of `[N, 1, 1, C]`.
    pub fn channel_gate(&mut self, x: &Var, g: &Var) -> Result<Var> {
        self.apply(ChannelGate, &[x, g])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct ChannelGate;

impl Op for ChannelGate {
    fn name(&self) -> &'static str {
        "channel_gate"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x, g] = inputs else { unreachable!("channel_gate takes two inputs") };
        let dims @ [n, _, _, c] = x.nhwc(self.name())?;
        if g.shape() != [n, 1, 1, c] {
            let wanted = format!("a gate of {:?}", [n, 1, 1, c]);
            return Err(Error::shape(self.name(), wanted, g.shape()));
        }
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::scale::<T>(dims, x.cpu()?, g.cpu()?, y.cpu_mut()?),
            cuda(gpu) => cuda::scale(&gpu, dims, x, g, &mut y)?,
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x, g] = call.inputs else { unreachable!("channel_gate takes two inputs") };
        let dims = x.nhwc(self.name())?;
        let mut grads = call.empty_gradients()?;
        on_device!(x,
            cpu::<T> => {
                if let Some(dx) = &mut grads[0] {
                    cpu::scale::<T>(dims, dy.cpu()?, g.cpu()?, dx.cpu_mut()?);
                }
                if let Some(dg) = &mut grads[1] {
                    cpu::gate_gradient::<T>(dims, [x.cpu()?, dy.cpu()?], g.cpu()?, dg.cpu_mut()?);
                }
            },
            cuda(gpu) => {
                if let Some(dx) = &mut grads[0] {
                    cuda::scale(&gpu, dims, dy, g, dx)?;
                }
                if let Some(dg) = &mut grads[1] {
                    cuda::gate_gradient(&gpu, dims, [x, dy, g], dg)?;
                }
            }
        );
        Ok(grads)
    }
}

/// Odd sizes, one pixel; whole packs, several blocks down and across; the features of a training batch.
pub fn cases() -> Vec<OpCase> {
    let case = |shape: [usize; 4]| {
        OpCase::new(|| ChannelGate, &[&shape, &[shape[0], 1, 1, shape[3]]]).inputs(2.0, 0.0)
    };
    vec![
        case([2, 3, 5, 7]),
        case([2, 1, 1, 1]),
        case([2, 3, 2, 16]),
        case([2, 17, 31, 3]).kernel_only(),
        case([1, 33, 16, 264]).kernel_only(),
        case([16, 64, 64, 128]).timed_only(),
    ]
}

mod cuda {
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::device::DType;
    use crate::engine::tensor::Tensor;
    use crate::error::Result;
    use crate::ops::column_blocks;

    pub(super) fn scale(
        gpu: &Gpu,
        [_, h, w, c]: [usize; 4],
        x: &Tensor,
        g: &Tensor,
        y: &mut Tensor,
    ) -> Result<()> {
        let (n, dtype) = (x.len(), x.dtype());
        kernels::channel_gate_scale { x, g, y, n, pixels: h * w, c }
            .launch(gpu, Grid::packs(n, dtype))
    }

    pub(super) fn gate_gradient(
        gpu: &Gpu,
        [n, h, w, c]: [usize; 4],
        [x, dy, g]: [&Tensor; 3],
        dg: &mut Tensor,
    ) -> Result<()> {
        let (pixels, dtype, count) = (h * w, dy.dtype(), dg.len());
        let ([across, splits], rows) = column_blocks(dtype, pixels, c);
        let mut partial = Tensor::empty_on(&dy.device(), DType::F32, &[n, splits, c])?;
        kernels::channel_gate_sums { x, dy, partial: &mut partial, pixels, c, rows }
            .launch(gpu, Grid::new([across, splits, n], 256))?;
        kernels::channel_gate_finish { partial: &partial, g, dg, n: count, splits, c }
            .launch(gpu, Grid::elements(count))
    }
}

mod cpu {
    use crate::engine::device::Real;
    use crate::engine::pool::Buffer;
    use crate::ops::parallel::{column_sums, rows, zip3};

    fn sigmoid(g: f64) -> f64 {
        1.0 / (1.0 + (-g).exp())
    }

    pub(super) fn scale<T: Real>([_, h, w, c]: [usize; 4], x: &[T], g: &[T], y: &mut [T]) {
        let gates: Vec<T> = g.iter().map(|g| T::from_f64(sigmoid(g.to_f64()))).collect();
        rows(y, c, |pixel, y| {
            let (x, s) = (&x[pixel * c..][..c], &gates[pixel / (h * w) * c..][..c]);
            for k in 0..c {
                y[k] = x[k] * s[k];
            }
        });
    }

    pub(super) fn gate_gradient<T: Real>(
        [n, h, w, c]: [usize; 4],
        [x, dy]: [&[T]; 2],
        g: &[T],
        dg: &mut [T],
    ) {
        let mut products = Buffer::<T>::new(x.len());
        zip3(&mut products, x, dy, |product, &x, &dy| *product = x * dy);
        for n in 0..n {
            let sums = column_sums(&products[n * h * w * c..][..h * w * c], c);
            for (k, sum) in sums.into_iter().enumerate() {
                let s = sigmoid(g[n * c + k].to_f64());
                dg[n * c + k] = T::from_f64(s * (1.0 - s) * sum);
            }
        }
    }
}
