//! On the processor: by the fast path where it serves, else by the general one.
#[cfg(target_arch = "x86_64")]
use super::fast;
use super::finish::After;
use super::general;
use super::op::Dims;
use crate::engine::device::{DType, Real};
use crate::ops::parallel;

pub(super) fn forward<T: Real>(
    d: &Dims,
    then: After<'_, T>,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
) {
    #[cfg(target_arch = "x86_64")]
    if let Some(k) = fast_path::<T>(d) {
        let (x, w, y) = (as_f32(x), as_f32(w), as_f32_mut(y));
        let packed = fast::pack(k, d, w, false);
        let then = match then {
            After::Nothing => After::Nothing,
            After::Relu => After::Relu,
            After::Slopes(slopes) => After::Slopes(as_f32(slopes)),
        };
        return fast::convolve(k, d, x, &packed, bias.map(as_f32), then, y);
    }
    general::forward(d, x, w, bias, y);
    let zero = T::default();
    match then {
        After::Nothing => {}
        After::Relu => y.iter_mut().filter(|v| **v < zero).for_each(|v| *v = zero),
        After::Slopes(slopes) => parallel::rows(y, d.co, |_, y| {
            for (v, &slope) in y.iter_mut().zip(slopes.iter().cycle()) {
                *v = if *v > zero { *v } else { slope * *v };
            }
        }),
    }
}

pub(super) fn input_gradient<T: Real>(d: &Dims, w: &[T], dy: &[T], dx: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(k) = fast_path::<T>(d) {
        let packed = fast::pack(k, d, as_f32(w), true);
        let dx = as_f32_mut(dx);
        return fast::convolve(k, d, as_f32(dy), &packed, None, After::Nothing, dx);
    }
    general::input_gradient(d, w, dy, dx);
}

pub(super) fn weight_gradient<T: Real>(d: &Dims, x: &[T], dy: &[T], dw: &mut [T]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(k) = fast_path::<T>(d) {
        return fast::weight_gradient(k, d, as_f32(x), as_f32(dy), as_f32_mut(dw));
    }
    general::weight_gradient(d, x, dy, dw);
}

/// The condition of the fast path, and the instruction set it runs on.
#[cfg(target_arch = "x86_64")]
fn fast_path<T: Real>(d: &Dims) -> Option<&'static fast::Kernels> {
    let same = d.stride == 1 && matches!((d.kernel, d.pad), (3, 1) | (1, 0));
    // Below this the padding of the channels to 16 costs more than the transforms save.
    let wide = d.ci.max(d.co) >= 16;
    // On the few pixels of a deep level transforming the weights costs more than all products. Tiles of
    // a larger image are never so small: a tile computes what the whole would.
    let many = d.batch * d.height * d.width >= 64;
    (T::DTYPE == DType::F32 && same && wide && many).then(fast::chosen).flatten()
}

#[cfg(target_arch = "x86_64")]
fn as_f32<T: Real>(v: &[T]) -> &[f32] {
    assert!(T::DTYPE == DType::F32, "only f32 takes the fast path");
    // SAFETY: DTYPE F32 is implemented by f32 alone.
    unsafe { std::slice::from_raw_parts(v.as_ptr().cast(), v.len()) }
}

#[cfg(target_arch = "x86_64")]
fn as_f32_mut<T: Real>(v: &mut [T]) -> &mut [f32] {
    assert!(T::DTYPE == DType::F32, "only f32 takes the fast path");
    // SAFETY: DTYPE F32 is implemented by f32 alone.
    unsafe { std::slice::from_raw_parts_mut(v.as_mut_ptr().cast(), v.len()) }
}
