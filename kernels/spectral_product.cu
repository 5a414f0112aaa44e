// A linear map of the channels of a map between a transform of its pixels and the inverse. Formulas and host side:
// src/ops/spectral_product.rs. A block does 8 x 8 pixels in shared memory; bound by f32 arithmetic, reads and writes the
// map once.
#include "dct2.cuh"

namespace {
// Four pixels of a window to their sub-bands, or back: the matrix is its own inverse.
__device__ __forceinline__ void butterfly(float (&v)[4]) {
    const float a = v[0], b = v[1], c = v[2], d = v[3];
    v[0] = 0.5f * ((a + b) + (c + d));
    v[1] = 0.5f * ((a + b) - (c + d));
    v[2] = 0.5f * ((a - b) + (c - d));
    v[3] = 0.5f * ((a - b) - (c - d));
}

// Pixel (row, column) of a tile of 8 x 8, and how vectors of coefficients lie in shared memory: those of the cosine
// transform are [64][count], of the wavelet [16 windows][4 count].
struct Tile8 {
    int count;
    __device__ __forceinline__ int pixel(int row, int column, int c) const { return (row * 8 + column) * count + c; }
    __device__ __forceinline__ int window(int w, int band, int c) const { return (w * 4 + band) * count + c; }

    // Along rows if `across`, else along columns; in place.
    __device__ void cosines(float *tile, bool across, bool inverse) const {
        for (int k = int(threadIdx.x); k < 8 * count; k += THREADS) {
            const int line = k / count, c = k % count;
            float v[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) v[i] = tile[across ? pixel(line, i, c) : pixel(i, line, c)];
            eight(v, inverse);
#pragma unroll
            for (int i = 0; i < 8; ++i) tile[across ? pixel(line, i, c) : pixel(i, line, c)] = v[i];
        }
        __syncthreads();
    }
    __device__ void wavelet(const float *from, float *to, bool inverse) const {
        for (int k = int(threadIdx.x); k < 16 * count; k += THREADS) {
            const int w = k / count, c = k % count, row = w / 4 * 2, column = w % 4 * 2;
            float v[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                v[i] = from[inverse ? window(w, i, c) : pixel(row + i / 2, column + i % 2, c)];
            }
            butterfly(v);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                to[inverse ? pixel(row + i / 2, column + i % 2, c) : window(w, i, c)] = v[i];
            }
        }
        __syncthreads();
    }
};

// to[p][o] = relu?(sum of from[p][i] w[i][o], plus the bias) for `rows` rows of `width`; rows are a multiple of 4.
template <typename T>
__device__ void multiply(const float *from, const float *w, const T *bias, float *to, int rows, int width, int relu) {
    for (int k = int(threadIdx.x); k < rows / 4 * width; k += THREADS) {
        const int o = k % width, p = k / width * 4;
        float sum[4] = {};
        for (int i = 0; i < width; ++i) {
            const float weight = w[i * (width + 1) + o];
#pragma unroll
            for (int r = 0; r < 4; ++r) sum[r] += weight * from[(p + r) * width + i];
        }
        const float moved = bias ? load(bias + o) : 0.0f;
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            const float v = sum[r] + moved;
            to[(p + r) * width + o] = relu && v < 0.0f ? 0.0f : v; // NaN stays NaN
        }
    }
    __syncthreads();
}

// x: [images, height, width, channels], of which `count` from `first` on are transformed; y: [.., count];
// w: [size, size], bias: [size], size = count or, for the wavelet, 4 count. Blocks: x = tiles of 8 x 8 pixels.
// Shared memory: two tiles and the weights, whose rows are padded.
template <typename T>
__device__ void spectral_product_kernel(const T *x, const T *w, const T *bias, T *y, int width, int channels,
                                        int first, int count, int haar, int relu) {
    DYNAMIC_SHARED(float, memory);
    const Tile8 tile = {count};
    const int size = haar ? 4 * count : count, all = 64 * count, tiles = width / 8;
    float *const a = memory, *const b = memory + all, *const weights = memory + 2 * all;
    // The rows of all images lie below each other.
    const size_t row0 = size_t(blockIdx.x) / tiles * 8, column0 = size_t(blockIdx.x) % tiles * 8;
    for (int k = int(threadIdx.x); k < all; k += THREADS) {
        const int c = k % count, pixel = k / count;
        const size_t at = (row0 + pixel / 8) * width + column0 + pixel % 8;
        a[k] = load(x + at * channels + first + c);
    }
    for (int k = int(threadIdx.x); k < size * size; k += THREADS) {
        weights[k % size * (size + 1) + k / size] = load(w + k);
    }
    __syncthreads();
    if (haar) {
        tile.wavelet(a, b, false);
        multiply(b, weights, bias, a, 16, size, relu);
        tile.wavelet(a, b, true);
    } else {
        tile.cosines(a, true, false);
        tile.cosines(a, false, false);
        multiply(a, weights, bias, b, 64, size, relu);
        tile.cosines(b, false, true);
        tile.cosines(b, true, true);
    }
    for (int k = int(threadIdx.x); k < all; k += THREADS) {
        const int c = k % count, pixel = k / count;
        const size_t at = (row0 + pixel / 8) * width + column0 + pixel % 8;
        store(y + at * count + c, b[k]);
    }
}
} // namespace

FOR_DTYPES(spectral_product,
           (const T *x, const T *w, const T *bias /* or null */, T *y, int width, int channels, int first, int count,
            int haar, int relu),
           (x, w, bias, y, width, channels, first, count, haar, relu))
