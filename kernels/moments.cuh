// From what blocks found of parts of a map to the constants that normalise it: what kernels/group_norm.cu,
// group_norm_slab.cu and conv2d_normed.cu share. Formulas: src/ops/group_norm.
#pragma once
#include "common.cuh"

namespace {
// One warp: the statistics of a group (its mean as f32 holds it, what is missing of the mean, 1 / deviation) from what
// chunks of `found` pixels found of its `runs` runs of `run` channels: the mean minus `origin`, and the sum of squared
// differences to that mean. Those of a chunk are `next` numbers apart.
__device__ __forceinline__ void join(const float *of_chunks, int next, int runs, int run, int pixels, int found,
                                     float origin, float eps, float *stats) {
    const int lane = int(threadIdx.x) % WARP, entries = (pixels + found - 1) / found * runs;
    const auto size = [=](int k) { return float(min(found, pixels - k * found) * run); };
    const float all = float(pixels) * float(runs * run);
    float sum = 0.0f, squares = 0.0f;
#pragma unroll 4
    for (int e = lane; e < entries; e += WARP) {
        const int k = runs == 1 ? e : e / runs;
        sum += size(k) * of_chunks[size_t(k) * next + 2 * (e - k * runs)];
    }
    const float mean = warp_sum(sum) / all;
#pragma unroll 4
    for (int e = lane; e < entries; e += WARP) {
        const int k = runs == 1 ? e : e / runs;
        const float *const entry = of_chunks + size_t(k) * next + 2 * (e - k * runs);
        const float d = entry[0] - mean;
        squares += entry[1] + size(k) * d * d;
    }
    squares = warp_sum(squares);
    if (lane == 0) {
        const float center = origin + mean;
        stats[0] = center;
        stats[1] = (origin - center) + mean;
        stats[2] = 1.0f / sqrtf(squares / all + eps);
    }
}

// Of one channel: v = (x - center) a + b; film is 1 + scale, or 1; `moved` is the shift, or 0.
struct Normal {
    float center, a, b;
};
__device__ __forceinline__ Normal normal(const float *stats, float gamma, float beta, float film, float moved) {
    const float weight = stats[2] * gamma;
    return {stats[0], weight * film, (beta - stats[1] * weight) * film + moved};
}

// As sigmoid(), without the slow way of an exact division: off by two units in the last place of f32.
__device__ __forceinline__ float quick_sigmoid(float v) { return __fdividef(1.0f, 1.0f + __expf(-v)); }
__device__ __forceinline__ float activated(float v, int silu) { return silu ? v * quick_sigmoid(v) : v; }
} // namespace
