// Hyperbolic tangent. Formulas and host side: src/ops/tanh.rs. 16 bytes a thread; bound by memory.
#include "elementwise.cuh"

namespace {
// x, y: [n]
template <typename T> __device__ void tanh_forward_kernel(const T *x, T *y, int n) {
    map(x, y, n, [](float v) { return tanhf(v); });
}

// y, dy, dx: [n]
template <typename T> __device__ void tanh_backward_kernel(const T *y, const T *dy, T *dx, int n) {
    map(y, dy, dx, n, [](float v, float d) { return d * (1.0f - v) * (1.0f + v); });
}
} // namespace

FOR_DTYPES(tanh_forward, (const T *x, T *y, int n), (x, y, n))
FOR_DTYPES(tanh_backward, (const T *y, const T *dy, T *dx, int n), (y, dy, dx, n))
