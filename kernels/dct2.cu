// Cosine transforms. Formulas and host side: src/ops/dct2.rs.
// A product with a constant matrix along the rows, then along the columns, with f32 values between them; bound by f32
// arithmetic.
#include "common.cuh"

namespace {
constexpr int TILE = 64, DEPTH = 16;

// y = D x along the middle axis of [.., len, inner], which makes `columns` columns; d: D transposed.
// A block computes 64 rows of 64 columns, a thread 4 of 4; D and x go through shared memory 16 deep.
template <typename In, typename Out>
__device__ __forceinline__ void multiply(const float *d, const In *x, Out *y, int columns, int len,
                                         int inner) {
    SHARED(weights, float[DEPTH][TILE]);
    SHARED(values, float[DEPTH][TILE]);
    const int left = blockIdx.x * TILE, top = blockIdx.y * TILE;
    const auto start = [=](int column) { // of the elements of a column, `inner` apart
        return size_t(column / inner) * len * inner + column % inner;
    };
    const int tile_column = threadIdx.x % TILE, tile_row = threadIdx.x / TILE;
    const bool has_column = left + tile_column < columns, has_weight = top + tile_column < len;
    const In *const from = x + (has_column ? start(left + tile_column) : 0);
    const int across = threadIdx.x % 16 * 4, down = threadIdx.x / 16 * 4;
    float sum[4][4] = {};
    for (int depth = 0; depth < len; depth += DEPTH) {
        __syncthreads(); // the previous tiles have been read
#pragma unroll
        for (int row = 0; row < DEPTH; row += THREADS / TILE) {
            const int i = depth + tile_row + row;
            weights[tile_row + row][tile_column] =
                has_weight && i < len ? d[size_t(i) * len + top + tile_column] : 0.0f;
            values[tile_row + row][tile_column] =
                has_column && i < len ? load(from + size_t(i) * inner) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < DEPTH; ++i) {
            const float4 w4 = *reinterpret_cast<const float4 *>(&weights[i][down]);
            const float4 v4 = *reinterpret_cast<const float4 *>(&values[i][across]);
            const float w[4] = {w4.x, w4.y, w4.z, w4.w}, v[4] = {v4.x, v4.y, v4.z, v4.w};
#pragma unroll
            for (int a = 0; a < 4; ++a) {
#pragma unroll
                for (int b = 0; b < 4; ++b) sum[a][b] += w[a] * v[b];
            }
        }
    }
#pragma unroll
    for (int b = 0; b < 4; ++b) {
        const int column = left + across + b;
        if (column >= columns) continue;
        Out *const to = y + start(column);
#pragma unroll
        for (int a = 0; a < 4; ++a) {
            if (top + down + a < len) store(to + size_t(top + down + a) * inner, sum[a][b]);
        }
    }
}

// x: [.., len, inner] -> half, the same in f32
template <typename T>
__device__ void dct2_along_rows_kernel(const float *d, const T *x, float *half, int columns, int len,
                                       int inner) {
    multiply(d, x, half, columns, len, inner);
}

// half: [.., len, inner] in f32 -> y
template <typename T>
__device__ void dct2_along_columns_kernel(const float *d, const float *half, T *y, int columns, int len,
                                          int inner) {
    multiply(d, half, y, columns, len, inner);
}
} // namespace

FOR_DTYPES(dct2_along_rows, (const float *d, const T *x, float *half, int columns, int len, int inner),
           (d, x, half, columns, len, inner))
FOR_DTYPES(dct2_along_columns, (const float *d, const float *half, T *y, int columns, int len, int inner),
           (d, half, y, columns, len, inner))
