//! Attention without parameters (Wan et al. 2023, "Swift Parameter-free Attention Network", section 3.2): a
//! residual sum, weighed by how strongly the residual answers.
//!
//! ```text
//! y  = (x + o) (s(o) - 1/2),        s(o) = 1 / (1 + exp(-o))
//! dx = dy (s - 1/2)                 do = dx + dy (x + o) s (1 - s)
//! ```
use super::same_shape;
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;
use crate::ops::parallel::chunks2;

impl Tape {
    /// `(x + o) * (sigmoid(o) - 1/2)`, elementwise.
    pub fn parameter_free_attention(&mut self, x: &Var, o: &Var) -> Result<Var> {
        self.apply(ParameterFreeAttention, &[x, o])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct ParameterFreeAttention;

impl Op for ParameterFreeAttention {
    fn name(&self) -> &'static str {
        "parameter_free_attention"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x, o] = inputs else { unreachable!("parameter_free_attention takes two inputs") };
        same_shape(self.name(), x, o)?;
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(x.cpu()?, o.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                let (n, dtype) = (x.len(), x.dtype());
                let grid = Grid::packs(n, dtype);
                kernels::parameter_free_attention_forward { x, o, y: &mut y, n }
                    .launch(&gpu, grid)?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x, o] = call.inputs else { unreachable!("parameter_free_attention takes two inputs") };
        let mut dx = Tensor::empty_as(x, x.shape())?;
        let mut slope = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(
                [x.cpu()?, o.cpu()?, dy.cpu()?], dx.cpu_mut()?, slope.cpu_mut()?,
            ),
            cuda(gpu) => {
                let (n, dtype) = (x.len(), x.dtype());
                let (dx, slope) = (&mut dx, &mut slope);
                kernels::parameter_free_attention_backward { x, o, dy, dx, slope, n }
                    .launch(&gpu, Grid::packs(n, dtype))?;
            }
        );
        let gradients = [dx, slope].into_iter().zip(call.wants);
        Ok(gradients.map(|(gradient, wanted)| wanted.then_some(gradient)).collect())
    }
}

/// The op on the CPU with its output in place of `o`, for rows of maps that take no part in a tape.
pub(crate) fn in_place(x: &[f32], o: &mut [f32]) {
    chunks2(o, x, |o, x| cpu::weigh_in_place(x, o));
}

/// An odd length, inputs far from 0, several blocks, and the features of a small network.
pub fn cases() -> Vec<OpCase> {
    let case = |shape: &[usize]| OpCase::new(|| ParameterFreeAttention, &[shape, shape]);
    vec![
        case(&[2, 3, 5, 7]),
        case(&[2, 2, 3, 4]).inputs(6.0, 0.0),
        case(&[4099]).kernel_only(),
        case(&[1, 128, 128, 32]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::threads::{pieces, pieces2};
    use crate::ops::parallel::CHUNK;
    use crate::ops::simd::{Lane, multiversion};

    pub(super) fn forward<T: Lane>(x: &[T], o: &[T], y: &mut [T]) {
        pieces(y, CHUNK, |i, y| {
            let of = i * CHUNK..i * CHUNK + y.len();
            weigh(&x[of.clone()], &o[of], y);
        });
    }

    multiversion! {
        fn weigh<T, FMA>(x: &[T], o: &[T], y: &mut [T]) {
            for (y, (&x, &o)) in y.iter_mut().zip(x.iter().zip(o)) {
                *y = weighed::<T, FMA>(x, o);
            }
        }
    }

    multiversion! {
        pub(super) fn weigh_in_place<T, FMA>(x: &[T], o: &mut [T]) {
            for (o, &x) in o.iter_mut().zip(x) {
                *o = weighed::<T, FMA>(x, *o);
            }
        }
    }

    #[inline(always)] // As the bodies that call it.
    fn weighed<T: Lane, const FMA: bool>(x: T, o: T) -> T {
        (x + o) * (o.sigmoid::<FMA>() - T::from_f64(0.5))
    }

    pub(super) fn backward<T: Lane>([x, o, dy]: [&[T]; 3], dx: &mut [T], slope: &mut [T]) {
        pieces2(dx, slope, [CHUNK; 2], |i, dx, slope| {
            let of = i * CHUNK..i * CHUNK + dx.len();
            slopes(&x[of.clone()], &o[of.clone()], &dy[of], dx, slope);
        });
    }

    multiversion! {
        fn slopes<T, FMA>(x: &[T], o: &[T], dy: &[T], dx: &mut [T], slope: &mut [T]) {
            let (half, one) = (T::from_f64(0.5), T::from_f64(1.0));
            let inputs = x.iter().zip(o).zip(dy);
            for ((dx, slope), ((&x, &o), &dy)) in dx.iter_mut().zip(slope).zip(inputs) {
                let s = o.sigmoid::<FMA>();
                *dx = dy * (s - half);
                *slope = *dx + dy * (x + o) * s * (one - s);
            }
        }
    }
}
