// The norm of all gradients, the factor that clips them, and whether the step must be skipped; before that, what
// batches measured. Formulas:
// src/ops/clip_by_norm.rs; tables: src/ops/multi_tensor.rs. Bound by memory. Sums in two stages, always in the
// same order: a block adds up a chunk of a tensor, then one block adds up the chunks in double precision.
#include "common.cuh"

namespace {
constexpr int CHUNK = 4096; // elements of a block, as in src/ops/multi_tensor.rs
// The scalars of src/ops/adam.rs.
enum Scalar { RATE, ROOT, SHRINK, TAKE, MEAN, LIMIT, NORM, FACTOR, SKIP };

// Squares of MEAN * gradient, as then large loss scales do not overflow. partial: [blocks]
template <typename T>
__device__ void clip_by_norm_sums_kernel(const int *blocks, const int *lengths,
                                         const unsigned long long *gradients, const float *scalars,
                                         float *partial) {
    SHARED(scratch, float[THREADS / WARP]);
    const int tensor = blocks[2 * blockIdx.x], first = blocks[2 * blockIdx.x + 1];
    const int length = min(CHUNK, lengths[tensor] - first);
    const T *const g = reinterpret_cast<const T *>(gradients[tensor]);
    const float mean = scalars[MEAN];
    constexpr int SIZE = Pack<T>::SIZE;
    float sum = 0.0f;
    if (g) {
        for (int i = SIZE * int(threadIdx.x); i < length; i += SIZE * THREADS) {
            if (i + SIZE <= length) {
                const Pack<T> pack = load_pack(g + first + i);
#pragma unroll
                for (int k = 0; k < SIZE; ++k) {
                    const float v = mean * load(&pack.value[k]);
                    sum += v * v;
                }
            } else {
                for (int k = i; k < length; ++k) {
                    const float v = mean * load(g + first + k);
                    sum += v * v;
                }
            }
        }
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
} // namespace

FOR_DTYPES(clip_by_norm_sums,
           (const int *blocks, const int *lengths, const unsigned long long *gradients, const float *scalars,
            float *partial),
           (blocks, lengths, gradients, scalars, partial))

// One block. Sets NORM, FACTOR and SKIP; the sum of squares overflows beyond a norm of 1e19, which also skips. So does
// what is held, and whoever comes later in the step is held, too.
KERNEL __launch_bounds__(THREADS) clip_by_norm_factor(const float *partial, float *scalars, float *held,
                                                      int blocks) {
    SHARED(sums, double[THREADS]);
    double sum = 0.0;
    for (int i = int(threadIdx.x); i < blocks; i += THREADS) sum += double(partial[i]);
    sums[threadIdx.x] = sum;
    for (int n = THREADS / 2; n > 0; n /= 2) {
        __syncthreads();
        if (int(threadIdx.x) < n) sums[threadIdx.x] += sums[threadIdx.x + n];
    }
    if (threadIdx.x == 0) {
        const float norm = float(sqrt(sums[0])), limit = scalars[LIMIT];
        const bool finite = norm <= 3.4028235e38f; // also refuses a NaN
        const float clipped = limit == 0.0f ? 1.0f : fminf(limit / (norm + 1e-6f), 1.0f);
        scalars[NORM] = norm;
        scalars[FACTOR] = scalars[MEAN] * clipped;
        const float skip = finite && held[0] == 0.0f ? 0.0f : 1.0f;
        scalars[SKIP] = skip;
        held[0] = skip;
    }
}
REGISTER_KERNEL(clip_by_norm_factor, THREADS);

// One thread. Adds the number `at` of a batch to the sum over batches; the first is a loss, which holds the step if it is
// not finite.
KERNEL __launch_bounds__(WARP) clip_by_norm_measure(const float *number, float *sums, float *held, int at) {
    if (threadIdx.x != 0) return;
    const float value = number[0];
    sums[at] += value;
    if (at == 0 && !(fabsf(value) <= 3.4028235e38f)) held[0] = 1.0f;
}
REGISTER_KERNEL(clip_by_norm_measure, WARP);
