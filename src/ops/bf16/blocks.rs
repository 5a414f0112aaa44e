//! Blocks of 32 x 32 sums, by whichever code the processor has.
use std::marker::PhantomData;

use super::operands::{Extent, Left, Right, SIDE, Square};
use super::{amx, twin};
use crate::ops::simd;

/// Whether there are tile instructions, and nothing asks to leave them out.
pub fn is_fast() -> bool {
    simd::may_use_tiles() && amx::available()
}

/// The code that computes blocks on this thread, until it is dropped.
pub(in crate::ops) struct Blocks {
    tiles: Option<amx::Tiles>,
    /// Tiles belong to the thread that configured them.
    _of_this_thread: PhantomData<*const ()>,
}

impl Blocks {
    /// The fastest that the processor has.
    pub(in crate::ops) fn here() -> Self {
        Self { tiles: is_fast().then(amx::Tiles::configure), _of_this_thread: PhantomData }
    }

    /// `sums = sum over groups and steps of left right`, of so many rows and columns; the rest is unspecified. Groups
    /// come one after the other in `right`.
    ///
    /// # Safety
    /// All of both operands can be read, for rows and columns rounded up to 16 each.
    pub(in crate::ops) unsafe fn multiply(
        &self,
        left: Left,
        right: Right,
        steps: usize,
        [rows, columns]: [usize; 2],
        sums: &mut Square,
    ) {
        let extent = Extent { two_rows: rows > SIDE / 2, two_columns: columns > SIDE / 2 };
        // SAFETY: the caller's promise.
        unsafe {
            match &self.tiles {
                Some(tiles) => tiles.multiply(left, right, steps, extent, sums),
                None => twin::multiply(left, right, steps, extent, sums),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of all sizes, denormal ones and zeros among them.
    #[allow(clippy::cast_possible_truncation)]
    fn numbers(len: usize, seed: u64) -> Vec<u16> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        let number = |r: u32, wide: bool| {
            let exponent = if wide { r >> 8 & 0x7f } else { 120 + (r >> 8 & 7) };
            ((r & 0x80ff) | exponent << 7) as u16 & 0xbfff
        };
        (0..len).map(|i| number(next(), i % 3 == 0)).collect()
    }

    #[test]
    #[allow(clippy::print_stdout)] // A skipped check says so.
    fn tiles_agree_with_plain_code_bit_for_bit() {
        if !amx::available() {
            println!("skipped: this processor has no AMX");
            return;
        }
        let tiles = Blocks { tiles: Some(amx::Tiles::configure()), _of_this_thread: PhantomData };
        let plain = Blocks { tiles: None, _of_this_thread: PhantomData };
        for (case, (groups, steps)) in [(1, 1), (3, 2), (2, 7)].into_iter().enumerate() {
            let (a, b) = (numbers(6000, case as u64 + 1), numbers(32 * 32 * 14, case as u64 + 9));
            let left = Left { at: a.as_ptr(), stride: 36, groups, group: 150 };
            for (stride, second, step) in [(32, 512, 1024), (64, 32, 1024)] {
                let right = Right { at: b.as_ptr(), stride, second, step };
                for (rows, columns) in [(32, 32), (32, 16), (9, 17), (1, 1)] {
                    let (mut x, mut y) = (Square::zeros(), Square::zeros());
                    // SAFETY: 31 * 36 + 2 * 150 + 7 * 32 < 6000; 14 steps of the right.
                    unsafe {
                        tiles.multiply(left, right, steps, [rows, columns], &mut x);
                        plain.multiply(left, right, steps, [rows, columns], &mut y);
                    }
                    let mut compared = 0;
                    for row in 0..rows {
                        for at in row * SIDE..row * SIDE + columns {
                            assert_eq!(
                                x.0[at].to_bits(),
                                y.0[at].to_bits(),
                                "{at}: {} {}",
                                x.0[at],
                                y.0[at]
                            );
                            compared += 1;
                        }
                    }
                    assert_eq!(compared, rows * columns);
                }
            }
        }
    }
}
