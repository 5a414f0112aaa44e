// Weighted sum of two tensors. Host side: src/ops/scaled_add.rs; its gradients are those of scale.cu.
// 16 bytes a thread; bound by memory.
#include "elementwise.cuh"

namespace {
// a, b, y: [n]
template <typename T>
__device__ void scaled_add_kernel(const T *a, const T *b, T *y, float s, float t, int n) {
    map(a, b, y, n, [=](float a, float b) { return s * a + t * b; });
}
} // namespace

FOR_DTYPES(scaled_add, (const T *a, const T *b, T *y, float s, float t, int n), (a, b, y, s, t, n))
