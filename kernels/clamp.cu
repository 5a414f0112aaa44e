// Keeping values within bounds. Formulas and host side: src/ops/clamp.rs. 16 bytes a thread; bound by memory.
#include "elementwise.cuh"

namespace {
// x, y: [n]; if `finite`, what is infinite becomes NaN
template <typename T>
__device__ void clamp_forward_kernel(const T *x, T *y, float low, float high, int finite, int n) {
    map(x, y, n, [=](float v) { return finite && v - v != 0.0f ? v - v : v < low ? low : v > high ? high : v; });
}

// x, dy, dx: [n]
template <typename T>
__device__ void clamp_backward_kernel(const T *x, const T *dy, T *dx, float low, float high, int n) {
    map(x, dy, dx, n, [=](float v, float d) { return v < low || v > high ? 0.0f : d; });
}
} // namespace

FOR_DTYPES(clamp_forward, (const T *x, T *y, float low, float high, int finite, int n), (x, y, low, high, finite, n))
FOR_DTYPES(clamp_backward, (const T *x, const T *dy, T *dx, float low, float high, int n),
           (x, dy, dx, low, high, n))
