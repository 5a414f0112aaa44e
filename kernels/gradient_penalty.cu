// The penalty on slopes of WGAN-GP. Formulas and host side: src/ops/gradient_penalty.rs. A block sums the
// squares of a row, one block adds up the rows; backward 16 bytes a thread. Bound by memory.
#include "elementwise.cuh"

namespace {
// Block n: the norm of row n of g: [N, length]
template <typename T> __device__ void gradient_penalty_norms_kernel(const T *g, float *norms, int length) {
    SHARED(scratch, float[THREADS / WARP]);
    g += size_t(blockIdx.x) * length;
    float sum = 0.0f;
    for (int i = int(threadIdx.x); i < length; i += THREADS) sum += load(g + i) * load(g + i);
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) norms[blockIdx.x] = sqrtf(sum);
}

// One block. y: [1]
template <typename T> __device__ void gradient_penalty_finish_kernel(const float *norms, T *y, int rows) {
    SHARED(scratch, float[THREADS / WARP]);
    float sum = 0.0f;
    for (int i = int(threadIdx.x); i < rows; i += THREADS) sum += (norms[i] - 1.0f) * (norms[i] - 1.0f);
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) store(y, sum / float(rows));
}

// g, dg: [N, length], n elements; dy: [1]
template <typename T>
__device__ void gradient_penalty_backward_kernel(const T *g, const float *norms, const T *dy, T *dg, int n,
                                                 int length, int rows) {
    const float each = 2.0f * load(dy) / float(rows);
    for_chunks<T>(n, in_packs<T>(length), [&](auto chunk, unsigned i) {
        const float norm = norms[i / unsigned(length)];
        const float factor = norm > 0.0f ? each * (1.0f - 1.0f / norm) : 0.0f;
        fetch(chunk, g + i);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) store(&chunk.value[k], factor * load(&chunk.value[k]));
        put(dg + i, chunk);
    });
}
} // namespace

FOR_DTYPES(gradient_penalty_norms, (const T *g, float *norms, int length), (g, norms, length))
FOR_DTYPES(gradient_penalty_finish, (const float *norms, T *y, int rows), (norms, y, rows))
FOR_DTYPES(gradient_penalty_backward,
           (const T *g, const float *norms, const T *dy, T *dg, int n, int length, int rows),
           (g, norms, dy, dg, n, length, rows))
