// Leaky ReLU. Formulas and host side: src/ops/leaky_relu.rs. 16 bytes a thread; bound by memory.
#include "elementwise.cuh"

namespace {
// x, y: [n]
template <typename T> __device__ void leaky_relu_forward_kernel(const T *x, T *y, float slope, int n) {
    map(x, y, n, [=](float v) { return v > 0.0f ? v : slope * v; });
}

// x, dy, dx: [n]
template <typename T>
__device__ void leaky_relu_backward_kernel(const T *x, const T *dy, T *dx, float slope, int n) {
    map(x, dy, dx, n, [=](float v, float d) { return v > 0.0f ? d : slope * d; });
}
} // namespace

FOR_DTYPES(leaky_relu_forward, (const T *x, T *y, float slope, int n), (x, y, slope, n))
FOR_DTYPES(leaky_relu_backward, (const T *x, const T *dy, T *dx, float slope, int n), (x, dy, dx, slope, n))
