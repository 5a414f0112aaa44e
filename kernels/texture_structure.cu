// The difference of two maps in texture and structure. Formulas and host side: src/ops/texture_structure.rs.
// Blocks sum ranges of the pixels of an image, first for the means, then about them; one block for each image
// adds up its channels. Backward, a thread writes 16 bytes of channels of a pixel. Bound by memory.
#include "columns.cuh"

namespace {
constexpr float E = 1e-6f;
constexpr int MOMENTS = 5; // both means, both variances, the covariance
constexpr int SUMS = 3;    // places for sums in partial

// sum_columns for three sums.
template <typename T, typename Add, typename Done>
__device__ __forceinline__ void sum_three(int first, int last, int c, Add add, Done done) {
    SHARED(scratch, float[SUMS * 8 * THREADS]);
    if (in_packs<T>(c)) {
        sum_chunks<SUMS, Pack<T>>(first, last, c, scratch, add, done);
    } else {
        sum_chunks<SUMS, Single<T>>(first, last, c, scratch, add, done);
    }
}

// a, b: [N, pixels, c]; block (x, s, n) sums a range s of `rows` pixels of image n, to partial:
// [N, splits, 3, c], of which the first two are used
template <typename T>
__device__ void texture_structure_means_kernel(const T *a, const T *b, const float *, float *partial, int pixels,
                                               int c, int rows) {
    const int first = blockIdx.y * rows, last = min(first + rows, pixels);
    a += size_t(blockIdx.z) * pixels * c;
    b += size_t(blockIdx.z) * pixels * c;
    partial += (size_t(blockIdx.z) * gridDim.y + blockIdx.y) * SUMS * c;
    sum_columns<2, T>(
        first, last, c,
        [&](auto chunk, size_t i, int, auto &sums) {
            auto other = chunk;
            fetch(chunk, a + i);
            fetch(other, b + i);
#pragma unroll
            for (int k = 0; k < chunk.SIZE; ++k) {
                sums[0][k] += load(&chunk.value[k]);
                sums[1][k] += load(&other.value[k]);
            }
        },
        [&](int k, int column, float sum) { partial[size_t(k) * c + column] = sum; });
}

// The same for the squares and the product of what is about the means, moments: [N, 5, c]
template <typename T>
__device__ void texture_structure_products_kernel(const T *a, const T *b, const float *moments, float *partial,
                                                  int pixels, int c, int rows) {
    const int first = blockIdx.y * rows, last = min(first + rows, pixels);
    a += size_t(blockIdx.z) * pixels * c;
    b += size_t(blockIdx.z) * pixels * c;
    moments += size_t(blockIdx.z) * MOMENTS * c;
    partial += (size_t(blockIdx.z) * gridDim.y + blockIdx.y) * SUMS * c;
    sum_three<T>(
        first, last, c,
        [&](auto chunk, size_t i, int column, auto &sums) {
            auto other = chunk;
            fetch(chunk, a + i);
            fetch(other, b + i);
#pragma unroll
            for (int k = 0; k < chunk.SIZE; ++k) {
                const float x = load(&chunk.value[k]) - moments[column + k];
                const float y = load(&other.value[k]) - moments[c + column + k];
                sums[0][k] += x * x;
                sums[1][k] += y * y;
                sums[2][k] += x * y;
            }
        },
        [&](int k, int column, float sum) { partial[size_t(k) * c + column] = sum; });
}

// The moments first..first + count of all images, n numbers, from partial: [N, splits, 3, c]
template <typename T>
__device__ void texture_structure_finish_kernel(const float *partial, float *moments, int n, int splits, int c,
                                                int pixels, int first, int count) {
    const size_t i = element();
    if (i >= size_t(n)) return;
    const size_t image = i / (count * c), k = i / c % count, column = i % c;
    const float *sums = partial + (image * splits * SUMS + k) * c + column;
    moments[(image * MOMENTS + first + k) * c + column] = finish_column(sums, splits, SUMS * c) / float(pixels);
}

// moments: [N, 5, c]; weight: [2, c]; y: [N], a block for each
template <typename T>
__device__ void texture_structure_difference_kernel(const float *moments, const T *weight, T *y, int c) {
    SHARED(scratch, float[THREADS / WARP]);
    const float *m = moments + size_t(blockIdx.x) * MOMENTS * c;
    float sum = 0.0f;
    for (int k = threadIdx.x; k < c; k += blockDim.x) {
        const float ma = m[k], mb = m[c + k], va = m[2 * c + k], vb = m[3 * c + k], cab = m[4 * c + k];
        sum += load(weight + k) * (ma - mb) * (ma - mb) / (ma * ma + mb * mb + E);
        sum += load(weight + c + k) * (va + vb - 2.0f * cab) / (va + vb + E);
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) store(y + blockIdx.x, sum);
}

// x, other, dx: [N, pixels, c], n elements; x is the first map, or the second
template <typename T>
__device__ void texture_structure_backward_kernel(const T *x, const T *other, const float *moments,
                                                  const T *weight, const T *dy, T *dx, int n, int pixels, int c,
                                                  int second) {
    const Layout layout(1, pixels, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = layout.place(i);
        const float *m = moments + size_t(p.n) * MOMENTS * c + p.c;
        const float each = -load(dy + p.n) / float(pixels);
        auto beside = chunk;
        fetch(chunk, x + i);
        fetch(beside, other + i);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            const float mx = m[second * c + k], mo = m[(1 - second) * c + k];
            const float below = mx * mx + mo * mo + E, above = 2.0f * mx * mo + E;
            const float down = m[2 * c + k] + m[3 * c + k] + E, s = (2.0f * m[4 * c + k] + E) / down;
            const float slope = 2.0f * (mo - above / below * mx) / below * load(weight + p.c + k);
            const float about = load(&beside.value[k]) - mo - s * (load(&chunk.value[k]) - mx);
            store(&chunk.value[k], each * (slope + 2.0f * load(weight + c + p.c + k) / down * about));
        }
        put(dx + i, chunk);
    });
}
} // namespace

FOR_DTYPES(texture_structure_means,
           (const T *a, const T *b, const float *moments, float *partial, int pixels, int c, int rows),
           (a, b, moments, partial, pixels, c, rows))
FOR_DTYPES(texture_structure_products,
           (const T *a, const T *b, const float *moments, float *partial, int pixels, int c, int rows),
           (a, b, moments, partial, pixels, c, rows))
FOR_DTYPES(texture_structure_finish,
           (const float *partial, float *moments, int n, int splits, int c, int pixels, int first, int count),
           (partial, moments, n, splits, c, pixels, first, count))
FOR_DTYPES(texture_structure_difference, (const float *moments, const T *weight, T *y, int c),
           (moments, weight, y, c))
FOR_DTYPES(texture_structure_backward,
           (const T *x, const T *other, const float *moments, const T *weight, const T *dy, T *dx, int n,
            int pixels, int c, int second),
           (x, other, moments, weight, dy, dx, n, pixels, c, second))
