// Some of the channels of a map. Host side: src/ops/slice_channels.rs.
// Every thread writes 16 bytes of channels of a pixel, or single ones where they do not align; bound by
// memory.
#include "elementwise.cuh"

namespace {
// Whether packs fill the whole row, the slice, and what comes before it.
template <typename T> __device__ __forceinline__ bool aligned(int channels, int from, int len) {
    return in_packs<T>(channels) && in_packs<T>(from) && in_packs<T>(len);
}

// x: [pixels, channels]; y: [pixels, len], n elements
template <typename T>
__device__ void slice_channels_forward_kernel(const T *x, T *y, int n, int channels, int from, int len) {
    for_chunks<T>(n, aligned<T>(channels, from, len), [&](auto chunk, unsigned i) {
        const unsigned pixel = i / unsigned(len), c = i - pixel * len;
        fetch(chunk, x + size_t(pixel) * channels + from + c);
        put(y + i, chunk);
    });
}

// dy: [pixels, len]; dx: [pixels, channels], n elements
template <typename T>
__device__ void slice_channels_backward_kernel(const T *dy, T *dx, int n, int channels, int from, int len) {
    for_chunks<T>(n, aligned<T>(channels, from, len), [&](auto chunk, unsigned i) {
        const unsigned pixel = i / unsigned(channels), c = i - pixel * channels - from; // wraps before `from`
        if (c < unsigned(len)) {
            fetch(chunk, dy + size_t(pixel) * len + c);
        } else {
            clear(chunk);
        }
        put(dx + i, chunk);
    });
}
} // namespace

FOR_DTYPES(slice_channels_forward, (const T *x, T *y, int n, int channels, int from, int len),
           (x, y, n, channels, from, len))
FOR_DTYPES(slice_channels_backward, (const T *dy, T *dx, int n, int channels, int from, int len),
           (dy, dx, n, channels, from, len))
