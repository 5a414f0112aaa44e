// A part of a map. Host side: src/ops/crop.rs.
// Every thread writes 16 bytes of channels of a pixel, or single ones of ragged channels; bound by memory.
#include "elementwise.cuh"

namespace {
// x: [N, h, w, c]; y: [N, height, width, c], n elements
template <typename T>
__device__ void crop_forward_kernel(const T *x, T *y, int n, int h, int w, int c, int top, int left, int height,
           int width) {
    const Layout in(h, w, c), out(height, width, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = out.place(i);
        fetch(chunk, x + in.offset({p.n, p.y + top, p.x + left, p.c}));
        put(y + i, chunk);
    });
}

// dy: [N, height, width, c]; dx: [N, h, w, c], n elements
template <typename T>
__device__ void crop_backward_kernel(const T *dy, T *dx, int n, int h, int w, int c, int top, int left, int height,
           int width) {
    const Layout in(h, w, c), out(height, width, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = in.place(i);
        const unsigned y = p.y - top, x = p.x - left; // beyond every size where it is left out before
        if (y < out.h && x < out.w) {
            fetch(chunk, dy + out.offset({p.n, y, x, p.c}));
        } else {
            clear(chunk);
        }
        put(dx + i, chunk);
    });
}
} // namespace

FOR_DTYPES(crop_forward, (const T *x, T *y, int n, int h, int w, int c, int top, int left, int height,
           int width),
           (x, y, n, h, w, c, top, left, height, width))
FOR_DTYPES(crop_backward, (const T *dy, T *dx, int n, int h, int w, int c, int top, int left, int height,
           int width),
           (dy, dx, n, h, w, c, top, left, height, width))
