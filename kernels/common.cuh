// Shared by every kernel: element access, 16-byte packs, reductions, export per element type.
// Arithmetic is float everywhere; T (float, f16, bf16) is only how memory stores it.
#pragma once
#include "platform.cuh"

constexpr int WARP = 32;
constexpr unsigned FULL_MASK = 0xffffffffu;
constexpr int THREADS = 256; // of a block, unless a kernel says otherwise

__device__ __forceinline__ float load(const float *p) { return *p; }
__device__ __forceinline__ float load(const f16 *p) { return __half2float(*p); }
__device__ __forceinline__ float load(const bf16 *p) { return __bfloat162float(*p); }
__device__ __forceinline__ void store(float *p, float v) { *p = v; }
__device__ __forceinline__ void store(f16 *p, float v) { *p = __float2half_rn(v); }
__device__ __forceinline__ void store(bf16 *p, float v) { *p = __float2bfloat16_rn(v); }

// 16 bytes of T. Memory moves as one uint4: a struct of halves would become narrower loads.
template <typename T> union __align__(16) Pack {
    static constexpr int SIZE = 16 / int(sizeof(T));
    uint4 bits;
    T value[SIZE];
    __device__ __forceinline__ Pack() {}
};
template <typename T> __device__ __forceinline__ Pack<T> load_pack(const T *p) {
    Pack<T> pack;
    pack.bits = *reinterpret_cast<const uint4 *>(p);
    return pack;
}
template <typename T> __device__ __forceinline__ void store_pack(T *p, const Pack<T> &pack) {
    *reinterpret_cast<uint4 *>(p) = pack.bits;
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(FULL_MASK, v, offset);
    return v;
}

// Sum of v over the block, in every thread, always in the same order. `scratch` holds one float a warp.
__device__ __forceinline__ float block_sum(float v, float *scratch) {
    v = warp_sum(v);
    const int warps = int(blockDim.x) / WARP;
    __syncthreads(); // scratch may still be in use by the previous call
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = v;
    __syncthreads();
    float sum = 0.0f;
    for (int w = 0; w < warps; ++w) sum += scratch[w];
    return sum;
}

// Off by two units in the last place: an exact quotient would take as many instructions again, and a call. A power that is
// subnormal adds nothing to 1: without one, three instructions less.
__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + exp2_approx(x * -1.44269504f)); }

// The index of this thread in a one-dimensional grid of elements.
__device__ __forceinline__ size_t element() { return size_t(blockIdx.x) * blockDim.x + threadIdx.x; }

// FOR_DTYPES(name, (parameters with T), (arguments)) exports name_f32, name_f16 and name_bf16 over the
// template function name_kernel<T>; WITH_LIMIT states the largest block.
#define EXPORT_KERNEL(suffix, type, threads, name, parameters, arguments)                         \
    namespace in_##suffix {                                                                       \
    using T = type;                                                                               \
    KERNEL __launch_bounds__(threads) name##_##suffix parameters { name##_kernel<T> arguments; }  \
    REGISTER_KERNEL(name##_##suffix, threads);                                                    \
    }
#define FOR_DTYPES_WITH_LIMIT(threads, name, parameters, arguments)                               \
    EXPORT_KERNEL(f32, float, threads, name, parameters, arguments)                               \
    EXPORT_KERNEL(f16, __half, threads, name, parameters, arguments)                              \
    EXPORT_KERNEL(bf16, __nv_bfloat16, threads, name, parameters, arguments)
#define FOR_DTYPES(name, parameters, arguments) FOR_DTYPES_WITH_LIMIT(THREADS, name, parameters, arguments)
