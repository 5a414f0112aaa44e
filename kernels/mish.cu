// Mish. Formulas and host side: src/ops/mish.rs. 16 bytes a thread; bound by memory.
#include "elementwise.cuh"

namespace {
// E (E + 2); beyond 20 the gate is 1, and the square would overflow.
__device__ __forceinline__ float growth(float v) {
    const float e = __expf(fminf(v, 20.0f));
    return e * (e + 2.0f);
}

// x, y: [n]
template <typename T> __device__ void mish_forward_kernel(const T *x, T *y, int n) {
    map(x, y, n, [](float v) {
        const float e = growth(v);
        return v * __fdividef(e, e + 2.0f);
    });
}

// x, dy, dx: [n]
template <typename T> __device__ void mish_backward_kernel(const T *x, const T *dy, T *dx, int n) {
    map(x, dy, dx, n, [](float v, float d) {
        const float e = growth(v), gate = __fdividef(e, e + 2.0f), rest = __fdividef(2.0f, e + 2.0f);
        return d * (gate + v * sigmoid(v) * rest * (1.0f + gate));
    });
}
} // namespace

FOR_DTYPES(mish_forward, (const T *x, T *y, int n), (x, y, n))
FOR_DTYPES(mish_backward, (const T *x, const T *dy, T *dx, int n), (x, dy, dx, n))
