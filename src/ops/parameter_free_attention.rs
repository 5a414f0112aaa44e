//! Attention without parameters (Wan et al. 2023, "Swift Parameter-free Attention Network", section 3.2): a
//! residual sum, weighed by how strongly the residual answers; within limits of each channel, if there are some.
//!
//! ```text
//! v  = (x + o) (s(o) - 1/2),        s(o) = 1 / (1 + exp(-o))
//! y  = low[c] where v < low[c], else high[c] where v > high[c], else v
//! dx = dv (s - 1/2)                 do = dx + dv (x + o) s (1 - s),     dv = dy where y is v, else 0
//! ```
use super::same_shape;
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::engine::threads::pieces;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `(x + o) * (sigmoid(o) - 1/2)`, elementwise.
    pub fn parameter_free_attention(&mut self, x: &Var, o: &Var) -> Result<Var> {
        self.apply(ParameterFreeAttention, &[x, o])
    }

    /// The same of maps `[.., C]`, kept within `limits` `[2, C]`: the least and the largest number of each channel. The
    /// limits have no gradient.
    pub fn parameter_free_attention_within(
        &mut self,
        [x, o]: [&Var; 2],
        limits: &Var,
    ) -> Result<Var> {
        self.apply(ParameterFreeAttention, &[x, o, limits])
    }
}

/// See the [module](self) for the formulas. Inputs are x and o, and the limits if there are some.
#[derive(Debug)]
pub struct ParameterFreeAttention;

/// How many channels `limits` are of; 1 where there are none.
fn limited(x: &Tensor, limits: Option<&Tensor>) -> Result<usize> {
    let Some(limits) = limits else { return Ok(1) };
    let channels = x.shape().last().copied().unwrap_or(1);
    match limits.shape() == [2, channels] {
        true => Ok(channels),
        false => {
            let wanted = format!("limits [2, {channels}]");
            Err(Error::shape("parameter_free_attention", wanted, limits.shape()))
        }
    }
}

impl Op for ParameterFreeAttention {
    fn name(&self) -> &'static str {
        "parameter_free_attention"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x, o, limits @ ..] = inputs else { unreachable!("x and o") };
        same_shape(self.name(), x, o)?;
        let limits = limits.first().copied();
        let c = limited(x, limits)?;
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => {
                let limits = limits.map_or(Ok(&[][..]), |limits| limits.cpu::<T>())?;
                cpu::forward::<T>(x.cpu()?, o.cpu()?, limits, y.cpu_mut()?);
            },
            cuda(gpu) => {
                let (n, dtype) = (x.len(), x.dtype());
                let grid = Grid::packs(n, dtype);
                kernels::parameter_free_attention_forward { x, o, limits, y: &mut y, n, c }
                    .launch(&gpu, grid)?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x, o, limits @ ..] = call.inputs else { unreachable!("x and o") };
        let limits = limits.first().copied();
        let c = limited(x, limits)?;
        let mut dx = Tensor::empty_as(x, x.shape())?;
        let mut slope = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => {
                let limits = limits.map_or(Ok(&[][..]), |limits| limits.cpu::<T>())?;
                let (dx, slope) = (dx.cpu_mut()?, slope.cpu_mut()?);
                cpu::backward::<T>([x.cpu()?, o.cpu()?, dy.cpu()?], limits, dx, slope);
            },
            cuda(gpu) => {
                let (n, dtype) = (x.len(), x.dtype());
                let (dx, slope) = (&mut dx, &mut slope);
                kernels::parameter_free_attention_backward { x, o, dy, limits, dx, slope, n, c }
                    .launch(&gpu, Grid::packs(n, dtype))?;
            }
        );
        let gradients = [Some(dx), Some(slope), None].into_iter().zip(call.wants);
        Ok(gradients.map(|(gradient, &wanted)| gradient.filter(|_| wanted)).collect())
    }
}

/// The op on the CPU with its output in place of `o`, for rows of maps that take no part in a tape; without limits these
/// are empty.
pub(crate) fn in_place(x: &[f32], limits: &[f32], o: &mut [f32]) {
    let chunk = cpu::chunk(limits);
    let limits = &cpu::repeated(limits);
    pieces(o, chunk, |i, o| cpu::weigh_in_place(&x[i * chunk..][..o.len()], limits, o));
}

/// An odd length, inputs far from 0, several blocks, and the features of a small network; limits of channels that fill
/// no pack, that fill some, and more of them than a block has elements.
pub fn cases() -> Vec<OpCase> {
    let case = |shape: &[usize]| OpCase::new(|| ParameterFreeAttention, &[shape, shape]);
    let within = |shape: &[usize]| {
        let limits = [2, shape[shape.len() - 1]];
        OpCase::new(|| ParameterFreeAttention, &[shape, shape, &limits]).without_grad(2)
    };
    vec![
        case(&[2, 3, 5, 7]),
        case(&[2, 2, 3, 4]).inputs(6.0, 0.0),
        case(&[4099]).kernel_only(),
        within(&[2, 3, 5, 7]),
        within(&[1, 4, 3, 16]).inputs(3.0, 0.0),
        within(&[1, 40, 30, 24]).kernel_only(),
        within(&[2, 5003]).kernel_only(),
        case(&[1, 128, 128, 32]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::threads::{pieces, pieces2};
    use crate::ops::parallel::CHUNK;
    use crate::ops::simd::{Lane, multiversion};

    /// Elements a task: whole pixels where there are limits.
    pub(super) fn chunk<T>(limits: &[T]) -> usize {
        match limits.len() / 2 {
            0 => CHUNK,
            channels => (CHUNK / channels).max(1) * channels,
        }
    }

    /// Limits of several pixels side by side, of which loops make whole vectors whatever the number of channels.
    pub(super) fn repeated<T: Lane>(limits: &[T]) -> Vec<T> {
        const PIXELS: usize = 16;
        let halves = limits.chunks_exact((limits.len() / 2).max(1));
        halves.flat_map(|half| half.repeat(PIXELS)).collect()
    }

    pub(super) fn forward<T: Lane>(x: &[T], o: &[T], limits: &[T], y: &mut [T]) {
        let chunk = chunk(limits);
        let limits = &repeated(limits);
        pieces(y, chunk, |i, y| {
            let of = i * chunk..i * chunk + y.len();
            y.copy_from_slice(&o[of.clone()]);
            weigh_in_place(&x[of], limits, y);
        });
    }

    multiversion! {
        /// Within limits that are [`repeated`], if there are some.
        pub(super) fn weigh_in_place<T, FMA>(x: &[T], limits: &[T], o: &mut [T]) {
            if limits.is_empty() {
                for (o, &x) in o.iter_mut().zip(x) {
                    *o = weighed::<T, FMA>(x, *o);
                }
                return;
            }
            let (low, high) = limits.split_at(limits.len() / 2);
            for (o, x) in o.chunks_mut(low.len()).zip(x.chunks(low.len())) {
                for ((o, &x), (&low, &high)) in o.iter_mut().zip(x).zip(low.iter().zip(high)) {
                    *o = within(weighed::<T, FMA>(x, *o), low, high);
                }
            }
        }
    }

    #[inline(always)] // As the bodies that call it.
    fn weighed<T: Lane, const FMA: bool>(x: T, o: T) -> T {
        (x + o) * (o.sigmoid::<FMA>() - T::from_f64(0.5))
    }

    /// NaN stays.
    #[inline(always)]
    fn within<T: Lane>(v: T, low: T, high: T) -> T {
        let v = if v < low { low } else { v };
        if v > high { high } else { v }
    }

    pub(super) fn backward<T: Lane>(
        [x, o, dy]: [&[T]; 3],
        limits: &[T],
        dx: &mut [T],
        slope: &mut [T],
    ) {
        let chunk = chunk(limits);
        let limits = &repeated(limits)[..];
        pieces2(dx, slope, [chunk; 2], |i, dx, slope| {
            let of = i * chunk..i * chunk + dx.len();
            let (x, o) = (&x[of.clone()], &o[of.clone()]);
            match limits {
                [] => slopes(x, o, &dy[of], dx, slope),
                _ => {
                    let mut passed = dy[of].to_vec();
                    pass_within(x, o, limits, &mut passed);
                    slopes(x, o, &passed, dx, slope);
                }
            }
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

    multiversion! {
        /// Zeros in the gradient where the output is a limit; limits are [`repeated`].
        fn pass_within<T, FMA>(x: &[T], o: &[T], limits: &[T], dy: &mut [T]) {
            let (low, high) = limits.split_at(limits.len() / 2);
            let len = low.len();
            let inputs = x.chunks(len).zip(o.chunks(len));
            for (dy, (x, o)) in dy.chunks_mut(len).zip(inputs) {
                let limits = low.iter().zip(high);
                for ((dy, (&x, &o)), (&low, &high)) in dy.iter_mut().zip(x.iter().zip(o)).zip(limits) {
                    let v = weighed::<T, FMA>(x, o);
                    let kept = v >= low && v <= high;
                    *dy = if kept { *dy } else { T::from_f64(0.0) };
                }
            }
        }
    }
}
