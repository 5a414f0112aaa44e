//! Arrays that the compiler makes vectors of, for every processor.
use super::tiles::tiles;

/// A module with arrays of one type.
macro_rules! arrays {
    ($name:ident, $e:ty) => {
        mod $name {
            use crate::ops::simd::Lane as _;

            pub(super) type E = $e;
            pub(super) type V = [E; LANES];
            pub(super) const LANES: usize = 4;
            /// Rows and columns that `transpose` takes.
            pub(super) const SQUARE: usize = 4;
            const FUSED: bool = cfg!(target_arch = "aarch64");

            #[inline]
            pub(super) const fn zero() -> V {
                [0.0; LANES]
            }

            #[inline]
            pub(super) const fn splat(x: E) -> V {
                [x; LANES]
            }

            /// # Safety
            /// LANES elements can be read.
            #[inline]
            pub(super) unsafe fn load(from: *const E) -> V {
                // SAFETY: the caller's promise.
                unsafe { from.cast::<V>().read() }
            }

            /// `x w + sum`, rounded once where there is an instruction for that.
            #[inline]
            pub(super) fn fma(x: V, w: V, sum: V) -> V {
                std::array::from_fn(|i| x[i].fma::<FUSED>(w[i], sum[i]))
            }

            #[inline]
            pub(super) fn add(a: V, b: V) -> V {
                std::array::from_fn(|i| a[i] + b[i])
            }

            /// `len` elements, then zeros.
            ///
            /// # Safety
            /// 1 to LANES elements can be read.
            #[inline]
            pub(super) unsafe fn load_part(from: *const E, len: usize) -> V {
                let mut all = zero();
                // SAFETY: the caller's promise.
                unsafe { std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), len) };
                all
            }

            /// The first `len` elements of `x`.
            ///
            /// # Safety
            /// 1 to LANES elements can be written.
            #[inline]
            pub(super) unsafe fn store_part(to: *mut E, x: V, len: usize) {
                // SAFETY: the caller's promise.
                unsafe { std::ptr::copy_nonoverlapping(x.as_ptr(), to, len) };
            }

            /// `to[i * to_stride + j] = from[j * stride + i]` for i below SQUARE and j below `len`, zeros for j up to SQUARE.
            ///
            /// # Safety
            /// SQUARE elements of `len` rows can be read, and SQUARE of SQUARE rows written.
            pub(super) unsafe fn transpose(
                from: *const E, stride: usize, len: usize, to: *mut E, to_stride: usize,
            ) {
                for i in 0..SQUARE {
                    for j in 0..SQUARE {
                        // SAFETY: the caller's promise.
                        unsafe {
                            *to.add(i * to_stride + j) = if j < len { *from.add(j * stride + i) } else { 0.0 };
                        }
                    }
                }
            }
        }
    };
}

arrays!(f32x4, f32);
arrays!(f64x4, f64);

tiles!(f32, super::f32x4, , 4, [1, 2, 3, 4]);
tiles!(f64, super::f64x4, , 4, [1, 2, 3, 4]);
