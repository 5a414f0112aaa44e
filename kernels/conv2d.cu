// 2-D convolution, NHWC, as implicit products. Formulas and host side: src/ops/conv2d. Transposed
// convolution and linear layers use the same kernels.
//
//   conv2d                rows = output pixels, columns = output channels, depth = taps x input channels.
//                         Gradient of the input: conv2d_back.cu, or, where channels fill no step, the same with
//                         weights [Ci][k][k][Co] and roles exchanged.
//   conv2d_weight         rows = Co, columns = taps x Ci, depth = pixels, split over blocks; more blocks add up
//                         the outputs' gradients for the bias. Partial sums are added in order by
//                         conv2d_add_partials.
// Where group normalisation follows, conv2d leaves behind what each block found of its outputs (moments).
//
// Nothing is copied to global memory beforehand: the loaders gather pixels, pad with zeros and cope with
// any number of channels (16-byte asynchronous copies where channels fill packs, elements otherwise).
//
// A step of a block of M x N and depth D moves (M + N) D elements for M N D multiply-adds:
// 128 x 128: 32 an operand byte at 16 bits, 256 x 64: 26, 128 x 64: 21, 128 x 32: 13, 64 x 64 in f32: 8. Bound by
// the tensor cores from 64 channels on, by memory below. Three stages: 48, 60, 36, 30, 24 KiB of shared memory.
#include "conv2d.cuh"

namespace {
#define CONV2D_PARAMETERS \
    (const T *x, const T *x1 /* or null */, const T *w, T *y, int images, int height, int width, int inputs, \
     int out_height, int out_width, int outputs, int kernel, int stride, int pad, int transposed, \
     float *moments /* or null */, int run, int found, int c0, EPILOGUE_PARAMETERS)
#define CONV2D_ARGUMENTS \
    (x, x1, w, y, images, height, width, inputs, out_height, out_width, outputs, kernel, stride, pad, \
     transposed, moments, run, found, c0, EPILOGUE_ARGUMENTS)
#define TWO_MAPS (TwoMaps<T>{x, x1, c0, inputs - c0})
#define CONV2D_BLOCKS(name, M, N, PACKED, maps) \
    template <typename T> __device__ void name##_kernel CONV2D_PARAMETERS { \
        using Memory = BlockMemory<T, M, N, false>; \
        SHARED(memory, Memory); \
        const Epilogue<T> epilogue = EPILOGUE_OF(outputs); \
        convolve<T, M, N, PACKED>(&memory, maps, w, epilogue, y, images, height, width, inputs, out_height, \
                                  out_width, outputs, kernel, stride, pad, transposed != 0, moments, run, found); \
    }
CONV2D_BLOCKS(conv2d_128x128, 128, 128, true, TWO_MAPS)
CONV2D_BLOCKS(conv2d_128x64, 128, 64, true, TWO_MAPS)
CONV2D_BLOCKS(conv2d_128x32, 128, 32, true, TWO_MAPS)
CONV2D_BLOCKS(conv2d_64x64, 64, 64, true, TWO_MAPS)
// Inputs that do not fill packs: of one map.
CONV2D_BLOCKS(conv2d_ragged, 64, 64, false, (OneMap<T>{x, inputs}))

// More shared memory than a kernel has without asking.
#define CONV2D_DYNAMIC(name, M, N, SLICES) \
    template <typename T> __device__ void name##_kernel CONV2D_PARAMETERS { \
        using Memory = BlockMemory<T, M, N, false>; \
        DYNAMIC_SHARED(Memory, memories); \
        const Epilogue<T> epilogue = EPILOGUE_OF(outputs); \
        convolve<T, M, N, true, false, SLICES>(memories, TWO_MAPS, w, epilogue, y, images, height, width, inputs, out_height, \
                                               out_width, outputs, kernel, stride, pad, transposed != 0, moments, run, \
                                               found); \
    }
CONV2D_DYNAMIC(conv2d_256x64, 256, 64, 1)

// Where there are few outputs and much depth: blocks whose groups of warps, eight in all, take a part of the depth each.
// Warps do 64 x 64; in the last, 32 x 32. 96, 144, 192 and 72 KiB of shared memory.
CONV2D_DYNAMIC(conv2d_sliced_128x128, 128, 128, 2)
CONV2D_DYNAMIC(conv2d_sliced_128x64, 128, 64, 4)
CONV2D_DYNAMIC(conv2d_sliced_64x64, 64, 64, 8)
CONV2D_DYNAMIC(conv2d_sliced_64x32, 64, 32, 4)

// Channels whose gradients a block of conv2d_weight adds up.
constexpr int SUMMED = 64;

// What such a block keeps in shared memory: operands, or what its threads found.
template <typename T, int M, int N> union WeightMemory {
    static constexpr int DEPTH = Blocking<T, M, N>::DEPTH;
    struct {
        Tile<T, DEPTH, M> z[STAGES];
        Tile<T, DEPTH, N> x[STAGES];
    } in;
    float sum[Blocking<T, M, N>::THREADS * Pack<T>::SIZE];
};

// sums[image][range][o] = sum of dz[pixel][o] over that range of the image's pixels, for SUMMED channels from `first` on:
// of every gridDim.z-th range.
template <typename T, int THREADS_, bool PACKED>
__device__ __forceinline__ void sum_outputs(const T *dz, float *sums, float *found, int first, int images, int per_image,
                                            int outputs, int ranges) {
    using Rows = Share<T, THREADS_, SUMMED, THREADS_, PACKED>;
    constexpr int WIDTH = Rows::WIDTH;
    const int range_pixels = (per_image + ranges - 1) / ranges, channel = first + Rows::column();
    for (int i = int(blockIdx.z); i < images * ranges; i += int(gridDim.z)) {
        const int image = i / ranges, begin = (i - image * ranges) * range_pixels;
        const int end = min(per_image, begin + range_pixels);
        float sum[WIDTH] = {};
        if (channel < outputs) {
            const T *const from = dz + size_t(image) * per_image * outputs + channel;
#pragma unroll 4
            for (int pixel = begin + Rows::row(0); pixel < end; pixel += Rows::DOWN) {
                if constexpr (WIDTH == 1) {
                    sum[0] += load(from + size_t(pixel) * outputs);
                } else {
                    const Pack<T> pack = load_pack(from + size_t(pixel) * outputs);
#pragma unroll
                    for (int e = 0; e < WIDTH; ++e) sum[e] += load(&pack.value[e]);
                }
            }
        }
        __syncthreads(); // what was found before has been read
#pragma unroll
        for (int e = 0; e < WIDTH; ++e) found[Rows::row(0) * SUMMED + Rows::column() + e] = sum[e];
        __syncthreads();
        const int mine = int(threadIdx.x);
        if (mine >= SUMMED || first + mine >= outputs) continue;
        float all = 0.0f;
        for (int row = 0; row < Rows::DOWN; ++row) all += found[row * SUMMED + mine];
        sums[size_t(i) * outputs + first + mine] = all;
    }
}

// partial[split][o][tap][c] = sum over the split's pixels of dz[pixel][o] * x[that tap of pixel][c].
// dz: [images, out_height, out_width, outputs], x: [images, height, width, inputs].
// sums: [images, ranges, outputs], what the bias and a shift are moved by, or null.
// Blocks: x = tiles of the gradient, then SUMMED channels each where there are sums; z = splits of `depth` pixels.
template <typename T, int M, int N, bool PACKED>
__device__ __forceinline__ void weight_gradient(const T *dz, const T *x, float *partial, float *sums, int images,
                                                int height, int width, int inputs, int out_height,
                                                int out_width, int outputs, int kernel, int stride, int pad,
                                                int depth, int ranges) {
    using Sums = Product<T, M, N, true, true>;
    using Memory = WeightMemory<T, M, N>;
    constexpr int DEPTH = Sums::DEPTH;
    using ShareZ = Share<T, DEPTH, M, Sums::THREADS, PACKED>;
    using ShareX = Share<T, DEPTH, N, Sums::THREADS, PACKED>;
    SHARED(memory, Memory);

    const int columns = kernel * kernel * inputs, column_tiles = (columns + N - 1) / N;
    const int row0 = int(blockIdx.x) / column_tiles * M, column0 = int(blockIdx.x) % column_tiles * N;
    const int per_image = out_height * out_width, begin = int(blockIdx.z) * depth;
    if (row0 >= outputs) {
        const int first = (int(blockIdx.x) - (outputs + M - 1) / M * column_tiles) * SUMMED;
        return sum_outputs<T, Sums::THREADS, PACKED>(dz, sums, memory.sum, first, images, per_image, outputs, ranges);
    }
    const int end = min(images * per_image, begin + depth);

    const int column = column0 + ShareX::column(), tap = column / inputs;
    const int off_y = tap / kernel - pad, off_x = tap % kernel - pad;
    const T *const x_channel = x + (column - tap * inputs);
    // The pixels of this thread's rows; a step goes DEPTH pixels on, carrying over lines and images.
    int image[ShareX::COUNT], line[ShareX::COUNT], across[ShareX::COUNT];
#pragma unroll
    for (int i = 0; i < ShareX::COUNT; ++i) {
        const int pixel = begin + ShareX::row(i);
        image[i] = pixel / per_image;
        line[i] = pixel % per_image / out_width;
        across[i] = pixel % out_width;
    }
    const int step_image = DEPTH / per_image, step_line = DEPTH % per_image / out_width;
    const int step_across = DEPTH % out_width;

    int at = begin;
    const auto fill = [&](int stage) {
        const int output = row0 + ShareZ::column();
#pragma unroll
        for (int i = 0; i < ShareZ::COUNT; ++i) {
            const int pixel = at + ShareZ::row(i);
            const T *from = dz + size_t(pixel) * outputs + output;
            copy_in<PACKED>(memory.in.z[stage].at(ShareZ::row(i), ShareZ::column()), from,
                            pixel < end && output < outputs);
        }
#pragma unroll
        for (int i = 0; i < ShareX::COUNT; ++i) {
            const int y = line[i] * stride + off_y, x_ = across[i] * stride + off_x;
            const bool inside = at + ShareX::row(i) < end && column < columns &&
                                unsigned(y) < unsigned(height) && unsigned(x_) < unsigned(width);
            const T *from = x_channel + (size_t(image[i] * height + y) * width + x_) * inputs;
            copy_in<PACKED>(memory.in.x[stage].at(ShareX::row(i), ShareX::column()), from, inside);
            across[i] += step_across;
            const bool next_line = across[i] >= out_width;
            across[i] -= next_line ? out_width : 0;
            line[i] += step_line + next_line;
            const bool next_image = line[i] >= out_height;
            line[i] -= next_image ? out_height : 0;
            image[i] += step_image + next_image;
        }
        at += DEPTH;
    };

    Sums products;
    products.clear();
    pipeline<STAGES>((end - begin + DEPTH - 1) / DEPTH, fill,
                     [&](int stage) { products.add(memory.in.z[stage], memory.in.x[stage]); });

    float *const to = partial + size_t(blockIdx.z) * outputs * columns;
    products.each([&](int row, int column, const float *sum) {
        row += row0;
        column += column0;
#pragma unroll
        for (int e = 0; e < Sums::RUN; ++e)
            if (row < outputs && column + e < columns) to[size_t(row) * columns + column + e] = sum[e];
    });
}

#define WEIGHT_PARAMETERS \
    (const T *dz, const T *x, float *partial, float *sums /* or null */, int images, int height, int width, \
     int inputs, int out_height, int out_width, int outputs, int kernel, int stride, int pad, int depth, int ranges)
#define WEIGHT_ARGUMENTS \
    (dz, x, partial, sums, images, height, width, inputs, out_height, out_width, outputs, kernel, stride, pad, \
     depth, ranges)
#define WEIGHT_BLOCKS(name, M, N, PACKED) \
    template <typename T> __device__ void name##_kernel WEIGHT_PARAMETERS { \
        weight_gradient<T, M, N, PACKED> WEIGHT_ARGUMENTS; \
    }
WEIGHT_BLOCKS(conv2d_weight_128x128, 128, 128, true)
WEIGHT_BLOCKS(conv2d_weight_64x64, 64, 64, true)
WEIGHT_BLOCKS(conv2d_weight_ragged, 64, 64, false) // inputs or outputs that do not fill packs

// w: [outputs, taps, inputs] -> transposed: [inputs, taps, outputs]; blocks of 32 x 32, z = taps.
template <typename T> __device__ void conv2d_transpose_weights_kernel(const T *w, T *transposed, int outputs,
                                                                      int taps, int inputs) {
    SHARED(tile, float[32][33]);
    const int lane = threadIdx.x % WARP, line = threadIdx.x / WARP, tap = int(blockIdx.z);
    const int input0 = int(blockIdx.x) * 32, output0 = int(blockIdx.y) * 32;
    for (int i = line; i < 32; i += THREADS / WARP) {
        const int output = output0 + i, input = input0 + lane;
        if (output < outputs && input < inputs)
            tile[i][lane] = load(w + (size_t(output) * taps + tap) * inputs + input);
    }
    __syncthreads();
    for (int i = line; i < 32; i += THREADS / WARP) {
        const int output = output0 + lane, input = input0 + i;
        if (output < outputs && input < inputs)
            store(transposed + (size_t(input) * taps + tap) * outputs + output, tile[lane][i]);
    }
}

// partial[block][c] = sum of x[r][c] over the `depth` rows of block y. Blocks: x = 32 columns each.
template <typename T>
__device__ void conv2d_column_sums_kernel(const T *x, float *partial, int rows, int columns, int depth) {
    constexpr int LINES = THREADS / WARP;
    SHARED(lines, float[LINES][WARP]);
    const int lane = threadIdx.x % WARP, line = threadIdx.x / WARP;
    const int column = int(blockIdx.x) * WARP + lane, begin = int(blockIdx.y) * depth;
    const int end = min(rows, begin + depth);
    float sum = 0.0f;
    if (column < columns) {
#pragma unroll 4
        for (int row = begin + line; row < end; row += LINES) sum += load(x + size_t(row) * columns + column);
    }
    lines[line][lane] = sum;
    __syncthreads();
    if (line > 0 || column >= columns) return;
    for (int l = 1; l < LINES; ++l) sum += lines[l][lane];
    partial[size_t(blockIdx.y) * columns + column] = sum;
}

// y[i] = the sum of partial[s][i] over the splits, in order. Behind these n, a warp each, bias[o] = the sum of sums[image][
// range][o], and shift[image][o] = that over the ranges of the image alone.
template <typename T>
__device__ void conv2d_add_partials_kernel(const float *partial, T *y, int splits, int n, const float *sums, T *bias,
                                           T *shift, int images, int ranges, int outputs) {
    const size_t i = element(), behind = (size_t(n) + WARP - 1) / WARP * WARP;
    if (i < size_t(n)) {
        float sum = 0.0f;
#pragma unroll 4
        for (int s = 0; s < splits; ++s) sum += partial[size_t(s) * n + i];
        return store(y + i, sum);
    }
    if (i < behind) return;
    const int lane = int(threadIdx.x) % WARP, of_bias = bias ? outputs : 0;
    int o = int((i - behind) / WARP), first = 0, last = images * ranges;
    T *to = o < of_bias ? bias + o : nullptr;
    if (!to) {
        o -= of_bias;
        if (!shift || o >= images * outputs) return;
        to = shift + o;
        const int image = o / outputs;
        o -= image * outputs;
        first = image * ranges;
        last = first + ranges;
    }
    float sum = 0.0f;
#pragma unroll 4
    for (int range = first + lane; range < last; range += WARP) sum += sums[size_t(range) * outputs + o];
    sum = warp_sum(sum);
    if (lane == 0) store(to, sum);
}

// dz = dy where y is positive, else 0. A thread does one pack.
template <typename T> __device__ void conv2d_relu_mask_kernel(const T *y, const T *dy, T *dz, int n) {
    constexpr int PACK = Pack<T>::SIZE;
    const size_t i = element() * PACK;
    if (i + PACK <= size_t(n)) {
        const Pack<T> output = load_pack(y + i);
        Pack<T> gradient = load_pack(dy + i);
#pragma unroll
        for (int e = 0; e < PACK; ++e)
            if (!(load(&output.value[e]) > 0.0f)) store(&gradient.value[e], 0.0f);
        return store_pack(dz + i, gradient);
    }
    for (size_t k = i; k < size_t(n); ++k) store(dz + k, load(y + k) > 0.0f ? load(dy + k) : 0.0f);
}

// The epilogue by itself, in place, behind a product that a library did. A thread does one pack.
template <typename T>
__device__ void conv2d_epilogue_kernel(T *y, int pixels, int image_pixels, int channels,
                                       EPILOGUE_PARAMETERS) {
    constexpr int PACK = Pack<T>::SIZE;
    const Epilogue<T> epilogue EPILOGUE_OF(channels);
    const bool packed = channels % PACK == 0;
    const size_t at = element() * (packed ? PACK : 1);
    const size_t pixel = at / channels;
    if (pixel >= size_t(pixels)) return;
    const int image = int(pixel / image_pixels), channel = int(at % channels);
    if (!packed) {
        float sum = load(y + at);
        return epilogue.template write<1>(&sum, y, image, pixel, channel);
    }
    const Pack<T> sums = load_pack(y + at);
    float sum[PACK];
#pragma unroll
    for (int e = 0; e < PACK; ++e) sum[e] = load(&sums.value[e]);
    epilogue.template write<PACK>(sum, y, image, pixel, channel);
}
} // namespace

// Blocks of 128 x 128 that fit a multiprocessor: Turing has shared memory for one, and then more registers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define PER_SM 1
#else
#define PER_SM 2
#endif
EXPORT_16BIT(128, PER_SM, conv2d_128x128, CONV2D_PARAMETERS, CONV2D_ARGUMENTS)
EXPORT_16BIT(128, 3, conv2d_128x64, CONV2D_PARAMETERS, CONV2D_ARGUMENTS)
EXPORT_16BIT(128, 4, conv2d_128x32, CONV2D_PARAMETERS, CONV2D_ARGUMENTS)
EXPORT_16BIT(128, PER_SM, conv2d_256x64, CONV2D_PARAMETERS, CONV2D_ARGUMENTS)
EXPORT_16BIT(256, 1, conv2d_sliced_128x128, CONV2D_PARAMETERS, CONV2D_ARGUMENTS)
EXPORT_16BIT(256, 1, conv2d_sliced_128x64, CONV2D_PARAMETERS, CONV2D_ARGUMENTS)
EXPORT_16BIT(256, 1, conv2d_sliced_64x64, CONV2D_PARAMETERS, CONV2D_ARGUMENTS)
EXPORT_16BIT(256, 2, conv2d_sliced_64x32, CONV2D_PARAMETERS, CONV2D_ARGUMENTS)
EXPORT_BLOCKS(f32, float, 128, 4, conv2d_64x64, CONV2D_PARAMETERS, CONV2D_ARGUMENTS)
EXPORT_ALL(128, 2, conv2d_ragged, CONV2D_PARAMETERS, CONV2D_ARGUMENTS)

EXPORT_16BIT(128, PER_SM, conv2d_weight_128x128, WEIGHT_PARAMETERS, WEIGHT_ARGUMENTS)
EXPORT_ALL(128, 4, conv2d_weight_64x64, WEIGHT_PARAMETERS, WEIGHT_ARGUMENTS)
EXPORT_ALL(128, 2, conv2d_weight_ragged, WEIGHT_PARAMETERS, WEIGHT_ARGUMENTS)

FOR_DTYPES(conv2d_transpose_weights, (const T *w, T *transposed, int outputs, int taps, int inputs),
           (w, transposed, outputs, taps, inputs))
FOR_DTYPES(conv2d_column_sums, (const T *x, float *partial, int rows, int columns, int depth),
           (x, partial, rows, columns, depth))
FOR_DTYPES(conv2d_add_partials,
           (const float *partial, T *y, int splits, int n, const float *sums /* or null */, T *bias /* or null */,
            T *shift /* or null */, int images, int ranges, int outputs),
           (partial, y, splits, n, sums, bias, shift, images, ranges, outputs))
FOR_DTYPES(conv2d_relu_mask, (const T *y, const T *dy, T *dz, int n), (y, dy, dz, n))
FOR_DTYPES(conv2d_epilogue, (T *y, int pixels, int image_pixels, int channels, EPILOGUE_PARAMETERS),
           (y, pixels, image_pixels, channels, EPILOGUE_ARGUMENTS))
