// What kernels include: nvcc sees CUDA, the host compiler sees the emulation (CUDA_EMULATION defined).
// The only place, with hopper.cuh, with two implementations of one thing, and with inline assembly.
#pragma once
#ifdef CUDA_EMULATION
#include "emulation/cuda_emulation.h"
#else
#ifdef __CUDACC_RTC__ // NVRTC has no standard headers.
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#else
#include <cstdint>
#endif
#include <cuda_bf16.h>
#include <cuda_fp16.h>
template <class T> struct shared_type {
    using type = T;
};
#define SHARED(variable, ...) __shared__ __align__(128) typename shared_type<__VA_ARGS__>::type variable
#define DYNAMIC_SHARED(T, variable)                                                               \
    extern __shared__ __align__(128) unsigned char dynamic_shared_memory[];                       \
    T *const variable = reinterpret_cast<T *>(dynamic_shared_memory)
#define REGISTER_KERNEL(...) static_assert(true, "")
#endif

// Kernels are launched by name.
#define KERNEL extern "C" __global__ void

using f16 = __half;
using bf16 = __nv_bfloat16;

// dst (shared) <- src (global), 16 bytes, of which the last 16 - source_bytes become zero.
// Before sm_80 the copy is synchronous: commit and wait are then free.
__device__ __forceinline__ void cp_async_16(void *shared, const void *global, int source_bytes) {
#ifdef CUDA_EMULATION
    emulation::cp_async(shared, global, 16, unsigned(source_bytes));
#elif __CUDA_ARCH__ >= 800
    unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(global), "r"(source_bytes)
                 : "memory");
#else
    uint4 value = {0, 0, 0, 0};
    if (source_bytes == 16) {
        value = *static_cast<const uint4 *>(global);
    } else {
        unsigned short *const part = reinterpret_cast<unsigned short *>(&value);
        for (int i = 0; i < source_bytes / 2; i++) part[i] = static_cast<const unsigned short *>(global)[i];
    }
    *static_cast<uint4 *>(shared) = value;
#endif
}
__device__ __forceinline__ void cp_async_commit() {
#ifdef CUDA_EMULATION
    emulation::cp_async_commit();
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}
template <int pending> __device__ __forceinline__ void cp_async_wait() {
#ifdef CUDA_EMULATION
    emulation::cp_async_wait(pending);
#elif __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;\n" ::"n"(pending) : "memory");
#endif
}

// 2^x in one instruction: below 2^-126 it is zero.
__device__ __forceinline__ float exp2_approx(float x) {
#ifdef CUDA_EMULATION
    return x < -126.0f ? 0.0f : exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// Four 8x8 matrices of 16-bit elements; lanes 8i..8i+7 give the row addresses of matrix i.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void *row) {
#ifdef CUDA_EMULATION
    emulation::ldmatrix(r, row, 4, false, __FILE__, __LINE__);
#else
    unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
#endif
}
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&r)[4], const void *row) {
#ifdef CUDA_EMULATION
    emulation::ldmatrix(r, row, 4, true, __FILE__, __LINE__);
#else
    unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
#endif
}

// d += a * b; a: 16x16 row-major, b: 16x8 column-major fragments, 16-bit; d: 16x8 fp32.
template <typename T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ __forceinline__ void mma_m16n8k16<f16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef CUDA_EMULATION
    const uint32_t b[2] = {b0, b1};
    emulation::mma_m16n8k16(d, a, b, d, false, __FILE__, __LINE__);
#elif __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else // Turing: the same product in two halves of its depth.
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};\n"
                 "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%7,%8}, {%9}, {%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b0), "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

// The launcher refuses bf16 below sm_80.
template <>
__device__ __forceinline__ void mma_m16n8k16<bf16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef CUDA_EMULATION
    const uint32_t b[2] = {b0, b1};
    emulation::mma_m16n8k16(d, a, b, d, true, __FILE__, __LINE__);
#elif __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    __trap();
#endif
}
