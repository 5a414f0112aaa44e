// Parametric ReLU with one slope, or one for each channel. Formulas and host side: src/ops/prelu.rs. Bound by
// memory. The gradient by slopes is a sum in two stages, always in the same order: each block adds up its share,
// then mean_loss_finish of mean_loss.cu (one slope) or prelu_channel_finish adds up the blocks.
#include "columns.cuh"

namespace {
// x, y: [n]; slope: [c], where c is the last axis or 1
template <typename T>
__device__ void prelu_forward_kernel(const T *x, const T *slope, T *y, int n, int c) {
    if (c == 1) {
        const float s = load(slope);
        map(x, y, n, [=](float v) { return v > 0.0f ? v : s * v; });
        return;
    }
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        auto slopes = chunk;
        fetch(chunk, x + i);
        fetch(slopes, slope + i % unsigned(c));
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            const float v = load(&chunk.value[k]);
            store(&chunk.value[k], v > 0.0f ? v : load(&slopes.value[k]) * v);
        }
        put(y + i, chunk);
    });
}

// x, dy, dx: [n]; slope: [c], where c is the last axis or 1
template <typename T>
__device__ void prelu_backward_kernel(const T *x, const T *slope, const T *dy, T *dx, int n, int c) {
    if (c == 1) {
        const float s = load(slope);
        map(x, dy, dx, n, [=](float v, float d) { return v > 0.0f ? d : s * d; });
        return;
    }
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        auto slopes = chunk, gradient = chunk;
        fetch(chunk, x + i);
        fetch(gradient, dy + i);
        fetch(slopes, slope + i % unsigned(c));
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            const float d = load(&gradient.value[k]);
            store(&gradient.value[k], load(&chunk.value[k]) > 0.0f ? d : load(&slopes.value[k]) * d);
        }
        put(dx + i, gradient);
    });
}

// x, dy: [pixels, c]; block (x, s) sums a range s of `rows` pixels, to partial: [splits, c]
template <typename T>
__device__ void prelu_channel_sums_kernel(const T *x, const T *dy, float *partial, int pixels, int c, int rows) {
    const int first = blockIdx.y * rows, last = min(first + rows, pixels);
    partial += size_t(blockIdx.y) * c;
    sum_columns<1, T>(
        first, last, c,
        [&](auto chunk, size_t i, int, auto &sums) {
            auto gradient = chunk;
            fetch(chunk, x + i);
            fetch(gradient, dy + i);
#pragma unroll
            for (int k = 0; k < chunk.SIZE; ++k) {
                const float v = load(&chunk.value[k]);
                sums[0][k] += v > 0.0f ? 0.0f : v * load(&gradient.value[k]);
            }
        },
        [&](int, int column, float sum) { partial[column] = sum; });
}

// partial: [splits, c]; dslope: [c]
template <typename T>
__device__ void prelu_channel_finish_kernel(const float *partial, T *dslope, int c, int splits) {
    const size_t i = element();
    if (i < size_t(c)) store(dslope + i, finish_column(partial + i, splits, c));
}

// x, dy: [n]; partial: [blocks]. Packs of 16 bytes, the rest one by one.
template <typename T> __device__ void prelu_slope_sums_kernel(const T *x, const T *dy, float *partial, int n) {
    SHARED(scratch, float[THREADS / WARP]);
    constexpr int SIZE = Pack<T>::SIZE;
    const auto product = [](float v, float d) { return v > 0.0f ? 0.0f : v * d; };
    const size_t packs = size_t(n) / SIZE, all = size_t(gridDim.x) * blockDim.x;
    float sum = 0.0f;
    for (size_t i = element(); i < packs; i += all) {
        const Pack<T> value = load_pack(x + i * SIZE), slope = load_pack(dy + i * SIZE);
        float of_pack = 0.0f;
#pragma unroll
        for (int k = 0; k < SIZE; ++k) of_pack += product(load(&value.value[k]), load(&slope.value[k]));
        sum += of_pack;
    }
    const size_t last = packs * SIZE + element();
    if (last < size_t(n)) sum += product(load(x + last), load(dy + last));
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
} // namespace

FOR_DTYPES(prelu_forward, (const T *x, const T *slope, T *y, int n, int c), (x, slope, y, n, c))
FOR_DTYPES(prelu_backward, (const T *x, const T *slope, const T *dy, T *dx, int n, int c), (x, slope, dy, dx, n, c))
FOR_DTYPES(prelu_slope_sums, (const T *x, const T *dy, float *partial, int n), (x, dy, partial, n))
FOR_DTYPES(prelu_channel_sums, (const T *x, const T *dy, float *partial, int pixels, int c, int rows),
           (x, dy, partial, pixels, c, rows))
FOR_DTYPES(prelu_channel_finish, (const float *partial, T *dslope, int c, int splits), (partial, dslope, c, splits))
