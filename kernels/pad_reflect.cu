// Padding by reflection. Host side: src/ops/pad_reflect.rs.
// Every thread writes 16 bytes of channels of a pixel, or single ones of ragged channels; bound by memory.
// Backward, it sums the positions that read its pixel, row by row in ascending order.
#include "elementwise.cuh"

namespace {
__device__ __forceinline__ unsigned period_of(unsigned len) { return len > 1 ? 2 * (len - 1) : 1; }

// The position in 0..len that position i of the pattern of reflections reads. A padded axis shows the pattern
// from some position within its first period on.
__device__ __forceinline__ unsigned reflected(unsigned i, unsigned len) {
    if (i < len) return i;
    const unsigned period = period_of(len), at = i % period;
    return at < len ? at : period - at;
}

// body(i) for the positions of an axis padded to `padded`, the pattern from `from` on, that read position p of
// `len`, ascending.
template <typename Body>
__device__ __forceinline__ void for_readers(unsigned p, unsigned len, unsigned padded, unsigned from,
                                            Body body) {
    const unsigned period = period_of(len), mirrored = period - p, end = from + padded;
    const bool twice = mirrored != p && mirrored < period; // else both are one position
    for (unsigned start = 0; start + p < end; start += period) {
        if (start + p >= from) body(start + p - from);
        const unsigned other = start + mirrored;
        if (twice && other >= from && other < end) body(other - from);
    }
}

// x: [N, h, w, c]; y: [N, height, width, c], n elements
template <typename T>
__device__ void pad_reflect_forward_kernel(const T *x, T *y, int n, int h, int w, int c, int height,
                                           int width, int row, int column) {
    const Layout in(h, w, c), out(height, width, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = out.place(i);
        fetch(chunk, x + in.offset({p.n, reflected(row + p.y, in.h), reflected(column + p.x, in.w), p.c}));
        put(y + i, chunk);
    });
}

// dy: [N, height, width, c]; dx: [N, h, w, c], n elements
template <typename T>
__device__ void pad_reflect_backward_kernel(const T *dy, T *dx, int n, int h, int w, int c, int height,
                                            int width, int row, int column) {
    const Layout in(h, w, c), out(height, width, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = in.place(i);
        float sum[chunk.SIZE] = {};
        for_readers(p.y, in.h, out.h, row, [&](unsigned y) {
            for_readers(p.x, in.w, out.w, column, [&](unsigned x) {
                fetch(chunk, dy + out.offset({p.n, y, x, p.c}));
#pragma unroll
                for (int k = 0; k < chunk.SIZE; ++k) sum[k] += load(&chunk.value[k]);
            });
        });
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) store(&chunk.value[k], sum[k]);
        put(dx + i, chunk);
    });
}
} // namespace

FOR_DTYPES(pad_reflect_forward, (const T *x, T *y, int n, int h, int w, int c, int height, int width, int row, int column),
           (x, y, n, h, w, c, height, width, row, column))
FOR_DTYPES(pad_reflect_backward, (const T *dy, T *dx, int n, int h, int w, int c, int height, int width, int row, int column),
           (dy, dx, n, h, w, c, height, width, row, column))
