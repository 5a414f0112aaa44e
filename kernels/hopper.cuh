// What compute capability 9.0 has beyond platform.cuh, for code that is compiled for 9.0a (HOPPER is defined) and for
// nothing else: barriers in shared memory, copies by the tensor memory accelerator (TMA), products of warpgroups.
// The other place with inline assembly, each piece of which has its twin in the emulation.
#pragma once
#include "platform.cuh"

// What the driver makes of a tensor for the TMA: opaque. Kernels take it as `const __grid_constant__ TensorMap`.
struct __align__(128) TensorMap { unsigned long long opaque[16]; };

#if defined(CUDA_EMULATION) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER

// ---------------------------------------------------------------- mbarrier
// A barrier counts the arrivals of a phase and the bytes that copies owe it. When neither is left the phase is complete
// and the next begins; waits name a phase by its parity. On a fresh one a wait for parity 1 returns at once.
using Mbarrier = uint64_t;

#ifdef CUDA_EMULATION
#define HOPPER_SITE , __FILE__, __LINE__
#endif
// Where it is in shared memory, which is what descriptors hold and swizzles go by.
__device__ __forceinline__ uint32_t shared_address(const void *shared) {
#ifdef CUDA_EMULATION
    return emulation::shared_address(shared);
#else
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
#endif
}

__device__ __forceinline__ void mbarrier_init(Mbarrier *barrier, uint32_t arrivals) {
#ifdef CUDA_EMULATION
    emulation::mbarrier_init(barrier, arrivals HOPPER_SITE);
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
#endif
}
// Makes barriers that this thread has set up known to the TMA; other threads learn of them at the next __syncthreads.
__device__ __forceinline__ void fence_mbarrier_init() {
#ifdef CUDA_EMULATION
    emulation::fence_mbarrier_init();
#else
    asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
#endif
}
// What this thread has written to shared memory before is there for the TMA and wgmma after.
__device__ __forceinline__ void fence_proxy_async() {
#ifdef CUDA_EMULATION
    emulation::fence_proxy_async();
#else
    asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
#endif
}
__device__ __forceinline__ void mbarrier_arrive(Mbarrier *barrier) {
#ifdef CUDA_EMULATION
    emulation::mbarrier_arrive(barrier, 0 HOPPER_SITE);
#else
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(barrier)) : "memory");
#endif
}
// Arrives, and announces so many bytes of copies to this phase.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(Mbarrier *barrier, uint32_t bytes) {
#ifdef CUDA_EMULATION
    emulation::mbarrier_arrive(barrier, bytes HOPPER_SITE);
#else
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
#endif
}
// Waits until the phase of this parity is complete.
__device__ __forceinline__ void mbarrier_wait(Mbarrier *barrier, uint32_t parity) {
#ifdef CUDA_EMULATION
    emulation::mbarrier_wait(barrier, parity HOPPER_SITE);
#else
    uint32_t complete;
    do {
        asm volatile("{\n"
                     ".reg .pred complete;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 complete, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, complete;\n"
                     "}\n"
                     : "=r"(complete)
                     : "r"(shared_address(barrier)), "r"(parity)
                     : "memory");
    } while (!complete);
#endif
}

// __syncthreads among `threads` of the block, whole warps that name the same number, 1 to 15.
__device__ __forceinline__ void named_barrier(uint32_t number, uint32_t threads) {
#ifdef CUDA_EMULATION
    emulation::named_barrier(number, threads HOPPER_SITE);
#else
    asm volatile("bar.sync %0, %1;\n" ::"r"(number), "r"(threads) : "memory");
#endif
}

// ---------------------------------------------------------------- TMA
// Loads, by one thread, that count for `barrier` when they land. What lies outside of the tensor becomes zero, and counts.

// Pixels from (w, h, n) on that the map's box has, in its order, each seen through the tap (tap_w, tap_h); their
// channels from c on. See "Tensors: im2col mode" in the PTX ISA.
__device__ __forceinline__ void tma_load_im2col(void *shared, const TensorMap &map, Mbarrier *barrier, int c, int w,
                                                int h, int n, int tap_w, int tap_h) {
#ifdef CUDA_EMULATION
    const int place[4] = {c, w, h, n}, taps[2] = {tap_w, tap_h};
    emulation::tma_load(shared, map.opaque, barrier, place, 4, taps HOPPER_SITE);
#else
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};\n" ::"r"(shared_address(shared)),
                 "l"(&map), "r"(shared_address(barrier)), "r"(c), "r"(w), "r"(h), "r"(n),
                 "h"(static_cast<unsigned short>(tap_w)), "h"(static_cast<unsigned short>(tap_h))
                 : "memory");
#endif
}
// A box of a tensor of three dimensions, innermost first.
__device__ __forceinline__ void tma_load_box(void *shared, const TensorMap &map, Mbarrier *barrier, int x, int y, int z) {
#ifdef CUDA_EMULATION
    const int place[3] = {x, y, z};
    emulation::tma_load(shared, map.opaque, barrier, place, 3, nullptr HOPPER_SITE);
#else
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%3, %4, %5}], [%2];\n" ::"r"(shared_address(shared)),
                 "l"(&map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z)
                 : "memory");
#endif
}

// ---------------------------------------------------------------- wgmma
// How wgmma finds a matrix in shared memory: PTX ISA, "Matrix Descriptor Format". Bytes are counted in 16.
constexpr uint32_t SWIZZLE_128 = 1; // 0: none, 2: 64 bytes, 3: 32
__device__ constexpr uint64_t wgmma_descriptor(uint32_t address, uint32_t leading, uint32_t stride, uint32_t swizzle) {
    return uint64_t((address & 0x3ffff) >> 4) | uint64_t((leading & 0x3ffff) >> 4) << 16 |
           uint64_t((stride & 0x3ffff) >> 4) << 32 | uint64_t(swizzle) << 62;
}
// Rows of 128 bytes along the depth, as the TMA writes them with SWIZZLE_128 to a multiple of 1024: eight rows after eight
// are 1024 bytes apart, the leading offset is not looked at. 16 deep on is 32 bytes on: DEEPER.
__device__ __forceinline__ uint64_t wgmma_rows(const void *tile) {
    return wgmma_descriptor(shared_address(tile), 16, 1024, SWIZZLE_128);
}
constexpr uint64_t DEEPER = 32 >> 4;

// Before the first product, and between whatever else touches sums and the products behind it.
__device__ __forceinline__ void wgmma_fence() {
#ifdef CUDA_EMULATION
    emulation::wgmma_fence(__FILE__, __LINE__);
#else
    asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#endif
}
__device__ __forceinline__ void wgmma_commit() {
#ifdef CUDA_EMULATION
    emulation::wgmma_commit(__FILE__, __LINE__);
#else
    asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
#endif
}
template <int pending> __device__ __forceinline__ void wgmma_wait() {
#ifdef CUDA_EMULATION
    emulation::wgmma_wait(pending, __FILE__, __LINE__);
#else
    asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(pending) : "memory");
#endif
}

// sums += a * b^T of a warpgroup: a 64 rows, b N rows, both 16 deep, sums 64 x N. The warp w of the four has rows 16 w on;
// lane l of it, for each eight columns j: rows l / 4 and 8 more, columns 8 j + l % 4 * 2 and the next (sums[4 j ..]).
// The products happen some time before the wait for their group; until then shared memory and sums are theirs.
#ifdef CUDA_EMULATION
#define WGMMA(type, columns) emulation::wgmma(sums, columns, a, b, type##_is_bf16 HOPPER_SITE)
constexpr bool f16_is_bf16 = false, bf16_is_bf16 = true;
#else
#define SUMS_8(i) \
    "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3]), "+f"(sums[i + 4]), "+f"(sums[i + 5]), \
        "+f"(sums[i + 6]), "+f"(sums[i + 7])
#define SUMS_32(i) SUMS_8(i), SUMS_8(i + 8), SUMS_8(i + 16), SUMS_8(i + 24)
#define NUMBERS_0 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31"
#define NUMBERS_32 \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, " \
    "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
// Added up (the predicate), neither factor negative nor transposed.
#define WGMMA_64(type) \
    asm volatile("{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n" \
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32." #type "." #type \
                 " {" NUMBERS_0 "}, %32, %33, add, 1, 1, 0, 0;\n}\n" \
                 : SUMS_32(0) \
                 : "l"(a), "l"(b))
#define WGMMA_128(type) \
    asm volatile("{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n" \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." #type "." #type \
                 " {" NUMBERS_0 ", " NUMBERS_32 "}, %64, %65, add, 1, 1, 0, 0;\n}\n" \
                 : SUMS_32(0), SUMS_32(32) \
                 : "l"(a), "l"(b))
#define WGMMA(type, columns) WGMMA_##columns(type)
#endif
template <typename T, int N> struct Wgmma;
#define WGMMA_OF(type, columns) \
    template <> struct Wgmma<type, columns> { \
        __device__ __forceinline__ static void add(float (&sums)[columns / 2], uint64_t a, uint64_t b) { \
            WGMMA(type, columns); \
        } \
    };
WGMMA_OF(f16, 64)
WGMMA_OF(f16, 128)
WGMMA_OF(bf16, 64)
WGMMA_OF(bf16, 128)
#endif
