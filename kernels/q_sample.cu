// The state of a forward process and what a network should predict of it. Formulas and host side:
// src/ops/q_sample.rs. One thread a pixel; bound by memory, or by the arithmetic of the noise.
#include "philox.cuh"

namespace {
// factors: [N, 3] of x0, y0 and noise; x0, y0: [count, channels] f32, at most 3 channels; noise: the same or null;
// later: [1] or null, added to the step; state: [count, channels]; target: the same or null
template <typename T>
__device__ void q_sample_kernel(const float *factors, const float *x0, const float *y0, const float *noise,
                                const float *origins, const int *later, T *state, T *target, float target_x0,
                                float target_y0, float target_noise, unsigned long long seed, int purpose,
                                int step, int count, int height, int width, int channels) {
    const size_t at = element();
    if (at >= size_t(count)) return;
    const Pixel pixel(at, height, width, origins);
    float normals[3];
    if (noise) {
#pragma unroll
        for (int c = 0; c < 3; ++c)
            if (c < channels) normals[c] = noise[channels * at + c];
    } else {
        pixel_normals({seed, purpose, later ? step + *later : step}, pixel.x, pixel.y, normals);
    }
    const float *const k = factors + 3 * size_t(pixel.image);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        if (c >= channels) break;
        const size_t i = channels * at + c;
        const float clean = x0[i], enlarged = y0[i];
        store(state + i, k[0] * clean + k[1] * enlarged + k[2] * normals[c]);
        if (target) {
            store(target + i, target_x0 * clean + target_y0 * enlarged + target_noise * normals[c]);
        }
    }
}
} // namespace

FOR_DTYPES(q_sample,
           (const float *factors, const float *x0, const float *y0, const float *noise /* or null */,
            const float *origins /* or null */, const int *later /* or null */, T *state,
            T *target /* or null */, float target_x0, float target_y0, float target_noise,
            unsigned long long seed, unsigned purpose, unsigned step, int count, int height, int width,
            int channels),
           (factors, x0, y0, noise, origins, later, state, target, target_x0, target_y0, target_noise, seed,
            purpose, step, count, height, width, channels))
