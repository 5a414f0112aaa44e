// Whether all elements of a tensor are finite. Host side: src/ops/check_finite.rs. Bound by memory; in two
// stages, as one word that all blocks write would be a race, if a harmless one.
#include "common.cuh"

namespace {
// x: [n]; found: [blocks], 1 where a block met an infinity or a NaN
template <typename T> __device__ void check_finite_blocks_kernel(const T *x, float *found, int n) {
    SHARED(scratch, float[THREADS / WARP]);
    constexpr int SIZE = Pack<T>::SIZE;
    const size_t packs = size_t(n) / SIZE, all = size_t(gridDim.x) * blockDim.x;
    bool bad = false;
    for (size_t i = element(); i < packs; i += all) {
        const Pack<T> pack = load_pack(x + i * SIZE);
#pragma unroll
        for (int k = 0; k < SIZE; ++k) bad |= !(fabsf(load(&pack.value[k])) <= 3.4028235e38f);
    }
    const size_t last = packs * SIZE + element();
    if (last < size_t(n)) bad |= !(fabsf(load(x + last)) <= 3.4028235e38f);
    const float sum = block_sum(bad ? 1.0f : 0.0f, scratch);
    if (threadIdx.x == 0) found[blockIdx.x] = sum > 0.0f ? 1.0f : 0.0f;
}
} // namespace

FOR_DTYPES(check_finite_blocks, (const T *x, float *found, int n), (x, found, n))

// One block: flags[at] becomes 1 or 0.
KERNEL __launch_bounds__(THREADS) check_finite_flag(const float *found, float *flags, int blocks, int at) {
    SHARED(scratch, float[THREADS / WARP]);
    float sum = 0.0f;
    for (int i = int(threadIdx.x); i < blocks; i += THREADS) sum += found[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) flags[at] = sum > 0.0f ? 1.0f : 0.0f;
}
REGISTER_KERNEL(check_finite_flag, THREADS);
