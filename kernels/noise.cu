// Noise of pixels. Host side: src/ops/noise.rs. One thread a pixel; bound by arithmetic.
#include "philox.cuh"

namespace {
// z: [N, height, width, channels], at most 3 channels; later: [1] or null, added to the step; count = N height width
template <typename T>
__device__ void pixel_noise_kernel(T *z, const float *origins, const int *later, unsigned long long seed,
                                   int purpose, int step, int count, int height, int width, int channels) {
    const size_t at = element();
    if (at >= size_t(count)) return;
    const Pixel pixel(at, height, width, origins);
    float normals[3];
    pixel_normals({seed, purpose, later ? step + *later : step}, pixel.x, pixel.y, normals);
#pragma unroll
    for (int c = 0; c < 3; ++c)
        if (c < channels) store(z + channels * at + c, normals[c]);
}
} // namespace

FOR_DTYPES(pixel_noise,
           (T *z, const float *origins /* or null */, const int *later /* or null */, unsigned long long seed,
            unsigned purpose, unsigned step, int count, int height, int width, int channels),
           (z, origins, later, seed, purpose, step, count, height, width, channels))
