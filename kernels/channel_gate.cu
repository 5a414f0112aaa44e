// The sigmoid of a number for every image and channel, times all pixels. Host side: src/ops/channel_gate.rs.
// A thread writes 16 bytes of channels of a pixel; for the gradient of the gate blocks sum ranges of the
// pixels of an image. All are bound by memory.
#include "columns.cuh"

namespace {
// x, y: [N, pixels, c], n elements; g: [N, c]
template <typename T>
__device__ void channel_gate_scale_kernel(const T *x, const T *g, T *y, int n, int pixels, int c) {
    const Layout layout(1, pixels, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = layout.place(i);
        auto gate = chunk;
        fetch(chunk, x + i);
        fetch(gate, g + size_t(p.n) * c + p.c);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            store(&chunk.value[k], load(&chunk.value[k]) * sigmoid(load(&gate.value[k])));
        }
        put(y + i, chunk);
    });
}

// x, dy: [N, pixels, c]; block (x, s, n) sums a range s of `rows` pixels of image n, to partial: [N, splits, c]
template <typename T>
__device__ void channel_gate_sums_kernel(const T *x, const T *dy, float *partial, int pixels, int c, int rows) {
    const int first = blockIdx.y * rows, last = min(first + rows, pixels);
    x += size_t(blockIdx.z) * pixels * c;
    dy += size_t(blockIdx.z) * pixels * c;
    partial += (size_t(blockIdx.z) * gridDim.y + blockIdx.y) * c;
    sum_columns<1, T>(
        first, last, c,
        [&](auto chunk, size_t i, int, auto &sums) {
            auto other = chunk;
            fetch(chunk, x + i);
            fetch(other, dy + i);
#pragma unroll
            for (int k = 0; k < chunk.SIZE; ++k) sums[0][k] += load(&chunk.value[k]) * load(&other.value[k]);
        },
        [&](int, int column, float sum) { partial[column] = sum; });
}

// partial: [N, splits, c]; g, dg: [N, c], n elements
template <typename T>
__device__ void channel_gate_finish_kernel(const float *partial, const T *g, T *dg, int n, int splits, int c) {
    const size_t i = element();
    if (i >= size_t(n)) return;
    const size_t image = i / c;
    const float s = sigmoid(load(g + i));
    store(dg + i, s * (1.0f - s) * finish_column(partial + image * splits * c + i % c, splits, c));
}
} // namespace

FOR_DTYPES(channel_gate_scale, (const T *x, const T *g, T *y, int n, int pixels, int c), (x, g, y, n, pixels, c))
FOR_DTYPES(channel_gate_sums, (const T *x, const T *dy, float *partial, int pixels, int c, int rows),
           (x, dy, partial, pixels, c, rows))
FOR_DTYPES(channel_gate_finish, (const float *partial, const T *g, T *dg, int n, int splits, int c),
           (partial, g, dg, n, splits, c))
