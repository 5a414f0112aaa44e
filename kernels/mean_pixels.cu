// The mean over the pixels of each image and channel. Host side: src/ops/mean_pixels.rs. Forward, blocks sum
// ranges of the pixels of an image; backward, a thread writes 16 bytes of channels of a pixel. Both are bound
// by memory.
#include "columns.cuh"

namespace {
// x: [N, pixels, c]; block (x, s, n) sums a range s of `rows` pixels of image n, to partial: [N, splits, c]
template <typename T>
__device__ void mean_pixels_sums_kernel(const T *x, float *partial, int pixels, int c, int rows) {
    const int first = blockIdx.y * rows, last = min(first + rows, pixels);
    x += size_t(blockIdx.z) * pixels * c;
    partial += (size_t(blockIdx.z) * gridDim.y + blockIdx.y) * c;
    sum_columns<1, T>(
        first, last, c,
        [&](auto chunk, size_t i, int, auto &sums) {
            fetch(chunk, x + i);
#pragma unroll
            for (int k = 0; k < chunk.SIZE; ++k) sums[0][k] += load(&chunk.value[k]);
        },
        [&](int, int column, float sum) { partial[column] = sum; });
}

// partial: [N, splits, c]; y: [N, c], n elements
template <typename T>
__device__ void mean_pixels_finish_kernel(const float *partial, T *y, int n, int splits, int c, int pixels) {
    const size_t i = element();
    if (i >= size_t(n)) return;
    const size_t image = i / c;
    store(y + i, finish_column(partial + image * splits * c + i % c, splits, c) / float(pixels));
}

// dy: [N, c]; dx: [N, pixels, c], n elements
template <typename T> __device__ void mean_pixels_backward_kernel(const T *dy, T *dx, int n, int pixels, int c) {
    const Layout layout(1, pixels, c);
    const float each = 1.0f / float(pixels);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = layout.place(i);
        fetch(chunk, dy + size_t(p.n) * c + p.c);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) store(&chunk.value[k], each * load(&chunk.value[k]));
        put(dx + i, chunk);
    });
}
} // namespace

FOR_DTYPES(mean_pixels_sums, (const T *x, float *partial, int pixels, int c, int rows),
           (x, partial, pixels, c, rows))
FOR_DTYPES(mean_pixels_finish, (const float *partial, T *y, int n, int splits, int c, int pixels),
           (partial, y, n, splits, c, pixels))
FOR_DTYPES(mean_pixels_backward, (const T *dy, T *dx, int n, int pixels, int c), (dy, dx, n, pixels, c))
