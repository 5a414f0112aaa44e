//! Rounding to bf16.
use crate::ops::simd::vectorized;

/// The nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
const fn rounded(v: f32) -> u32 {
    let bits = v.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fc0 } else { nearest }
}

vectorized! {
    /// `to[i]` is `from[i]` rounded; both are as long.
    #[allow(clippy::cast_possible_truncation)] // The upper half is empty.
    pub(in crate::ops) fn round_to(from: &[f32], to: &mut [u16]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = rounded(from) as u16;
        }
    }
}

vectorized! {
    /// Rounds rows of `len` numbers, which begin `stride` apart in `to`.
    #[allow(clippy::cast_possible_truncation)] // The upper half is empty.
    pub(in crate::ops) fn round_apart(from: &[f32], len: usize, to: &mut [u16], stride: usize) {
        for (to, from) in to.chunks_mut(stride).zip(from.chunks_exact(len)) {
            for (to, &from) in to.iter_mut().zip(from) {
                *to = rounded(from) as u16;
            }
        }
    }
}

vectorized! {
    /// `to[i]` holds `first[i]` in its low and `second[i]` in its high half, rounded; all are as long.
    pub(in crate::ops) fn round_pairs(first: &[f32], second: &[f32], to: &mut [u32]) {
        for (to, (&first, &second)) in to.iter_mut().zip(first.iter().zip(second)) {
            *to = rounded(first) | rounded(second) << 16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_as_bf16_is() {
        let numbers: Vec<f32> = (0..1u32 << 16)
            .flat_map(|high| [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| (high, low)))
            .map(|(high, low)| f32::from_bits(high << 16 | low))
            .collect();
        let mut got = vec![0; numbers.len()];
        round_to(&numbers, &mut got);
        for (number, got) in numbers.iter().zip(got) {
            let expected = half::bf16::from_f32(*number);
            let same = got == expected.to_bits()
                || (number.is_nan() && half::bf16::from_bits(got).is_nan());
            assert!(same, "{number:e}: {got:04x}, not {:04x}", expected.to_bits());
        }
        let mut pairs = [0];
        round_pairs(&[1.0], &[-2.0], &mut pairs);
        assert_eq!(pairs, [0xc000_3f80]);
    }
}
