// Bilinear resampling. Formulas and host side: src/ops/bilinear.rs.
// Every thread writes 16 bytes of channels of a pixel, or single ones of ragged channels; bound by memory.
// Backward, it gathers the outputs that its pixel has weight in, row by row in ascending order.
// Positions are whole numbers of 2^-40 pixels, so that f32 does not shift the taps of large images.
#include "elementwise.cuh"

namespace {
constexpr int FRACTION = 40;
constexpr long long ONE = 1ll << FRACTION;

// The two input positions that an output position mixes, and the weight of the second.
struct Tap {
    unsigned first, second;
    float weight;
};

// Output position i of an axis lies at i step + shift of the input, if that is not negative.
struct Axis {
    long long step, shift;
    unsigned last, out;
    __device__ __forceinline__ Axis(unsigned long long step, int half_pixel, int in, int out)
        : step(step), shift(half_pixel ? (this->step - ONE) / 2 : 0), last(in - 1), out(out) {}

    __device__ __forceinline__ Tap tap(unsigned i) const {
        const long long at = max(i * step + shift, 0ll);
        const unsigned first = unsigned(at >> FRACTION);
        if (first >= last) return {last, last, 0.0f};
        return {first, first + 1, float(unsigned(at >> (FRACTION - 32))) * 0x1p-32f};
    }

    // body(i, weight) for the outputs that input position p has weight in, ascending.
    template <typename Body> __device__ __forceinline__ void for_users(unsigned p, Body body) const {
        // An estimate from below of the first position after p - 1.
        const float before = ((float(p) - 1.0f) * float(ONE) - float(shift)) / float(step);
        const float start = min(before, float(out)); // step is 0 if there is one output
        for (unsigned i = start > 2.0f ? unsigned(start) - 1 : 0; i < out; ++i) {
            const Tap t = tap(i);
            if (t.first > p) break;
            const float weight = t.first == p ? 1.0f - t.weight : t.second == p ? t.weight : 0.0f;
            if (weight != 0.0f) body(i, weight);
        }
    }
};

__device__ __forceinline__ float mix(float a, float b, float weight) {
    return (1.0f - weight) * a + weight * b;
}

// x: [N, h, w, c]; y: [N, height, width, c], n elements
template <typename T>
__device__ void bilinear_forward_kernel(const T *x, T *y, int n, int h, int w, int c, int height,
                                        int width, unsigned long long step_y, unsigned long long step_x,
                                        int half_pixel) {
    const Layout in(h, w, c), out(height, width, c);
    const Axis vertical(step_y, half_pixel, h, height);
    const Axis horizontal(step_x, half_pixel, w, width);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = out.place(i);
        const Tap row = vertical.tap(p.y), column = horizontal.tap(p.x);
        decltype(chunk) v[4];
        fetch(v[0], x + in.offset({p.n, row.first, column.first, p.c}));
        fetch(v[1], x + in.offset({p.n, row.first, column.second, p.c}));
        fetch(v[2], x + in.offset({p.n, row.second, column.first, p.c}));
        fetch(v[3], x + in.offset({p.n, row.second, column.second, p.c}));
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            const float left = mix(load(&v[0].value[k]), load(&v[2].value[k]), row.weight);
            const float right = mix(load(&v[1].value[k]), load(&v[3].value[k]), row.weight);
            store(&chunk.value[k], mix(left, right, column.weight));
        }
        put(y + i, chunk);
    });
}

// dy: [N, height, width, c]; dx: [N, h, w, c], n elements
template <typename T>
__device__ void bilinear_backward_kernel(const T *dy, T *dx, int n, int h, int w, int c, int height,
                                         int width, unsigned long long step_y, unsigned long long step_x,
                                         int half_pixel) {
    const Layout in(h, w, c), out(height, width, c);
    const Axis vertical(step_y, half_pixel, h, height);
    const Axis horizontal(step_x, half_pixel, w, width);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const Place p = in.place(i);
        float sum[chunk.SIZE] = {};
        vertical.for_users(p.y, [&](unsigned row, float row_weight) {
            horizontal.for_users(p.x, [&](unsigned column, float weight) {
                fetch(chunk, dy + out.offset({p.n, row, column, p.c}));
#pragma unroll
                for (int k = 0; k < chunk.SIZE; ++k) sum[k] += row_weight * weight * load(&chunk.value[k]);
            });
        });
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) store(&chunk.value[k], sum[k]);
        put(dx + i, chunk);
    });
}
} // namespace

FOR_DTYPES(bilinear_forward,
           (const T *x, T *y, int n, int h, int w, int c, int height, int width, unsigned long long step_y,
            unsigned long long step_x, int half_pixel),
           (x, y, n, h, w, c, height, width, step_y, step_x, half_pixel))
FOR_DTYPES(bilinear_backward,
           (const T *dy, T *dx, int n, int h, int w, int c, int height, int width, unsigned long long step_y,
            unsigned long long step_x, int half_pixel),
           (dy, dx, n, h, w, c, height, width, step_y, step_x, half_pixel))
