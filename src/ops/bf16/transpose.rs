//! Transposing pairs of numbers.

/// Rows and columns that are transposed in registers.
const SIDE: usize = 16;

/// `to[column * stride + row] = from[row * columns + column]`; columns are a multiple of 16.
///
/// # Safety
/// All of the result can be written, and no one else touches it.
pub(in crate::ops) unsafe fn transpose(
    from: &[u32],
    [rows, columns]: [usize; 2],
    to: *mut u32,
    stride: usize,
) {
    assert!(rows * columns <= from.len() && columns.is_multiple_of(SIDE));
    for row in (0..rows).step_by(SIDE) {
        for column in (0..columns).step_by(SIDE) {
            let from = &from[row * columns + column..];
            // SAFETY: this block of the result, as the caller promises.
            let to = unsafe { to.add(column * stride + row) };
            #[cfg(target_arch = "x86_64")]
            if rows - row >= SIDE && crate::ops::simd::level() == crate::ops::simd::Level::Avx512 {
                // SAFETY: the processor has AVX-512; 16 rows of 16 pairs are read and written.
                unsafe { x86::transpose_block(from.as_ptr(), columns, SIDE, to, stride) };
                continue;
            }
            for r in 0..SIDE.min(rows - row) {
                for c in 0..SIDE {
                    // SAFETY: as above.
                    unsafe { *to.add(c * stride + r) = from[r * columns + c] };
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(in crate::ops) mod x86 {
    use std::arch::x86_64::*;

    /// `to[column * to_stride + row] = from[row * from_stride + column]` for 16 columns and the first `rows` of 16 rows;
    /// zeros for the others.
    ///
    /// # Safety
    /// 16 pairs of `rows` rows can be read, and 16 rows of 16 pairs written, so far apart.
    #[target_feature(enable = "avx512f")]
    pub(in crate::ops) unsafe fn transpose_block(
        from: *const u32,
        from_stride: usize,
        rows: usize,
        to: *mut u32,
        to_stride: usize,
    ) {
        let mut r = [_mm512_setzero_si512(); 16];
        for (i, r) in r.iter_mut().enumerate() {
            if i < rows {
                // SAFETY: row i, as the caller promises.
                *r = unsafe { _mm512_loadu_si512(from.add(i * from_stride).cast()) };
            }
        }
        // Pairs of rows, pairs of pairs, then quarters of vectors.
        let mut t = [_mm512_setzero_si512(); 16];
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        for i in 0..4 {
            let [a, b, c, d] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
            r[4 * i] = _mm512_unpacklo_epi64(a, c);
            r[4 * i + 1] = _mm512_unpackhi_epi64(a, c);
            r[4 * i + 2] = _mm512_unpacklo_epi64(b, d);
            r[4 * i + 3] = _mm512_unpackhi_epi64(b, d);
        }
        for i in 0..4 {
            let [a, b, c, d] = [r[i], r[4 + i], r[8 + i], r[12 + i]];
            let (ab_even, ab_odd) =
                (_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
            let (cd_even, cd_odd) =
                (_mm512_shuffle_i32x4(c, d, 0x88), _mm512_shuffle_i32x4(c, d, 0xdd));
            t[i] = _mm512_shuffle_i32x4(ab_even, cd_even, 0x88);
            t[8 + i] = _mm512_shuffle_i32x4(ab_even, cd_even, 0xdd);
            t[4 + i] = _mm512_shuffle_i32x4(ab_odd, cd_odd, 0x88);
            t[12 + i] = _mm512_shuffle_i32x4(ab_odd, cd_odd, 0xdd);
        }
        for (i, t) in t.iter().enumerate() {
            // SAFETY: row i of the result, as the caller promises.
            unsafe { _mm512_storeu_si512(to.add(i * to_stride).cast(), *t) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::cast_possible_truncation)]
    fn rows_become_columns() {
        for (rows, columns, stride) in [(16, 16, 16), (37, 48, 40), (5, 32, 7)] {
            let from: Vec<u32> = (0..rows * columns).map(|i| i as u32).collect();
            let mut to = vec![u32::MAX; columns * stride];
            // SAFETY: the result has `columns` rows of `stride`.
            unsafe { transpose(&from, [rows, columns], to.as_mut_ptr(), stride) };
            for (column, to) in to.chunks_exact(stride).enumerate() {
                for (row, &v) in to.iter().enumerate() {
                    let expected =
                        if row < rows { (row * columns + column) as u32 } else { u32::MAX };
                    assert_eq!(v, expected, "{row}, {column} of {rows} x {columns}");
                }
            }
        }
    }
}
