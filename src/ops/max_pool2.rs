//! The largest value of every 2x2 window; an odd last row or column is dropped.
//!
//! ```text
//! y[n,i,j,c] = max of x[n,2i+a,2j+b,c] over a, b in {0, 1}
//! dx = dy at the largest of each window (the first in row-major order), 0 elsewhere
//! ```
//!
//! Nothing is saved: backward finds the largest again, which costs less than an index in memory.
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// 2x2 maxima of `[N, H, W, C]` at stride 2: `[N, H / 2, W / 2, C]`.
    pub fn max_pool2(&mut self, x: &Var) -> Result<Var> {
        self.apply(MaxPool2, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct MaxPool2;

impl Op for MaxPool2 {
    fn name(&self) -> &'static str {
        "max_pool2"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("max_pool2 takes one input") };
        let dims @ [n, h, w, c] = x.nhwc(self.name())?;
        if h < 2 || w < 2 {
            return Err(Error::shape(self.name(), "at least 2 x 2 pixels", x.shape()));
        }
        let mut y = Tensor::empty_as(x, &[n, h / 2, w / 2, c]);
        on_device!(x, cpu::<T> => cpu::forward::<T>(dims, x.cpu()?, y.cpu_mut()?));
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("max_pool2 takes one input") };
        let dims = x.nhwc(self.name())?;
        let mut dx = Tensor::empty_as(x, x.shape());
        on_device!(x, cpu::<T> => cpu::backward::<T>(dims, x.cpu()?, dy.cpu()?, dx.cpu_mut()?));
        Ok(vec![Some(dx)])
    }
}

/// Odd height, odd width, one window, and a UNet-sized map.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| MaxPool2, &[&[2, 5, 6, 3]]),
        OpCase::new(|| MaxPool2, &[&[2, 4, 7, 1]]),
        OpCase::new(|| MaxPool2, &[&[1, 2, 2, 5]]),
        OpCase::new(|| MaxPool2, &[&[1, 128, 128, 64]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::rows;

    pub(super) fn forward<T: Real>([_, h, w, c]: [usize; 4], x: &[T], y: &mut [T]) {
        let (oh, ow) = (h / 2, w / 2);
        rows(y, ow * c, |r, y| {
            let x = &x[(r / oh * h + r % oh * 2) * w * c..][..2 * w * c];
            for (j, y) in y.chunks_exact_mut(c).enumerate() {
                let [p00, p01, p10, p11] = window(x, w, c, j);
                for k in 0..c {
                    let larger = larger(larger(p00[k], p01[k]), larger(p10[k], p11[k]));
                    y[k] = larger;
                }
            }
        });
    }

    /// `a` unless `b` is larger or NaN.
    fn larger<T: Real>(a: T, b: T) -> T {
        if a >= b || nan(a) { a } else { b }
    }

    #[allow(clippy::eq_op)] // Only a NaN differs from itself.
    fn nan<T: Real>(v: T) -> bool {
        v != v
    }

    pub(super) fn backward<T: Real>([_, h, w, c]: [usize; 4], x: &[T], dy: &[T], dx: &mut [T]) {
        let (oh, ow, zero) = (h / 2, w / 2, T::default());
        rows(dx, w * c, |r, dx| {
            let (n, i) = (r / h, r % h / 2);
            if i >= oh {
                return dx.fill(zero);
            }
            let x = &x[(n * h + i * 2) * w * c..][..2 * w * c];
            let dy = &dy[(n * oh + i) * ow * c..][..ow * c];
            dx[2 * ow * c..].fill(zero);
            for (j, dx) in dx[..2 * ow * c].chunks_exact_mut(2 * c).enumerate() {
                let (left, right) = dx.split_at_mut(c);
                let (window, dy) = (window(x, w, c, j), &dy[j * c..][..c]);
                for k in 0..c {
                    let first = first_largest(window.map(|p| p[k]));
                    let own = r % h % 2 * 2;
                    left[k] = if first == own { dy[k] } else { zero };
                    right[k] = if first == own + 1 { dy[k] } else { zero };
                }
            }
        });
    }

    fn first_largest<T: Real>(window: [T; 4]) -> usize {
        let mut first = 0;
        for k in 1..4 {
            // A NaN wins, as it does in the forward pass.
            let stays = window[first] >= window[k] || nan(window[first]);
            first = if stays { first } else { k };
        }
        first
    }

    /// The four pixels of window `j` in two rows of `w` pixels.
    fn window<T: Real>(x: &[T], w: usize, c: usize, j: usize) -> [&[T]; 4] {
        [0, 1, w, w + 1].map(|offset| &x[(2 * j + offset) * c..][..c])
    }
}
