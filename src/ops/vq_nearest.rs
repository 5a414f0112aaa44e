//! The nearest row of a codebook for every pixel (van den Oord et al. 2017, equations 1 to 3).
//!
//! x, y: `[N, H, W, D]`; codes: `[K, D]`.
//!
//! ```text
//! y  = codes[argmin_k |x - codes[k]|^2]      the first k of equal distances; x where it is not finite
//! dx = dy                                    straight through; the codes get no gradient
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `x` `[N, H, W, D]` with every pixel replaced by the nearest of `codes` `[K, D]`.
    pub fn vq_nearest(&mut self, x: &Var, codes: &Var) -> Result<Var> {
        self.apply(VqNearest, &[x, codes])
    }
}

/// See the [module](self) for the formulas; inputs are x and the codes.
#[derive(Debug)]
pub struct VqNearest;

impl Op for VqNearest {
    fn name(&self) -> &'static str {
        "vq_nearest"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x, codes] = *inputs else { unreachable!("vq_nearest takes two inputs") };
        let [n, h, w, depth] = x.nhwc(self.name())?;
        let rows = match *codes.shape() {
            [rows, width] if rows > 0 && width == depth && depth > 0 => rows,
            _ => {
                let wanted = format!("a codebook of [K, {depth}]");
                return Err(Error::shape(self.name(), wanted, codes.shape()));
            }
        };
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(depth, x.cpu()?, codes.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                let pixels = n * h * w;
                kernels::vq_nearest_forward { x, codes, y: &mut y, pixels, rows, depth }
                    .launch(&gpu, Grid::elements(32 * pixels))?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, _: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(dy.try_clone()?), None])
    }

    fn flops(&self, inputs: &[&[usize]]) -> u64 {
        3 * (inputs[0].iter().product::<usize>() * inputs[1][0]) as u64
    }
}

/// One code, fewer codes than lanes, several rounds of them, codes of one number; the published codebook.
pub fn cases() -> Vec<OpCase> {
    // The output does not change with x but in jumps: what is passed back is no derivative. It is checked
    // with the decoder of `models::vq`.
    let case = |pixels: [usize; 3], rows: usize, depth: usize| {
        let [n, h, w] = pixels;
        OpCase::new(|| VqNearest, &[&[n, h, w, depth], &[rows, depth]])
            .without_grad(0)
            .without_grad(1)
    };
    vec![
        case([1, 1, 2], 1, 3),
        case([2, 3, 5], 7, 3),
        case([1, 4, 3], 100, 4),
        case([1, 2, 3], 33, 1),
        case([1, 9, 8], 512, 8),
        case([1, 64, 64], 8192, 3).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel;

    pub(super) fn forward<T: Real>(depth: usize, x: &[T], codes: &[T], y: &mut [T]) {
        // Every pixel reads the whole codebook: one is enough for a task.
        let tasks = (parallel::CHUNK / codes.len().max(1)).max(1) * depth;
        parallel::chunks(y, tasks, |at, y| {
            for (y, x) in y.chunks_exact_mut(depth).zip(x[at..].chunks_exact(depth)) {
                // Nothing is near a number that is none, and it must not be hidden.
                let finite = x.iter().all(|x| x.to_f64().is_finite());
                y.copy_from_slice(if finite { nearest(x, codes) } else { x });
            }
        });
    }

    fn nearest<'a, T: Real>(x: &[T], codes: &'a [T]) -> &'a [T] {
        let distance =
            |code: &[T]| -> T { code.iter().zip(x).map(|(&c, &x)| (x - c) * (x - c)).sum() };
        let mut best = &codes[..x.len()];
        let mut least = distance(best);
        for code in codes.chunks_exact(x.len()).skip(1) {
            let far = distance(code);
            if far < least {
                (best, least) = (code, far);
            }
        }
        best
    }
}
