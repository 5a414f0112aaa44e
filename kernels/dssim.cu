// Structural dissimilarity. Formulas and host side: src/ops/dssim.rs. A thread takes a window, backward a
// pixel, and reads its 121 neighbours through the caches: bound by those reads, which are few for a loss.
#include "elementwise.cuh"

namespace {
constexpr int RADIUS = 5, SIZE = 2 * RADIUS + 1;
constexpr float C1 = 1e-4f, C2 = 9e-4f;

// The normalised Gaussian of sigma 1.5, at distance k - RADIUS.
__device__ __forceinline__ float weight(int k) {
    const float d = float(k - RADIUS);
    return 0.26601172486f * expf(d * d * (-1.0f / 4.5f));
}

__device__ __forceinline__ int reflected(int i, int len) {
    i = i < 0 ? -i : i;
    return i < len ? i : 2 * (len - 1) - i;
}

// p, q: [N, h, w, c], n elements; partial: [blocks], sums of S; maps: [4, n], its derivatives by both means,
// either mean square and the mean product, zero where no window has its centre; may be null
template <typename T>
__device__ void dssim_windows_kernel(const T *p, const T *q, float *partial, float *maps, int n, int h, int w,
                                     int c, int margin) {
    SHARED(scratch, float[THREADS / WARP]);
    const Layout layout(h, w, c);
    float sum = 0.0f;
    for (size_t i = element(); i < size_t(n); i += size_t(gridDim.x) * blockDim.x) {
        const Place at = layout.place(unsigned(i));
        const int y = int(at.y), x = int(at.x);
        float slopes[4] = {};
        if (y >= margin && y < h - margin && x >= margin && x < w - margin) {
            float mp = 0.0f, mq = 0.0f, squares = 0.0f, pq = 0.0f;
            for (int j = 0; j < SIZE; ++j) {
                const float row = weight(j);
                const size_t from = (size_t(at.n) * h + reflected(y + j - RADIUS, h)) * w;
                for (int k = 0; k < SIZE; ++k) {
                    const size_t there = (from + reflected(x + k - RADIUS, w)) * c + at.c;
                    const float a = load(p + there), b = load(q + there), v = row * weight(k);
                    mp += v * a;
                    mq += v * b;
                    squares += v * (a * a + b * b);
                    pq += v * (a * b);
                }
            }
            const float means = mp * mp + mq * mq;
            const float a1 = 2.0f * mp * mq + C1, a2 = 2.0f * (pq - mp * mq) + C2;
            const float b1 = means + C1, b2 = squares - means + C2;
            const float below = 1.0f / (b1 * b2), s = a1 * a2 * below;
            const float first = 2.0f * (a2 - a1) * below, second = 2.0f * s * (1.0f / b2 - 1.0f / b1);
            sum += s;
            slopes[0] = first * mq + second * mp;
            slopes[1] = first * mp + second * mq;
            slopes[2] = -s / b2;
            slopes[3] = 2.0f * a1 * below;
        }
        if (maps) {
#pragma unroll
            for (int k = 0; k < 4; ++k) maps[size_t(k) * n + i] = slopes[k];
        }
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block. y: [1]
template <typename T> __device__ void dssim_finish_kernel(const float *partial, T *y, int blocks, int count) {
    SHARED(scratch, float[THREADS / WARP]);
    float sum = 0.0f;
    for (int i = int(threadIdx.x); i < blocks; i += THREADS) sum += partial[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) store(y, 0.5f - 0.5f * sum / float(count));
}

// The positions of the reflected axis that hold pixel i: itself, and its images at either end.
__device__ __forceinline__ bool image(int i, int which, int len, int &at) {
    at = which == 0 ? i : which == 1 ? -i : 2 * (len - 1) - i;
    return which == 0 || at != i;
}

// p, q, dp, dq: [N, h, w, c], n elements; dy: [1]; maps as above
template <typename T>
__device__ void dssim_backward_kernel(const T *p, const T *q, const T *dy, const float *maps, T *dp, T *dq, int n,
                                      int h, int w, int c, int margin, int count) {
    const size_t i = element();
    if (i >= size_t(n)) return;
    const Layout layout(h, w, c);
    const Place at = layout.place(unsigned(i));
    float sums[4] = {};
    for (int rows = 0; rows < 3; ++rows) {
        int y;
        if (!image(int(at.y), rows, h, y)) continue;
        for (int j = 0; j < SIZE; ++j) {
            const int centre_y = y + j - RADIUS;
            if (centre_y < margin || centre_y >= h - margin) continue;
            const float row = weight(j);
            for (int columns = 0; columns < 3; ++columns) {
                int x;
                if (!image(int(at.x), columns, w, x)) continue;
                for (int k = 0; k < SIZE; ++k) {
                    const int centre_x = x + k - RADIUS;
                    if (centre_x < margin || centre_x >= w - margin) continue;
                    const float v = row * weight(k);
                    const size_t there = ((size_t(at.n) * h + centre_y) * w + centre_x) * c + at.c;
#pragma unroll
                    for (int m = 0; m < 4; ++m) sums[m] += v * maps[size_t(m) * n + there];
                }
            }
        }
    }
    const float each = -0.5f * load(dy) / float(count), a = load(p + i), b = load(q + i);
    store(dp + i, each * (sums[0] + 2.0f * a * sums[2] + b * sums[3]));
    store(dq + i, each * (sums[1] + 2.0f * b * sums[2] + a * sums[3]));
}
} // namespace

FOR_DTYPES(dssim_windows,
           (const T *p, const T *q, float *partial, float *maps /* or null */, int n, int h, int w, int c,
            int margin),
           (p, q, partial, maps, n, h, w, c, margin))
FOR_DTYPES(dssim_finish, (const float *partial, T *y, int blocks, int count), (partial, y, blocks, count))
FOR_DTYPES(dssim_backward,
           (const T *p, const T *q, const T *dy, const float *maps, T *dp, T *dq, int n, int h, int w, int c,
            int margin, int count),
           (p, q, dy, maps, dp, dq, n, h, w, c, margin, count))
