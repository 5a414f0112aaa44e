// Swift parameter-free attention. Formulas and host side: src/ops/swift_attention.rs. 16 bytes a thread;
// bound by memory.
#include "elementwise.cuh"

namespace {
// f, x, y: [n]
template <typename T>
__device__ void swift_attention_forward_kernel(const T *f, const T *x, T *y, int n) {
    map(f, x, y, n, [](float f, float x) { return (f + x) * (sigmoid(f) - 0.5f); });
}

// f, x, dy, df, dx: [n]
template <typename T>
__device__ void swift_attention_backward_kernel(const T *f, const T *x, const T *dy, T *df, T *dx, int n) {
    for_chunks<T>(n, true, [&](auto chunk, unsigned i) {
        auto input = chunk, slope = chunk;
        fetch(chunk, f + i);
        fetch(input, x + i);
        fetch(slope, dy + i);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            const float v = load(&chunk.value[k]), d = load(&slope.value[k]);
            const float s = sigmoid(v), weight = s - 0.5f;
            store(&chunk.value[k], d * (weight + (v + load(&input.value[k])) * s * (1.0f - s)));
            store(&slope.value[k], d * weight);
        }
        put(df + i, chunk);
        put(dx + i, slope);
    });
}
} // namespace

FOR_DTYPES(swift_attention_forward, (const T *f, const T *x, T *y, int n), (f, x, y, n))
FOR_DTYPES(swift_attention_backward, (const T *f, const T *x, const T *dy, T *df, T *dx, int n),
           (f, x, dy, df, dx, n))
