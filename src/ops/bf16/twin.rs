//! The arithmetic of the tile instructions in plain code.
use super::operands::{AddStep, Extent, LANES, Lanes, Left, Right, SIDE, Square};
#[cfg(target_arch = "x86_64")]
use super::twin_avx512;

/// A number as the instructions take and leave it: denormal ones are zeros.
#[inline(always)]
fn flushed(v: f32) -> f32 {
    if v.abs() < f32::MIN_POSITIVE { f32::from_bits(v.to_bits() & 0x8000_0000) } else { v }
}

/// As [`flushed`] where a number may be a denormal one.
#[inline(always)]
fn flushed_if<const FLUSH: bool>(v: f32) -> f32 {
    if FLUSH { flushed(v) } else { v }
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
            unsafe { body::<8, twin_avx512::Vectors>(l, r, steps, extent, sums) }
        }
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2(l: Left, r: Right, steps: usize, extent: Extent, sums: &mut Square) {
            // SAFETY: the caller's promise.
            unsafe { body::<4, Loops>(l, r, steps, extent, sums) }
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
    unsafe { body::<4, Loops>(left, right, steps, extent, sums) }
}

/// `ROWS` rows are computed together.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn body<const ROWS: usize, A: AddStep<ROWS>>(
    left: Left,
    right: Right,
    steps: usize,
    extent: Extent,
    sums: &mut Square,
) {
    let rows = if extent.two_rows { SIDE } else { LANES };
    let halves = if extent.two_columns { 2 } else { 1 };
    let (mut a, mut b) = ([[0.0; SIDE]; SIDE], [[[0.0; LANES]; SIDE]; 2]);
    sums.0.fill(0.0);
    for g in 0..left.groups {
        for step in 0..steps {
            let mut least = u16::MAX;
            for (row, a) in a[..rows].iter_mut().enumerate() {
                // SAFETY: a row of the left operand, as the caller promises.
                let from = unsafe {
                    let at = left.at.add(row * left.stride + g * left.group + step * SIDE);
                    &*at.cast::<[u16; SIDE]>()
                };
                least = least.min(widen(from, a));
            }
            for (half, b) in b[..halves].iter_mut().enumerate() {
                for (pair, b) in b.as_chunks_mut().0.iter_mut().enumerate() {
                    let step = (g * steps + step) * right.step + half * right.second;
                    // SAFETY: a row of a step of the right operand, as the caller promises.
                    let from =
                        unsafe { &*right.at.add(step + pair * right.stride).cast::<[u16; SIDE]>() };
                    least = least.min(part(from, b));
                }
            }
            for (half, b) in b[..halves].iter().enumerate() {
                for (a, sums) in a[..rows]
                    .as_chunks()
                    .0
                    .iter()
                    .zip(sums.0.as_chunks_mut::<SIDE>().0.as_chunks_mut().0)
                {
                    if least < SAFE {
                        A::add::<true>(a, b, half, sums);
                    } else {
                        A::add::<false>(a, b, half, sums);
                    }
                }
            }
        }
    }
}

/// What a number may be without its sign, less one, for products that never come near denormal ones: a number of at
/// least 2^-56 is a multiple of 2^-63, a product of two of 2^-126, and so are all sums of them, however rounded, which are
/// normal numbers then, or zero. Zeros are at the top.
const SAFE: u16 = ((127 - 56) << 7) - 1;

/// Makes `to` of `from`; the least of the numbers as [`SAFE`] has it.
#[inline(always)]
fn widen(from: &[u16; SIDE], to: &mut [f32; SIDE]) -> u16 {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = wide(from);
    }
    least(from)
}

/// As [`widen`], with the first of each pair in the first of two rows, the second in the other.
#[inline(always)]
fn part(from: &[u16; SIDE], [first, second]: &mut [Lanes; 2]) -> u16 {
    for (lane, &[one, other]) in from.as_chunks().0.iter().enumerate() {
        (first[lane], second[lane]) = (wide(one), wide(other));
    }
    least(from)
}

#[inline(always)]
fn least(of: &[u16; SIDE]) -> u16 {
    of.iter().fold(u16::MAX, |least, n| least.min((n & 0x7fff).wrapping_sub(1)))
}

#[inline(always)]
fn wide(bits: u16) -> f32 {
    flushed(f32::from_bits(u32::from(bits) << 16))
}

/// As loops, of which the compiler makes what vectors there are.
struct Loops;

impl<const ROWS: usize> AddStep<ROWS> for Loops {
    #[inline(always)]
    fn add<const FLUSH: bool>(
        a: &[[f32; SIDE]; ROWS],
        b: &[Lanes; SIDE],
        half: usize,
        sums: &mut [[f32; SIDE]; ROWS],
    ) {
        if FLUSH {
            for (a, sums) in a.as_chunks().0.iter().zip(sums.as_chunks_mut().0) {
                add_rows::<1, FLUSH>(a, b, half, sums);
            }
        } else {
            add_rows::<ROWS, FLUSH>(a, b, half, sums);
        }
    }
}

/// As [`AddStep::add`]; all rows at a time.
#[inline(always)]
fn add_rows<const ROWS: usize, const FLUSH: bool>(
    a: &[[f32; SIDE]; ROWS],
    b: &[Lanes; SIDE],
    half: usize,
    sums: &mut [[f32; SIDE]; ROWS],
) {
    let mut apart = [[[0.0; LANES]; ROWS]; 2];
    for (which, apart) in apart.iter_mut().enumerate() {
        for (pair, b) in b.as_chunks::<2>().0.iter().enumerate() {
            for (apart, a) in apart.iter_mut().zip(a) {
                let a = a[2 * pair + which];
                for (sum, b) in apart.iter_mut().zip(&b[which]) {
                    *sum = flushed_if::<FLUSH>(a.mul_add(*b, *sum));
                }
            }
        }
    }
    for (sums, (even, odd)) in sums.iter_mut().zip(apart[0].iter().zip(&apart[1])) {
        let sums = &mut sums.as_chunks_mut::<LANES>().0[half];
        for (sum, (even, odd)) in sums.iter_mut().zip(even.iter().zip(odd)) {
            *sum = flushed_if::<FLUSH>(*sum + flushed_if::<FLUSH>(even + odd));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A whole operand of numbers with exponents from `least` on, 16 of them, with zeros and both signs among them.
    #[allow(clippy::cast_possible_truncation)]
    fn numbers(least: u32, seed: u32) -> Vec<u16> {
        let number = |i: u32| {
            let r = (i ^ seed << 16)
                .wrapping_mul(0x9e37_79b1)
                .rotate_left(13)
                .wrapping_mul(0x85eb_ca6b);
            let exponent = least + (r >> 8 & 15);
            if r >> 16 & 7 == 0 { 0 } else { (r & 0x807f | exponent << 7) as u16 }
        };
        (0..3 * 32 * 32).map(number).collect()
    }

    const STEPS: usize = 3;
    const INNER: usize = STEPS * SIDE;

    /// Where the right operand has number `k` of a column.
    fn place(k: usize, column: usize) -> usize {
        let (half, lane) = (column / LANES, column % LANES);
        k / SIDE * SIDE * SIDE + half * SIDE * LANES + k % SIDE / 2 * SIDE + 2 * lane + k % 2
    }

    /// A number of bf16 as the instructions take it.
    fn number(bits: u16) -> f32 {
        let number = half::bf16::from_bits(bits).to_f32();
        if number.is_normal() { number } else { 0.0f32.copysign(number) }
    }

    /// Compares all sums with those by the words of the manual: every number that comes or goes is flushed.
    fn check(a: &[u16], b: &[u16], what: &str) -> Square {
        let mut sums = Square::zeros();
        // SAFETY: all of the operands is there.
        unsafe {
            let left = Left { at: a[..SIDE * INNER].as_ptr(), stride: INNER, groups: 1, group: 0 };
            let at = b[..INNER * SIDE].as_ptr();
            let right = Right { at, stride: SIDE, second: SIDE * LANES, step: SIDE * SIDE };
            let all = Extent { two_rows: true, two_columns: true };
            multiply(left, right, STEPS, all, &mut sums);
        }
        for (at, sum) in sums.0.iter().enumerate() {
            let (row, column) = (at / SIDE, at % SIDE);
            let mut expected = 0.0;
            for step in 0..STEPS {
                let mut apart = [0.0f32; 2];
                for k in step * SIDE..(step + 1) * SIDE {
                    let (a, b) = (number(a[row * INNER + k]), number(b[place(k, column)]));
                    apart[k % 2] = flushed(a.mul_add(b, apart[k % 2]));
                }
                expected = flushed(expected + flushed(apart[0] + apart[1]));
            }
            let same = sum.to_bits() == expected.to_bits();
            assert!(same, "{what}, row {row}, column {column}: {sum:e}, not {expected:e}");
        }
        sums
    }

    #[test]
    fn sums_are_what_flushing_every_number_gives() {
        // Exponents of both operands from the denormal ones on; 71 is that of the least number that is safe.
        let exponents =
            [(0, 120), (120, 0), (55, 56), (63, 63), (64, 64), (70, 70), (71, 71), (120, 120)];
        for (left, right) in exponents {
            let a = numbers(left, left);
            let b = numbers(right, right + 50);
            check(&a, &b, &format!("exponents from {left} and {right}"));
        }
    }

    #[test]
    fn a_difference_below_the_least_normal_number_is_flushed() {
        // ((1 + u) e)^2 - (1 + 2u) e e = (u e)^2 with u = 2^-7.
        for exponent in [69, 70, 71] {
            let number = |u: u16| exponent << 7 | u;
            let (mut a, mut b) = (vec![0; SIDE * INNER], vec![0; INNER * SIDE]);
            for side in 0..SIDE {
                (a[side * INNER], a[side * INNER + 2]) = (number(1), number(2) | 0x8000);
                (b[place(0, side)], b[place(2, side)]) = (number(1), number(0));
            }
            let sums = check(&a, &b, &format!("exponent {exponent}"));
            assert_eq!(sums.0[0] == 0.0, exponent < 71, "{:e}", sums.0[0]);
        }
    }
}
