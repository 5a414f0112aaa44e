//! Wide vectors without a line per instruction set: a plain loop is compiled for each of them, and
//! the widest that the processor has is run.
use std::sync::LazyLock;

use crate::engine::device::Real;

/// The instruction sets (of x86; elsewhere there is one) that [`multiversion!`] compiles for.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// What every processor of the architecture has.
    Portable,
    /// 256 bits, with fused multiply-add.
    Avx2,
    /// 512 bits.
    Avx512,
}

/// The level that is run; the variable `SRK_SIMD` (`portable`, `avx2`, or `avx512` without
/// tiles) lowers it, for tests.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) fn level() -> Level {
    static LEVEL: LazyLock<Level> = LazyLock::new(|| {
        let wanted = match std::env::var("SRK_SIMD").as_deref() {
            Ok("portable") => Level::Portable,
            Ok("avx2") => Level::Avx2,
            _ => Level::Avx512,
        };
        wanted.min(detected())
    });
    *LEVEL
}

/// Whether tile instructions are used where there are some: not at a level that `SRK_SIMD` names.
pub(crate) fn may_use_tiles() -> bool {
    static NAMED: LazyLock<bool> = LazyLock::new(|| std::env::var_os("SRK_SIMD").is_some());
    level() == Level::Avx512 && !*NAMED
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Level {
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
        Level::Avx512
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        Level::Avx2
    } else {
        Level::Portable
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[allow(dead_code)]
fn detected() -> Level {
    Level::Portable
}

/// Makes a function of a loop: `fn name<T, FMA>(arguments) { body }`, where `T` is the element type
/// and the constant `FMA` goes to the methods of [`Lane`].
macro_rules! multiversion {
    ($(#[$doc:meta])* $vis:vis fn $name:ident<$t:ident, $fma:ident>(
        $($arg:ident: $ty:ty),* $(,)?
    ) $body:block) => {
        $(#[$doc])*
        $vis fn $name<$t: $crate::ops::simd::Lane>($($arg: $ty),*) {
            // Inlined into its callers below, so compiled with the features of each.
            #[inline(always)]
            fn body<$t: $crate::ops::simd::Lane, const $fma: bool>($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                use $crate::ops::simd::{Lane, Level, level};

                #[target_feature(enable = "avx512f,avx512dq")]
                fn avx512<$t: Lane>($($arg: $ty),*) {
                    body::<$t, true>($($arg),*);
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2<$t: Lane>($($arg: $ty),*) {
                    body::<$t, true>($($arg),*);
                }
                // Known when this is compiled, so that what never runs isn't.
                if <$t as Lane>::WIDE {
                    match level() {
                        // SAFETY: the processor has these features, or the level would be lower.
                        Level::Avx512 => return unsafe { avx512::<$t>($($arg),*) },
                        // SAFETY: as above.
                        Level::Avx2 => return unsafe { avx2::<$t>($($arg),*) },
                        Level::Portable => {}
                    }
                }
            }
            body::<$t, { cfg!(target_arch = "aarch64") }>($($arg),*);
        }
    };
}
pub(crate) use multiversion;

/// As [`multiversion!`], for loops over numbers of given types: `fn name(arguments) { body }`.
macro_rules! vectorized {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) {
            // Inlined into its callers below, so compiled with the features of each.
            #[inline(always)]
            fn body($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                use $crate::ops::simd::{Level, has_wide_integers, level};

                #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
                fn avx512($($arg: $ty),*) {
                    body($($arg),*);
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) {
                    body($($arg),*);
                }
                match level() {
                    // SAFETY: the processor has these features.
                    Level::Avx512 if has_wide_integers() => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above, or the level would be lower.
                    Level::Avx512 | Level::Avx2 => return unsafe { avx2($($arg),*) },
                    Level::Portable => {}
                }
            }
            body($($arg),*);
        }
    };
}
pub(crate) use vectorized;

/// Whether vectors of 512 bits may hold bytes and 16-bit numbers.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_wide_integers() -> bool {
    is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl")
}

/// What loops of [`multiversion!`] do with an element besides plain arithmetic.
pub(crate) trait Lane: Real {
    /// Whether loops are compiled for every instruction set; f64 is for comparisons, which have time.
    const WIDE: bool;
    /// `self * a + b`, with one rounding if `FMA`: without the instruction that would be a call.
    fn fma<const FMA: bool>(self, a: Self, b: Self) -> Self;
    /// `1 / (1 + exp(-self))`.
    fn sigmoid<const FMA: bool>(self) -> Self;
}

impl Lane for f64 {
    const WIDE: bool = false;

    #[inline(always)]
    fn fma<const FMA: bool>(self, a: Self, b: Self) -> Self {
        if FMA { self.mul_add(a, b) } else { self * a + b }
    }

    #[inline(always)]
    fn sigmoid<const FMA: bool>(self) -> Self {
        1.0 / (1.0 + (-self).exp())
    }
}

impl Lane for f32 {
    const WIDE: bool = true;

    #[inline(always)]
    fn fma<const FMA: bool>(self, a: Self, b: Self) -> Self {
        if FMA { self.mul_add(a, b) } else { self * a + b }
    }

    /// `exp(-x) = 2^n p(f)` with `n + f = -x log2(e)`, `n` whole and `|f| <= 1/2`.
    #[inline(always)]
    fn sigmoid<const FMA: bool>(self) -> Self {
        // Adding 1.5 * 2^23 leaves a whole number in the low bits.
        const ROUND: f32 = 12_582_912.0;
        let t = -std::f32::consts::LOG2_E * self;
        // Beyond 2^126 the result is 0 or 1 anyway. A NaN fails both tests and stays.
        let t = if t < -126.0 { -126.0 } else { t };
        let t = if t > 126.0 { 126.0 } else { t };
        let shifted = t + ROUND;
        let f = t - (shifted - ROUND);
        // Minimax polynomial of 2^f on [-1/2, 1/2], relative error 2e-7.
        let p = 1.339_887_4e-3f32
            .fma::<FMA>(f, 9.618_437e-3)
            .fma::<FMA>(f, 5.550_332_6e-2)
            .fma::<FMA>(f, 0.240_226_46)
            .fma::<FMA>(f, std::f32::consts::LN_2)
            .fma::<FMA>(f, 1.0);
        let n = shifted.to_bits().wrapping_sub(ROUND.to_bits());
        let power = Self::from_bits(n.wrapping_add(127) << 23);
        1.0 / p.fma::<FMA>(power, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_sigmoid_agrees_with_the_exact_one() {
        let mut worst = 0.0f64;
        for i in -200_000..200_000 {
            let x = i as f32 * 5e-4;
            let exact = Lane::sigmoid::<false>(f64::from(x));
            for fast in [Lane::sigmoid::<true>(x), Lane::sigmoid::<false>(x)] {
                // The fast one does not go below 2^-126; nothing hangs on the difference.
                let error = ((f64::from(fast) - exact).abs() - 1.2e-38).max(0.0);
                worst = worst.max(error / exact);
            }
        }
        // -x log2(e) is rounded once: 2^-24 of an exponent of up to 126.
        assert!(worst < 1e-5, "off by {worst:e}");
        assert!(Lane::sigmoid::<false>(f32::NAN).is_nan());
        assert_eq!(Lane::sigmoid::<false>(f32::INFINITY), 1.0);
        assert!(Lane::sigmoid::<false>(f32::NEG_INFINITY) < 1.2e-38);
    }
}
