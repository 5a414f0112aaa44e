// Depthwise convolution, stride 1, "same" padding. Formulas and host side: src/ops/depthwise_conv2d.rs. A thread
// computes 16 bytes of channels of a pixel where they are whole packs of the input too, single elements otherwise;
// for the gradient of the weights blocks sum ranges of pixels, a tap each. Bound by memory: the taps of neighbours
// come from the caches.
#include "columns.cuh"

namespace {
// x: [N, h, w, ci]; weight: [co, k, k]; bias: [co] or null; y: [N, h, w, co], n elements
template <typename T>
__device__ void depthwise_conv2d_forward_kernel(const T *x, const T *weight, const T *bias, T *y, int n, int h, int w,
                                                int ci, int co, int kernel) {
    const Layout out(h, w, co), in(h, w, ci);
    const int each = co / ci, pad = kernel / 2, taps = kernel * kernel;
    for_chunks<T>(n, each == 1 && in_packs<T>(co), [&](auto chunk, unsigned i) {
        const Place at = out.place(i);
        constexpr int SIZE = decltype(chunk)::SIZE;
        float sums[SIZE];
#pragma unroll
        for (int k = 0; k < SIZE; ++k) sums[k] = bias ? load(bias + at.c + k) : 0.0f;
        for (int tap = 0; tap < taps; ++tap) {
            const int row = int(at.y) + tap / kernel - pad, column = int(at.x) + tap % kernel - pad;
            if (row < 0 || row >= h || column < 0 || column >= w) continue;
            fetch(chunk, x + in.offset({at.n, unsigned(row), unsigned(column), at.c / each}));
#pragma unroll
            for (int k = 0; k < SIZE; ++k) {
                sums[k] += load(&chunk.value[k]) * load(weight + size_t(at.c + k) * taps + tap);
            }
        }
#pragma unroll
        for (int k = 0; k < SIZE; ++k) store(&chunk.value[k], sums[k]);
        put(y + i, chunk);
    });
}

// weight: [co, k, k]; dy: [N, h, w, co]; dx: [N, h, w, ci], n elements
template <typename T>
__device__ void depthwise_conv2d_input_kernel(const T *weight, const T *dy, T *dx, int n, int h, int w, int ci, int co,
                                              int kernel) {
    const Layout out(h, w, co), in(h, w, ci);
    const int each = co / ci, pad = kernel / 2, taps = kernel * kernel;
    for_chunks<T>(n, each == 1 && in_packs<T>(co), [&](auto chunk, unsigned i) {
        const Place at = in.place(i);
        constexpr int SIZE = decltype(chunk)::SIZE;
        float sums[SIZE] = {};
        for (int tap = 0; tap < taps; ++tap) {
            const int row = int(at.y) - tap / kernel + pad, column = int(at.x) - tap % kernel + pad;
            if (row < 0 || row >= h || column < 0 || column >= w) continue;
            for (int m = 0; m < each; ++m) {
                const unsigned channel = at.c * each + m;
                fetch(chunk, dy + out.offset({at.n, unsigned(row), unsigned(column), channel}));
#pragma unroll
                for (int k = 0; k < SIZE; ++k) {
                    sums[k] += load(&chunk.value[k]) * load(weight + size_t(channel + k) * taps + tap);
                }
            }
        }
#pragma unroll
        for (int k = 0; k < SIZE; ++k) store(&chunk.value[k], sums[k]);
        put(dx + i, chunk);
    });
}

// x: [N, h, w, ci]; dy: [N, h, w, co]; block (x, s, t) sums a range s of `rows` pixels for tap t, to partial:
// [taps, splits, co]
template <typename T>
__device__ void depthwise_conv2d_weight_sums_kernel(const T *x, const T *dy, float *partial, int pixels, int h, int w,
                                                    int ci, int co, int kernel, int rows) {
    const int first = blockIdx.y * rows, last = min(first + rows, pixels), each = co / ci;
    const int down = int(blockIdx.z) / kernel - kernel / 2, right = int(blockIdx.z) % kernel - kernel / 2;
    partial += (size_t(blockIdx.z) * gridDim.y + blockIdx.y) * co;
    sum_columns<1, T>(
        first, last, co,
        [&](auto chunk, size_t i, int c, auto &sums) {
            const int pixel = int(i / co), column = pixel % w + right, row = pixel / w % h + down;
            if (row < 0 || row >= h || column < 0 || column >= w) return;
            const T *source = x + size_t(pixel + down * w + right) * ci;
            fetch(chunk, dy + i);
#pragma unroll
            for (int k = 0; k < chunk.SIZE; ++k) sums[0][k] += load(&chunk.value[k]) * load(source + (c + k) / each);
        },
        [&](int, int column, float sum) { partial[column] = sum; });
}

// partial: [taps, splits, co]; dw: [co, taps], n elements
template <typename T>
__device__ void depthwise_conv2d_weight_finish_kernel(const float *partial, T *dw, int n, int splits, int co,
                                                      int taps) {
    const size_t i = element();
    if (i >= size_t(n)) return;
    const size_t channel = i / taps, tap = i % taps;
    store(dw + i, finish_column(partial + tap * splits * co + channel, splits, co));
}
} // namespace

FOR_DTYPES(depthwise_conv2d_forward,
           (const T *x, const T *weight, const T *bias /* or null */, T *y, int n, int h, int w, int ci, int co,
            int kernel),
           (x, weight, bias, y, n, h, w, ci, co, kernel))
FOR_DTYPES(depthwise_conv2d_input,
           (const T *weight, const T *dy, T *dx, int n, int h, int w, int ci, int co, int kernel),
           (weight, dy, dx, n, h, w, ci, co, kernel))
FOR_DTYPES(depthwise_conv2d_weight_sums,
           (const T *x, const T *dy, float *partial, int pixels, int h, int w, int ci, int co, int kernel, int rows),
           (x, dy, partial, pixels, h, w, ci, co, kernel, rows))
FOR_DTYPES(depthwise_conv2d_weight_finish, (const float *partial, T *dw, int n, int splits, int co, int taps),
           (partial, dw, n, splits, co, taps))
