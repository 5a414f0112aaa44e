// ReLU. Formulas and host side: src/ops/relu.rs. 16 bytes a thread; bound by memory.
#include "elementwise.cuh"

namespace {
// x, y: [n]; a NaN stays
template <typename T> __device__ void relu_forward_kernel(const T *x, T *y, int n) {
    map(x, y, n, [](float v) { return v < 0.0f ? 0.0f : v; });
}

// y, dy, dx: [n]
template <typename T> __device__ void relu_backward_kernel(const T *y, const T *dy, T *dx, int n) {
    map(y, dy, dx, n, [](float v, float d) { return v > 0.0f ? d : 0.0f; });
}
} // namespace

FOR_DTYPES(relu_forward, (const T *x, T *y, int n), (x, y, n))
FOR_DTYPES(relu_backward, (const T *y, const T *dy, T *dx, int n), (y, dy, dx, n))
