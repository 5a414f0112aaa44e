// Divergence from the standard normal distribution. Formulas and host side: src/ops/kl_normal.rs. Latent codes
// are small: one block sums them all.
#include "common.cuh"

namespace {
// m, s: [rows, ..], n elements; y: [1]. One block.
template <typename T> __device__ void kl_normal_forward_kernel(const T *m, const T *s, T *y, int n, int rows) {
    SHARED(scratch, float[THREADS / WARP]);
    float sum = 0.0f;
    for (int i = int(threadIdx.x); i < n; i += THREADS) {
        const float mean = load(m + i), log_variance = load(s + i);
        sum += 0.5f * (mean * mean + (expm1f(log_variance) - log_variance));
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) store(y, sum / float(rows));
}

// m, s, dm, ds: [n]; dy: [1]
template <typename T>
__device__ void kl_normal_backward_kernel(const T *m, const T *s, const T *dy, T *dm, T *ds, int n, int rows) {
    const size_t i = element();
    if (i >= size_t(n)) return;
    const float each = load(dy) / float(rows);
    store(dm + i, each * load(m + i));
    store(ds + i, 0.5f * each * expm1f(load(s + i)));
}
} // namespace

FOR_DTYPES(kl_normal_forward, (const T *m, const T *s, T *y, int n, int rows), (m, s, y, n, rows))
FOR_DTYPES(kl_normal_backward, (const T *m, const T *s, const T *dy, T *dm, T *ds, int n, int rows),
           (m, s, dy, dm, ds, n, rows))
