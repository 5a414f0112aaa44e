//! Clipping of all gradients by their common L2 norm (Pascanu et al. 2013), with PyTorch's guard:
//! `factor = min(1, limit / (norm + 1e-6))`.
use super::parallel::sum;

/// The L2 norm over all of `gradients`, accumulated in double precision and in a fixed order.
pub fn norm<'a>(gradients: impl Iterator<Item = &'a [f32]>) -> f64 {
    gradients.map(|g| sum(g.len(), |i| f64::from(g[i]).powi(2))).sum::<f64>().sqrt()
}

/// What gradients of `norm` are multiplied by to have at most the norm `limit`; 1 if `limit` is 0.
pub fn factor(norm: f64, limit: f64) -> f64 {
    if limit == 0.0 { 1.0 } else { (limit / (norm + 1e-6)).min(1.0) }
}
