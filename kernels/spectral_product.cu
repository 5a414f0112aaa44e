// Linear maps of the channels of a map between transforms of its pixels and their inverses: some channels by the cosine
// transform, the others by the wavelet. Formulas and host side: src/ops/spectral_product.rs. A block does 8 x 8 pixels of
// either in shared memory; bound by f32 arithmetic, reads and writes the map once. Backward makes the coefficients anew
// instead of reading them.
#include "common.cuh"

namespace {
// The left half of D_8; the right half is its mirror image, negated in odd rows.
__device__ __forceinline__ float basis(int k, int i) {
    static constexpr float D[8][4] = {
        {0.35355339f, 0.35355339f, 0.35355339f, 0.35355339f},
        {0.49039264f, 0.41573481f, 0.27778512f, 0.09754516f},
        {0.46193977f, 0.19134172f, -0.19134172f, -0.46193977f},
        {0.41573481f, -0.09754516f, -0.49039264f, -0.27778512f},
        {0.35355339f, -0.35355339f, -0.35355339f, 0.35355339f},
        {0.27778512f, -0.49039264f, 0.09754516f, 0.41573481f},
        {0.19134172f, -0.46193977f, 0.46193977f, -0.19134172f},
        {0.09754516f, -0.27778512f, 0.41573481f, -0.49039264f},
    };
    return D[k][i];
}

// Eight values to their coefficients, or back. Sums and differences of mirrored elements halve the products.
__device__ __forceinline__ void eight(float (&v)[8], bool inverse) {
    float out[8] = {};
    if (inverse) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float even = 0.0f, odd = 0.0f;
#pragma unroll
            for (int k = 0; k < 8; k += 2) {
                even += v[k] * basis(k, i);
                odd += v[k + 1] * basis(k + 1, i);
            }
            out[i] = even + odd;
            out[7 - i] = even - odd;
        }
    } else {
#pragma unroll
        for (int k = 0; k < 8; ++k) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                out[k] += (k % 2 ? v[i] - v[7 - i] : v[i] + v[7 - i]) * basis(k, i);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = out[i];
}

// Four pixels of a window to their sub-bands, or back: the matrix is its own inverse.
__device__ __forceinline__ void butterfly(float (&v)[4]) {
    const float a = v[0], b = v[1], c = v[2], d = v[3];
    v[0] = 0.5f * ((a + b) + (c + d));
    v[1] = 0.5f * ((a + b) - (c + d));
    v[2] = 0.5f * ((a - b) + (c - d));
    v[3] = 0.5f * ((a - b) - (c - d));
}

// A thread of the way back holds the sums of so many rows and columns of the weights' gradient: those of 64 x 64 at most.
constexpr int SIDE = 4;
static_assert(64 / SIDE * (64 / SIDE) == THREADS, "a thread has one square");

// The channels of a block: blockIdx.y 0 takes the cosine transform, 1 the wavelet.
template <typename T> struct Stream {
    int first, count, haar;
    const T *w, *bias; // [size, size] and [size] or null
    __device__ Stream(const T *cosine, const T *wavelet, const T *bias, int cosines, int wavelets)
        : first(blockIdx.y ? cosines : 0), count(blockIdx.y ? wavelets : cosines), haar(int(blockIdx.y)),
          w(blockIdx.y ? wavelet : cosine), bias(blockIdx.y ? bias : nullptr) {}
    // Numbers that the product maps, and how many vectors of them a tile has.
    __device__ __forceinline__ int size() const { return haar ? 4 * count : count; }
    __device__ __forceinline__ int rows() const { return haar ? 16 : 64; }
    __device__ __forceinline__ int all() const { return 64 * count; }
    // Row i of the weights in shared memory, [size][size + 1], belongs to input i: threads side by side read different
    // banks in both directions.
    __device__ void weights(float *to) const {
        const int n = size();
        for (int k = int(threadIdx.x); k < n * n; k += THREADS) to[k % n * (n + 1) + k / n] = load(w + k);
    }

    // Pixel (row, column) of a tile of 8 x 8, and how vectors of coefficients lie in shared memory: those of the cosine
    // transform are [64][count], of the wavelet [16 windows][4 count].
    __device__ __forceinline__ int pixel(int row, int column, int c) const { return (row * 8 + column) * count + c; }
    __device__ __forceinline__ int window(int w, int band, int c) const { return (w * 4 + band) * count + c; }
    // Where channel `first` of a pixel of tile `tile` is; the rows of all images lie below each other.
    __device__ __forceinline__ size_t place(int tile, int pixel, int width, int channels) const {
        const int tiles = width / 8, row = tile / tiles * 8 + pixel / 8, column = tile % tiles * 8 + pixel % 8;
        return (size_t(row) * width + column) * channels + first;
    }
    __device__ void read(const T *x, int tile, int width, int channels, float *to) const {
        for (int k = int(threadIdx.x); k < all(); k += THREADS) {
            to[k] = load(x + place(tile, k / count, width, channels) + k % count);
        }
    }
    __device__ void write(T *y, int tile, int width, int channels, const float *from) const {
        for (int k = int(threadIdx.x); k < all(); k += THREADS) {
            store(y + place(tile, k / count, width, channels) + k % count, from[k]);
        }
    }

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
    // Transforms `tile`; afterwards it holds the result, and `spare` something else.
    __device__ void transform(float *&tile, float *&spare, bool inverse) const {
        if (haar) {
            wavelet(tile, spare, inverse);
            float *const done = spare;
            spare = tile;
            tile = done;
        } else {
            cosines(tile, !inverse, inverse);
            cosines(tile, inverse, inverse);
        }
    }

    // to[p][o] = finish(sum of from[p][i] w[i in + o out], o, what was there).
    template <typename F>
    __device__ void multiply(const float *from, const float *w, int in, int out, float *to, F finish) const {
        const int n = size();
        for (int k = int(threadIdx.x); k < rows() / 4 * n; k += THREADS) {
            const int o = k % n, p = k / n * 4;
            float sum[4] = {};
            for (int i = 0; i < n; ++i) {
                const float weight = w[i * in + o * out];
#pragma unroll
                for (int r = 0; r < 4; ++r) sum[r] += weight * from[(p + r) * n + i];
            }
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                float *const v = to + (p + r) * n + o;
                *v = finish(sum[r], o, *v);
            }
        }
        __syncthreads();
    }
    __device__ __forceinline__ float biased(float sum, int o) const { return bias ? sum + load(bias + o) : sum; }
};

// x, y: [images, height, width, cosines + wavelets]; cosine: [cosines, cosines], wavelet: [4 wavelets, 4 wavelets],
// bias: [4 wavelets]. Blocks: x = tiles of 8 x 8 pixels, y = 2. Shared memory: two tiles and the weights.
template <typename T>
__device__ void spectral_product_forward_kernel(const T *x, const T *cosine, const T *wavelet, const T *bias, T *y,
                                                int width, int cosines, int wavelets) {
    DYNAMIC_SHARED(float, memory);
    const Stream<T> s(cosine, wavelet, bias, cosines, wavelets);
    const int n = s.size(), channels = cosines + wavelets;
    float *a = memory, *b = a + s.all(), *const weights = b + s.all();
    s.read(x, int(blockIdx.x), width, channels, a);
    s.weights(weights);
    for (int k = int(threadIdx.x); k < s.all(); k += THREADS) b[k] = 0.0f;
    __syncthreads();
    s.transform(a, b, false);
    s.multiply(a, weights, n + 1, 1, b, [&](float sum, int o, float) {
        const float v = s.biased(sum, o);
        return v < 0.0f ? 0.0f : v; // NaN stays NaN
    });
    s.transform(b, a, true);
    s.write(y, int(blockIdx.x), width, channels, b);
}

// The gradient of x, and of the parameters as sums over the tiles of each block, in f32: partial is
// [gridDim.x][cosines^2 + (4 wavelets)^2 + 4 wavelets]. Blocks: x = any number, y = 2; a block takes every so many-th tile.
// Shared memory: three tiles and the weights. size() is at most 64.
template <typename T>
__device__ void spectral_product_backward_kernel(const T *x, const T *dy, const T *cosine, const T *wavelet, const T *bias,
                                                 T *dx, float *partial, int width, int cosines, int wavelets, int tiles) {
    DYNAMIC_SHARED(float, memory);
    const Stream<T> s(cosine, wavelet, bias, cosines, wavelets);
    const int n = s.size(), channels = cosines + wavelets, squares = 16 * wavelets * wavelets;
    float *a = memory, *b = a + s.all(), *c = b + s.all(), *const weights = c + s.all();
    const int across = (n + SIDE - 1) / SIDE, o0 = int(threadIdx.x) / across * SIDE;
    const int i0 = int(threadIdx.x) % across * SIDE;
    float sums[SIDE][SIDE] = {}, of_bias = 0.0f;
    s.weights(weights);
    for (int tile = int(blockIdx.x); tile < tiles; tile += int(gridDim.x)) {
        s.read(x, tile, width, channels, a);
        s.read(dy, tile, width, channels, c);
        __syncthreads();
        s.transform(a, b, false); // the coefficients of x
        s.transform(c, b, false); // the gradient of the product's
        s.multiply(a, weights, n + 1, 1, c, [&](float sum, int o, float g) { return s.biased(sum, o) > 0.0f ? g : 0.0f; });
        s.multiply(c, weights, 1, n + 1, b, [](float sum, int, float) { return sum; });
        for (int p = 0; p < s.rows() && o0 < n; ++p) {
            float g[SIDE], v[SIDE];
#pragma unroll
            for (int j = 0; j < SIDE; ++j) {
                g[j] = c[p * n + min(o0 + j, n - 1)]; // beyond the last: thrown away
                v[j] = a[p * n + min(i0 + j, n - 1)];
            }
#pragma unroll
            for (int o = 0; o < SIDE; ++o) {
#pragma unroll
                for (int i = 0; i < SIDE; ++i) sums[o][i] += g[o] * v[i];
            }
        }
        if (int(threadIdx.x) < n) {
            for (int p = 0; p < s.rows(); ++p) of_bias += c[p * n + threadIdx.x];
        }
        __syncthreads();
        s.transform(b, a, true);
        s.write(dx, tile, width, channels, b);
        __syncthreads();
    }
    partial += size_t(blockIdx.x) * (cosines * cosines + squares + 4 * wavelets);
    float *const of_weights = partial + (s.haar ? cosines * cosines : 0);
#pragma unroll
    for (int o = 0; o < SIDE; ++o) {
#pragma unroll
        for (int i = 0; i < SIDE; ++i) {
            if (o0 + o < n && i0 + i < n) of_weights[(o0 + o) * n + i0 + i] = sums[o][i];
        }
    }
    if (s.haar && int(threadIdx.x) < n) of_weights[squares + threadIdx.x] = of_bias;
}

// Adds up what `blocks` blocks of the kernel above found. Threads: as many as partial has columns.
template <typename T>
__device__ void spectral_product_sum_kernel(const float *partial, T *cosine, T *wavelet, T *bias, int blocks, int of_cosine,
                                            int of_wavelet, int of_bias) {
    const size_t i = element(), n = size_t(of_cosine) + of_wavelet + of_bias;
    if (i >= n) return;
    float sum = 0.0f;
#pragma unroll 8
    for (int block = 0; block < blocks; ++block) sum += partial[block * n + i];
    if (i < size_t(of_cosine)) return store(cosine + i, sum);
    if (i < size_t(of_cosine) + of_wavelet) return store(wavelet + (i - of_cosine), sum);
    store(bias + (i - of_cosine - of_wavelet), sum);
}
} // namespace

FOR_DTYPES(spectral_product_forward,
           (const T *x, const T *cosine, const T *wavelet, const T *bias, T *y, int width, int cosines, int wavelets),
           (x, cosine, wavelet, bias, y, width, cosines, wavelets))
FOR_DTYPES(spectral_product_backward,
           (const T *x, const T *dy, const T *cosine, const T *wavelet, const T *bias, T *dx, float *partial, int width,
            int cosines, int wavelets, int tiles),
           (x, dy, cosine, wavelet, bias, dx, partial, width, cosines, wavelets, tiles))
FOR_DTYPES(spectral_product_sum,
           (const float *partial, T *cosine, T *wavelet, T *bias, int blocks, int of_cosine, int of_wavelet, int of_bias),
           (partial, cosine, wavelet, bias, blocks, of_cosine, of_wavelet, of_bias))
