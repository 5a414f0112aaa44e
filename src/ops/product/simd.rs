//! Vectors of x86: 512 bits by AVX-512, 256 bits by AVX2 with FMA.
use std::arch::x86_64::*;

use super::tiles::tiles;
use crate::ops::bf16::transpose_block;

/// A module with the vectors of one type.
macro_rules! vectors {
    ($name:ident, $feature:literal, $e:ty, $v:ident, $lanes:literal, $square:literal, $transpose:ident,
     [$zero:ident, $splat:ident, $load:ident, $fma:ident, $add:ident],
     |$from:ident, $read:ident| $load_part:expr, |$to:ident, $x:ident, $written:ident| $store_part:expr) => {
        mod $name {
            use std::arch::x86_64::*;

            pub(in super::super) use super::$transpose as transpose;

            pub(super) type E = $e;
            pub(super) const LANES: usize = $lanes;
            /// Rows and columns that `transpose` takes.
            pub(super) const SQUARE: usize = $square;

            #[target_feature(enable = $feature)]
            #[inline]
            pub(super) fn zero() -> $v {
                $zero()
            }

            #[target_feature(enable = $feature)]
            #[inline]
            pub(super) fn splat(x: E) -> $v {
                $splat(x)
            }

            /// # Safety
            /// LANES elements can be read.
            #[target_feature(enable = $feature)]
            #[inline]
            pub(super) unsafe fn load(from: *const E) -> $v {
                // SAFETY: the caller's promise.
                unsafe { $load(from) }
            }

            /// `x w + sum`.
            #[target_feature(enable = $feature)]
            #[inline]
            pub(super) fn fma(x: $v, w: $v, sum: $v) -> $v {
                $fma(x, w, sum)
            }

            #[target_feature(enable = $feature)]
            #[inline]
            pub(super) fn add(a: $v, b: $v) -> $v {
                $add(a, b)
            }

            /// `len` elements, then zeros.
            ///
            /// # Safety
            /// 1 to LANES elements can be read.
            #[target_feature(enable = $feature)]
            #[inline]
            pub(super) unsafe fn load_part($from: *const E, $read: usize) -> $v {
                // SAFETY: the caller's promise.
                unsafe { $load_part }
            }

            /// The first `len` elements of `x`.
            ///
            /// # Safety
            /// 1 to LANES elements can be written.
            #[target_feature(enable = $feature)]
            #[inline]
            pub(super) unsafe fn store_part($to: *mut E, $x: $v, $written: usize) {
                // SAFETY: the caller's promise.
                unsafe { $store_part }
            }
        }
    };
}

vectors!(
    f32x16,
    "avx512f",
    f32,
    __m512,
    16,
    16,
    transpose_16,
    [_mm512_setzero_ps, _mm512_set1_ps, _mm512_loadu_ps, _mm512_fmadd_ps, _mm512_add_ps],
    |from, len| _mm512_maskz_loadu_ps(u16::MAX >> (16 - len), from),
    |to, x, len| _mm512_mask_storeu_ps(to, u16::MAX >> (16 - len), x)
);
vectors!(
    f32x8,
    "avx2,fma",
    f32,
    __m256,
    8,
    8,
    transpose_8,
    [_mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps, _mm256_fmadd_ps, _mm256_add_ps],
    |from, len| _mm256_maskload_ps(from, super::mask_f32(len)),
    |to, x, len| _mm256_maskstore_ps(to, super::mask_f32(len), x)
);
vectors!(
    f64x4,
    "avx2,fma",
    f64,
    __m256d,
    4,
    4,
    transpose_4,
    [_mm256_setzero_pd, _mm256_set1_pd, _mm256_loadu_pd, _mm256_fmadd_pd, _mm256_add_pd],
    |from, len| _mm256_maskload_pd(from, super::mask_f64(len)),
    |to, x, len| _mm256_maskstore_pd(to, super::mask_f64(len), x)
);

tiles!(avx512_f32, super::f32x16, #[target_feature(enable = "avx512f")], 14, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
tiles!(avx2_f32, super::f32x8, #[target_feature(enable = "avx2,fma")], 6, [1, 2, 3, 4, 5, 6]);
tiles!(avx2_f64, super::f64x4, #[target_feature(enable = "avx2,fma")], 6, [1, 2, 3, 4, 5, 6]);

/// The first `len` of eight lanes.
#[target_feature(enable = "avx2")]
#[inline]
fn mask_f32(len: usize) -> __m256i {
    #[allow(clippy::cast_possible_truncation)] // At most eight.
    let len = _mm256_set1_epi32(len as i32);
    _mm256_cmpgt_epi32(len, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// The first `len` of four lanes.
#[target_feature(enable = "avx2")]
#[inline]
fn mask_f64(len: usize) -> __m256i {
    #[allow(clippy::cast_possible_wrap)] // At most four.
    let len = _mm256_set1_epi64x(len as i64);
    _mm256_cmpgt_epi64(len, _mm256_setr_epi64x(0, 1, 2, 3))
}

/// `to[i * to_stride + j] = from[j * stride + i]` for i below 16 and j below `len`, zeros for j up to 16.
///
/// # Safety
/// 16 elements of `len` rows can be read, and 16 of 16 rows written.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) unsafe fn transpose_16(
    from: *const f32,
    stride: usize,
    len: usize,
    to: *mut f32,
    to_stride: usize,
) {
    // SAFETY: the caller's promise, of bits as good as any.
    unsafe { transpose_block(from.cast(), stride, len, to.cast(), to_stride) };
}

/// `to[i * to_stride + j] = from[j * stride + i]` for i below 8 and j below `len`, zeros for j up to 8.
///
/// # Safety
/// Eight elements of `len` rows can be read, and eight of eight rows written.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) unsafe fn transpose_8(
    from: *const f32,
    stride: usize,
    len: usize,
    to: *mut f32,
    to_stride: usize,
) {
    let mut r = [_mm256_setzero_ps(); 8];
    for (j, r) in r.iter_mut().enumerate() {
        if j < len {
            // SAFETY: row j, as the caller promises.
            *r = unsafe { _mm256_loadu_ps(from.add(j * stride)) };
        }
    }
    // Pairs of rows, pairs of pairs, then halves of vectors.
    let mut t = r;
    for i in 0..4 {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for i in 0..2 {
        let [a, b, c, d] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
        r[4 * i] = _mm256_shuffle_ps(a, c, 0x44);
        r[4 * i + 1] = _mm256_shuffle_ps(a, c, 0xee);
        r[4 * i + 2] = _mm256_shuffle_ps(b, d, 0x44);
        r[4 * i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    for i in 0..4 {
        t[i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x20);
        t[4 + i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x31);
    }
    for (i, t) in t.into_iter().enumerate() {
        // SAFETY: row i of the result.
        unsafe { _mm256_storeu_ps(to.add(i * to_stride), t) };
    }
}

/// As `transpose_8`, of four by four.
///
/// # Safety
/// Four elements of `len` rows can be read, and four of four rows written.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) unsafe fn transpose_4(
    from: *const f64,
    stride: usize,
    len: usize,
    to: *mut f64,
    to_stride: usize,
) {
    let mut r = [_mm256_setzero_pd(); 4];
    for (j, r) in r.iter_mut().enumerate() {
        if j < len {
            // SAFETY: row j, as the caller promises.
            *r = unsafe { _mm256_loadu_pd(from.add(j * stride)) };
        }
    }
    let (a, b) = (_mm256_unpacklo_pd(r[0], r[1]), _mm256_unpackhi_pd(r[0], r[1]));
    let (c, d) = (_mm256_unpacklo_pd(r[2], r[3]), _mm256_unpackhi_pd(r[2], r[3]));
    let t = [
        _mm256_permute2f128_pd(a, c, 0x20),
        _mm256_permute2f128_pd(b, d, 0x20),
        _mm256_permute2f128_pd(a, c, 0x31),
        _mm256_permute2f128_pd(b, d, 0x31),
    ];
    for (i, t) in t.into_iter().enumerate() {
        // SAFETY: row i of the result.
        unsafe { _mm256_storeu_pd(to.add(i * to_stride), t) };
    }
}
