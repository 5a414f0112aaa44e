//! The arithmetic of the tile instructions in plain code.
use super::operands::{Extent, Left, Right, SIDE, Square};

/// Columns that are computed together, as many as a tile has.
const LANES: usize = SIDE / 2;
type Lanes = [f32; LANES];

/// A number as the instructions take and leave it: denormal ones are zeros.
#[inline(always)]
fn flushed(v: f32) -> f32 {
    if v.abs() < f32::MIN_POSITIVE { f32::from_bits(v.to_bits() & 0x8000_0000) } else { v }
}

/// `sum + a b`, rounded once.
#[inline(always)]
fn add_product(sum: f32, a: f32, b: f32) -> f32 {
    flushed(a.mul_add(b, sum))
}

/// As [`Blocks::multiply`](super::Blocks::multiply).
///
/// # Safety
/// As there.
pub(super) unsafe fn multiply(
    left: Left,
    right: Right,
    steps: usize,
    extent: Extent,
    sums: &mut Square,
) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512dq")]
        unsafe fn avx512(l: Left, r: Right, steps: usize, extent: Extent, sums: &mut Square) {
            // SAFETY: the caller's promise.
            unsafe { body(l, r, steps, extent, sums) }
        }
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2(l: Left, r: Right, steps: usize, extent: Extent, sums: &mut Square) {
            // SAFETY: the caller's promise.
            unsafe { body(l, r, steps, extent, sums) }
        }
        use crate::ops::simd::{Level, level};
        // SAFETY: the processor has these features, or the level would be lower; else the caller's promise.
        unsafe {
            match level() {
                Level::Avx512 => return avx512(left, right, steps, extent, sums),
                Level::Avx2 => return avx2(left, right, steps, extent, sums),
                Level::Portable => {}
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe { body(left, right, steps, extent, sums) }
}

/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn body(left: Left, right: Right, steps: usize, extent: Extent, sums: &mut Square) {
    let rows = if extent.two_rows { SIDE } else { SIDE / 2 };
    let halves = if extent.two_columns { 2 } else { 1 };
    for half in 0..halves {
        for row in 0..rows {
            let mut total: Lanes = [0.0; LANES];
            for g in 0..left.groups {
                for step in 0..steps {
                    // SAFETY: a row of the left operand and a step of the right, as the caller promises.
                    let (a, b) = unsafe {
                        let a = left.at.add(row * left.stride + g * left.group + step * SIDE);
                        let steps_before = g * steps + step;
                        (a, right.at.add(steps_before * right.step + half * right.second))
                    };
                    // SAFETY: as above.
                    let (even, odd) = unsafe { pairs(a, b, right.stride) };
                    for (total, (even, odd)) in total.iter_mut().zip(even.iter().zip(&odd)) {
                        *total = flushed(*total + flushed(even + odd));
                    }
                }
            }
            sums.0[row * SIDE + half * LANES..][..LANES].copy_from_slice(&total);
        }
    }
}

/// Sums of the even and of the odd products of one instruction.
///
/// # Safety
/// 32 numbers can be read at `a`, 16 rows of as many at `b`, `stride` apart.
#[inline(always)]
unsafe fn pairs(a: *const u16, b: *const u16, stride: usize) -> (Lanes, Lanes) {
    let (mut even, mut odd): (Lanes, Lanes) = ([0.0; LANES], [0.0; LANES]);
    let wide = |bits: u16| flushed(f32::from_bits(u32::from(bits) << 16));
    for pair in 0..SIDE / 2 {
        // SAFETY: the caller's promise.
        let (first, second, b) = unsafe {
            let row = std::slice::from_raw_parts(b.add(pair * stride), SIDE);
            (wide(*a.add(2 * pair)), wide(*a.add(2 * pair + 1)), row)
        };
        for (lane, b) in b.chunks_exact(2).enumerate() {
            even[lane] = add_product(even[lane], first, wide(b[0]));
            odd[lane] = add_product(odd[lane], second, wide(b[1]));
        }
    }
    (even, odd)
}
