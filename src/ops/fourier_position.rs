//! stub
use crate::{engine::{device::DType, tensor::Tensor}, error::Result};
/// stub
pub fn map(n: usize, h: usize, w: usize, d: DType) -> Result<Tensor> { Ok(Tensor::from_f64(&vec![0.0; n*h*w*24], &[n,h,w,24], d)) }
