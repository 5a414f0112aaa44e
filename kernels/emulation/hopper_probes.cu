// Kernels that exist only in the emulation, of what hopper.cuh has: see probes.cu.
#include "common.cuh"
#include "hopper.cuh"

namespace {
constexpr int ROWS = 64, DEPTH = 64, STAGES = 2, TILE = ROWS * DEPTH;

// Dynamic shared memory from a multiple of 1024 on: the swizzle of 128 bytes goes by addresses.
__device__ char *aligned(char *memory) { return memory + (1024 - shared_address(memory) % 1024) % 1024; }
} // namespace

// y = x w^T, of [64, depth] each: a warp loads, four multiply. Maps have boxes of 64 x 64.
KERNEL __launch_bounds__(160) probe_product(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, float *y,
                                            int steps) {
    DYNAMIC_SHARED(char, memory);
    f16 *const tiles = reinterpret_cast<f16 *>(aligned(memory));
    Mbarrier *const full = reinterpret_cast<Mbarrier *>(tiles + STAGES * 2 * TILE), *const empty = full + STAGES;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; ++stage) {
            mbarrier_init(full + stage, 1);
#if defined(BUG_HOPPER_ARRIVALS)
            mbarrier_init(empty + stage, 3);
#else
            mbarrier_init(empty + stage, 4);
#endif
        }
#if !defined(BUG_HOPPER_INIT_FENCE)
        fence_mbarrier_init();
#endif
    }
    __syncthreads();
    if (warp == 4) {
        if (lane > 0) return;
        for (int step = 0; step < steps; ++step) {
            const int stage = step % STAGES, round = step / STAGES;
            mbarrier_wait(empty + stage, 1 - round % 2);
#if defined(BUG_HOPPER_BYTES)
            mbarrier_arrive_expect_tx(full + stage, 6 * TILE);
#else
            mbarrier_arrive_expect_tx(full + stage, 4 * TILE);
#endif
            tma_load_box(tiles + stage * 2 * TILE, x, full + stage, step * DEPTH, 0, 0);
            tma_load_box(tiles + (stage * 2 + 1) * TILE, w, full + stage, step * DEPTH, 0, 0);
        }
        return;
    }
    float sums[ROWS / 2] = {};
    for (int step = 0; step < steps; ++step) {
        const int stage = step % STAGES, round = step / STAGES;
#if defined(BUG_HOPPER_PARITY)
        mbarrier_wait(full + stage, 0 * round);
#elif defined(BUG_HOPPER_NO_WAIT)
        if (round < 0) return;
#else
        mbarrier_wait(full + stage, round % 2);
#endif
#if !defined(BUG_HOPPER_FENCE)
        wgmma_fence();
#endif
        uint64_t a = wgmma_rows(tiles + stage * 2 * TILE);
        const uint64_t b = wgmma_rows(tiles + (stage * 2 + 1) * TILE);
#if defined(BUG_HOPPER_SWIZZLE)
        a ^= uint64_t(SWIZZLE_128 ^ 3) << 62;
#elif defined(BUG_HOPPER_STRIDE)
        a ^= uint64_t(1) << 32;
#endif
        for (int k = 0; k < DEPTH / 16; ++k) Wgmma<f16, ROWS>::add(sums, a + k * DEEPER, b + k * DEEPER);
        wgmma_commit();
#if defined(BUG_HOPPER_PENDING)
        wgmma_wait<1>();
#else
        wgmma_wait<0>();
#endif
        if (lane == 0) mbarrier_arrive(empty + stage);
    }
    wgmma_wait<0>();
    for (int i = 0; i < ROWS / 2; ++i)
        y[(warp * 16 + lane / 4 + i / 2 % 2 * 8) * ROWS + i / 4 * 8 + lane % 4 * 2 + i % 2] = sums[i];
}
REGISTER_KERNEL(probe_product, 160);

// The same of matrices [64, 16] that threads write, in rows of 32 bytes with the swizzle of their size.
KERNEL __launch_bounds__(128) probe_written_product(const f16 *x, const f16 *w, float *y) {
    DYNAMIC_SHARED(char, memory);
    char *const tiles = aligned(memory);
    for (int i = int(threadIdx.x); i < 2 * ROWS * 2; i += 128) {
        const int tile = i / (2 * ROWS), row = i / 2 % ROWS, part = i % 2;
        const f16 *const from = (tile ? w : x) + row * 16 + part * 8;
        store_pack(reinterpret_cast<f16 *>(tiles + tile * ROWS * 32 + row * 32 + (part ^ row / 4 % 2) * 16), load_pack(from));
    }
#if !defined(BUG_HOPPER_PROXY)
    fence_proxy_async();
#endif
    __syncthreads();
    const uint32_t address = shared_address(tiles);
    float sums[ROWS / 2] = {};
    wgmma_fence();
    Wgmma<f16, ROWS>::add(sums, wgmma_descriptor(address, 16, 256, 3), wgmma_descriptor(address + ROWS * 32, 16, 256, 3));
    wgmma_commit();
    wgmma_wait<0>();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = 0; i < ROWS / 2; ++i)
        y[(warp * 16 + lane / 4 + i / 2 % 2 * 8) * ROWS + i / 4 * 8 + lane % 4 * 2 + i % 2] = sums[i];
}
REGISTER_KERNEL(probe_written_product, 128);

// y[pixel][64 channels] = what the box of pixels brings.
KERNEL __launch_bounds__(64) probe_pixels(const __grid_constant__ TensorMap x, f16 *y, int pixels, int c, int w, int h, int n,
                                          int tap_w, int tap_h) {
    DYNAMIC_SHARED(char, memory);
    char *const tile = aligned(memory);
    Mbarrier *const there = reinterpret_cast<Mbarrier *>(tile + pixels * 128);
    if (threadIdx.x == 0) {
        mbarrier_init(there, 1);
        fence_mbarrier_init();
        mbarrier_arrive_expect_tx(there, pixels * 128);
        tma_load_im2col(tile, x, there, c, w, h, n, tap_w, tap_h);
    }
    __syncthreads();
    mbarrier_wait(there, 0);
    for (int i = int(threadIdx.x); i < pixels * 8; i += 64) {
        const int pixel = i / 8, part = i % 8;
        store_pack(y + i * 8, load_pack(reinterpret_cast<const f16 *>(tile + pixel * 128 + (part ^ pixel % 8) * 16)));
    }
}
REGISTER_KERNEL(probe_pixels, 64);

// Pairs of warps exchange their values.
KERNEL __launch_bounds__(128) probe_named_barrier(const float *x, float *y) {
    SHARED(scratch, float[128]);
    scratch[threadIdx.x] = x[threadIdx.x];
#if !defined(BUG_HOPPER_NAMED)
    named_barrier(1 + threadIdx.x / 64, 64);
#endif
    y[threadIdx.x] = scratch[threadIdx.x ^ 32];
}
REGISTER_KERNEL(probe_named_barrier, 128);

// y[i] = the descriptor of the fields x[4 i ..].
KERNEL __launch_bounds__(32) probe_descriptors(const int *x, unsigned long long *y) {
    const int *const of = x + threadIdx.x * 4;
    y[threadIdx.x] = wgmma_descriptor(uint32_t(of[0]), uint32_t(of[1]), uint32_t(of[2]), uint32_t(of[3]));
}
REGISTER_KERNEL(probe_descriptors, 32);
