// The distance of the directions of two maps. Formulas and host side: src/ops/unit_distance.rs.
// A warp takes the channels of a pixel: its lanes stride over them; forward reads them twice, backward three
// times, mostly from the cache. Bound by memory.
#include "common.cuh"

namespace {
constexpr float EPS = 1e-10f;

// The norm of the c numbers at x, in every lane of the warp.
template <typename T> __device__ __forceinline__ float norm(const T *x, int c) {
    float sum = 0.0f;
    for (int k = threadIdx.x % WARP; k < c; k += WARP) sum += load(x + k) * load(x + k);
    return sqrtf(warp_sum(sum));
}

// a, b: [N, pixels, c]; weight: [c]; block (x, n) sums every gridDim.x-th group of pixels of image n, to
// partial: [N, gridDim.x]
template <typename T>
__device__ void unit_distance_sums_kernel(const T *a, const T *b, const T *weight, float *partial, int pixels,
                                          int c) {
    SHARED(scratch, float[THREADS / WARP]);
    const int warps = int(blockDim.x) / WARP;
    float sum = 0.0f;
    for (int pixel = blockIdx.x * warps + threadIdx.x / WARP; pixel < pixels; pixel += gridDim.x * warps) {
        const size_t at = (size_t(blockIdx.y) * pixels + pixel) * c;
        const float i = 1.0f / (norm(a + at, c) + EPS), j = 1.0f / (norm(b + at, c) + EPS);
        for (int k = threadIdx.x % WARP; k < c; k += WARP) {
            const float d = load(a + at + k) * i - load(b + at + k) * j;
            sum += load(weight + k) * d * d;
        }
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[size_t(blockIdx.y) * gridDim.x + blockIdx.x] = sum;
}

// partial: [n, blocks]; y: [n]
template <typename T>
__device__ void unit_distance_finish_kernel(const float *partial, T *y, int n, int blocks, int pixels) {
    const size_t i = element();
    if (i >= size_t(n)) return;
    float sum = 0.0f;
    for (int block = 0; block < blocks; ++block) sum += partial[i * blocks + block];
    store(y + i, sum / float(pixels));
}

// a, b, da: [n pixels of all images, c]; dy: [N], one for `pixels` of them; a warp for each pixel
template <typename T>
__device__ void unit_distance_backward_kernel(const T *a, const T *b, const T *weight, const T *dy, T *da, int n,
                                              int pixels, int c) {
    const int pixel = int(element() / WARP);
    if (pixel >= n) return;
    const size_t at = size_t(pixel) * c;
    const float size = norm(a + at, c), s = size + EPS, i = 1.0f / s, j = 1.0f / (norm(b + at, c) + EPS);
    const float each = 2.0f * load(dy + pixel / pixels) / float(pixels);
    float along = 0.0f;
    for (int k = threadIdx.x % WARP; k < c; k += WARP) {
        const float v = load(a + at + k);
        along += load(weight + k) * (v * i - load(b + at + k) * j) * v;
    }
    along = warp_sum(along);
    const float back = size > 0.0f ? along / size * i * i : 0.0f;
    for (int k = threadIdx.x % WARP; k < c; k += WARP) {
        const float v = load(a + at + k), g = load(weight + k) * (v * i - load(b + at + k) * j);
        store(da + at + k, size > 0.0f ? each * (g * i - back * v) : 0.0f);
    }
}
} // namespace

FOR_DTYPES(unit_distance_sums, (const T *a, const T *b, const T *weight, float *partial, int pixels, int c),
           (a, b, weight, partial, pixels, c))
FOR_DTYPES(unit_distance_finish, (const float *partial, T *y, int n, int blocks, int pixels),
           (partial, y, n, blocks, pixels))
FOR_DTYPES(unit_distance_backward,
           (const T *a, const T *b, const T *weight, const T *dy, T *da, int n, int pixels, int c),
           (a, b, weight, dy, da, n, pixels, c))
