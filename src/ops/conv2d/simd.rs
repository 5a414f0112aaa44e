//! The register tiles and transforms of the fast convolution, for AVX-512 and for AVX2 with FMA.
//!
//! Layouts, with `T` positions (Winograd tiles or pixels) in a block, `XI` 36 or 1, channels padded
//! to multiples of [`CB`] with zeros:
//!
//! ```text
//! V  [XI][Ci/CB][T][CB]    transformed input          Z    [XI][Co/CB][T][CB]  transformed dy
//! U  [XI][Co/OCB][Ci][OCB] transformed weights        dU   [XI][Co][Ci]        their gradient
//! M  [XI][T][Co]           products
//! ```
//!
//! In V and Z the distance between positions is the constant CB whatever the number of channels, so the
//! addresses of a register tile fold into displacements and nothing spills.

/// Channels in a block of V.
pub(super) const CB: usize = 16;

/// The points that Winograd's F(4x4, 3x3) evaluates polynomials at are 0, +-`NEAR`, +-`FAR` and infinity. The customary
/// 1 and 2 lose twice as many digits: products of 128 channels are off by 2.4e-6, with these by 1.1e-6. All
/// numbers here are exact.
pub(super) const NEAR: f32 = 0.625;
pub(super) const FAR: f32 = 1.5;
pub(super) const NEAR2: f32 = NEAR * NEAR;
pub(super) const FAR2: f32 = FAR * FAR;
const NEAR3: f32 = NEAR2 * NEAR;
const FAR3: f32 = FAR2 * FAR;

/// What evaluations at 0, +-`NEAR` and +-`FAR` are multiplied by: one over the products of the point's distances to the
/// others.
const AT_0: f32 = 1.0 / (NEAR2 * FAR2);
const AT_NEAR: f32 = 0.5 / (NEAR2 * (NEAR2 - FAR2));
const AT_FAR: f32 = 0.5 / (FAR2 * (FAR2 - NEAR2));

/// Rows of dU that a call of `outer` computes.
pub(super) const ROWS: usize = CB / 2;

/// Rows of F(4x4, 3x3) input transform B^T, applied to columns then rows.
macro_rules! transforms {
    ($v:ident, $feat:literal, $set1:ident, $add:ident, $sub:ident, $mul:ident, $fma:ident) => {
        /// `B^T d`: six input values to six frequencies.
        #[target_feature(enable = $feat)]
        #[inline]
        fn bt(d: [$v; 6]) -> [$v; 6] {
            let (p2, r2) = ($set1(-NEAR2), $set1(-FAR2));
            let (product, sum) = ($set1(NEAR2 * FAR2), $set1(-NEAR2 - FAR2));
            let a = $fma(r2, d[2], d[4]);
            let b = $mul($set1(NEAR), $fma(r2, d[1], d[3]));
            let e = $fma(p2, d[2], d[4]);
            let f = $mul($set1(FAR), $fma(p2, d[1], d[3]));
            [
                $fma(product, d[0], $fma(sum, d[2], d[4])),
                $add(a, b),
                $sub(a, b),
                $add(e, f),
                $sub(e, f),
                $fma(product, d[1], $fma(sum, d[3], d[5])),
            ]
        }

        /// `A^T m`: six products to four outputs.
        #[target_feature(enable = $feat)]
        #[inline]
        fn at(m: [$v; 6]) -> [$v; 4] {
            let (s, d) = ($add(m[1], m[2]), $sub(m[1], m[2]));
            let (t, e) = ($add(m[3], m[4]), $sub(m[3], m[4]));
            [
                $add($add(m[0], s), t),
                $fma($set1(FAR), e, $mul($set1(NEAR), d)),
                $fma($set1(FAR2), t, $mul($set1(NEAR2), s)),
                $fma($set1(FAR3), e, $fma($set1(NEAR3), d, m[5])),
            ]
        }

        /// `A g`: four output gradients to six, the transpose of [`at`].
        #[target_feature(enable = $feat)]
        #[inline]
        fn a(g: [$v; 4]) -> [$v; 6] {
            let e = $fma($set1(NEAR2), g[2], g[0]);
            let o = $fma($set1(NEAR3), g[3], $mul($set1(NEAR), g[1]));
            let t = $fma($set1(FAR2), g[2], g[0]);
            let u = $fma($set1(FAR3), g[3], $mul($set1(FAR), g[1]));
            [g[0], $add(e, o), $sub(e, o), $add(t, u), $sub(t, u), g[3]]
        }

        /// `G g`: three taps to six frequencies.
        #[target_feature(enable = $feat)]
        #[inline]
        fn g([a, b, c]: [$v; 3]) -> [$v; 6] {
            let at =
                |point2: f32, factor: f32| $mul($add(a, $mul(c, $set1(point2))), $set1(factor));
            let (even, odd) = (at(NEAR2, AT_NEAR), $mul(b, $set1(NEAR * AT_NEAR)));
            let (even2, odd2) = (at(FAR2, AT_FAR), $mul(b, $set1(FAR * AT_FAR)));
            [
                $mul(a, $set1(AT_0)),
                $add(even, odd),
                $sub(even, odd),
                $add(even2, odd2),
                $sub(even2, odd2),
                c,
            ]
        }

        /// `G^T v`: six frequencies to three taps.
        #[target_feature(enable = $feat)]
        #[inline]
        fn gt(v: [$v; 6]) -> [$v; 3] {
            let (near, far) = ($set1(AT_NEAR), $set1(AT_FAR));
            let (s1, d1) = ($mul($add(v[1], v[2]), near), $mul($sub(v[1], v[2]), near));
            let (s2, d2) = ($mul($add(v[3], v[4]), far), $mul($sub(v[3], v[4]), far));
            [
                $add($add($mul($set1(AT_0), v[0]), s1), s2),
                $add($mul(d1, $set1(NEAR)), $mul(d2, $set1(FAR))),
                $add($add($mul(s1, $set1(NEAR2)), $mul(s2, $set1(FAR2))), v[5]),
            ]
        }
    };
}

macro_rules! isa {
    ($name:ident, $feat:literal, $v:ident, $lanes:literal, $pmax:literal, $set1:ident, $load:ident,
     $store:ident, $fma:ident, $add:ident, $sub:ident, $mul:ident, $max:ident, $zero:ident,
     [$($p:literal),*]) => {
        pub(super) mod $name {
            use std::arch::x86_64::*;
            use std::mem::MaybeUninit;

            use super::{AT_0, AT_FAR, AT_NEAR, CB, FAR, FAR2, FAR3, NEAR, NEAR2, NEAR3, ROWS};

            const LANES: usize = $lanes;
            /// Positions in a register tile.
            pub(in super::super) const PMAX: usize = $pmax;
            /// Output channels in a register tile.
            pub(in super::super) const OCB: usize = 2 * LANES;

            transforms!($v, $feat, $set1, $add, $sub, $mul, $fma);

            /// Keeps half a transform in memory where there are sixteen registers: all columns side by side, as the compiler
            /// would have them, hold more than that, and twice as many numbers would be put aside and fetched.
            #[inline(always)]
            fn in_memory<T>(half: &mut T) {
                if LANES == 8 {
                    std::hint::black_box(half);
                }
            }

            /// # Safety
            /// All of `half` was written.
            #[target_feature(enable = $feat)]
            #[inline]
            unsafe fn written<const N: usize>(half: [MaybeUninit<$v>; N]) -> [$v; N] {
                // SAFETY: both have one layout; the caller promises the rest.
                unsafe { std::ptr::from_ref(&half).cast::<[$v; N]>().read() }
            }

            /// `m[p][..NV * LANES] = sum_k v[p][k] u[k][..]` for P positions, channel blocks `blocks`.
            #[target_feature(enable = $feat)]
            unsafe fn tile<const P: usize, const NV: usize>(
                v: *const f32, v_block: usize, blocks: usize, u: *const f32, m: *mut f32, co: usize,
            ) {
                let mut acc = [[$zero(); NV]; P];
                for b in 0..blocks {
                    // SAFETY: block b of V and of U, as the caller's layouts say.
                    let (v, u) = unsafe { (v.add(b * v_block), u.add(b * CB * NV * LANES)) };
                    for k in 0..CB {
                        let mut w = [$zero(); NV];
                        for (i, w) in w.iter_mut().enumerate() {
                            // SAFETY: row k of this block of U.
                            *w = unsafe { $load(u.add((k * NV + i) * LANES)) };
                        }
                        for p in 0..P {
                            // SAFETY: channel k of position p.
                            let x = $set1(unsafe { *v.add(p * CB + k) });
                            for i in 0..NV {
                                acc[p][i] = $fma(x, w[i], acc[p][i]);
                            }
                        }
                    }
                }
                for (p, acc) in acc.iter().enumerate() {
                    for (i, &acc) in acc.iter().enumerate() {
                        // SAFETY: position p of M.
                        unsafe { $store(m.add(p * co + i * LANES), acc) };
                    }
                }
            }

            /// `M[t][o] = sum_k V[t][k] U[k][o]` for one frequency and `t` positions.
            ///
            /// # Safety
            /// `v` is `[Ci/CB][t_stride][CB]`, `u` `[Co/OCB][Ci][OCB]`, `m` `[t][co]`; `co` is padded.
            #[target_feature(enable = $feat)]
            pub(in super::super) unsafe fn product(
                v: *const f32, t_stride: usize, t: usize, blocks: usize, u: *const f32,
                m: *mut f32, co: usize,
            ) {
                let tiles = t.div_ceil(PMAX);
                let mut o = 0;
                while o < co {
                    // SAFETY: the weights of output channels o.. start after those before them.
                    let u = unsafe { u.add(o * blocks * CB) };
                    let wide = co - o >= OCB;
                    for j in 0..tiles {
                        let (p0, p1) = (t * j / tiles, t * (j + 1) / tiles);
                        // SAFETY: positions p0..p1 of V and M.
                        let (v, m) = unsafe { (v.add(p0 * CB), m.add(p0 * co + o)) };
                        // SAFETY: as the caller promises, for p1 - p0 positions.
                        unsafe {
                            match (p1 - p0, wide) {
                                $(($p, true) => tile::<$p, 2>(v, t_stride * CB, blocks, u, m, co),
                                  ($p, false) => tile::<$p, 1>(v, t_stride * CB, blocks, u, m, co),)*
                                _ => unreachable!("tiles hold 1 to PMAX positions"),
                            }
                        }
                    }
                    o += if wide { OCB } else { LANES };
                }
            }

            /// `dU[o][i] = sum_t Z[t][o] V[t][i]` for one frequency, ROWS outputs and `t` positions; unless `fresh`, added
            /// to what is there.
            ///
            /// # Safety
            /// `v` is `[Ci/CB][t_stride][CB]`, `z` the first of ROWS outputs of a block `[t][CB]`, `du` `[ROWS][Ci]`.
            #[target_feature(enable = $feat)]
            pub(in super::super) unsafe fn outer(
                v: *const f32, t_stride: usize, t: usize, blocks: usize, z: *const f32,
                du: *mut f32, fresh: bool,
            ) {
                let ci = blocks * CB;
                let at = |i: usize| i / CB * t_stride * CB + i % CB;
                let mut i = 0;
                while i < ci {
                    // SAFETY: channels i.. of V and dU.
                    unsafe {
                        let (first, du) = (v.add(at(i)), du.add(i));
                        if ci - i >= OCB {
                            let second = v.add(at(i + LANES));
                            outer_tile::<2>([first, second], t, z, du, ci, fresh);
                            i += OCB;
                        } else {
                            outer_tile::<1>([first], t, z, du, ci, fresh);
                            i += LANES;
                        }
                    }
                }
            }

            #[target_feature(enable = $feat)]
            unsafe fn outer_tile<const NV: usize>(
                v: [*const f32; NV], t: usize, z: *const f32, du: *mut f32, ci: usize, fresh: bool,
            ) {
                // Half the rows a pass fit in the sixteen registers of AVX2.
                const HELD: usize = if LANES == 16 { ROWS } else { ROWS / 2 };
                for r0 in (0..ROWS).step_by(HELD) {
                    let mut acc = [[$zero(); NV]; HELD];
                    for s in 0..t {
                        let mut w = [$zero(); NV];
                        for (w, v) in w.iter_mut().zip(v) {
                            // SAFETY: position s of V.
                            *w = unsafe { $load(v.add(s * CB)) };
                        }
                        for p in 0..HELD {
                            // SAFETY: output r0 + p of position s of Z.
                            let x = $set1(unsafe { *z.add(s * CB + r0 + p) });
                            for i in 0..NV {
                                acc[p][i] = $fma(x, w[i], acc[p][i]);
                            }
                        }
                    }
                    for (p, acc) in acc.iter().enumerate() {
                        for (i, &acc) in acc.iter().enumerate() {
                            // SAFETY: row r0 + p of dU.
                            unsafe {
                                let to = du.add((r0 + p) * ci + i * LANES);
                                $store(to, if fresh { acc } else { $add($load(to), acc) });
                            }
                        }
                    }
                }
            }

            /// `G g G^T` of `len` pairs of channels.
            ///
            /// # Safety
            /// `taps` is readable at `[9][len]`, `u` writable at the first `len` of 36 times `xi`; `len` is a multiple of LANES.
            #[target_feature(enable = $feat)]
            pub(in super::super) unsafe fn weights(taps: *const f32, len: usize, u: *mut f32, xi: usize) {
                for at in (0..len).step_by(LANES) {
                    let mut t = [[$zero(); 3]; 6];
                    for kx in 0..3 {
                        // SAFETY: taps (0..3, kx).
                        let tap = |ky: usize| unsafe { $load(taps.add((ky * 3 + kx) * len + at)) };
                        for (i, r) in g([tap(0), tap(1), tap(2)]).into_iter().enumerate() {
                            t[i][kx] = r;
                        }
                    }
                    for (i, t) in t.into_iter().enumerate() {
                        for (j, r) in g(t).into_iter().enumerate() {
                            // SAFETY: frequency (i, j).
                            unsafe { $store(u.add((i * 6 + j) * xi + at), r) };
                        }
                    }
                }
            }

            /// `G^T dU G` of `len` pairs of channels: the transpose of [`weights`].
            ///
            /// # Safety
            /// `du` is readable at the first `len` of 36 times `xi`, `taps` writable at those of 9 times `tap`; `len` is a
            /// multiple of LANES.
            #[target_feature(enable = $feat)]
            pub(in super::super) unsafe fn weight_gradients(
                du: *const f32, xi: usize, len: usize, taps: *mut f32, tap: usize,
            ) {
                for at in (0..len).step_by(LANES) {
                    let mut t = [[$zero(); 6]; 3];
                    for j in 0..6 {
                        let mut v = [$zero(); 6];
                        for (i, v) in v.iter_mut().enumerate() {
                            // SAFETY: frequency (i, j).
                            *v = unsafe { $load(du.add((i * 6 + j) * xi + at)) };
                        }
                        for (ky, r) in gt(v).into_iter().enumerate() {
                            t[ky][j] = r;
                        }
                    }
                    for (ky, t) in t.into_iter().enumerate() {
                        for (kx, r) in gt(t).into_iter().enumerate() {
                            // SAFETY: tap (ky, kx).
                            unsafe { $store(taps.add((ky * 3 + kx) * tap + at), r) };
                        }
                    }
                }
            }

            /// Transforms the 6x6 window at `x` into V: `B^T d B` for each channel.
            ///
            /// # Safety
            /// `x` is readable at `[6][row / c][c]` for `c` channels, a multiple of CB; `v` is the
            /// position's first element of `[36][c / CB][t_stride][CB]` with `xi` elements a frequency.
            #[target_feature(enable = $feat)]
            pub(in super::super) unsafe fn input(
                x: *const f32, row: usize, pixel: usize, c: usize, v: *mut f32, t_stride: usize,
                xi: usize,
            ) {
                for cc in (0..c).step_by(LANES) {
                    let mut t = [[MaybeUninit::uninit(); 6]; 6];
                    for j in 0..6 {
                        let mut d = [$zero(); 6];
                        for (i, d) in d.iter_mut().enumerate() {
                            // SAFETY: window pixel (i, j).
                            *d = unsafe { $load(x.add(i * row + j * pixel + cc)) };
                        }
                        for (i, r) in bt(d).into_iter().enumerate() {
                            t[i][j].write(r);
                        }
                        in_memory(&mut t);
                    }
                    let at = cc / CB * t_stride * CB + cc % CB;
                    for i in 0..6 {
                        // SAFETY: all columns were written.
                        for (j, r) in bt(unsafe { written(t[i]) }).into_iter().enumerate() {
                            // SAFETY: frequency (i, j) of this position.
                            unsafe { $store(v.add((i * 6 + j) * xi + at), r) };
                        }
                    }
                }
            }

            /// Transforms the 4x4 gradients at `dy` into Z: `A g A^T` for each channel.
            ///
            /// # Safety
            /// `dy` is readable at `[4][row / c][c]` for `c` channels, a multiple of CB; `z` is the position's
            /// first element of `[36][c / CB][t_stride][CB]` with `xi` elements a frequency.
            #[target_feature(enable = $feat)]
            pub(in super::super) unsafe fn gradient(
                dy: *const f32, row: usize, pixel: usize, c: usize, z: *mut f32, t_stride: usize,
                xi: usize,
            ) {
                for cc in (0..c).step_by(LANES) {
                    let mut t = [[MaybeUninit::uninit(); 4]; 6];
                    for j in 0..4 {
                        let mut d = [$zero(); 4];
                        for (i, d) in d.iter_mut().enumerate() {
                            // SAFETY: window pixel (i, j).
                            *d = unsafe { $load(dy.add(i * row + j * pixel + cc)) };
                        }
                        for (i, r) in a(d).into_iter().enumerate() {
                            t[i][j].write(r);
                        }
                        in_memory(&mut t);
                    }
                    let at = cc / CB * t_stride * CB + cc % CB;
                    for i in 0..6 {
                        // SAFETY: all columns were written.
                        for (j, r) in a(unsafe { written(t[i]) }).into_iter().enumerate() {
                            // SAFETY: frequency (i, j) of this position.
                            unsafe { $store(z.add((i * 6 + j) * xi + at), r) };
                        }
                    }
                }
            }

            /// Transforms one position of M into 4x4 outputs, adds the bias, applies ReLU if asked.
            ///
            /// # Safety
            /// `m` is the position's first element of `[36][t][c]` with `xi` elements a frequency,
            /// `bias` has `c` elements, and so has `slopes` unless it is null; `y` is writable at `[4][row / pixel][c]`.
            #[target_feature(enable = $feat)]
            pub(in super::super) unsafe fn output(
                m: *const f32, xi: usize, c: usize, bias: *const f32, relu: bool, slopes: *const f32,
                y: *mut f32, row: usize, pixel: usize,
            ) {
                for cc in (0..c).step_by(LANES) {
                    let mut t = [[MaybeUninit::uninit(); 6]; 4];
                    for j in 0..6 {
                        let mut d = [$zero(); 6];
                        for (i, d) in d.iter_mut().enumerate() {
                            // SAFETY: frequency (i, j) of this position.
                            *d = unsafe { $load(m.add((i * 6 + j) * xi + cc)) };
                        }
                        for (i, r) in at(d).into_iter().enumerate() {
                            t[i][j].write(r);
                        }
                        in_memory(&mut t);
                    }
                    // SAFETY: the bias has c elements.
                    let b = unsafe { $load(bias.add(cc)) };
                    // SAFETY: and so have the slopes, if there are any.
                    let slope = (!slopes.is_null()).then(|| unsafe { $load(slopes.add(cc)) });
                    for (i, t) in t.iter().enumerate() {
                        // SAFETY: all columns were written.
                        for (j, r) in at(unsafe { written(*t) }).into_iter().enumerate() {
                            let r = $add(r, b);
                            // Zero first: the maximum returns its second operand where one is NaN.
                            let r = match slope {
                                Some(slope) => {
                                    let above = $max($zero(), r);
                                    $fma(slope, $sub(r, above), above)
                                }
                                None if relu => $max($zero(), r),
                                None => r,
                            };
                            // SAFETY: output pixel (i, j).
                            unsafe { $store(y.add(i * row + j * pixel + cc), r) };
                        }
                    }
                }
            }
        }
    };
}

isa!(
    avx512,
    "avx512f",
    __m512,
    16,
    14,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_max_ps,
    _mm512_setzero_ps,
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
);
isa!(
    avx2,
    "avx2,fma",
    __m256,
    8,
    6,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_max_ps,
    _mm256_setzero_ps,
    [1, 2, 3, 4, 5, 6]
);
