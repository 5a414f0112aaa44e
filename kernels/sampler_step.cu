// One step of a sampler. Formulas and host side: src/ops/sampler_step.rs. One thread a pixel; bound by memory,
// or by the arithmetic of the noise. Everything that a step reads and writes passes memory once, and what
// changes from step to step is read from there, so that one recorded graph serves all steps.
#include "philox.cuh"

namespace {
// The factors of src/ops/sampler_step.rs, which knows them from here.
enum Factor { SLOPE, FROM_X, FROM_Y0, X, X0, Y0, NOISE, INPUT, CLAMP_X0, CLAMP_XT, DRAW };

// To [-1, 1]; NaN where v is infinite, so that a tile which half precision cannot hold is seen.
__device__ __forceinline__ float clamped(float v) {
    return v - v != 0.0f ? v - v : v < -1.0f ? -1.0f : v > 1.0f ? 1.0f : v;
}

// output: [count, channels], at most 3 channels; x, y0: the same in f32, x is replaced; z, x0_hat: the same or
// null; input: [count, channels] or null
template <typename T>
__device__ void sampler_step_kernel(const float *factors, const T *output, float *x, const float *y0,
                                    const float *z, const float *origins, float *x0_hat, T *input,
                                    unsigned long long seed, int purpose, int step, int count, int height,
                                    int width, int channels) {
    const size_t at = element();
    if (at >= size_t(count)) return;
    float normals[3] = {0.0f, 0.0f, 0.0f};
    if (factors[NOISE] != 0.0f) {
        if (z) {
#pragma unroll
            for (int c = 0; c < 3; ++c)
                if (c < channels) normals[c] = z[channels * at + c];
        } else {
            const Pixel pixel(at, height, width, origins);
            pixel_normals({seed, purpose, step + __float_as_int(factors[DRAW])}, pixel.x, pixel.y, normals);
        }
    }
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        if (c >= channels) break;
        const size_t i = channels * at + c;
        const float state = x[i], enlarged = y0[i];
        float clean =
            factors[SLOPE] * load(output + i) + factors[FROM_X] * state + factors[FROM_Y0] * enlarged;
        if (factors[CLAMP_X0] != 0.0f) clean = clamped(clean);
        float next =
            factors[X] * state + factors[X0] * clean + factors[Y0] * enlarged + factors[NOISE] * normals[c];
        if (factors[CLAMP_XT] != 0.0f) next = clamped(next);
        x[i] = next;
        if (x0_hat) x0_hat[i] = clean;
        if (input) store(input + i, factors[INPUT] * next);
    }
}
} // namespace

FOR_DTYPES(sampler_step,
           (const float *factors, const T *output, float *x, const float *y0, const float *z /* or null */,
            const float *origins /* or null */, float *x0_hat /* or null */, T *input /* or null */,
            unsigned long long seed, unsigned purpose, unsigned step, int count, int height, int width,
            int channels),
           (factors, output, x, y0, z, origins, x0_hat, input, seed, purpose, step, count, height, width,
            channels))
