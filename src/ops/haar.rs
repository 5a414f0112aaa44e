//! One level of the Haar wavelet transform, and its inverse.
//!
//! ```text
//! LL = (a + b + c + d) / 2,   s0 = (a + b - c - d) / 2,        | a b |  a 2x2 window
//! s1 = (a - b + c - d) / 2,   s2 = (a - b - c + d) / 2,        | c d |
//! ```
//!
//! `[N, H, W, C]` becomes `[N, H/2, W/2, 4C]` with the channels of LL, then of s0, s1 and s2. The
//! 4x4 matrix is its own inverse and transpose, so each direction is the other's backward.
use crate::engine::cuda::{Grid, launch_one_of};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// The four half-size sub-bands of `[N, H, W, C]` as channel groups LL, 0, 1, 2.
    pub fn haar(&mut self, x: &Var) -> Result<Var> {
        self.apply(Haar { inverse: false }, &[x])
    }

    /// The `[N, 2H, 2W, C]` map whose sub-bands are `[N, H, W, 4C]`.
    pub fn haar_inverse(&mut self, x: &Var) -> Result<Var> {
        self.apply(Haar { inverse: true }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Haar {
    /// Whether sub-bands become pixels.
    pub inverse: bool,
}

impl Op for Haar {
    fn name(&self) -> &'static str {
        "haar"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("haar takes one input") };
        Ok((self.transformed(x)?, Saved::new()))
    }

    fn backward(&self, _: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(Self { inverse: !self.inverse }.transformed(dy)?)])
    }
}

impl Haar {
    fn transformed(&self, x: &Tensor) -> Result<Tensor> {
        let dims @ [n, h, w, c] = x.nhwc(self.name())?;
        if self.inverse && c % 4 != 0 {
            return Err(Error::shape(self.name(), "C divisible by 4", x.shape()));
        }
        if !self.inverse && (h % 2 != 0 || w % 2 != 0) {
            return Err(Error::shape(self.name(), "even H and W", x.shape()));
        }
        let shape = if self.inverse { [n, 2 * h, 2 * w, c / 4] } else { [n, h / 2, w / 2, 4 * c] };
        let mut y = Tensor::empty_as(x, &shape)?;
        on_device!(x,
            cpu::<T> => match self.inverse {
                false => cpu::forward::<T>(dims, x.cpu()?, y.cpu_mut()?),
                true => cpu::inverse::<T>(shape, x.cpu()?, y.cpu_mut()?),
            },
            cuda(gpu) => {
                let (w, c) = if self.inverse { (w, c / 4) } else { (w / 2, c) };
                let (n, y, inverse) = (x.len() / 4, &mut y, self.inverse);
                launch_one_of!(&gpu, Grid::packs(n, x.dtype()), match inverse {
                    false => haar_forward,
                    true => haar_inverse,
                } { x, y, n, w, c })?;
            }
        );
        Ok(y)
    }
}

/// Both directions at odd channels, one window and whole packs; a UNet-sized map.
pub fn cases() -> Vec<OpCase> {
    let case = |inverse, shape: &[usize]| OpCase::new(move || Haar { inverse }, &[shape]);
    vec![
        case(false, &[2, 4, 6, 3]),
        case(false, &[1, 2, 2, 1]),
        case(true, &[2, 2, 3, 12]),
        case(true, &[1, 1, 1, 4]),
        case(false, &[1, 2, 4, 8]),
        case(true, &[1, 2, 1, 32]),
        case(false, &[1, 128, 128, 64]).timed_only(),
        case(true, &[1, 64, 64, 256]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::rows;

    /// `[_, h, w, c]` are the sizes of the larger map, `x`.
    pub(super) fn forward<T: Real>([_, _, w, c]: [usize; 4], x: &[T], y: &mut [T]) {
        rows(y, w / 2 * 4 * c, |row, y| {
            let (upper, lower) = x[row * 2 * w * c..][..2 * w * c].split_at(w * c);
            let windows = upper.chunks_exact(2 * c).zip(lower.chunks_exact(2 * c));
            for (y, (upper, lower)) in y.chunks_exact_mut(4 * c).zip(windows) {
                let ((a, b), (c, d)) = (upper.split_at(c), lower.split_at(c));
                butterfly(y, [a, b, c, d]);
            }
        });
    }

    /// `y` in four groups of channels.
    fn butterfly<T: Real>(y: &mut [T], [a, b, c, d]: [&[T]; 4]) {
        let len = a.len();
        let (ll, rest) = y.split_at_mut(len);
        let (s0, rest) = rest.split_at_mut(len);
        let (s1, s2) = rest.split_at_mut(len);
        let (b, c, d, s2) = (&b[..len], &c[..len], &d[..len], &mut s2[..len]);
        for k in 0..len {
            [ll[k], s0[k], s1[k], s2[k]] = four(a[k], b[k], c[k], d[k]);
        }
    }

    fn four<T: Real>(a: T, b: T, c: T, d: T) -> [T; 4] {
        let half = T::from_f64(0.5);
        let (upper, lower, left, right) = (a + b, c + d, a - b, c - d);
        [
            half * (upper + lower),
            half * (upper - lower),
            half * (left + right),
            half * (left - right),
        ]
    }

    /// `[_, h, w, c]` are the sizes of the larger map, `y`.
    pub(super) fn inverse<T: Real>([_, _, w, c]: [usize; 4], x: &[T], y: &mut [T]) {
        rows(y, 2 * w * c, |row, y| {
            let x = &x[row * w / 2 * 4 * c..][..w / 2 * 4 * c];
            let (upper, lower) = y.split_at_mut(w * c);
            let windows = upper.chunks_exact_mut(2 * c).zip(lower.chunks_exact_mut(2 * c));
            for (x, (upper, lower)) in x.chunks_exact(4 * c).zip(windows) {
                let (a, b) = upper.split_at_mut(c);
                let (c, d) = lower.split_at_mut(c);
                let len = a.len();
                let (ll, rest) = x.split_at(len);
                let (s0, rest) = rest.split_at(len);
                let (s1, s2) = rest.split_at(len);
                let (s2, b, c, d) = (&s2[..len], &mut b[..len], &mut c[..len], &mut d[..len]);
                for k in 0..len {
                    [a[k], b[k], c[k], d[k]] = four(ll[k], s0[k], s1[k], s2[k]);
                }
            }
        });
    }
}
