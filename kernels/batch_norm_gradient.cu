// Backward of the gradient of batch normalisation. Formulas and host side: src/ops/batch_norm_gradient.rs; the
// sums over one gradient are those of batch_norm.cu. 16 bytes a thread; bound by memory.
#include "columns.cuh"

namespace {
// v, dy: [rows, c]; block (_, s) sums v dy of a range s of rows, to partial: [splits, 2, c], the first of the two
template <typename T>
__device__ void batch_norm_gradient_sums_kernel(const T *v, const T *dy, float *partial, int rows, int c,
                                                int rows_each) {
    const int first = blockIdx.y * rows_each, last = min(first + rows_each, rows);
    partial += size_t(blockIdx.y) * 2 * c;
    sum_columns<1, T>(
        first, last, c,
        [&](auto chunk, size_t i, int, auto &sums) {
            auto other = chunk;
            fetch(chunk, v + i);
            fetch(other, dy + i);
#pragma unroll
            for (int k = 0; k < chunk.SIZE; ++k) {
                sums[0][k] += load(&chunk.value[k]) * load(&other.value[k]);
            }
        },
        [&](int, int column, float sum) { partial[column] = sum; });
}

// partial: [splits, 2, c]; of_dy, of_v: [2, c], plain sums and those with xhat; both: [c], S; dgamma: [c]
template <typename T>
__device__ void batch_norm_gradient_finish_kernel(const float *partial, const float *of_dy, const float *of_v,
                                                  const float *statistics, float *both, T *dgamma, int splits,
                                                  int c, float eps, float share) {
    const int i = int(element());
    if (i >= c) return;
    const float sum = finish_column(partial + i, splits, 2 * c);
    both[i] = sum - share * (of_dy[i] * of_v[i] + of_dy[c + i] * of_v[c + i]);
    store(dgamma + i, rsqrtf(statistics[c + i] + eps) * both[i]);
}

// x, dy, v, dx: [rows, c], n elements; gamma: [c]; statistics, of_dy, of_v: [2, c]; both: [c]
template <typename T>
__device__ void batch_norm_gradient_backward_kernel(const T *x, const T *dy, const T *v, const T *gamma,
                                                    const float *statistics, const float *of_dy,
                                                    const float *of_v, const float *both, T *dx, int n, int c,
                                                    float eps, float share) {
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const unsigned column = i % unsigned(c);
        auto gradient = chunk, second = chunk, scale = chunk;
        fetch(chunk, x + i);
        fetch(gradient, dy + i);
        fetch(second, v + i);
        fetch(scale, gamma + column);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            const unsigned at = column + k;
            const float rstd = rsqrtf(statistics[c + at] + eps);
            const float hat = (load(&chunk.value[k]) - statistics[at]) * rstd;
            const float a = of_dy[at], b = of_dy[c + at], sum = of_v[at], of_hat = of_v[c + at];
            const float means = share * (b * sum + of_hat * a), twice = 2.0f * share * b * of_hat;
            const float rest = (both[at] - twice) * hat + b * load(&second.value[k]) +
                               of_hat * load(&gradient.value[k]) - means;
            store(&chunk.value[k], -rstd * rstd * load(&scale.value[k]) * share * rest);
        }
        put(dx + i, chunk);
    });
}
} // namespace

FOR_DTYPES(batch_norm_gradient_sums, (const T *v, const T *dy, float *partial, int rows, int c, int rows_each),
           (v, dy, partial, rows, c, rows_each))
FOR_DTYPES(batch_norm_gradient_finish,
           (const float *partial, const float *of_dy, const float *of_v, const float *statistics, float *both,
            T *dgamma, int splits, int c, float eps, float share),
           (partial, of_dy, of_v, statistics, both, dgamma, splits, c, eps, share))
FOR_DTYPES(batch_norm_gradient_backward,
           (const T *x, const T *dy, const T *v, const T *gamma, const float *statistics, const float *of_dy,
            const float *of_v, const float *both, T *dx, int n, int c, float eps, float share),
           (x, dy, v, gamma, statistics, of_dy, of_v, both, dx, n, c, eps, share))
