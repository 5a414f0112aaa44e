// SiLU. Formulas and host side: src/ops/silu.rs. One thread an element; bound by memory.
#include "common.cuh"

namespace {
// x, y: [n]
template <typename T> __device__ void silu_forward_kernel(const T *x, T *y, int n) {
    const size_t i = element();
#if !defined(BUG_SILU_EDGE) // seeded bugs: see kernels/emulation
    if (i >= size_t(n)) return;
#endif
    const float v = load(x + i);
    store(y + i, v * sigmoid(v));
}

// x, dy, dx: [n]
template <typename T> __device__ void silu_backward_kernel(const T *x, const T *dy, T *dx, int n) {
    const size_t i = element();
    if (i >= size_t(n)) return;
    const float v = load(x + i), s = sigmoid(v);
#if defined(BUG_SILU_SLOPE)
    store(dx + i, load(dy + i) * s);
#else
    store(dx + i, load(dy + i) * s * (1.0f + v * (1.0f - s)));
#endif
}
} // namespace

FOR_DTYPES(silu_forward, (const T *x, T *y, int n), (x, y, n))
FOR_DTYPES(silu_backward, (const T *x, const T *dy, T *dx, int n), (x, dy, dx, n))
