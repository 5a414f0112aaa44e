// What tensors do themselves: change of element type, and the sum in which gradients meet.
// Host side: src/engine/tensor.rs. One thread an element; bound by memory.
#include "common.cuh"

namespace {
template <typename To, typename T> __device__ void cast(const T *x, To *y, int n) {
    const size_t i = element();
    if (i < size_t(n)) store(y + i, load(x + i));
}
template <typename T> __device__ void cast_to_f32_kernel(const T *x, float *y, int n) { cast(x, y, n); }
template <typename T> __device__ void cast_to_f16_kernel(const T *x, __half *y, int n) { cast(x, y, n); }
template <typename T> __device__ void cast_to_bf16_kernel(const T *x, __nv_bfloat16 *y, int n) { cast(x, y, n); }

// a, b: [n]; a += b
template <typename T> __device__ void add_assign_kernel(T *a, const T *b, int n) {
    const size_t i = element();
    if (i < size_t(n)) store(a + i, load(a + i) + load(b + i));
}
} // namespace

FOR_DTYPES(cast_to_f32, (const T *x, float *y, int n), (x, y, n))
FOR_DTYPES(cast_to_f16, (const T *x, __half *y, int n), (x, y, n))
FOR_DTYPES(cast_to_bf16, (const T *x, __nv_bfloat16 *y, int n), (x, y, n))
FOR_DTYPES(add_assign, (T *a, const T *b, int n), (a, b, n))
