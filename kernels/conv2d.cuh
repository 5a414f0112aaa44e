// Convolution as an implicit product: what kernels/conv2d.cu and kernels/conv2d_joined.cu share.
#pragma once
#include "gemm.cuh"

namespace {
constexpr int STAGES = 3;
// Warps of a block that computes a product, and of one whose groups of threads share the depth.
constexpr int WARPS = 4, SLICED_WARPS = 8;

// Which source pixel and weight meet at tap (a, b) of output (i, j):
//     source = i * scale + a * step + first,   weight tap = first_tap + a * tap_stride.
// A convolution reads every stride-th window. A transposed one with stride s falls apart into s * s
// phases, outputs that are s apart, each a convolution with every s-th tap: no product is wasted.
struct Axis {
    int outputs, source, scale, step, first, first_tap, tap_stride, taps, phase, out_stride;

    __device__ Axis(int size_out, int size_in, int kernel, int stride, int pad, bool transposed,
                    int of_phase) {
        source = size_in;
        phase = of_phase;
        out_stride = tap_stride = transposed ? stride : 1;
        outputs = size_out > phase ? (size_out - phase + out_stride - 1) / out_stride : 0;
        scale = transposed ? 1 : stride;
        step = transposed ? -1 : 1;
        first = transposed ? (phase + pad) / stride : -pad;
        first_tap = transposed ? (phase + pad) % stride : 0;
        taps = kernel > first_tap ? (kernel - first_tap + tap_stride - 1) / tap_stride : 0;
    }
};

// A place along the depth: a channel of tap (a, b). Every thread walks through its own.
struct Place {
    int channel, a, b;

    __device__ __forceinline__ void advance(int by, int channels, int taps) {
        channel += by;
        while (channel >= channels) {
            channel -= channels;
            if (++b == taps) b = 0, ++a;
        }
    }
};

// What follows the sum, all of which is optional:
//     y = scale activation(sum + bias[c] + shift[image, c]) + of_residual residual + of_second second,
// or, where the shift is late, y = scale (activation(sum + bias[c]) + shift[image, c]) + ...
// Leaky ReLU has the slope `slope`, or slopes[c], or slopes[0].
enum Activation { NONE, RELU, SILU, LEAKY, MISH };
template <typename T> struct Epilogue {
    const T *bias, *shift, *slopes, *residual, *second;
    int channels, activation, shift_stride, late, slope_stride;
    float slope, scale, of_residual, of_second;

    template <int WIDTH>
    __device__ __forceinline__ static void add(float (&v)[WIDTH], const T *from, float times) {
        if constexpr (WIDTH == 1) {
            v[0] += times * load(from);
        } else {
            const Pack<T> pack = load_pack(from);
#pragma unroll
            for (int e = 0; e < WIDTH; ++e) v[e] += times * load(&pack.value[e]);
        }
    }
    // As kernels/mish.cu.
    __device__ __forceinline__ static float mish(float v) {
        const float e = __expf(fminf(v, 20.0f)), growth = e * (e + 2.0f);
        return v * __fdividef(growth, growth + 2.0f);
    }
    __device__ __forceinline__ float activated(float v, int c) const {
        switch (activation) {
        case RELU: return v < 0.0f ? 0.0f : v; // NaN stays NaN
        case SILU: return v * sigmoid(v);
        case LEAKY: return v > 0.0f ? v : (slopes ? load(slopes + c * slope_stride) : slope) * v;
        case MISH: return mish(v);
        default: return v;
        }
    }
    // Writes WIDTH channels from c on of one pixel; where it is to be kept, `sum` becomes what is written.
    template <int WIDTH>
    __device__ __forceinline__ void write(float *sum, T *y, int image, size_t pixel, int c, bool keep = false) const {
        float v[WIDTH];
#pragma unroll
        for (int e = 0; e < WIDTH; ++e) v[e] = sum[e];
        const size_t at = pixel * channels + c;
        const T *const moved = shift ? shift + size_t(image) * shift_stride + c : nullptr;
        if (bias) add(v, bias + c, 1.0f);
        if (moved && !late) add(v, moved, 1.0f);
#pragma unroll
        for (int e = 0; e < WIDTH; ++e) v[e] = activated(v[e], c + e);
        if (moved && late) add(v, moved, 1.0f);
#pragma unroll
        for (int e = 0; e < WIDTH; ++e) v[e] *= scale;
        if (residual) add(v, residual + at, of_residual);
        if (second) add(v, second + at, of_second);
        if constexpr (WIDTH == 1) {
            store(y + at, v[0]);
        } else {
            Pack<T> pack;
#pragma unroll
            for (int e = 0; e < WIDTH; ++e) store(&pack.value[e], v[e]);
            store_pack(y + at, pack);
            if (!keep) return;
#pragma unroll
            for (int e = 0; e < WIDTH; ++e) sum[e] = load(&pack.value[e]);
        }
    }
};

// How the threads of a block share the filling of a tile whose rows have COLUMNS elements.
template <typename T, int ROWS, int COLUMNS, int THREADS, bool PACKED> struct Share {
    static constexpr int WIDTH = PACKED ? Pack<T>::SIZE : 1, ACROSS = COLUMNS / WIDTH,
                         DOWN = THREADS / ACROSS;
    static constexpr int COUNT = ROWS / DOWN;
    static_assert(THREADS % ACROSS == 0 && ROWS % DOWN == 0, "every thread fills equally many");
    __device__ __forceinline__ static int column() { return int(threadIdx.x) % ACROSS * WIDTH; }
    __device__ __forceinline__ static int row(int i) { return int(threadIdx.x) / ACROSS + i * DOWN; }
};

constexpr int FAR = -(1 << 29); // a coordinate outside every image

// p + n * stride in one instruction: a product of ints, as wide as an address.
template <typename T> __device__ __forceinline__ const T *ahead(const T *p, int n, int stride) {
    const char *const bytes = reinterpret_cast<const char *>(p);
    return reinterpret_cast<const T *>(bytes + (long long)(n) * (stride * int(sizeof(T))));
}

// What a block keeps in shared memory: operands during the product, then sums, as many rows at a time
// as fit. The pitch keeps the rows that a warp writes apart; its end has room for two numbers a column.
template <typename T, int M, int N, bool BACK> union BlockMemory {
    static constexpr int DEPTH = Blocking<T, M, N>::DEPTH, SUM_ROWS = M * N > 128 * 64 ? M / 2 : M;
    struct {
        Tile<T, M, DEPTH> x[STAGES];
        Tile<T, BACK ? DEPTH : N, BACK ? N : DEPTH> w[STAGES];
    } in;
    float sum[SUM_ROWS][N + 8];

    __device__ __forceinline__ float *beside(int i) { return &sum[i / 4][N + i % 4 * 2]; }
};

// Rows that statistics are taken of: of 128 in two halves, so that no bit depends on the block.
constexpr int HALF = 64;

// One warp: the mean of `run` columns of HALF rows, and the sum of squared differences to it.
template <int PITCH>
__device__ __forceinline__ void half_moments(const float (*rows)[PITCH], int column, int run, float &mean, float &squares) {
    const int lane = int(threadIdx.x) % WARP, across = min(run, 8);
    column += lane % across;
    float sum = 0.0f;
#pragma unroll 4
    for (int row = lane / across; row < HALF; row += WARP / across)
        for (int c = 0; c < run; c += across) sum += rows[row][column + c];
    mean = warp_sum(sum) / float(HALF * run);
    sum = 0.0f;
#pragma unroll 4
    for (int row = lane / across; row < HALF; row += WARP / across)
        for (int c = 0; c < run; c += across) {
            const float d = rows[row][column + c] - mean;
            sum += d * d;
        }
    squares = warp_sum(sum);
}

// One of ALL warps: what the block found of its rows, from `first` on of which `memory` holds some: of each `run` columns
// the mean and the sum of squared differences to it. `moments` is that of the block's rows and first column. `columns` are
// there. Entries of `found` rows are `next` numbers apart: halves have some of their own, or two share one.
template <int N, int ALL, typename Memory>
__device__ __forceinline__ void add_moments(Memory &memory, int warp, int first, int columns, int run, float *moments,
                                            int found, int next) {
    for (int half = 0; half < Memory::SUM_ROWS / HALF; ++half) {
        const int row = first + half * HALF;
        for (int r = warp; r < N / run && r * run < columns; r += ALL) {
            float mean, squares, *const before = memory.beside(r), *const entry = moments + row / found * next + 2 * r;
            half_moments(memory.sum + half * HALF, r * run, run, mean, squares);
            if (threadIdx.x % WARP > 0) continue;
            const auto put = [=](float *to, float mean, float squares) {
                to[0] = mean;
                to[1] = squares;
            };
            if (found == HALF) {
                put(entry, mean, squares);
            } else if (row % found == 0) {
                put(before, mean, squares);
            } else {
                const float d = mean - before[0];
                put(entry, before[0] + 0.5f * d, before[1] + squares + d * d * float(HALF / 2 * run));
            }
        }
    }
}

// Where a convolution finds its input: a map [images, height, width, channels].
template <typename T> struct OneMap {
    const T *x;
    int channels;
    static constexpr bool LINEAR = true; // the next pixel that is seen is the next in memory
    static constexpr bool NORMED = false; // whether what has arrived is not yet what is multiplied
    static constexpr int doubled = 0;    // the map that is seen has sides 2^doubled times as large

    // Once a step, then for pixels of rows that are counted over all images.
    __device__ __forceinline__ const T *from(int channel) const { return x + channel; }
    __device__ __forceinline__ int stride(int) const { return channels; }
};

// A map of c0 channels, and perhaps one of c1 beside it.
template <typename T> struct TwoMaps {
    const T *x, *x1;
    int c0, c1;
    static constexpr bool LINEAR = true, NORMED = false;
    static constexpr int doubled = 0;

    __device__ __forceinline__ const T *from(int channel) const { return (channel < c0 ? x : x1 - c0) + channel; }
    __device__ __forceinline__ int stride(int channel) const { return channel < c0 ? c0 : c1; }
};

// Up to five maps side by side, [.., channels[k]] each, of which a pixel may be seen as 2 x 2.
template <typename T> struct Maps {
    const T *x, *x1, *x2, *x3, *x4;
    int c0, c1, c2, c3, c4, doubled;
    static constexpr bool LINEAR = false, NORMED = false;

    __device__ __forceinline__ const T *from(int channel) const {
        if (channel < c0) return x + channel;
        if (channel < c0 + c1) return x1 + (channel - c0);
        if (channel < c0 + c1 + c2) return x2 + (channel - c0 - c1);
        if (channel < c0 + c1 + c2 + c3) return x3 + (channel - c0 - c1 - c2);
        return x4 + (channel - c0 - c1 - c2 - c3);
    }
    __device__ __forceinline__ int stride(int channel) const {
        if (channel < c0) return c0;
        if (channel < c0 + c1) return c1;
        if (channel < c0 + c1 + c2) return c2;
        return channel < c0 + c1 + c2 + c3 ? c3 : c4;
    }
};

// x: [images, height, width, inputs] as `Source` has it, w: [outputs, kernel, kernel, inputs], y: [images,
// out_height, out_width, outputs]; bias: [outputs], shift: [images, outputs], residual: as y, or null.
// Blocks: x = tiles, those of one range of pixels next to each other; y = phases.
// moments: [rows / found, outputs / run, 2] or null, see add_moments: of 16-bit maps whose images are multiples of 128
// pixels, and outputs of packs; `run` is a power of two that divides 32 and them, `found` 128 or, as it must be of blocks
// of 64 rows, 64.
// BACK: w is [inputs, kernel, kernel, outputs], read where it lies; inputs fill steps, outputs packs.
// SLICES: so many groups of threads, threadIdx.y, share the depth, each in `memories` of its own, and add up in order.
template <typename T, int M, int N, bool PACKED, bool BACK = false, int SLICES = 1, typename Source>
__device__ __forceinline__ void convolve(BlockMemory<T, M, N, BACK> *memories, const Source &source, const T *w,
                                         const Epilogue<T> &epilogue, T *y, int images, int height, int width, int inputs,
                                         int out_height, int out_width, int outputs, int kernel, int stride, int pad,
                                         bool transposed, float *moments, int run, int found) {
    static_assert(PACKED || !BACK, "weights that lie the other way are read in packs");
    using Sums = Product<T, M, N, false, BACK, SLICES == 1 ? WARPS : SLICED_WARPS / SLICES>;
    constexpr int DEPTH = Sums::DEPTH;
    using ShareX = Share<T, M, DEPTH, Sums::THREADS, PACKED>;
    using ShareW = Share<T, BACK ? DEPTH : N, BACK ? N : DEPTH, Sums::THREADS, PACKED>;
    using Memory = BlockMemory<T, M, N, BACK>;
    const int slice = SLICES > 1 ? int(threadIdx.y) : 0;
    Memory &memory = memories[slice];

    const int seen_height = height << source.doubled, seen_width = width << source.doubled;
    const int phases = transposed ? stride : 1, phase = int(blockIdx.y);
    const Axis down(out_height, seen_height, kernel, stride, pad, transposed, phase / phases);
    const Axis across(out_width, seen_width, kernel, stride, pad, transposed, phase % phases);
    const int column_tiles = (outputs + N - 1) / N;
    const int row0 = int(blockIdx.x) / column_tiles * M, column0 = int(blockIdx.x) % column_tiles * N;
    const int per_image = down.outputs * across.outputs, rows = images * per_image;

    // The first pixel that each row of this thread meets; the index is that of (y, x) among the pixels of all images,
    // or of its image where pixels are seen as 2 x 2.
    int from_pixel[ShareX::COUNT], from_y[ShareX::COUNT], from_x[ShareX::COUNT];
#pragma unroll
    for (int i = 0; i < ShareX::COUNT; ++i) {
        const int row = row0 + ShareX::row(i), image = row < rows ? row / per_image : 0;
        const int pixel = row - image * per_image, line = row < rows ? pixel / across.outputs : 0;
        from_y[i] = row < rows ? line * down.scale + down.first : FAR;
        from_x[i] = (pixel - line * across.outputs) * across.scale + across.first;
        from_pixel[i] = image * height * width;
        if (Source::LINEAR && row < rows) from_pixel[i] += from_y[i] * width + from_x[i];
    }
    // Rows of weights that there are, as bits, and how far they are apart.
    unsigned present = 0;
#pragma unroll
    for (int i = 0; i < ShareW::COUNT; ++i)
        present |= unsigned(column0 + (BACK ? ShareW::column() : ShareW::row(i)) < outputs) << i;
    const int taps = kernel * kernel, depth = taps * (BACK ? outputs : inputs), below = ShareW::DOWN * depth;
    const T *const w_row =
        w + size_t((BACK ? 0 : column0) + ShareW::row(0)) * depth + (BACK ? column0 + ShareW::column() : 0);
    const int steps = (down.taps * across.taps * inputs + SLICES * DEPTH - 1) / (SLICES * DEPTH);
    Place place = {0, 0, 0};
    place.advance(slice * steps * DEPTH + ShareX::column(), inputs, across.taps);

    const auto fill = [&](int stage) {
        const bool deep = place.a < down.taps;
        const int off_y = deep ? place.a * down.step : FAR, off_x = place.b * across.step;
        const int off = place.a * down.step * width + off_x;
        const T *const channel = source.from(place.channel);
        const int stride = source.stride(place.channel);
#pragma unroll
        for (int i = 0; i < ShareX::COUNT; ++i) {
            const int at_y = from_y[i] + off_y, at_x = from_x[i] + off_x;
            const bool inside =
                unsigned(at_y) < unsigned(seen_height) && unsigned(at_x) < unsigned(seen_width);
            const int small = (at_y >> source.doubled) * width + (at_x >> source.doubled);
            const T *const from = ahead(channel, from_pixel[i] + (Source::LINEAR ? off : small), stride);
            copy_in<PACKED>(memory.in.x[stage].template share<ShareX>(i), from, inside);
        }
        const int tap_y = down.first_tap + place.a * down.tap_stride;
        const int tap_x = across.first_tap + place.b * across.tap_stride;
        const int tap_of = tap_y * kernel + tap_x;
        // All rows of a step have the tap of this thread's column.
        const T *const tap = BACK ? ahead(w_row + tap_of * outputs, place.channel - ShareX::column(), depth)
                                  : w_row + (tap_of * inputs + place.channel);
        const unsigned there = deep ? present : 0;
#pragma unroll
        for (int i = 0; i < ShareW::COUNT; ++i) {
            T *const to = memory.in.w[stage].template share<ShareW>(i);
            copy_in<PACKED>(to, ahead(tap, i, below), there >> i & 1);
        }
        place.advance(DEPTH, inputs, across.taps);
    };

    Sums sums;
    sums.clear();
    int arrives = ShareX::column();
    pipeline<STAGES, SLICES == SLICED_WARPS>(steps, fill, [&](int stage) {
        if constexpr (Source::NORMED) {
            source.template normalise<ShareX>(memory.in.x[stage], arrives);
            arrives += DEPTH;
            __syncthreads(); // a warp multiplies what others have normalised
        }
        sums.add(memory.in.x[stage], memory.in.w[stage]);
    });

    // Through shared memory, so that global memory sees whole packs and this code exists once.
    constexpr int PACK = Pack<T>::SIZE, PACKS = N / PACK, ALL = SLICES * Sums::THREADS;
    const int thread = slice * Sums::THREADS + int(threadIdx.x);
#pragma unroll 1
    for (int first = 0; first < M; first += Memory::SUM_ROWS) {
        __syncthreads();
        sums.each([&](int row, int column, const float *sum) {
            if (row / Memory::SUM_ROWS * Memory::SUM_ROWS != first) return;
#pragma unroll
            for (int e = 0; e < Sums::RUN; ++e) memory.sum[row - first][column + e] = sum[e];
        });
        __syncthreads();
#pragma unroll 1
        for (int i = thread; i < Memory::SUM_ROWS * PACKS; i += ALL) {
            const int row = row0 + first + i / PACKS, column = column0 + i % PACKS * PACK;
            if (row >= rows || column >= outputs) continue;
            const int image = row / per_image, pixel = row - image * per_image, line = pixel / across.outputs;
            const int out_y = line * down.out_stride + down.phase;
            const int out_x = (pixel - line * across.outputs) * across.out_stride + across.phase;
            const size_t to = (size_t(image) * out_height + out_y) * out_width + out_x;
            float *const sum = &memories[0].sum[i / PACKS][i % PACKS * PACK];
#pragma unroll
            for (int s = 1; s < SLICES; ++s)
#pragma unroll
                for (int e = 0; e < PACK; ++e) sum[e] += memories[s].sum[i / PACKS][i % PACKS * PACK + e];
            if (outputs % PACK == 0) {
                epilogue.template write<PACK>(sum, y, image, to, column, moments != nullptr);
            } else {
#pragma unroll 1
                for (int e = 0; e < PACK && column + e < outputs; ++e)
                    epilogue.template write<1>(sum + e, y, image, to, column + e);
            }
        }
        if constexpr (PACKED && sizeof(T) == 2) {
            if (!moments || row0 + first >= rows) continue;
            __syncthreads(); // what was written is kept
            const int next = outputs / run * 2;
            add_moments<N, ALL / WARP>(memories[0], thread / WARP, first, outputs - column0, run,
                                       moments + size_t(row0 / found) * next + column0 / run * 2, found, next);
        }
    }
}
} // namespace

// What an epilogue is made of, behind w and y.
#define EPILOGUE_PARAMETERS \
    const T *bias /* or null */, const T *shift /* or null */, const T *slopes /* or null */, \
        const T *residual /* or null */, const T *second /* or null */, int activation, int shift_first, \
        int shift_stride, int late, int slope_stride, float slope, float scale, float of_residual, \
        float of_second
#define EPILOGUE_ARGUMENTS \
    bias, shift, slopes, residual, second, activation, shift_first, shift_stride, late, slope_stride, slope, \
        scale, of_residual, of_second
#define EPILOGUE_OF(channels) \
    {bias, shift ? shift + shift_first : shift, slopes, residual, second, channels, activation, shift_stride, \
     late, slope_stride, slope, scale, of_residual, of_second}
