// From what blocks found of parts of a map to the constants that normalise it: what kernels/group_norm.cu,
// group_norm_slab.cu and conv2d_normed.cu share. Formulas: src/ops/group_norm.
#pragma once
#include "common.cuh"

namespace {
// One warp: the statistics of a group (its mean as f32 holds it, what is missing of the mean, 1 / deviation) from what
// chunks of `found` pixels found of its `runs` runs of `run` channels: the mean minus `origin`, and the sum of squared
// differences to that mean. Those of a chunk are `next` numbers apart. Quotients are off by two units in the last place: exact
// ones are calls, around which registers would be spilled.
__device__ __forceinline__ void join(const float *of_chunks, int next, int runs, int run, int pixels, int found,
                                     float origin, float eps, float *stats) {
    const int lane = int(threadIdx.x) % WARP, chunks = (pixels + found - 1) / found;
    const auto size = [=](int k) { return float(min(found, pixels - k * found) * run); };
    const float all = float(pixels) * float(runs * run);
    float sum = 0.0f, squares = 0.0f;
#pragma unroll 2
    for (int k = lane; k < chunks; k += WARP) {
        const float *const of_chunk = of_chunks + size_t(k) * next;
#pragma unroll 4
        for (int r = 0; r < runs; ++r) sum += size(k) * of_chunk[2 * r];
    }
    const float mean = __fdividef(warp_sum(sum), all);
    for (int k = lane; k < chunks; k += WARP) {
        const float *const of_chunk = of_chunks + size_t(k) * next;
#pragma unroll 4
        for (int r = 0; r < runs; ++r) {
            const float d = of_chunk[2 * r] - mean;
            squares += of_chunk[2 * r + 1] + size(k) * d * d;
        }
    }
    squares = warp_sum(squares);
    if (lane == 0) {
        const float center = origin + mean;
        stats[0] = center;
        stats[1] = (origin - center) + mean;
        stats[2] = rsqrtf(__fdividef(squares, all) + eps);
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

// COUNT floats, in packs if that fills them.
template <int COUNT> __device__ __forceinline__ void read_floats(float (&to)[COUNT], const float *from) {
    if constexpr (COUNT % Pack<float>::SIZE != 0) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) to[i] = from[i];
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i += Pack<float>::SIZE) {
            const Pack<float> pack = load_pack(from + i);
#pragma unroll
            for (int e = 0; e < Pack<float>::SIZE; ++e) to[i + e] = pack.value[e];
        }
    }
}

__device__ __forceinline__ float activated(float v, int silu) { return silu ? v * sigmoid(v) : v; }
} // namespace
