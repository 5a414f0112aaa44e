// Parametric ReLU with one slope. Formulas and host side: src/ops/prelu.rs. Bound by memory. The gradient by the
// slope is a sum in two stages, always in the same order: each block adds up its share, then
// mean_loss_finish of mean_loss.cu adds up the blocks.
#include "elementwise.cuh"

namespace {
// x, y: [n]; slope: [1]
template <typename T> __device__ void prelu_forward_kernel(const T *x, const T *slope, T *y, int n) {
    const float s = load(slope);
    map(x, y, n, [=](float v) { return v > 0.0f ? v : s * v; });
}

// x, dy, dx: [n]; slope: [1]
template <typename T>
__device__ void prelu_backward_kernel(const T *x, const T *slope, const T *dy, T *dx, int n) {
    const float s = load(slope);
    map(x, dy, dx, n, [=](float v, float d) { return v > 0.0f ? d : s * d; });
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

FOR_DTYPES(prelu_forward, (const T *x, const T *slope, T *y, int n), (x, slope, y, n))
FOR_DTYPES(prelu_backward, (const T *x, const T *slope, const T *dy, T *dx, int n), (x, slope, dy, dx, n))
FOR_DTYPES(prelu_slope_sums, (const T *x, const T *dy, float *partial, int n), (x, dy, partial, n))
