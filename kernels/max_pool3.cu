// 3x3 maxima at stride 2. Formulas and host side: src/ops/max_pool3.rs.
// A thread deals with 16 bytes of channels of one pixel, or single ones of ragged channels: forward of a
// window, backward of an input pixel, which looks at the up to four windows it is in. Bound by memory.
#include "elementwise.cuh"

namespace {
// Whether the first of two values is the larger, a tie, or the first NaN.
__device__ __forceinline__ bool stays(float a, float b) { return a >= b || a != a; }

// The largest of the nine pixels of a window at x, channel by channel, and which of them it is.
template <typename T, int SIZE, typename Chunk>
__device__ __forceinline__ void largest(const T *x, size_t row, int c, Chunk chunk, float (&best)[SIZE],
                                        int (&which)[SIZE]) {
#pragma unroll
    for (int tap = 0; tap < 9; ++tap) {
        fetch(chunk, x + tap / 3 * row + tap % 3 * size_t(c));
#pragma unroll
        for (int k = 0; k < SIZE; ++k) {
            const float v = load(&chunk.value[k]);
            if (tap == 0 || !stays(best[k], v)) {
                best[k] = v;
                which[k] = tap;
            }
        }
    }
}

// x: [N, h, w, c]; y: [N, (h - 1) / 2, (w - 1) / 2, c], n elements
template <typename T> __device__ void max_pool3_forward_kernel(const T *x, T *y, int n, int h, int w, int c) {
    const Layout in(h, w, c), out((h - 1) / 2, (w - 1) / 2, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = out.place(i);
        float best[chunk.SIZE];
        int which[chunk.SIZE];
        largest(x + in.offset({p.n, 2 * p.y, 2 * p.x, p.c}), size_t(w) * c, c, chunk, best, which);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) store(&chunk.value[k], best[k]);
        put(y + i, chunk);
    });
}

// x, dx: [N, h, w, c], n elements; dy: [N, (h - 1) / 2, (w - 1) / 2, c]
template <typename T>
__device__ void max_pool3_backward_kernel(const T *x, const T *dy, T *dx, int n, int h, int w, int c) {
    const Layout in(h, w, c), out((h - 1) / 2, (w - 1) / 2, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = in.place(i);
        float sum[chunk.SIZE] = {}, best[chunk.SIZE];
        int which[chunk.SIZE];
        for (unsigned wy = (p.y + 1) / 2 - (p.y > 0); wy <= p.y / 2 && wy < out.h; ++wy) {
            for (unsigned wx = (p.x + 1) / 2 - (p.x > 0); wx <= p.x / 2 && wx < out.w; ++wx) {
                largest(x + in.offset({p.n, 2 * wy, 2 * wx, p.c}), size_t(w) * c, c, chunk, best, which);
                fetch(chunk, dy + out.offset({p.n, wy, wx, p.c}));
                const int me = int((p.y - 2 * wy) * 3 + p.x - 2 * wx);
#pragma unroll
                for (int k = 0; k < chunk.SIZE; ++k) {
                    if (which[k] == me) sum[k] += load(&chunk.value[k]);
                }
            }
        }
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) store(&chunk.value[k], sum[k]);
        put(dx + i, chunk);
    });
}
} // namespace

FOR_DTYPES(max_pool3_forward, (const T *x, T *y, int n, int h, int w, int c), (x, y, n, h, w, c))
FOR_DTYPES(max_pool3_backward, (const T *x, const T *dy, T *dx, int n, int h, int w, int c),
           (x, dy, dx, n, h, w, c))
