//! Whether a tensor holds an infinity or a NaN. Not differentiated.
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::{DType, Real};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

/// Whether all elements of `x` are finite. Waits for a GPU.
///
/// # Errors
/// If the memory of a GPU is full or its work failed.
pub fn all_finite(x: &Tensor) -> Result<bool> {
    let mut flag = Tensor::empty_on(&x.device(), DType::F32, &[1])?;
    flag_not_finite(x, &mut flag, 0)?;
    Ok(flag.to_f32_vec()?[0] == 0.0)
}

/// Sets element `at` of `flags`, F32 on the device of `x`, to 1 if an element of `x` is infinite or not a
/// number, otherwise to 0. Waits for nothing.
pub fn flag_not_finite(x: &Tensor, flags: &mut Tensor, at: usize) -> Result<()> {
    assert!(at < flags.len(), "flag {at} of {}", flags.len());
    on_device!(x,
        cpu::<T> => {
            let finite = x.cpu::<T>()?.iter().all(|v| v.to_f64().is_finite());
            flags.cpu_mut::<f32>()?[at] = if finite { 0.0 } else { 1.0 };
        },
        cuda(gpu) => {
            let pack = 16 / x.dtype().size();
            let blocks = x.len().div_ceil(pack * 256).clamp(1, 1024);
            let mut found = Tensor::empty_on(&x.device(), DType::F32, &[blocks])?;
            kernels::check_finite_blocks { x, found: &mut found, n: x.len() }
                .launch(&gpu, Grid::new([blocks, 1, 1], 256))?;
            kernels::check_finite_flag { found: &found, flags, blocks, at }
                .launch(&gpu, Grid::new([1, 1, 1], 256))?;
        }
    );
    Ok(())
}
