//! Swift parameter-free attention: a residual whose own symmetric activation weighs it
//! (SPAN, Wan et al. 2024, section 3.1).
//!
//! ```text
//! y  = (f + x) (s - 1/2),                         s = 1 / (1 + exp(-f))
//! df = dy (s - 1/2 + (f + x) s (1 - s)),          dx = dy (s - 1/2)
//! ```
use crate::engine::cuda::Grid;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;
use crate::ops::same_shape;

impl Tape {
    /// `(f + x) (sigmoid(f) - 1/2)`, elementwise: `x` enters a block, `f` is what its layers made of it.
    pub fn swift_attention(&mut self, f: &Var, x: &Var) -> Result<Var> {
        self.apply(SwiftAttention, &[f, x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct SwiftAttention;

impl Op for SwiftAttention {
    fn name(&self) -> &'static str {
        "swift_attention"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [f, x] = inputs else { unreachable!("swift_attention takes two inputs") };
        same_shape(self.name(), f, x)?;
        let mut y = Tensor::empty_as(f, f.shape())?;
        on_device!(f,
            cpu::<T> => cpu::forward::<T>(f.cpu()?, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                let n = f.len();
                let args = [(*f).into(), (*x).into(), (&mut y).into(), n.into()];
                gpu.launch("swift_attention_forward", f.dtype(), Grid::packs(n, f.dtype()), &args)?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [f, x] = call.inputs else { unreachable!("swift_attention takes two inputs") };
        // One pass makes both; the one that nobody wants is dropped.
        let [mut df, mut dx] = [Tensor::empty_as(f, f.shape())?, Tensor::empty_as(f, f.shape())?];
        on_device!(f,
            cpu::<T> => {
                cpu::backward::<T>([f.cpu()?, x.cpu()?, dy.cpu()?], df.cpu_mut()?, dx.cpu_mut()?);
            },
            cuda(gpu) => {
                let n = f.len();
                let args = [
                    (*f).into(),
                    (*x).into(),
                    dy.into(),
                    (&mut df).into(),
                    (&mut dx).into(),
                    n.into(),
                ];
                let grid = Grid::packs(n, f.dtype());
                gpu.launch("swift_attention_backward", f.dtype(), grid, &args)?;
            }
        );
        Ok(vec![call.wants[0].then_some(df), call.wants[1].then_some(dx)])
    }
}

/// An odd length (tail of the vectorised loop), several blocks, and the default model's map.
pub fn cases() -> Vec<OpCase> {
    let case = |shape: &[usize]| OpCase::new(|| SwiftAttention, &[shape, shape]);
    vec![
        case(&[2, 3, 5, 7]),
        case(&[1]),
        case(&[4099]).kernel_only(),
        case(&[1, 128, 128, 32]).timed_only(),
    ]
}

mod cpu {
    use rayon::prelude::*;

    use crate::ops::parallel::CHUNK;
    use crate::ops::simd::{Lane, multiversion};

    pub(super) fn forward<T: Lane>(f: &[T], x: &[T], y: &mut [T]) {
        let inputs = f.par_chunks(CHUNK).zip(x.par_chunks(CHUNK));
        y.par_chunks_mut(CHUNK).zip(inputs).for_each(|(y, (f, x))| weigh(f, x, y));
    }

    multiversion! {
        fn weigh<T, FMA>(f: &[T], x: &[T], y: &mut [T]) {
            for (y, (&f, &x)) in y.iter_mut().zip(f.iter().zip(x)) {
                *y = (f + x) * (f.sigmoid::<FMA>() - T::from_f64(0.5));
            }
        }
    }

    pub(super) fn backward<T: Lane>([f, x, dy]: [&[T]; 3], df: &mut [T], dx: &mut [T]) {
        let inputs = f.par_chunks(CHUNK).zip(x.par_chunks(CHUNK)).zip(dy.par_chunks(CHUNK));
        let outputs = df.par_chunks_mut(CHUNK).zip(dx.par_chunks_mut(CHUNK));
        outputs.zip(inputs).for_each(|((df, dx), ((f, x), dy))| slopes(f, x, dy, df, dx));
    }

    multiversion! {
        fn slopes<T, FMA>(f: &[T], x: &[T], dy: &[T], df: &mut [T], dx: &mut [T]) {
            let inputs = f.iter().zip(x).zip(dy);
            for ((df, dx), ((&f, &x), &dy)) in df.iter_mut().zip(dx.iter_mut()).zip(inputs) {
                let s = f.sigmoid::<FMA>();
                let weight = s - T::from_f64(0.5);
                *dx = dy * weight;
                *df = dy * (weight + (f + x) * (s - s * s));
            }
        }
    }
}
