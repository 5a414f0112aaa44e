//! Sines and cosines of a time step or noise level. Not differentiated: what it is given is data.
//!
//! ```text
//! f_k = 10000^(-k / (D/2)),     k = 0 .. D/2 - 1
//! g_k = 10000^(-k / (D/2 - 1)): the last frequency is exactly 1/10000
//!
//! SinCos        [sin(t f_0), sin(t f_1), .., cos(t f_0), cos(t f_1), ..]
//! CosSin        [cos(t f_0), .., sin(t f_0), ..]
//! Interleaved   [sin(t f_0), cos(t f_0), sin(t f_1), cos(t f_1), ..]
//! SinCosToEnd   [sin(t g_0), .., cos(t g_0), ..]
//! Raw           [t]
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::{DType, Device};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};

/// The forms that published models use; they are not interchangeable. In the order of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeEmbedding {
    /// Sines, then cosines: DDPM and SR3 (which embeds the noise level, unscaled).
    SinCos,
    /// Cosines, then sines: guided diffusion and ResShift.
    CosSin,
    /// Sine and cosine of each frequency in turn, as in transformers.
    Interleaved,
    /// Sines, then cosines, with the last frequency at 1/10000.
    SinCosToEnd,
    /// The number itself, `D = 1`.
    Raw,
}

impl TimeEmbedding {
    /// The embeddings `[N, dim]` of the `N` numbers `t`, computed in double precision.
    ///
    /// Fails unless `dim` is even (1 for `Raw`, at least 4 for `SinCosToEnd`).
    pub fn of(self, t: &[f64], dim: usize, dtype: DType) -> Result<Tensor> {
        self.check(t.len(), dim)?;
        let values: Vec<f64> =
            t.iter().flat_map(|&t| (0..dim).map(move |i| self.value(t, i, dim))).collect();
        Ok(Tensor::from_f64(&values, &[t.len(), dim], dtype))
    }

    /// As [`of`](Self::of) for numbers `t` `[N]`, F32, on the device where the result is wanted.
    pub fn of_tensor(self, t: &Tensor, dim: usize, dtype: DType) -> Result<Tensor> {
        self.check(t.len(), dim)?;
        let Device::Cuda(gpu) = t.device() else { return self.of(&t.to_f64_vec()?, dim, dtype) };
        if t.dtype() != DType::F32 {
            let what = format!("steps of {:?}", t.dtype());
            return Err(Error::Unsupported { op: "time_embedding", what });
        }
        let mut y = Tensor::empty_on(&t.device(), dtype, &[t.len(), dim])?;
        let grid = Grid::elements(y.len());
        kernels::time_embedding { t, y: &mut y, count: t.len(), dim, kind: self as usize }
            .launch(&gpu, grid)?;
        Ok(y)
    }

    fn check(self, count: usize, dim: usize) -> Result<()> {
        let wanted = match self {
            Self::Raw => (dim == 1, "one dimension"),
            Self::SinCosToEnd => {
                (dim >= 4 && dim.is_multiple_of(2), "an even dimension of 4 or more")
            }
            _ => (dim >= 2 && dim.is_multiple_of(2), "an even dimension"),
        };
        match wanted.0 {
            true => Ok(()),
            false => Err(Error::shape("time_embedding", wanted.1, &[count, dim])),
        }
    }

    fn value(self, t: f64, i: usize, dim: usize) -> f64 {
        let half = dim / 2;
        let angle = |k: usize, last: usize| t * 1e4f64.powf(-(k as f64) / last as f64);
        match self {
            Self::Raw => t,
            Self::SinCos if i < half => angle(i, half).sin(),
            Self::SinCos => angle(i - half, half).cos(),
            Self::CosSin if i < half => angle(i, half).cos(),
            Self::CosSin => angle(i - half, half).sin(),
            Self::Interleaved if i.is_multiple_of(2) => angle(i / 2, half).sin(),
            Self::Interleaved => angle(i / 2, half).cos(),
            Self::SinCosToEnd if i < half => angle(i, half - 1).sin(),
            Self::SinCosToEnd => angle(i - half, half - 1).cos(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: TimeEmbedding, t: f64, dim: usize) -> Vec<f64> {
        kind.of(&[t], dim, DType::F64).unwrap().to_f64_vec().unwrap()
    }

    #[test]
    fn every_form_has_its_order_and_frequencies() {
        let (s, c) = (f64::sin, f64::cos);
        let t = 3.0;
        let close = |a: Vec<f64>, b: [f64; 4]| {
            let error = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(a.len() == 4 && error < 1e-15, "{a:?} {b:?}");
        };
        close(of(TimeEmbedding::SinCos, t, 4), [s(t), s(t / 100.0), c(t), c(t / 100.0)]);
        close(of(TimeEmbedding::CosSin, t, 4), [c(t), c(t / 100.0), s(t), s(t / 100.0)]);
        close(of(TimeEmbedding::Interleaved, t, 4), [s(t), c(t), s(t / 100.0), c(t / 100.0)]);
        close(of(TimeEmbedding::SinCosToEnd, t, 4), [s(t), s(t / 1e4), c(t), c(t / 1e4)]);
        assert_eq!(of(TimeEmbedding::Raw, t, 1), [3.0]);
    }

    #[test]
    fn odd_dimensions_are_refused() {
        for (kind, dim) in [
            (TimeEmbedding::SinCos, 5),
            (TimeEmbedding::Interleaved, 0),
            (TimeEmbedding::SinCosToEnd, 2),
            (TimeEmbedding::Raw, 2),
        ] {
            let error = kind.of(&[1.0], dim, DType::F32).unwrap_err().to_string();
            assert!(
                error.contains("time_embedding") && error.contains(&dim.to_string()),
                "{error}"
            );
        }
    }
}
