// A residual sum, weighed by the sigmoid of the residual. Formulas and host side:
// src/ops/parameter_free_attention.rs. 16 bytes a thread; bound by memory.
#include "elementwise.cuh"

namespace {
// x, o, y: [n]
template <typename T>
__device__ void parameter_free_attention_forward_kernel(const T *x, const T *o, T *y, int n) {
    map(x, o, y, n, [](float v, float r) { return (v + r) * (sigmoid(r) - 0.5f); });
}

// x, o, dy, dx, slope: [n]; slope is the gradient of o
template <typename T>
__device__ void parameter_free_attention_backward_kernel(const T *x, const T *o, const T *dy, T *dx, T *slope,
                                                         int n) {
    for_chunks<T>(n, true, [&](auto chunk, unsigned i) {
        auto residual = chunk, gradient = chunk;
        fetch(chunk, x + i);
        fetch(residual, o + i);
        fetch(gradient, dy + i);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            const float r = load(&residual.value[k]), d = load(&gradient.value[k]), s = sigmoid(r);
            const float by_x = d * (s - 0.5f);
            store(&residual.value[k], by_x + d * (load(&chunk.value[k]) + r) * s * (1.0f - s));
            store(&gradient.value[k], by_x);
        }
        put(dx + i, gradient);
        put(slope + i, residual);
    });
}
} // namespace

FOR_DTYPES(parameter_free_attention_forward, (const T *x, const T *o, T *y, int n), (x, o, y, n))
FOR_DTYPES(parameter_free_attention_backward, (const T *x, const T *o, const T *dy, T *dx, T *slope, int n),
           (x, o, dy, dx, slope, n))
