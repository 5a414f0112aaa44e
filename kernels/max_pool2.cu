// 2x2 maxima at stride 2. Formulas and host side: src/ops/max_pool2.rs.
// A thread deals with one window in 16 bytes of channels, or in single ones of ragged channels; bound by
// memory.
// Backward, the windows that stick out at an odd last row or column write its zeros.
#include "elementwise.cuh"

namespace {
// Whether the first of two values is the larger, a tie, or the first NaN.
__device__ __forceinline__ bool stays(float a, float b) { return a >= b || a != a; }
__device__ __forceinline__ float larger(float a, float b) { return stays(a, b) ? a : b; }

// The 2x2 window at x, of rows of `row` elements and pixels of c.
template <typename Chunk, typename T>
__device__ __forceinline__ void fetch_window(Chunk (&v)[4], const T *x, size_t row, int c) {
    fetch(v[0], x);
    fetch(v[1], x + c);
    fetch(v[2], x + row);
    fetch(v[3], x + row + c);
}

// x: [N, h, w, c]; y: [N, h / 2, w / 2, c], n elements
template <typename T> __device__ void max_pool2_forward_kernel(const T *x, T *y, int n, int h, int w, int c) {
    const Layout in(h, w, c), out(h / 2, w / 2, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = out.place(i);
        decltype(chunk) v[4];
        fetch_window(v, x + in.offset({p.n, 2 * p.y, 2 * p.x, p.c}), size_t(w) * c, c);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            store(&chunk.value[k], larger(larger(load(&v[0].value[k]), load(&v[1].value[k])),
                                          larger(load(&v[2].value[k]), load(&v[3].value[k]))));
        }
        put(y + i, chunk);
    });
}

// Leaves dy at the largest of each window and zero in the rest: v becomes the gradient of itself.
template <typename Chunk> __device__ __forceinline__ void route(Chunk (&v)[4], const Chunk &dy) {
#pragma unroll
    for (int k = 0; k < Chunk::SIZE; ++k) {
        const float a = load(&v[0].value[k]), b = load(&v[1].value[k]);
        const float c = load(&v[2].value[k]), d = load(&v[3].value[k]);
        // The upper row comes first, so it wins a tie; so does the left of a row.
        const bool upper = stays(larger(a, b), larger(c, d));
        const int winner = upper ? (stays(a, b) ? 0 : 1) : (stays(c, d) ? 2 : 3);
#pragma unroll
        for (int j = 0; j < 4; ++j) store(&v[j].value[k], j == winner ? load(&dy.value[k]) : 0.0f);
    }
}

// x, dx: [N, h, w, c]; dy: [N, h / 2, w / 2, c]; n elements of the windows [N, (h + 1) / 2, (w + 1) / 2, c]
template <typename T>
__device__ void max_pool2_backward_kernel(const T *x, const T *dy, T *dx, int n, int h, int w, int c) {
    const Layout in(h, w, c), out(h / 2, w / 2, c), windows((h + 1) / 2, (w + 1) / 2, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = windows.place(i);
        const size_t at = in.offset({p.n, 2 * p.y, 2 * p.x, p.c}), row = size_t(w) * c;
        const bool inside_y = p.y < out.h, inside_x = p.x < out.w;
        decltype(chunk) v[4];
        if (inside_y && inside_x) {
            fetch_window(v, x + at, row, c);
            fetch(chunk, dy + out.offset(p));
            route(v, chunk);
        } else {
#pragma unroll
            for (int j = 0; j < 4; ++j) clear(v[j]);
        }
        put(dx + at, v[0]);
        if (inside_x) put(dx + at + c, v[1]);
        if (inside_y) put(dx + at + row, v[2]);
        if (inside_y && inside_x) put(dx + at + row + c, v[3]);
    });
}
} // namespace

FOR_DTYPES(max_pool2_forward, (const T *x, T *y, int n, int h, int w, int c), (x, y, n, h, w, c))
FOR_DTYPES(max_pool2_backward, (const T *x, const T *dy, T *dx, int n, int h, int w, int c),
           (x, dy, dx, n, h, w, c))
