//! What a caller may ask of the convolutions of the processor.
use std::cell::Cell;
use std::ops::Range;

use super::source::Shared;
use crate::engine::parameter::Parameter;

/// See [`rows_from`].
#[derive(Clone, Copy)]
struct Asked {
    rows: [usize; 2],
    first: isize,
}

thread_local! {
    /// Of convolutions that this thread starts.
    static ASKED: Cell<Option<Asked>> = const { Cell::new(None) };
}

/// Runs `body`, whose convolutions of single images on the CPU compute the output rows from `rows[0]` to `rows[1]` alone.
/// Their outputs hold the rows from `first`, perhaps above the map, to `rows[1]`; those before `rows[0]` are undefined. For stride 1, and not for one convolution of another's output.
pub fn rows_from<R>(first: isize, rows: [usize; 2], body: impl FnOnce() -> R) -> R {
    assert!(first <= rows[0] as isize, "outputs hold the rows that are computed");
    let before = ASKED.replace(Some(Asked { rows, first }));
    let result = body();
    ASKED.set(before);
    result
}

/// Runs `body`, in which this thread's 3x3 convolutions on the CPU transform [shared](share_weights) weights once, and
/// keep [so much](kept_bytes) of each until the end.
pub fn keep_weights<R>(body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    return super::kept::keep_weights(body);
    #[cfg(not(target_arch = "x86_64"))]
    body()
}

/// Says that convolutions with the weights of `parameter` come again, in [`keep_weights`].
pub fn share_weights(parameter: &Parameter) {
    #[cfg(target_arch = "x86_64")]
    super::kept::share(parameter);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = parameter;
}

/// Bytes that [`keep_weights`] keeps of weights `[co, 3, 3, ci]`, at most.
pub const fn kept_bytes(ci: usize, co: usize) -> usize {
    // Channels fill blocks.
    const BLOCK: usize = 16;
    size_of::<f32>() * 36 * ci.next_multiple_of(BLOCK) * co.next_multiple_of(BLOCK)
}

/// Where row 0 of the output is in `y`, which holds [those](held_rows) of `height`, each of `line` numbers: perhaps outside.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(super) fn row_0(batch: usize, height: usize, line: usize, y: &mut [f32]) -> Shared {
    let held = held_rows(batch, height);
    assert_eq!(y.len(), batch * held.len() * line, "y does not hold the rows that are asked for");
    Shared(y.as_mut_ptr().wrapping_offset(-held.start * line as isize))
}

pub(super) fn wanted_rows() -> Option<[usize; 2]> {
    ASKED.get().map(|asked| asked.rows)
}

/// The rows that the output of a convolution on the CPU holds, of `height`.
pub(super) fn held_rows(batch: usize, height: usize) -> Range<isize> {
    match ASKED.get() {
        Some(Asked { rows: [_, end], first }) if batch == 1 => first..end.min(height) as isize,
        _ => 0..height as isize,
    }
}
