// Random numbers that are a function of (seed, purpose, step, position), as src/engine/rng.rs draws them:
// Philox 4x32-10 and Box-Muller, in single precision within 1e-5 of the numbers there.
#pragma once
#include "common.cuh"

__device__ __forceinline__ uint4 philox(uint4 counter, unsigned key0, unsigned key1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned high_a = __umulhi(counter.x, 0xD2511F53u), low_a = counter.x * 0xD2511F53u;
        const unsigned high_b = __umulhi(counter.z, 0xCD9E8D57u), low_b = counter.z * 0xCD9E8D57u;
        counter = make_uint4(high_b ^ counter.y ^ key0, low_b, high_a ^ counter.w ^ key1, low_a);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// sqrt(-2 ln((u + 1) / 2^32)). Near 1 the logarithm takes the distance to 1, which f32 holds exactly enough.
__device__ __forceinline__ float normal_radius(unsigned u) {
    constexpr float UNIT = 1.0f / 4294967296.0f;
    const float log = u >> 31 ? log1pf(-(float(~u) * UNIT)) : logf(float(u + 1) * UNIT);
    return sqrtf(-2.0f * log);
}
// 2 pi v / 2^32, between -pi and pi.
__device__ __forceinline__ float normal_angle(unsigned v) {
    return float(int(v)) * (6.28318531f / 4294967296.0f);
}

// The numbers of one (seed, purpose) at one step.
struct Stream {
    unsigned long long seed;
    int purpose, step;
};

// Three standard normal numbers of the pixel at column x and row y.
__device__ __forceinline__ void pixel_normals(const Stream &stream, unsigned x, unsigned y, float (&z)[3]) {
    const uint4 bits = philox(make_uint4(x, y, unsigned(stream.step), unsigned(stream.purpose)),
                              unsigned(stream.seed), unsigned(stream.seed >> 32));
    const float radius = normal_radius(bits.x), angle = normal_angle(bits.y);
    z[0] = radius * cosf(angle);
    z[1] = radius * sinf(angle);
    z[2] = normal_radius(bits.z) * cosf(normal_angle(bits.w));
}

// Where pixels of a batch [N, height, width] are: `origins` [N, 2] row and column of the first pixel of each
// image in whole numbers, or null: the images are stacked.
struct Pixel {
    int image;
    unsigned x, y;
    // Of fewer than 2^31 pixels: divisions of 64 bits cost as much as all else.
    __device__ __forceinline__ Pixel(size_t pixel, int height, int width, const float *origins) {
        const unsigned row = unsigned(pixel) / unsigned(width);
        image = int(row / unsigned(height));
        x = unsigned(pixel) - row * unsigned(width);
        y = row;
        if (origins) {
            x += unsigned(origins[2 * image + 1]);
            y = row - unsigned(image) * unsigned(height) + unsigned(origins[2 * image]);
        }
    }
};
