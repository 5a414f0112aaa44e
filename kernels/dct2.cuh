// The cosine transform of eight values, for kernels/dct2.cu and kernels/spectral_product.cu.
#pragma once
#include "common.cuh"

namespace {
// The left half of D_8; the right half is its mirror image, negated in odd rows.
__device__ __forceinline__ float basis(int k, int i) {
    static constexpr float D[8][4] = {
        {0.35355339f, 0.35355339f, 0.35355339f, 0.35355339f},
        {0.49039264f, 0.41573481f, 0.27778512f, 0.09754516f},
        {0.46193977f, 0.19134172f, -0.19134172f, -0.46193977f},
        {0.41573481f, -0.09754516f, -0.49039264f, -0.27778512f},
        {0.35355339f, -0.35355339f, -0.35355339f, 0.35355339f},
        {0.27778512f, -0.49039264f, 0.09754516f, 0.41573481f},
        {0.19134172f, -0.46193977f, 0.46193977f, -0.19134172f},
        {0.09754516f, -0.27778512f, 0.41573481f, -0.49039264f},
    };
    return D[k][i];
}

// Eight values to their coefficients, or back. Sums and differences of mirrored elements halve the products.
__device__ __forceinline__ void eight(float (&v)[8], bool inverse) {
    float out[8] = {};
    if (inverse) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float even = 0.0f, odd = 0.0f;
#pragma unroll
            for (int k = 0; k < 8; k += 2) {
                even += v[k] * basis(k, i);
                odd += v[k + 1] * basis(k + 1, i);
            }
            out[i] = even + odd;
            out[7 - i] = even - odd;
        }
    } else {
#pragma unroll
        for (int k = 0; k < 8; ++k) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                out[k] += (k % 2 ? v[i] - v[7 - i] : v[i] + v[7 - i]) * basis(k, i);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = out[i];
}
} // namespace
