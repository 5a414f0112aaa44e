//! A step of the twin in registers of 512 bits. Of its plain loops the compiler makes gathers and scatters there, which
//! take 20 times as long as AVX2.
use std::arch::x86_64::*;

use super::operands::{AddStep, LANES, Lanes, SIDE};

/// Rows whose sums fit the registers: two vectors each.
const ROWS: usize = 8;

pub(super) struct Vectors;

impl AddStep<ROWS> for Vectors {
    #[inline(always)]
    fn add<const FLUSH: bool>(
        a: &[[f32; SIDE]; ROWS],
        b: &[Lanes; SIDE],
        half: usize,
        sums: &mut [[f32; SIDE]; ROWS],
    ) {
        // SAFETY: the twin takes this code where there is AVX-512 alone.
        unsafe { add::<FLUSH>(a, b, half, sums) }
    }
}

#[target_feature(enable = "avx512f,avx512dq")]
fn add<const FLUSH: bool>(
    a: &[[f32; SIDE]; ROWS],
    b: &[Lanes; SIDE],
    half: usize,
    sums: &mut [[f32; SIDE]; ROWS],
) {
    let mut apart = [[_mm512_setzero_ps(); ROWS]; 2];
    for (pair, b) in b.as_chunks::<2>().0.iter().enumerate() {
        // SAFETY: each is 16 numbers.
        let b = [0, 1].map(|which| unsafe { _mm512_loadu_ps(b[which].as_ptr()) });
        for row in 0..ROWS {
            for which in 0..2 {
                let a = _mm512_set1_ps(a[row][2 * pair + which]);
                let sum = _mm512_fmadd_ps(a, b[which], apart[which][row]);
                apart[which][row] = flushed_if::<FLUSH>(sum);
            }
        }
    }
    for (row, sums) in sums.iter_mut().enumerate() {
        let sums = sums.as_chunks_mut::<LANES>().0[half].as_mut_ptr();
        let both = flushed_if::<FLUSH>(_mm512_add_ps(apart[0][row], apart[1][row]));
        // SAFETY: 16 numbers.
        unsafe {
            let sum = _mm512_add_ps(_mm512_loadu_ps(sums), both);
            _mm512_storeu_ps(sums, flushed_if::<FLUSH>(sum));
        }
    }
}

/// Denormal numbers become zeros of their sign.
#[target_feature(enable = "avx512f,avx512dq")]
fn flushed_if<const FLUSH: bool>(v: __m512) -> __m512 {
    if !FLUSH {
        return v;
    }
    let least = _mm512_set1_ps(f32::MIN_POSITIVE);
    let small = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(v), least);
    _mm512_mask_and_ps(v, small, v, _mm512_set1_ps(-0.0))
}
