//! What both devices do.
use crate::engine::device::DType;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

/// Means and variances, `[2, C]`, of the channels of `x`.
pub fn statistics(x: &Tensor) -> Result<Tensor> {
    let [n, h, w, c] = x.nhwc("batch_norm")?;
    if n * h * w == 0 {
        return Err(Error::shape("batch_norm", "at least one pixel", x.shape()));
    }
    let mut found = Tensor::empty_on(&x.device(), wide_type(x), &[2, c])?;
    on_device!(x,
        cpu::<T> => cpu::statistics::<T>(x.cpu()?, found.cpu_mut()?),
        cuda(gpu) => cuda::statistics(&gpu, x, &mut found)?,
    );
    Ok(found)
}

/// Moves `running` statistics by `momentum` towards those `found` in `len` elements.
pub fn follow(running: &mut Tensor, found: &Tensor, len: usize, momentum: f64) -> Result<()> {
    expect("batch_norm", running, found.shape())?;
    let c = found.shape()[1];
    let m = (len / c.max(1)) as f64;
    let unbias = m / (m - 1.0).max(1.0);
    on_device!(found,
        cpu::<T> => cpu::follow::<T>(running.cpu_mut()?, found.cpu()?, momentum, unbias),
        cuda(gpu) => cuda::follow(&gpu, running, found, momentum, unbias)?,
    );
    Ok(())
}

/// The type of statistics beside `x`.
pub(super) fn wide_type(x: &Tensor) -> DType {
    if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
}

pub(in crate::ops) fn wide(statistics: &Tensor) -> Result<Tensor> {
    statistics.cast(wide_type(statistics))
}

pub(in crate::ops) fn expect(op: &'static str, v: &Tensor, shape: &[usize]) -> Result<()> {
    if v.shape() == shape {
        return Ok(());
    }
    Err(Error::shape(op, format!("{shape:?} for the channels of x"), v.shape()))
}

pub(in crate::ops) mod cuda {
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::device::{DType, Real};
    use crate::engine::tensor::Tensor;
    use crate::error::Result;
    use crate::ops::column_blocks;

    /// Partial sums of blocks of rows, two for each channel.
    pub(in crate::ops) struct Partial {
        pub(in crate::ops) sums: Tensor,
        pub(in crate::ops) grid: Grid,
        pub(in crate::ops) splits: usize,
        pub(in crate::ops) rows_each: usize,
    }

    impl Partial {
        pub(in crate::ops) fn of(x: &Tensor, rows: usize, c: usize) -> Result<Self> {
            let ([across, splits], rows_each) = column_blocks(x.dtype(), rows, c);
            let sums = Tensor::empty_on(&x.device(), DType::F32, &[splits, 2, c])?;
            let grid = Grid::new([across, splits, 1], 256);
            Ok(Self { sums, grid, splits, rows_each })
        }
    }

    pub(in crate::ops) fn statistics(gpu: &Gpu, x: &Tensor, found: &mut Tensor) -> Result<()> {
        let c = found.len() / 2;
        let rows = x.len() / c.max(1);
        let mut partial = Partial::of(x, rows, c)?;
        let Partial { splits, rows_each, grid, .. } = partial;
        kernels::batch_norm_sums { x, partial: &mut partial.sums, rows, c, rows_each }
            .launch(gpu, grid)?;
        let (partial, statistics) = (&partial.sums, found);
        kernels::batch_norm_statistics { partial, x, statistics, rows, splits, c }
            .launch(gpu, Grid::elements(c))
    }

    pub(in crate::ops) fn follow(
        gpu: &Gpu,
        running: &mut Tensor,
        found: &Tensor,
        momentum: f64,
        unbias: f64,
    ) -> Result<()> {
        let c = found.len() / 2;
        let [momentum, unbias] = [momentum, unbias].map(f32::from_f64);
        kernels::batch_norm_follow { statistics: found, running, momentum, unbias, c }
            .launch(gpu, Grid::elements(c))
    }

    pub(in crate::ops) fn forward(
        gpu: &Gpu,
        eps: f64,
        [x, gamma, beta, found]: [&Tensor; 4],
        y: &mut Tensor,
    ) -> Result<()> {
        let (n, c, dtype) = (x.len(), gamma.len(), x.dtype());
        let (statistics, eps) = (found, f32::from_f64(eps));
        kernels::batch_norm_forward { x, gamma, beta, statistics, y, n, c, eps }
            .launch(gpu, Grid::packs(n, dtype))
    }

    pub(in crate::ops) fn backward(
        gpu: &Gpu,
        eps: f64,
        share: f64,
        [x, dy, gamma, found]: [&Tensor; 4],
        [dx, dgamma, dbeta]: [&mut Tensor; 3],
    ) -> Result<()> {
        let sums = sums(gpu, eps, [x, dy, found], [dgamma, dbeta])?;
        input_gradient(gpu, eps, share, [x, dy, gamma, found, &sums], dx)
    }

    /// `sum dy` and `sum dy xhat`, `[2, C]`, and as parameters' gradients.
    pub(in crate::ops) fn sums(
        gpu: &Gpu,
        eps: f64,
        [x, dy, found]: [&Tensor; 3],
        [dgamma, dbeta]: [&mut Tensor; 2],
    ) -> Result<Tensor> {
        let c = dgamma.len();
        let rows = x.len() / c.max(1);
        let mut partial = Partial::of(x, rows, c)?;
        let mut sums = Tensor::empty_on(&x.device(), DType::F32, &[2, c])?;
        let Partial { splits, rows_each, grid, .. } = partial;
        kernels::batch_norm_backward_sums {
            x,
            dy,
            statistics: found,
            partial: &mut partial.sums,
            rows,
            c,
            rows_each,
            eps: f32::from_f64(eps),
        }
        .launch(gpu, grid)?;
        let partial = &partial.sums;
        kernels::batch_norm_backward_finish { partial, sums: &mut sums, dgamma, dbeta, splits, c }
            .launch(gpu, Grid::elements(c))?;
        Ok(sums)
    }

    /// `dx`, from what [`sums`] found.
    pub(in crate::ops) fn input_gradient(
        gpu: &Gpu,
        eps: f64,
        share: f64,
        [x, dy, gamma, statistics, sums]: [&Tensor; 5],
        dx: &mut Tensor,
    ) -> Result<()> {
        let (n, c, grid) = (dx.len(), gamma.len(), Grid::packs(dx.len(), dx.dtype()));
        let [eps, share] = [eps, share].map(f32::from_f64);
        kernels::batch_norm_backward { x, dy, gamma, statistics, sums, dx, n, c, eps, share }
            .launch(gpu, grid)
    }
}

pub(in crate::ops) mod cpu {
    use crate::engine::device::Real;
    use crate::engine::pool::Buffer;
    use crate::ops::parallel::{column_sums, rows};

    pub(in crate::ops) fn statistics<T: Real>(x: &[T], found: &mut [T]) {
        let c = found.len() / 2;
        let m = (x.len() / c.max(1)) as f64;
        let (means, variances) = found.split_at_mut(c);
        for (mean, sum) in means.iter_mut().zip(column_sums(x, c)) {
            *mean = T::from_f64(sum / m);
        }
        let mut squares = Buffer::<T>::new(x.len());
        rows(&mut squares, c, |pixel, squares| {
            let x = &x[pixel * c..][..c];
            for k in 0..c {
                squares[k] = (x[k] - means[k]) * (x[k] - means[k]);
            }
        });
        for (variance, sum) in variances.iter_mut().zip(column_sums(&squares, c)) {
            *variance = T::from_f64(sum / m);
        }
    }

    pub(in crate::ops) fn follow<T: Real>(
        running: &mut [T],
        found: &[T],
        momentum: f64,
        unbias: f64,
    ) {
        let c = found.len() / 2;
        for (i, (running, &found)) in running.iter_mut().zip(found).enumerate() {
            let found = if i < c { 1.0 } else { unbias } * found.to_f64();
            *running = T::from_f64(running.to_f64() + momentum * (found - running.to_f64()));
        }
    }

    pub(in crate::ops) fn mean_and_rstd<T: Real>(found: &[T], eps: f64) -> (&[T], Vec<T>) {
        let (mean, variance) = found.split_at(found.len() / 2);
        let rstd = |v: &T| T::from_f64(1.0 / (v.to_f64() + eps).sqrt());
        (mean, variance.iter().map(rstd).collect())
    }

    pub(in crate::ops) fn forward<T: Real>(
        x: &[T],
        mean: &[T],
        rstd: &[T],
        gamma: &[T],
        beta: &[T],
        y: &mut [T],
    ) {
        let c = mean.len();
        rows(y, c, |pixel, y| {
            let x = &x[pixel * c..][..c];
            for k in 0..c {
                y[k] = (x[k] - mean[k]) * rstd[k] * gamma[k] + beta[k];
            }
        });
    }

    pub(in crate::ops) struct Backward<'a, T> {
        pub(in crate::ops) x: &'a [T],
        pub(in crate::ops) dy: &'a [T],
        pub(in crate::ops) mean: &'a [T],
        pub(in crate::ops) rstd: &'a [T],
    }

    impl<T: Real> Backward<'_, T> {
        /// `sum dy xhat` and `sum dy`.
        pub(in crate::ops) fn sums(&self, dgamma: &mut [T], dbeta: &mut [T]) {
            let c = self.mean.len();
            let mut products = Buffer::<T>::new(self.x.len());
            rows(&mut products, c, |pixel, products| {
                let (x, dy) = (&self.x[pixel * c..][..c], &self.dy[pixel * c..][..c]);
                for k in 0..c {
                    products[k] = dy[k] * (x[k] - self.mean[k]) * self.rstd[k];
                }
            });
            for (sums, of) in [(dgamma, &products[..]), (dbeta, self.dy)] {
                let found = column_sums(of, c);
                sums.iter_mut().zip(found).for_each(|(sum, found)| *sum = T::from_f64(found));
            }
        }

        pub(in crate::ops) fn run(
            &self,
            gamma: &[T],
            [dgamma, dbeta]: [&[T]; 2],
            share: f64,
            dx: &mut [T],
        ) {
            let (c, share) = (self.mean.len(), T::from_f64(share));
            rows(dx, c, |pixel, dx| {
                let (x, dy) = (&self.x[pixel * c..][..c], &self.dy[pixel * c..][..c]);
                for k in 0..c {
                    let hat = (x[k] - self.mean[k]) * self.rstd[k];
                    let rest = share * (dbeta[k] + hat * dgamma[k]);
                    dx[k] = self.rstd[k] * gamma[k] * (dy[k] - rest);
                }
            });
        }
    }
}
