// What the kernels of attention share. Formulas and host side: src/ops/attention.rs.
//
// All tensors are [images, length, heads * d], statistics [images, length, heads]; `scale` is positive.
//
// Exponentials are powers of two of scores that nothing has scaled: exp(scale s - m) = 2^(s c - m log2(e)) with
// c = scale log2(e), one multiply-add and one instruction for the power.
#pragma once
#include "gemm.cuh"

namespace {
constexpr float LOWEST = -3.0e38f, LOG2_E = 1.44269504f;

// The rows of one head of one image.
struct Head {
    size_t at;         // of its first element
    size_t statistics; // of its first statistic
    int stride, heads;

    __device__ Head(int length, int heads, int d)
        : at((size_t(blockIdx.z) * length * heads + blockIdx.y) * d),
          statistics(size_t(blockIdx.z) * length * heads + blockIdx.y), stride(heads * d), heads(heads) {}
    __device__ size_t row(int i) const { return at + size_t(i) * stride; }
    __device__ size_t statistic(int i) const { return statistics + size_t(i) * heads; }
};

// s becomes the probability 2^(c s - lse), with lse in powers of two, and dp the gradient of the product but for `scale`.
__device__ __forceinline__ void backward_scores(float &s, float &dp, float lse, float delta, float c) {
    s = exp2_approx(s * c - lse);
    dp = s * (dp - delta);
}
} // namespace

#define FORWARD_PARAMETERS \
    (const T *q, const T *k, const T *v, T *y, float *lse, int length, int heads, int d, float scale)
#define FORWARD_ARGUMENTS (q, k, v, y, lse, length, heads, d, scale)
#define QUERIES_PARAMETERS \
    (const T *q, const T *k, const T *v, const T *dy, const float *lse, const float *delta, T *dq, \
     int length, int heads, int d, float scale)
#define QUERIES_ARGUMENTS (q, k, v, dy, lse, delta, dq, length, heads, d, scale)
#define KEYS_PARAMETERS \
    (const T *q, const T *k, const T *v, const T *dy, const float *lse, const float *delta, T *dk, T *dv, \
     int length, int heads, int d, float scale)
#define KEYS_ARGUMENTS (q, k, v, dy, lse, delta, dk, dv, length, heads, d, scale)
