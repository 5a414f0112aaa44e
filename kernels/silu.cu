// SiLU. Formulas and host side: src/ops/silu.rs. 16 bytes a thread; bound by memory.
#include "elementwise.cuh"

namespace {
// x, y: [n]
template <typename T> __device__ void silu_forward_kernel(const T *x, T *y, int n) {
#if defined(BUG_SILU_EDGE) // seeded bugs: see kernels/emulation
    n++;
#endif
    map(x, y, n, [](float v) { return v * sigmoid(v); });
}

// x, dy, dx: [n]
template <typename T> __device__ void silu_backward_kernel(const T *x, const T *dy, T *dx, int n) {
    map(x, dy, dx, n, [](float v, float d) {
        const float s = sigmoid(v);
#if defined(BUG_SILU_SLOPE)
        return d * s;
#else
        return d * s * (1.0f + v * (1.0f - s));
#endif
    });
}
} // namespace

FOR_DTYPES(silu_forward, (const T *x, T *y, int n), (x, y, n))
FOR_DTYPES(silu_backward, (const T *x, const T *dy, T *dx, int n), (x, dy, dx, n))
