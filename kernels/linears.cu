// Several linear maps of the same vectors in one launch. Formulas and host side: src/ops/linears.rs. A warp adds up one
// output of all images; bound by memory, which is the weights, read once.
#include "common.cuh"

namespace {
constexpr int COLUMNS = THREADS / WARP; // outputs of a block, all of one layer

// x: [images, inputs], y: [images, columns]; table: [blocks, 2] addresses of the weights [.., inputs] of a block's first
// output and of its bias; counts: [blocks] how many outputs there are; behind them y is 0.
template <typename T>
__device__ void linears_kernel(const T *x, const unsigned long long *table, const int *counts, T *y, int images, int inputs,
                               int columns, int silu) {
    constexpr int PACK = Pack<T>::SIZE;
    const unsigned long long *const block = table + 2 * blockIdx.x;
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    const bool present = warp < counts[blockIdx.x];
    const T *const w = reinterpret_cast<const T *>(block[0]) + size_t(present ? warp : 0) * inputs;
    const T *const bias = reinterpret_cast<const T *>(block[1]);
    const int packed = inputs % PACK == 0 ? inputs : 0;
    for (int n = 0; n < images; ++n) {
        const T *const from = x + size_t(n) * inputs;
        float sum = 0.0f;
        for (int i = lane * PACK; i < packed; i += WARP * PACK) {
            const Pack<T> a = load_pack(from + i), b = load_pack(w + i);
#pragma unroll
            for (int e = 0; e < PACK; ++e) sum += load(&a.value[e]) * load(&b.value[e]);
        }
        for (int i = packed + lane; i < inputs; i += WARP) sum += load(from + i) * load(w + i);
        sum = warp_sum(sum);
        if (lane > 0) continue;
        if (present) sum += load(bias + warp);
        if (silu) sum *= sigmoid(sum);
        store(y + size_t(n) * columns + blockIdx.x * COLUMNS + warp, present ? sum : 0.0f);
    }
}
} // namespace

FOR_DTYPES(linears,
           (const T *x, const unsigned long long *table, const int *counts, T *y, int images, int inputs,
            int columns, int silu),
           (x, table, counts, y, images, inputs, columns, silu))
