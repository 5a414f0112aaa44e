// Linear maps along rows and columns by tables. Formulas and host side: src/ops/resample.rs. Forward and backward are
// one kernel: the tables are transposed. Every thread writes 16 bytes of channels of a pixel, or single ones of
// ragged channels; bound by memory, and by the taps it reads again from the cache.
#include "elementwise.cuh"

namespace {
// x: [N, h, w, c]; y: [N, height, width, c], n elements; of each row and column `taps` positions and weights
template <typename T>
__device__ void resample_kernel(const T *x, T *y, int n, int h, int w, int c, int height, int width,
                                const float *rows, const float *row_weights, int row_taps, const float *columns,
                                const float *column_weights, int column_taps) {
    const Layout in(h, w, c), out(height, width, c);
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        constexpr int SIZE = decltype(chunk)::SIZE;
        const Place p = out.place(i);
        float sums[SIZE] = {};
        for (int b = 0; b < column_taps; ++b) {
            const size_t column = size_t(p.x) * column_taps + b;
            float of_column[SIZE] = {};
            for (int a = 0; a < row_taps; ++a) {
                const size_t row = size_t(p.y) * row_taps + a;
                auto pixel = chunk;
                fetch(pixel, x + in.offset({p.n, unsigned(rows[row]), unsigned(columns[column]), p.c}));
#pragma unroll
                for (int k = 0; k < SIZE; ++k) of_column[k] += row_weights[row] * load(&pixel.value[k]);
            }
#pragma unroll
            for (int k = 0; k < SIZE; ++k) sums[k] += column_weights[column] * of_column[k];
        }
#pragma unroll
        for (int k = 0; k < SIZE; ++k) store(&chunk.value[k], sums[k]);
        put(y + i, chunk);
    });
}
} // namespace

FOR_DTYPES(resample,
           (const T *x, T *y, int n, int h, int w, int c, int height, int width, const float *rows,
            const float *row_weights, int row_taps, const float *columns, const float *column_weights, int column_taps),
           (x, y, n, h, w, c, height, width, rows, row_weights, row_taps, columns, column_weights, column_taps))
