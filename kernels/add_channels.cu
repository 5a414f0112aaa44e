// A number for every image and channel, added to all pixels. Host side: src/ops/add_channels.rs.
// Forward, a thread writes 16 bytes of channels of a pixel; backward, blocks sum ranges of the pixels of
// an image. Both are bound by memory.
#include "columns.cuh"

namespace {
// x, y: [N, pixels, c], n elements; b: [N, c]
template <typename T>
__device__ void add_channels_forward_kernel(const T *x, const T *b, T *y, int n, int pixels, int c) {
    const Layout layout(1, pixels, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = layout.place(i);
        auto shift = chunk;
        fetch(chunk, x + i);
        fetch(shift, b + size_t(p.n) * c + p.c);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            store(&chunk.value[k], load(&chunk.value[k]) + load(&shift.value[k]));
        }
        put(y + i, chunk);
    });
}

// dy: [N, pixels, c]; block (x, s, n) sums a range s of `rows` pixels of image n, to partial: [N, splits, c]
template <typename T>
__device__ void add_channels_backward_kernel(const T *dy, float *partial, int pixels, int c, int rows) {
    const int first = blockIdx.y * rows, last = min(first + rows, pixels);
    dy += size_t(blockIdx.z) * pixels * c;
    partial += (size_t(blockIdx.z) * gridDim.y + blockIdx.y) * c;
    sum_columns<1, T>(
        first, last, c,
        [&](auto chunk, size_t i, int, auto &sums) {
            fetch(chunk, dy + i);
#pragma unroll
            for (int k = 0; k < chunk.SIZE; ++k) sums[0][k] += load(&chunk.value[k]);
        },
        [&](int, int column, float sum) { partial[column] = sum; });
}

// partial: [N, splits, c]; db: [N, c], n elements
template <typename T>
__device__ void add_channels_finish_kernel(const float *partial, T *db, int n, int splits, int c) {
    const size_t i = element();
    if (i >= size_t(n)) return;
    const size_t image = i / c;
    store(db + i, finish_column(partial + image * splits * c + i % c, splits, c));
}
} // namespace

FOR_DTYPES(add_channels_forward, (const T *x, const T *b, T *y, int n, int pixels, int c),
           (x, b, y, n, pixels, c))
FOR_DTYPES(add_channels_backward, (const T *dy, float *partial, int pixels, int c, int rows),
           (dy, partial, pixels, c, rows))
FOR_DTYPES(add_channels_finish, (const float *partial, T *db, int n, int splits, int c),
           (partial, db, n, splits, c))
