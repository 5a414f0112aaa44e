// Means of distances d(a - b). Formulas: src/ops/{l1,mse,charbonnier,huber}_loss.rs; host side:
// src/ops/mean_loss.rs. Bound by memory. Sums in two stages, always in the same order: each block adds up
// its share, then one block adds up the blocks.
#include "common.cuh"

namespace {
struct Magnitude {
    __device__ __forceinline__ float of(float d) const { return fabsf(d); }
    __device__ __forceinline__ float slope(float d) const { return float(d > 0.0f) - float(d < 0.0f); }
};
struct Square {
    __device__ __forceinline__ float of(float d) const { return d * d; }
    __device__ __forceinline__ float slope(float d) const { return 2.0f * d; }
};
struct Charbonnier {
    float eps;
    __device__ __forceinline__ float of(float d) const { return sqrtf(d * d + eps * eps); }
    __device__ __forceinline__ float slope(float d) const { return d / of(d); }
};
struct Huber {
    float delta;
    __device__ __forceinline__ float of(float d) const {
        return fabsf(d) < delta ? 0.5f * d * d : delta * (fabsf(d) - 0.5f * delta);
    }
    __device__ __forceinline__ float slope(float d) const { return fminf(fmaxf(d, -delta), delta); }
};

// a, b: [n]; partial: [blocks]. Packs of 16 bytes, the rest one by one.
template <typename Distance, typename T>
__device__ void sums(const T *a, const T *b, float *partial, int n, Distance distance) {
    SHARED(scratch, float[THREADS / WARP]);
    constexpr int SIZE = Pack<T>::SIZE;
    const size_t packs = size_t(n) / SIZE, all = size_t(gridDim.x) * blockDim.x;
    float sum = 0.0f;
    for (size_t i = element(); i < packs; i += all) {
        const Pack<T> left = load_pack(a + i * SIZE), right = load_pack(b + i * SIZE);
        float of_pack = 0.0f;
#pragma unroll
        for (int k = 0; k < SIZE; ++k) of_pack += distance.of(load(&left.value[k]) - load(&right.value[k]));
        sum += of_pack;
    }
    const size_t last = packs * SIZE + element();
    if (last < size_t(n)) sum += distance.of(load(a + last) - load(b + last));
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
template <typename T> __device__ void l1_loss_sums_kernel(const T *a, const T *b, float *partial, int n) {
    sums(a, b, partial, n, Magnitude{});
}
template <typename T> __device__ void mse_loss_sums_kernel(const T *a, const T *b, float *partial, int n) {
    sums(a, b, partial, n, Square{});
}
template <typename T>
__device__ void charbonnier_loss_sums_kernel(const T *a, const T *b, float *partial, int n, float eps) {
    sums(a, b, partial, n, Charbonnier{eps});
}
template <typename T>
__device__ void huber_loss_sums_kernel(const T *a, const T *b, float *partial, int n, float delta) {
    sums(a, b, partial, n, Huber{delta});
}

// One block. y: [1]
template <typename T> __device__ void mean_loss_finish_kernel(const float *partial, T *y, int blocks, int n) {
    SHARED(scratch, float[THREADS / WARP]);
    float sum = 0.0f;
    for (int i = int(threadIdx.x); i < blocks; i += THREADS) sum += partial[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) store(y, sum / float(n));
}

// da, db: [n], db may be null; dy: [1]
template <typename Distance, typename T>
__device__ void slopes(const T *a, const T *b, const T *dy, T *da, T *db, int n, Distance distance) {
    constexpr int SIZE = Pack<T>::SIZE;
    const size_t packs = size_t(n) / SIZE, i = element();
    const float each = load(dy) / float(n);
    if (i < packs) {
        const Pack<T> left = load_pack(a + i * SIZE), right = load_pack(b + i * SIZE);
        Pack<T> up, down;
#pragma unroll
        for (int k = 0; k < SIZE; ++k) {
            const float slope = each * distance.slope(load(&left.value[k]) - load(&right.value[k]));
            store(&up.value[k], slope);
            store(&down.value[k], -slope);
        }
        store_pack(da + i * SIZE, up);
        if (db) store_pack(db + i * SIZE, down);
    }
    const size_t last = packs * SIZE + i;
    if (last < size_t(n)) {
        const float slope = each * distance.slope(load(a + last) - load(b + last));
        store(da + last, slope);
        if (db) store(db + last, -slope);
    }
}
template <typename T>
__device__ void l1_loss_backward_kernel(const T *a, const T *b, const T *dy, T *da, T *db, int n) {
    slopes(a, b, dy, da, db, n, Magnitude{});
}
template <typename T>
__device__ void mse_loss_backward_kernel(const T *a, const T *b, const T *dy, T *da, T *db, int n) {
    slopes(a, b, dy, da, db, n, Square{});
}
template <typename T>
__device__ void charbonnier_loss_backward_kernel(const T *a, const T *b, const T *dy, T *da, T *db, int n, float eps) {
    slopes(a, b, dy, da, db, n, Charbonnier{eps});
}
template <typename T>
__device__ void huber_loss_backward_kernel(const T *a, const T *b, const T *dy, T *da, T *db, int n, float delta) {
    slopes(a, b, dy, da, db, n, Huber{delta});
}
} // namespace

FOR_DTYPES(l1_loss_sums, (const T *a, const T *b, float *partial, int n), (a, b, partial, n))
FOR_DTYPES(mse_loss_sums, (const T *a, const T *b, float *partial, int n), (a, b, partial, n))
FOR_DTYPES(mean_loss_finish, (const float *partial, T *y, int blocks, int n), (partial, y, blocks, n))
FOR_DTYPES(l1_loss_backward, (const T *a, const T *b, const T *dy, T *da, T *db /* or null */, int n),
           (a, b, dy, da, db, n))
FOR_DTYPES(mse_loss_backward, (const T *a, const T *b, const T *dy, T *da, T *db /* or null */, int n),
           (a, b, dy, da, db, n))
FOR_DTYPES(charbonnier_loss_sums, (const T *a, const T *b, float *partial, int n, float eps), (a, b, partial, n, eps))
FOR_DTYPES(huber_loss_sums, (const T *a, const T *b, float *partial, int n, float delta), (a, b, partial, n, delta))
FOR_DTYPES(charbonnier_loss_backward, (const T *a, const T *b, const T *dy, T *da, T *db /* or null */, int n, float eps),
           (a, b, dy, da, db, n, eps))
FOR_DTYPES(huber_loss_backward, (const T *a, const T *b, const T *dy, T *da, T *db /* or null */, int n, float delta),
           (a, b, dy, da, db, n, delta))
