// GELU. Formulas and host side: src/ops/gelu.rs. 16 bytes a thread; bound by memory.
#include "elementwise.cuh"

namespace {
// The normal distribution function.
__device__ __forceinline__ float distribution(float v) { return 0.5f * (1.0f + erff(v * 0.70710678f)); }

// x, y: [n]
template <typename T> __device__ void gelu_forward_kernel(const T *x, T *y, int n) {
    map(x, y, n, [](float v) { return v * distribution(v); });
}

// x, dy, dx: [n]
template <typename T> __device__ void gelu_backward_kernel(const T *x, const T *dy, T *dx, int n) {
    map(x, dy, dx, n, [](float v, float d) {
        const float density = 0.39894228f * __expf(-0.5f * v * v);
        return d * (distribution(v) + v * density);
    });
}
} // namespace

FOR_DTYPES(gelu_forward, (const T *x, T *y, int n), (x, y, n))
FOR_DTYPES(gelu_backward, (const T *x, const T *dy, T *dx, int n), (x, dy, dx, n))
