// What tensors do themselves: change of element type, and the sum in which gradients meet.
// Host side: src/engine/tensor.rs. Bound by memory.
#include "elementwise.cuh"

namespace {
constexpr int CAST = 8; // elements a thread: whole packs of every type

// x, y: [n]
template <typename To, typename T> __device__ void cast(const T *x, To *y, int n) {
    const size_t from = element() * CAST;
    if (from + CAST > size_t(n)) { // a tail that does not fill a pack
        for (size_t i = from; i < size_t(n); ++i) store(y + i, load(x + i));
        return;
    }
    Pack<T> in[CAST / Pack<T>::SIZE];
    Pack<To> out[CAST / Pack<To>::SIZE];
#pragma unroll
    for (int p = 0; p < CAST / Pack<T>::SIZE; ++p) in[p] = load_pack(x + from + p * Pack<T>::SIZE);
#pragma unroll
    for (int k = 0; k < CAST; ++k) {
        store(&out[k / Pack<To>::SIZE].value[k % Pack<To>::SIZE],
              load(&in[k / Pack<T>::SIZE].value[k % Pack<T>::SIZE]));
    }
#pragma unroll
    for (int p = 0; p < CAST / Pack<To>::SIZE; ++p) store_pack(y + from + p * Pack<To>::SIZE, out[p]);
}
template <typename T> __device__ void cast_to_f32_kernel(const T *x, float *y, int n) { cast(x, y, n); }
template <typename T> __device__ void cast_to_f16_kernel(const T *x, __half *y, int n) { cast(x, y, n); }
template <typename T> __device__ void cast_to_bf16_kernel(const T *x, __nv_bfloat16 *y, int n) {
    cast(x, y, n);
}

// a, b: [n]; a += b
template <typename T> __device__ void add_assign_kernel(T *a, const T *b, int n) {
    map(a, b, a, n, [](float a, float b) { return a + b; });
}
} // namespace

FOR_DTYPES(cast_to_f32, (const T *x, float *y, int n), (x, y, n))
FOR_DTYPES(cast_to_f16, (const T *x, __half *y, int n), (x, y, n))
FOR_DTYPES(cast_to_bf16, (const T *x, __nv_bfloat16 *y, int n), (x, y, n))
FOR_DTYPES(add_assign, (T *a, const T *b, int n), (a, b, n))
