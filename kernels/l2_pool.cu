// Hann-weighted root mean squares of 3x3 windows at stride 2. Formulas and host side: src/ops/l2_pool.rs.
// A thread deals with 16 bytes of channels of one pixel of what it writes; bound by memory.
#include "elementwise.cuh"

namespace {
constexpr float L2_CONSTANT = 1e-12f;

// The weight of the tap at distance d (-1, 0, 1) from the middle.
__device__ __forceinline__ float hann(int d) { return d == 0 ? 0.5f : 0.25f; }

// x: [N, h, w, c]; y: [N, (h + 1) / 2, (w + 1) / 2, c], n elements
template <typename T> __device__ void l2_pool_forward_kernel(const T *x, T *y, int n, int h, int w, int c) {
    const Layout in(h, w, c), out((h + 1) / 2, (w + 1) / 2, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = out.place(i);
        float sum[chunk.SIZE];
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) sum[k] = L2_CONSTANT;
        for (int a = -1; a <= 1; ++a) {
            for (int b = -1; b <= 1; ++b) {
                const int row = 2 * int(p.y) + a, column = 2 * int(p.x) + b;
                if (row < 0 || row >= h || column < 0 || column >= w) continue;
                fetch(chunk, x + in.offset({p.n, unsigned(row), unsigned(column), p.c}));
                const float g = hann(a) * hann(b);
#pragma unroll
                for (int k = 0; k < chunk.SIZE; ++k) {
                    const float v = load(&chunk.value[k]);
                    sum[k] += g * v * v;
                }
            }
        }
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) store(&chunk.value[k], sqrtf(sum[k]));
        put(y + i, chunk);
    });
}

// x, dx: [N, h, w, c], n elements; y, dy: [N, (h + 1) / 2, (w + 1) / 2, c]
template <typename T>
__device__ void l2_pool_backward_kernel(const T *x, const T *y, const T *dy, T *dx, int n, int h, int w, int c) {
    const Layout in(h, w, c), out((h + 1) / 2, (w + 1) / 2, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = in.place(i);
        auto root = chunk;
        float sum[chunk.SIZE] = {};
        for (unsigned wy = p.y / 2; wy <= (p.y + 1) / 2 && wy < out.h; ++wy) {
            for (unsigned wx = p.x / 2; wx <= (p.x + 1) / 2 && wx < out.w; ++wx) {
                const size_t at = out.offset({p.n, wy, wx, p.c});
                fetch(chunk, dy + at);
                fetch(root, y + at);
                const float g = hann(int(p.y) - 2 * int(wy)) * hann(int(p.x) - 2 * int(wx));
#pragma unroll
                for (int k = 0; k < chunk.SIZE; ++k) {
                    sum[k] += g * load(&chunk.value[k]) / load(&root.value[k]);
                }
            }
        }
        fetch(chunk, x + i);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) store(&chunk.value[k], sum[k] * load(&chunk.value[k]));
        put(dx + i, chunk);
    });
}
} // namespace

FOR_DTYPES(l2_pool_forward, (const T *x, T *y, int n, int h, int w, int c), (x, y, n, h, w, c))
FOR_DTYPES(l2_pool_backward, (const T *x, const T *y, const T *dy, T *dx, int n, int h, int w, int c),
           (x, y, dy, dx, n, h, w, c))
