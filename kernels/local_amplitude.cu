// How much an image varies around each pixel. Formulas and host side: src/ops/local_amplitude.rs.
// One thread a pixel, which reads its 7 x 7 window through the cache; run once an image. The variance is taken
// of differences to the pixel itself, so that it does not cancel where the image is smooth.
#include "common.cuh"

namespace {
constexpr int RADIUS = 3;
constexpr float EPS = 1e-6f;

__device__ __forceinline__ float warp_min(float v) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) v = fminf(v, __shfl_xor_sync(FULL_MASK, v, offset));
    return v;
}

// Lowest and highest value over the block, into `range`.
__device__ void block_range(float low, float high, float *range) {
    SHARED(scratch, float[2][THREADS / WARP]);
    low = warp_min(low);
    high = -warp_min(-high);
    if (threadIdx.x % WARP == 0) {
        scratch[0][threadIdx.x / WARP] = low;
        scratch[1][threadIdx.x / WARP] = high;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < THREADS / WARP; ++w) {
            low = fminf(low, scratch[0][w]);
            high = fmaxf(high, scratch[1][w]);
        }
        range[0] = low;
        range[1] = high;
    }
}

// Grid [blocks of pixels, N]. x: [N, H, W, C]; amplitude: [N, H, W]; ranges: [N, blocks, 2]
template <typename T>
__device__ void local_amplitude_deviation_kernel(const T *x, float *amplitude, float *ranges, int height,
                                                 int width, int channels) {
    const size_t pixels = size_t(height) * width, pixel = element();
    const T *const image = x + blockIdx.y * pixels * channels;
    float low = __int_as_float(0x7f800000), high = -low;
    if (pixel < pixels) {
        const int row = int(pixel / width), column = int(pixel % width);
        float total = 0.0f;
        for (int c = 0; c < channels; ++c) {
            // z = (x + 1) / 2, of which (z - pivot) = (x - here) / 2 inside and -pivot outside.
            const float here = load(image + pixel * channels + c), outside = -0.5f * (here + 1.0f);
            float sum = 0.0f, squares = 0.0f;
            for (int i = row - RADIUS; i <= row + RADIUS; ++i) {
                for (int j = column - RADIUS; j <= column + RADIUS; ++j) {
                    const bool inside = i >= 0 && i < height && j >= 0 && j < width;
                    const size_t at =
                        (size_t(inside ? i : row) * width + (inside ? j : column)) * channels + c;
                    const float d = inside ? 0.5f * (load(image + at) - here) : outside;
                    sum += d;
                    squares += d * d;
                }
            }
            constexpr float AREA = float((2 * RADIUS + 1) * (2 * RADIUS + 1));
            const float mean = sum / AREA;
            total += fmaxf(squares / AREA - mean * mean, 0.0f);
        }
        low = high = sqrtf(total / float(channels) + EPS);
        amplitude[blockIdx.y * pixels + pixel] = low;
    }
    block_range(low, high, ranges + 2 * (size_t(blockIdx.y) * gridDim.x + blockIdx.x));
}

// y: [N, pixels]; ranges: [N, 2]; grid [blocks of pixels, N]
template <typename T>
__device__ void local_amplitude_stretch_kernel(const float *amplitude, const float *ranges, T *y,
                                               int pixels) {
    const size_t pixel = element(), at = size_t(blockIdx.y) * pixels + pixel;
    if (pixel >= size_t(pixels)) return;
    const float low = ranges[2 * blockIdx.y], high = ranges[2 * blockIdx.y + 1];
    store(y + at, (amplitude[at] - low) / (high - low + EPS));
}
} // namespace

FOR_DTYPES(local_amplitude_deviation,
           (const T *x, float *amplitude, float *ranges, int height, int width, int channels),
           (x, amplitude, ranges, height, width, channels))
FOR_DTYPES(local_amplitude_stretch, (const float *amplitude, const float *ranges, T *y, int pixels),
           (amplitude, ranges, y, pixels))

// One block an image: the range of its blocks. ranges: [N, blocks, 2]; of_images: [N, 2]
KERNEL __launch_bounds__(THREADS) local_amplitude_range(const float *ranges, float *of_images, int blocks) {
    const float *const mine = ranges + size_t(blockIdx.x) * 2 * blocks;
    float low = __int_as_float(0x7f800000), high = -low;
    for (int i = int(threadIdx.x); i < blocks; i += THREADS) {
        low = fminf(low, mine[2 * i]);
        high = fmaxf(high, mine[2 * i + 1]);
    }
    block_range(low, high, of_images + 2 * blockIdx.x);
}
REGISTER_KERNEL(local_amplitude_range, THREADS);
