// A residual sum, weighed by the sigmoid of the residual, within limits of each channel if there are some. Formulas and
// host side: src/ops/parameter_free_attention.rs. 16 bytes a thread; bound by memory.
#include "elementwise.cuh"

namespace {
// The limits of the channels of a chunk that begins at element i; of one channel at a time, as chunks begin anywhere.
template <typename T> struct Limits {
    const T *values; // [2, c], or null
    unsigned c, channel;
    __device__ __forceinline__ Limits(const T *values, unsigned c, unsigned i)
        : values(values), c(c), channel(values ? i % c : 0) {}
    // v within the limits of the next channel; NaN stays.
    __device__ __forceinline__ float next(float v) {
        if (!values) return v;
        const float low = load(values + channel), high = load(values + c + channel);
        channel = channel + 1 == c ? 0 : channel + 1;
        v = v < low ? low : v;
        return v > high ? high : v;
    }
};

// x, o, y: [n]; limits: [2, c], of element i those of i % c
template <typename T>
__device__ void parameter_free_attention_forward_kernel(const T *x, const T *o, const T *limits, T *y, int n, int c) {
    for_chunks<T>(n, true, [&](auto chunk, unsigned i) {
        auto residual = chunk;
        fetch(chunk, x + i);
        fetch(residual, o + i);
        Limits<T> within(limits, c, i);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            const float r = load(&residual.value[k]);
            store(&chunk.value[k], within.next((load(&chunk.value[k]) + r) * (sigmoid(r) - 0.5f)));
        }
        put(y + i, chunk);
    });
}

// x, o, dy, dx, slope: [n]; slope is the gradient of o
template <typename T>
__device__ void parameter_free_attention_backward_kernel(const T *x, const T *o, const T *dy, const T *limits, T *dx,
                                                         T *slope, int n, int c) {
    for_chunks<T>(n, true, [&](auto chunk, unsigned i) {
        auto residual = chunk, gradient = chunk;
        fetch(chunk, x + i);
        fetch(residual, o + i);
        fetch(gradient, dy + i);
        Limits<T> within(limits, c, i);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            const float r = load(&residual.value[k]), s = sigmoid(r), sum = load(&chunk.value[k]) + r;
            const float v = sum * (s - 0.5f), d = within.next(v) == v ? load(&gradient.value[k]) : 0.0f;
            const float by_x = d * (s - 0.5f);
            store(&residual.value[k], by_x + d * sum * s * (1.0f - s));
            store(&gradient.value[k], by_x);
        }
        put(dx + i, gradient);
        put(slope + i, residual);
    });
}
} // namespace

FOR_DTYPES(parameter_free_attention_forward,
           (const T *x, const T *o, const T *limits /* or null */, T *y, int n, int c), (x, o, limits, y, n, c))
FOR_DTYPES(parameter_free_attention_backward,
           (const T *x, const T *o, const T *dy, const T *limits /* or null */, T *dx, T *slope, int n, int c),
           (x, o, dy, limits, dx, slope, n, c))
