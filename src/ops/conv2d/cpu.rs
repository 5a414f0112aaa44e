//! On the processor: by the fast path where it serves, else by the general one.
use super::bf16;
use super::bf16_weights;
#[cfg(target_arch = "x86_64")]
use super::fast::{self, convolve};
use super::finish::After;
use super::general;
#[cfg(target_arch = "x86_64")]
use super::instructions::Kernels;
#[cfg(target_arch = "x86_64")]
use super::kept::packed;
use super::op::Dims;
#[cfg(target_arch = "x86_64")]
use super::packed::pack;
use super::source::Source;
use super::tuned::held_rows;
#[cfg(target_arch = "x86_64")]
use super::weight_gradient;
use crate::engine::device::{DType, Real};
use crate::engine::pool::Buffer;
use crate::ops::bf16::{Products, products};
use crate::ops::parallel;

/// `y` holds the rows that are [asked for](held_rows).
pub(in crate::ops) fn forward<T: Real>(
    d: &Dims,
    then: After<'_, T>,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
) {
    let held = held_rows(d.batch, d.out_height());
    if held == (0..d.out_height() as isize) || writes_rows::<T>(d) {
        return forward_held(d, then, x, w, bias, y);
    }
    let line = d.out_width() * d.co;
    let mut all = Buffer::new(d.out_height() * line);
    forward_held(d, then, x, w, bias, &mut all);
    let [above, from] = [held.start.min(0), held.start.max(0)].map(|at| at.unsigned_abs() * line);
    let y = &mut y[above..];
    parallel::copy(y, &all[from..][..y.len()]);
}

/// Whether the rows that are asked for are written where they belong, not as all of the output.
fn writes_rows<T: Real>(d: &Dims) -> bool {
    #[cfg(target_arch = "x86_64")]
    if d.kernel == 3 && fast_path::<T>(d).is_some() {
        return true;
    }
    in_bf16::<T>(d)
}

fn forward_held<T: Real>(
    d: &Dims,
    then: After<'_, T>,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
) {
    if let Some(padded) = padded(d) {
        return forward_held(&padded, then, &pad(d, &padded, x), w, bias, y);
    }
    if T::DTYPE == DType::F32 {
        let then = match then {
            After::Nothing => After::Nothing,
            After::Relu => After::Relu,
            After::Slopes(slopes) => After::Slopes(as_f32(slopes)),
        };
        let source = [Source { x: as_f32(x), channels: d.ci }];
        if in_bf16::<T>(d) {
            return bf16::forward(d, &source, as_f32(w), bias.map(as_f32), then, as_f32_mut(y));
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(k) = fast_path::<T>(d) {
            let packed = packed(k, d, as_f32(w));
            return convolve(k, d, &source, &packed, bias.map(as_f32), then, as_f32_mut(y));
        }
    }
    general::forward(d, x, w, bias, y);
    let zero = T::default();
    match then {
        After::Nothing => {}
        After::Relu => parallel::chunks(y, parallel::CHUNK, |_, y| {
            y.iter_mut().for_each(|v| *v = if *v < zero { zero } else { *v });
        }),
        After::Slopes(slopes) => parallel::rows(y, d.co, |_, y| {
            let one = slopes.len() == 1;
            for (k, v) in y.iter_mut().enumerate() {
                let slope = slopes[if one { 0 } else { k }];
                *v = if *v > zero { *v } else { slope * *v };
            }
        }),
    }
}

/// Of maps and their channels, side by side, times a slope where it is not positive, if there is one; whether
/// there is a way to do it.
pub(super) fn forward_parts(
    d: &Dims,
    slopes: &[f32],
    parts: &[(&[f32], usize)],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) -> bool {
    if in_bf16::<f32>(d) {
        let then = if slopes.is_empty() { After::Nothing } else { After::Slopes(slopes) };
        let x: Vec<_> = parts.iter().map(|&(x, channels)| Source { x, channels }).collect();
        bf16::forward(d, &x, w, bias, then, y);
        return true;
    }
    #[cfg(target_arch = "x86_64")]
    {
        let whole = |&(_, channels): &(_, usize)| channels.is_multiple_of(super::simd::CB);
        let fits = d.kernel == 3 && parts.iter().rev().skip(1).all(whole);
        if let (true, Some(k)) = (fits, fast_path::<f32>(d)) {
            let source = |&(x, channels)| Source { x, channels };
            let x: Vec<Source<'_>> = parts.iter().map(source).collect();
            let then = if slopes.is_empty() { After::Nothing } else { After::Slopes(slopes) };
            convolve(k, d, &x, &packed(k, d, w), bias, then, y);
            return true;
        }
    }
    let _ = (d, slopes, parts, w, bias, y);
    false
}

pub(in crate::ops) fn input_gradient<T: Real>(d: &Dims, w: &[T], dy: &[T], dx: &mut [T]) {
    if let Some(padded) = padded(d) {
        let line = padded.width * d.ci;
        let mut all = Buffer::new(d.batch * padded.height * line);
        input_gradient(&padded, w, dy, &mut all);
        return parallel::rows(dx, d.width * d.ci, |row, dx| {
            let (n, y) = (row / d.height, row % d.height);
            let from = (n * padded.height + y + d.pad) * line + d.pad * d.ci;
            dx.copy_from_slice(&all[from..][..dx.len()]);
        });
    }
    if in_bf16::<T>(d) && d.pad < d.kernel {
        return bf16::input_gradient(d, as_f32(w), as_f32(dy), as_f32_mut(dx));
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(k) = fast_path::<T>(d) {
        let packed = pack(k, d, as_f32(w), true);
        let dy = [Source { x: as_f32(dy), channels: d.co }];
        return convolve(k, &d.back(), &dy, &packed, None, After::Nothing, as_f32_mut(dx));
    }
    general::input_gradient(d, w, dy, dx);
}

pub(in crate::ops) fn weight_gradient<T: Real>(d: &Dims, x: &[T], dy: &[T], dw: &mut [T]) {
    if let Some(padded) = padded(d) {
        return weight_gradient(&padded, &pad(d, &padded, x), dy, dw);
    }
    if in_bf16::<T>(d) {
        return bf16_weights::weight_gradient(d, as_f32(x), as_f32(dy), as_f32_mut(dw));
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(k) = fast_path::<T>(d) {
        return weight_gradient::weight_gradient(k, d, as_f32(x), as_f32(dy), as_f32_mut(dw));
    }
    general::weight_gradient(d, x, dy, dw);
}

/// The same 1x1 convolution of maps that have their zeros around them: the fast paths know none of their own.
fn padded(d: &Dims) -> Option<Dims> {
    let (height, width) = (d.height + 2 * d.pad, d.width + 2 * d.pad);
    (d.kernel == 1 && d.stride == 1 && d.pad > 0).then_some(Dims { height, width, pad: 0, ..*d })
}

/// `x` with zeros around it.
fn pad<T: Real>(d: &Dims, padded: &Dims, x: &[T]) -> Buffer<T> {
    let line = padded.width * d.ci;
    let mut all = Buffer::new(d.batch * padded.height * line);
    parallel::rows(&mut all, line, |row, to| {
        let (n, y) = (row / padded.height, row % padded.height);
        to.fill(T::default());
        if let Some(y) = y.checked_sub(d.pad).filter(|&y| y < d.height) {
            let len = d.width * d.ci;
            to[d.pad * d.ci..][..len].copy_from_slice(&x[(n * d.height + y) * len..][..len]);
        }
    });
    all
}

/// Whether the caller wants bf16, and there are as many channels as pay.
fn in_bf16<T: Real>(d: &Dims) -> bool {
    T::DTYPE == DType::F32 && products() == Products::Bf16 && d.ci.max(d.co) >= 16
}

/// The condition of the fast path, and the instruction set it runs on.
#[cfg(target_arch = "x86_64")]
fn fast_path<T: Real>(d: &Dims) -> Option<&'static Kernels> {
    let dense = d.stride == 1 && matches!((d.kernel, d.pad), (3, 0..=2) | (1, 0));
    // Below this the padding of the channels to 16 costs more than the transforms save.
    let wide = d.ci.max(d.co) >= 16;
    // On the few pixels of a deep level transforming the weights costs more than all products. Tiles of
    // a larger image are never so small: a tile computes what the whole would.
    let many = d.batch * d.height * d.width >= 64;
    (T::DTYPE == DType::F32 && dense && wide && many).then(fast::chosen).flatten()
}

fn as_f32<T: Real>(v: &[T]) -> &[f32] {
    assert!(T::DTYPE == DType::F32, "only f32 takes the fast path");
    // SAFETY: DTYPE F32 is implemented by f32 alone.
    unsafe { std::slice::from_raw_parts(v.as_ptr().cast(), v.len()) }
}

fn as_f32_mut<T: Real>(v: &mut [T]) -> &mut [f32] {
    assert!(T::DTYPE == DType::F32, "only f32 takes the fast path");
    // SAFETY: DTYPE F32 is implemented by f32 alone.
    unsafe { std::slice::from_raw_parts_mut(v.as_mut_ptr().cast(), v.len()) }
}
