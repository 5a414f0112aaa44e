//! Register tiles of vectors, for AVX-512, for AVX2 with FMA, and for plain arrays that the compiler makes vectors of.

/// A module with the kernels for vectors of `$ops`.
macro_rules! tiles {
    ($name:ident, $ops:path, $(#[$feature:meta])?, $most:literal, [$($p:literal),*]) => {
        pub(in super::super) mod $name {
            use std::hint::black_box;

            use $ops::*;
            use crate::ops::product::kernels::{Columns, Kernels, Panel};

            pub(in super::super::super) static KERNELS: Kernels<E> =
                Kernels { lanes: LANES, width: WIDTH, multiply, pack };

            /// Columns of a whole panel.
            const WIDTH: usize = 2 * LANES;
            /// Rows of a register tile.
            const MOST: usize = $most;
            /// Rows with one pointer: what addresses reach without arithmetic.
            const GROUP: usize = 3;

            $(#[$feature])?
            unsafe fn multiply(p: &Panel<E>) {
                let tiles = p.rows.div_ceil(MOST);
                for i in 0..tiles {
                    let (from, to) = (p.rows * i / tiles, p.rows * (i + 1) / tiles);
                    // SAFETY: rows from..to of a panel of one or two vectors, as the caller promises.
                    unsafe {
                        match (to - from, p.columns > LANES) {
                            $(($p, true) => tile::<$p, 2>(p, from),
                              ($p, false) => tile::<$p, 1>(p, from),)*
                            _ => unreachable!("tiles hold 1 to MOST rows"),
                        }
                    }
                }
            }

            /// P rows of the panel, from `from` on.
            $(#[$feature])?
            unsafe fn tile<const P: usize, const NV: usize>(p: &Panel<E>, from: usize) {
                let mut acc = [[zero(); NV]; P];
                let [row, step] = p.a_strides;
                // SAFETY: row `from` of `a` and of `y`.
                let (a, y) = unsafe { (p.a.add(from * row), p.y.add(from * p.y_stride)) };
                // Hidden from the compiler, which would find the address of each row from that of the row before.
                let mut groups = [a; MOST.div_ceil(GROUP)];
                for (i, group) in groups.iter_mut().enumerate() {
                    *group = black_box(a.wrapping_add(GROUP * i * row));
                }
                let mut b = p.b;
                for _ in 0..p.inner {
                    let mut w = [zero(); NV];
                    for (i, w) in w.iter_mut().enumerate() {
                        // SAFETY: a row of the panel has NV vectors.
                        *w = unsafe { load(b.add(i * LANES)) };
                    }
                    $(if $p <= P {
                        const R: usize = $p - 1;
                        // SAFETY: row from + R of `a`.
                        let x = splat(unsafe { *groups[R / GROUP].add(R % GROUP * row) });
                        for i in 0..NV {
                            acc[R][i] = fma(x, w[i], acc[R][i]);
                        }
                    })*
                    groups.iter_mut().for_each(|group| *group = group.wrapping_add(step));
                    b = b.wrapping_add(p.b_stride);
                }
                let last = p.columns - (NV - 1) * LANES;
                for (r, acc) in acc.into_iter().enumerate() {
                    for (i, acc) in acc.into_iter().enumerate() {
                        let len = if i + 1 < NV { LANES } else { last };
                        // SAFETY: `len` elements of row from + r of `y`.
                        unsafe {
                            let y = y.add(r * p.y_stride + i * LANES);
                            let acc = if p.add { add(load_part(y, len), acc) } else { acc };
                            store_part(y, acc, len);
                        }
                    }
                }
            }

            $(#[$feature])?
            unsafe fn pack(c: &Columns<E>) {
                let [row, column] = c.strides;
                let padded = c.columns.next_multiple_of(LANES);
                if column == 1 {
                    for k in 0..c.inner {
                        for j in (0..padded).step_by(LANES) {
                            let len = LANES.min(c.columns - j);
                            // SAFETY: `len` elements of row k of `b`, and a vector of row k of the panel.
                            unsafe {
                                let part = load_part(c.b.add(k * row + j), len);
                                store_part(c.to.add(k * padded + j), part, LANES);
                            }
                        }
                    }
                    return;
                }
                let whole = if row == 1 { c.inner / SQUARE * SQUARE } else { 0 };
                // Of some columns all lines one after the other.
                for j in (0..padded).step_by(SQUARE) {
                    let len = SQUARE.min(c.columns.saturating_sub(j));
                    for k in (0..whole).step_by(SQUARE) {
                        // SAFETY: SQUARE elements of `len` columns, and as many rows of the panel.
                        unsafe {
                            let from = c.b.wrapping_add(k + j * column);
                            transpose(from, column, len, c.to.add(k * padded + j), padded);
                        }
                    }
                }
                for k in whole..c.inner {
                    for j in 0..padded {
                        // SAFETY: element (k, j) of `b`, if that is no padding, and of the panel.
                        unsafe {
                            let x = if j < c.columns { *c.b.add(k * row + j * column) } else { 0.0 };
                            *c.to.add(k * padded + j) = x;
                        }
                    }
                }
            }
        }
    };
}
pub(super) use tiles;
