// Means over all elements: of the elements, and of the cross entropy of logits. Formulas: src/ops/mean.rs,
// src/ops/bce_with_logits.rs; joined by mean_loss_finish of mean_loss.cu. Bound by memory. Sums in two stages,
// always in the same order: each block adds up its share, then one block adds up the blocks.
#include "elementwise.cuh"

namespace {
// partial[block] = sum of f(x); x: [n]. Packs of 16 bytes, the rest one by one.
template <typename T, typename F> __device__ void sums(const T *x, float *partial, int n, F f) {
    SHARED(scratch, float[THREADS / WARP]);
    constexpr int SIZE = Pack<T>::SIZE;
    const size_t packs = size_t(n) / SIZE, all = size_t(gridDim.x) * blockDim.x;
    float sum = 0.0f;
    for (size_t i = element(); i < packs; i += all) {
        const Pack<T> pack = load_pack(x + i * SIZE);
        float of_pack = 0.0f;
#pragma unroll
        for (int k = 0; k < SIZE; ++k) of_pack += f(load(&pack.value[k]));
        sum += of_pack;
    }
    const size_t last = packs * SIZE + element();
    if (last < size_t(n)) sum += f(load(x + last));
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

template <typename T> __device__ void mean_sums_kernel(const T *x, float *partial, int n) {
    sums(x, partial, n, [](float v) { return v; });
}
// A NaN stays.
template <typename T>
__device__ void bce_with_logits_sums_kernel(const T *x, float *partial, int n, float target) {
    sums(x, partial, n, [=](float v) {
        return (v < 0.0f ? 0.0f : v) - v * target + log1pf(__expf(-fabsf(v)));
    });
}

// dy: [1]; dx: [n]
template <typename T> __device__ void mean_backward_kernel(const T *dy, T *dx, int n) {
    const float each = load(dy) / float(n);
    for_chunks<T>(n, true, [&](auto chunk, unsigned i) {
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) store(&chunk.value[k], each);
        put(dx + i, chunk);
    });
}
// x, dx: [n]; dy: [1]
template <typename T>
__device__ void bce_with_logits_backward_kernel(const T *x, const T *dy, T *dx, float target, int n) {
    const float each = load(dy) / float(n);
    map(x, dx, n, [=](float v) { return each * (sigmoid(v) - target); });
}
} // namespace

FOR_DTYPES(mean_sums, (const T *x, float *partial, int n), (x, partial, n))
FOR_DTYPES(mean_backward, (const T *dy, T *dx, int n), (dy, dx, n))
FOR_DTYPES(bce_with_logits_sums, (const T *x, float *partial, int n, float target), (x, partial, n, target))
FOR_DTYPES(bce_with_logits_backward, (const T *x, const T *dy, T *dx, float target, int n),
           (x, dy, dx, target, n))
