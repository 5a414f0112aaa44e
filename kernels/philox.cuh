// Random numbers that are a function of (seed, purpose, step, position), as src/engine/rng.rs draws them:
// Philox 4x32-10 and Box-Muller, in single precision: the bits of the CPU.
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

// What src/ops/normals.rs does, to the bit: logarithm, sine and cosine are its polynomials, and no multiply-add is fused.
// CUDA's sinf and cosf also keep a slow path in local memory for angles that no normal number asks for.
__device__ __forceinline__ float plus(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float times(float a, float b) { return __fmul_rn(a, b); }

// The highest power first.
template <int N> __device__ __forceinline__ float polynomial(const float (&factors)[N], float x) {
    float sum = factors[0];
#pragma unroll
    for (int i = 1; i < N; ++i) sum = plus(times(sum, x), factors[i]);
    return sum;
}

// ln(1 + f) for 1 + f between the roots of 1/2 and 2.
__device__ __forceinline__ float log_near_1(float f) {
    constexpr float P[9] = {0.06746613f, -0.11675641f, 0.11888175f, -0.124055915f, 0.14219551f,
                            -0.16667996f, 0.20002119f, -0.2500001f, 0.33333313f};
    const float z = times(f, f);
    return plus(f, plus(times(times(z, f), polynomial(P, f)), times(-0.5f, z)));
}

constexpr float UNIT = 1.0f / 4294967296.0f;

// sqrt(-2 ln((u + 1) / 2^32)).
__device__ __forceinline__ float normal_radius(unsigned u) {
    constexpr float SQRT_2 = 1.41421356f, LN_2 = 0.693147181f;
    // Above 1/2 by the distance to 1, which is exact enough there.
    const bool near = u >> 31;
    const float whole = float(int(near ? ~u : u));
    // (u + 1) / 2^32 = 2^e (1 + f), with 1 + f between the roots of 1/2 and 2.
    const int bits = __float_as_int(plus(whole, 1.0f));
    const float mantissa = __int_as_float((bits & 0x007FFFFF) | 0x3F800000);
    const bool large = mantissa > SQRT_2;
    const float distance = times(whole, UNIT);
    const bool small = distance > 1.0f - 0.5f * SQRT_2;
    const float far_f = plus(large ? times(0.5f, mantissa) : mantissa, -1.0f);
    const float far_e = float((bits >> 23) - (127 + 32) + int(large));
    const float f = !near ? far_f : small ? plus(1.0f, times(-2.0f, distance)) : -distance;
    const float e = !near ? far_e : small ? -1.0f : 0.0f;
    return sqrtf(times(-2.0f, plus(times(e, LN_2), log_near_1(f))));
}

// Cosine and sine of 2 pi v / 2^32.
__device__ __forceinline__ float2 cos_sin(unsigned v) {
    constexpr float COS[3] = {2.443845e-5f, -0.0013887368f, 0.041666646f};
    constexpr float SIN[3] = {-0.00019517298f, 0.008332178f, -0.16666655f};
    // The nearest quarter of a turn, and what is left: at most an eighth.
    const unsigned quarter = (v + (1u << 29)) >> 30;
    const float rest = times(float(int(v - (quarter << 30))), 6.28318531f * UNIT), z = times(rest, rest);
    const float sine = plus(rest, times(times(rest, z), polynomial(SIN, z)));
    const float cosine = plus(1.0f, -plus(times(0.5f, z), -times(times(z, z), polynomial(COS, z))));
    const bool odd = quarter & 1;
    // The cosine is negative in the second and third quarter, the sine in the third and fourth.
    const auto with_sign = [](float v, unsigned sign) {
        return __int_as_float(__float_as_int(v) ^ int(sign << 30 & 0x80000000u));
    };
    return make_float2(with_sign(odd ? sine : cosine, quarter + 1), with_sign(odd ? cosine : sine, quarter));
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
    const float radius = normal_radius(bits.x);
    const float2 unit = cos_sin(bits.y);
    z[0] = times(radius, unit.x);
    z[1] = times(radius, unit.y);
    z[2] = times(normal_radius(bits.z), cos_sin(bits.w).x);
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
