// One level of the Haar transform and its inverse. Formulas and host side: src/ops/haar.rs.
// A thread transforms one 2x2 window in 16 bytes of channels, or in single ones of ragged channels; bound by
// memory.
#include "elementwise.cuh"

namespace {
// The 4x4 matrix, its own inverse, on every element of four chunks.
template <typename Chunk> __device__ __forceinline__ void butterfly(Chunk (&v)[4]) {
#pragma unroll
    for (int k = 0; k < Chunk::SIZE; ++k) {
        const float a = load(&v[0].value[k]), b = load(&v[1].value[k]);
        const float c = load(&v[2].value[k]), d = load(&v[3].value[k]);
        const float upper = a + b, lower = c + d, left = a - b, right = c - d;
        store(&v[0].value[k], 0.5f * (upper + lower));
        store(&v[1].value[k], 0.5f * (upper - lower));
        store(&v[2].value[k], 0.5f * (left + right));
        store(&v[3].value[k], 0.5f * (left - right));
    }
}

// x: [N, 2h, 2w, c]; y: [N, h, w, 4c]; n elements of N h w c
template <typename T> __device__ void haar_forward_kernel(const T *x, T *y, int n, int w, int c) {
    const Layout bands(1, w, c), pixels(2, 2 * w, c); // a row is an image of height 1
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = bands.place(i);
        const T *const upper = x + pixels.offset({p.n, 0, 2 * p.x, p.c});
        const T *const lower = upper + size_t(2 * w) * c;
        decltype(chunk) v[4];
        fetch(v[0], upper);
        fetch(v[1], upper + c);
        fetch(v[2], lower);
        fetch(v[3], lower + c);
        butterfly(v);
        T *const to = y + (size_t(p.n) * w + p.x) * 4 * c + p.c;
#pragma unroll
        for (int band = 0; band < 4; ++band) put(to + band * c, v[band]);
    });
}

// x: [N, h, w, 4c]; y: [N, 2h, 2w, c]; n elements of N h w c
template <typename T> __device__ void haar_inverse_kernel(const T *x, T *y, int n, int w, int c) {
    const Layout bands(1, w, c), pixels(2, 2 * w, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = bands.place(i);
        const T *const from = x + (size_t(p.n) * w + p.x) * 4 * c + p.c;
        decltype(chunk) v[4];
#pragma unroll
        for (int band = 0; band < 4; ++band) fetch(v[band], from + band * c);
        butterfly(v);
        T *const upper = y + pixels.offset({p.n, 0, 2 * p.x, p.c});
        T *const lower = upper + size_t(2 * w) * c;
        put(upper, v[0]);
        put(upper + c, v[1]);
        put(lower, v[2]);
        put(lower + c, v[3]);
    });
}
} // namespace

FOR_DTYPES(haar_forward, (const T *x, T *y, int n, int w, int c), (x, y, n, w, c))
FOR_DTYPES(haar_inverse, (const T *x, T *y, int n, int w, int c), (x, y, n, w, c))
