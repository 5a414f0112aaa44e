// Means of |a - b| and (a - b)^2. Formulas: src/ops/l1_loss.rs, src/ops/mse_loss.rs; host side:
// src/ops/mean_loss.rs. Bound by memory. Sums in two stages, always in the same order: each block adds up
// its share, then one block adds up the blocks.
#include "common.cuh"

namespace {
struct Magnitude {
    static __device__ __forceinline__ float of(float d) { return fabsf(d); }
    static __device__ __forceinline__ float slope(float d) { return float(d > 0.0f) - float(d < 0.0f); }
};
struct Square {
    static __device__ __forceinline__ float of(float d) { return d * d; }
    static __device__ __forceinline__ float slope(float d) { return 2.0f * d; }
};

// a, b: [n]; partial: [blocks]. Packs of 16 bytes, the rest one by one.
template <typename Distance, typename T> __device__ void sums(const T *a, const T *b, float *partial, int n) {
    SHARED(scratch, float[THREADS / WARP]);
    constexpr int SIZE = Pack<T>::SIZE;
    const size_t packs = size_t(n) / SIZE, all = size_t(gridDim.x) * blockDim.x;
    float sum = 0.0f;
    for (size_t i = element(); i < packs; i += all) {
        const Pack<T> left = load_pack(a + i * SIZE), right = load_pack(b + i * SIZE);
        float of_pack = 0.0f;
#pragma unroll
        for (int k = 0; k < SIZE; ++k) of_pack += Distance::of(load(&left.value[k]) - load(&right.value[k]));
        sum += of_pack;
    }
    const size_t last = packs * SIZE + element();
    if (last < size_t(n)) sum += Distance::of(load(a + last) - load(b + last));
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
template <typename T> __device__ void l1_loss_sums_kernel(const T *a, const T *b, float *partial, int n) {
    sums<Magnitude>(a, b, partial, n);
}
template <typename T> __device__ void mse_loss_sums_kernel(const T *a, const T *b, float *partial, int n) {
    sums<Square>(a, b, partial, n);
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
__device__ void slopes(const T *a, const T *b, const T *dy, T *da, T *db, int n) {
    constexpr int SIZE = Pack<T>::SIZE;
    const size_t packs = size_t(n) / SIZE, i = element();
    const float each = load(dy) / float(n);
    if (i < packs) {
        const Pack<T> left = load_pack(a + i * SIZE), right = load_pack(b + i * SIZE);
        Pack<T> up, down;
#pragma unroll
        for (int k = 0; k < SIZE; ++k) {
            const float slope = each * Distance::slope(load(&left.value[k]) - load(&right.value[k]));
            store(&up.value[k], slope);
            store(&down.value[k], -slope);
        }
        store_pack(da + i * SIZE, up);
        if (db) store_pack(db + i * SIZE, down);
    }
    const size_t last = packs * SIZE + i;
    if (last < size_t(n)) {
        const float slope = each * Distance::slope(load(a + last) - load(b + last));
        store(da + last, slope);
        if (db) store(db + last, -slope);
    }
}
template <typename T>
__device__ void l1_loss_backward_kernel(const T *a, const T *b, const T *dy, T *da, T *db, int n) {
    slopes<Magnitude>(a, b, dy, da, db, n);
}
template <typename T>
__device__ void mse_loss_backward_kernel(const T *a, const T *b, const T *dy, T *da, T *db, int n) {
    slopes<Square>(a, b, dy, da, db, n);
}
} // namespace

FOR_DTYPES(l1_loss_sums, (const T *a, const T *b, float *partial, int n), (a, b, partial, n))
FOR_DTYPES(mse_loss_sums, (const T *a, const T *b, float *partial, int n), (a, b, partial, n))
FOR_DTYPES(mean_loss_finish, (const float *partial, T *y, int blocks, int n), (partial, y, blocks, n))
FOR_DTYPES(l1_loss_backward, (const T *a, const T *b, const T *dy, T *da, T *db, int n),
           (a, b, dy, da, db, n))
FOR_DTYPES(mse_loss_backward, (const T *a, const T *b, const T *dy, T *da, T *db, int n),
           (a, b, dy, da, db, n))
