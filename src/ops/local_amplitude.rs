//! stub
use crate::{engine::tensor::Tensor, error::Result};
/// stub
pub fn map(y: &Tensor) -> Result<Tensor> { let s = y.shape(); Ok(Tensor::from_f64(&vec![0.0; s[0]*s[1]*s[2]], &[s[0],s[1],s[2],1], y.dtype())) }
