// Twice the size by repeating pixels. Host side: src/ops/nearest2.rs.
// A thread deals with 16 bytes of channels of a pixel of the small map, or with single ones of ragged
// channels, and with the 2x2 window of the large map that goes with it; bound by memory.
#include "elementwise.cuh"

namespace {
// x: [N, h, w, c], n elements; y: [N, 2h, 2w, c]
template <typename T> __device__ void nearest2_forward_kernel(const T *x, T *y, int n, int w, int c) {
    const Layout small(1, w, c), large(2, 2 * w, c); // a row is an image of height 1
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = small.place(i);
        T *const upper = y + large.offset({p.n, 0, 2 * p.x, p.c});
        T *const lower = upper + size_t(2 * w) * c;
        fetch(chunk, x + i);
        put(upper, chunk);
        put(upper + c, chunk);
        put(lower, chunk);
        put(lower + c, chunk);
    });
}

// dy: [N, 2h, 2w, c]; dx: [N, h, w, c], n elements
template <typename T> __device__ void nearest2_backward_kernel(const T *dy, T *dx, int n, int w, int c) {
    const Layout small(1, w, c), large(2, 2 * w, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = small.place(i);
        const T *const upper = dy + large.offset({p.n, 0, 2 * p.x, p.c});
        const T *const lower = upper + size_t(2 * w) * c;
        decltype(chunk) window[4];
        fetch(window[0], upper);
        fetch(window[1], upper + c);
        fetch(window[2], lower);
        fetch(window[3], lower + c);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            store(&chunk.value[k], (load(&window[0].value[k]) + load(&window[1].value[k])) +
                                       (load(&window[2].value[k]) + load(&window[3].value[k])));
        }
        put(dx + i, chunk);
    });
}
} // namespace

FOR_DTYPES(nearest2_forward, (const T *x, T *y, int n, int w, int c), (x, y, n, w, c))
FOR_DTYPES(nearest2_backward, (const T *dy, T *dx, int n, int w, int c), (dy, dx, n, w, c))
