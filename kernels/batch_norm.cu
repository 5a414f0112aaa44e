// Batch normalisation. Formulas and host side: src/ops/batch_norm.rs.
// Statistics: blocks sum ranges of rows (pixels of all images), a second kernel joins them. The rest is one
// thread for 16 bytes of channels of a pixel, or for single ones of ragged channels. Bound by memory.
#include "columns.cuh"

namespace {
// x: [rows, c]; block (_, s) sums a range s of `rows_each` rows, to partial: [splits, 2, c]. The sums are of
// the differences to the first row and of their squares: a mean far from zero must not cancel.
template <typename T>
__device__ void batch_norm_sums_kernel(const T *x, float *partial, int rows, int c, int rows_each) {
    const int first = blockIdx.y * rows_each, last = min(first + rows_each, rows);
    partial += size_t(blockIdx.y) * 2 * c;
    sum_columns<2, T>(
        first, last, c,
        [&](auto chunk, size_t i, int column, auto &sums) {
            auto shift = chunk;
            fetch(chunk, x + i);
            fetch(shift, x + column);
#pragma unroll
            for (int k = 0; k < chunk.SIZE; ++k) {
                const float d = load(&chunk.value[k]) - load(&shift.value[k]);
                sums[0][k] += d;
                sums[1][k] += d * d;
            }
        },
        [&](int k, int column, float sum) { partial[k * c + column] = sum; });
}

// partial: [splits, 2, c]; x: [rows, c]; statistics: [2, c], mean and variance
template <typename T>
__device__ void batch_norm_statistics_kernel(const float *partial, const T *x, float *statistics, int rows,
                                             int splits, int c) {
    const int i = int(element());
    if (i >= c) return;
    const float mean = finish_column(partial + i, splits, 2 * c) / rows;
    const float square = finish_column(partial + c + i, splits, 2 * c) / rows;
    statistics[i] = load(x + i) + mean;
    statistics[c + i] = max(square - mean * mean, 0.0f);
}

} // namespace

// statistics of the batch: [2, c]; running: [2, c], moved towards them by `momentum`
KERNEL __launch_bounds__(THREADS)
    batch_norm_follow(const float *statistics, float *running, float momentum, float unbias, int c) {
    const int i = int(element());
    if (i >= c) return;
    running[i] += momentum * (statistics[i] - running[i]);
    running[c + i] += momentum * (unbias * statistics[c + i] - running[c + i]);
}
REGISTER_KERNEL(batch_norm_follow);

namespace {
// xhat of element v of channel `at`
__device__ __forceinline__ float normalised(float v, const float *statistics, unsigned at, int c, float eps) {
    return (v - statistics[at]) * rsqrtf(statistics[c + at] + eps);
}

// x, y: [rows, c], n elements; gamma, beta: [c]; statistics: [2, c]
template <typename T>
__device__ void batch_norm_forward_kernel(const T *x, const T *gamma, const T *beta, const float *statistics,
                                          T *y, int n, int c, float eps) {
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const unsigned column = i % unsigned(c);
        auto scale = chunk, shift = chunk;
        fetch(chunk, x + i);
        fetch(scale, gamma + column);
        fetch(shift, beta + column);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            const float hat = normalised(load(&chunk.value[k]), statistics, column + k, c, eps);
            store(&chunk.value[k], hat * load(&scale.value[k]) + load(&shift.value[k]));
        }
        put(y + i, chunk);
    });
}

// x, dy: [rows, c]; block (_, s) sums dy and dy xhat of a range s of rows, to partial: [splits, 2, c]
template <typename T>
__device__ void batch_norm_backward_sums_kernel(const T *x, const T *dy, const float *statistics,
                                                float *partial, int rows, int c, int rows_each, float eps) {
    const int first = blockIdx.y * rows_each, last = min(first + rows_each, rows);
    partial += size_t(blockIdx.y) * 2 * c;
    sum_columns<2, T>(
        first, last, c,
        [&](auto chunk, size_t i, int column, auto &sums) {
            auto gradient = chunk;
            fetch(chunk, x + i);
            fetch(gradient, dy + i);
#pragma unroll
            for (int k = 0; k < chunk.SIZE; ++k) {
                const float d = load(&gradient.value[k]);
                sums[0][k] += d;
                sums[1][k] += d * normalised(load(&chunk.value[k]), statistics, column + k, c, eps);
            }
        },
        [&](int k, int column, float sum) { partial[k * c + column] = sum; });
}

// partial: [splits, 2, c]; sums: [2, c], and as T dbeta and dgamma
template <typename T>
__device__ void batch_norm_backward_finish_kernel(const float *partial, float *sums, T *dgamma, T *dbeta,
                                                  int splits, int c) {
    const int i = int(element());
    if (i >= c) return;
    sums[i] = finish_column(partial + i, splits, 2 * c);
    sums[c + i] = finish_column(partial + c + i, splits, 2 * c);
    store(dbeta + i, sums[i]);
    store(dgamma + i, sums[c + i]);
}

// x, dy, dx: [rows, c], n elements; share: 1 / rows, or 0 if the statistics do not depend on x
template <typename T>
__device__ void batch_norm_backward_kernel(const T *x, const T *dy, const T *gamma, const float *statistics,
                                           const float *sums, T *dx, int n, int c, float eps, float share) {
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const unsigned column = i % unsigned(c);
        auto gradient = chunk, scale = chunk;
        fetch(chunk, x + i);
        fetch(gradient, dy + i);
        fetch(scale, gamma + column);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            const unsigned at = column + k;
            const float rstd = rsqrtf(statistics[c + at] + eps);
            const float hat = (load(&chunk.value[k]) - statistics[at]) * rstd;
            const float rest = share * (sums[at] + hat * sums[c + at]);
            store(&chunk.value[k], rstd * load(&scale.value[k]) * (load(&gradient.value[k]) - rest));
        }
        put(dx + i, chunk);
    });
}
} // namespace

FOR_DTYPES(batch_norm_sums, (const T *x, float *partial, int rows, int c, int rows_each),
           (x, partial, rows, c, rows_each))
FOR_DTYPES(batch_norm_statistics,
           (const float *partial, const T *x, float *statistics, int rows, int splits, int c),
           (partial, x, statistics, rows, splits, c))
FOR_DTYPES(batch_norm_forward,
           (const T *x, const T *gamma, const T *beta, const float *statistics, T *y, int n, int c,
            float eps),
           (x, gamma, beta, statistics, y, n, c, eps))
FOR_DTYPES(batch_norm_backward_sums,
           (const T *x, const T *dy, const float *statistics, float *partial, int rows, int c, int rows_each,
            float eps),
           (x, dy, statistics, partial, rows, c, rows_each, eps))
FOR_DTYPES(batch_norm_backward_finish,
           (const float *partial, float *sums, T *dgamma, T *dbeta, int splits, int c),
           (partial, sums, dgamma, dbeta, splits, c))
FOR_DTYPES(batch_norm_backward,
           (const T *x, const T *dy, const T *gamma, const float *statistics, const float *sums, T *dx, int n,
            int c, float eps, float share),
           (x, dy, gamma, statistics, sums, dx, n, c, eps, share))
