// A part of a map. Host side: src/ops/crop.rs.
// Every thread writes 16 bytes of channels of a pixel, or single ones of ragged channels; bound by memory.
#include "elementwise.cuh"

namespace {
// The first pixel of the part: row and column in `origin`, or [0, 0], never beyond the last place where the part fits.
struct Corner {
    unsigned y, x;
    __device__ __forceinline__ Corner(int h, int w, int height, int width, const float *origin) : y(0), x(0) {
        if (origin) {
            y = min(unsigned(origin[0]), unsigned(h - height));
            x = min(unsigned(origin[1]), unsigned(w - width));
        }
    }
};

// x: [N, h, w, c]; y: [N, height, width, c], n elements
template <typename T>
__device__ void crop_forward_kernel(const T *x, T *y, int n, int h, int w, int c, int height, int width,
           const float *origin /* or null */) {
    const Layout in(h, w, c), out(height, width, c);
    const Corner corner(h, w, height, width, origin);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = out.place(i);
        fetch(chunk, x + in.offset({p.n, p.y + corner.y, p.x + corner.x, p.c}));
        put(y + i, chunk);
    });
}

// dy: [N, height, width, c]; dx: [N, h, w, c], n elements
template <typename T>
__device__ void crop_backward_kernel(const T *dy, T *dx, int n, int h, int w, int c, int height, int width,
           const float *origin /* or null */) {
    const Layout in(h, w, c), out(height, width, c);
    const Corner corner(h, w, height, width, origin);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = in.place(i);
        const unsigned y = p.y - corner.y, x = p.x - corner.x; // beyond every size where it is left out before
        if (y < out.h && x < out.w) {
            fetch(chunk, dy + out.offset({p.n, y, x, p.c}));
        } else {
            clear(chunk);
        }
        put(dx + i, chunk);
    });
}
} // namespace

FOR_DTYPES(crop_forward, (const T *x, T *y, int n, int h, int w, int c, int height, int width,
           const float *origin /* or null */),
           (x, y, n, h, w, c, height, width, origin))
FOR_DTYPES(crop_backward, (const T *dy, T *dx, int n, int h, int w, int c, int height, int width,
           const float *origin /* or null */),
           (dy, dx, n, h, w, c, height, width, origin))
