// Multiplication by a number, forward and backward. Host side: src/ops/scale.rs.
// 16 bytes a thread; bound by memory.
#include "elementwise.cuh"

namespace {
// x, y: [n]
template <typename T> __device__ void scale_kernel(const T *x, T *y, float factor, int n) {
    map(x, y, n, [=](float v) { return factor * v; });
}
} // namespace

FOR_DTYPES(scale, (const T *x, T *y, float factor, int n), (x, y, factor, n))
