// 2-D convolution of 16-bit maps on compute capability 9.0: the products of conv2d.cu by wgmma, fed by the TMA. Formulas:
// src/ops/conv2d; when it is taken: src/ops/conv2d/wgmma.rs. Not run on a GPU yet.
//
// One warp loads: for each tap and 64 channels the 128 pixels of a tile, by the tensor map's im2col, which pads with zeros
// and goes on to the next line and image, and the weights of N outputs. Two warpgroups multiply 64 of these rows each. A
// stage is filled again when all eight of their warps have waited for the products that read it. Blocks stay for many tiles,
// so that the loads of the next tile run during the epilogue of this one.
//
// A step of a block moves (128 + N) 64 elements for 128 N 64 multiply-adds, as conv2d.cu does, but no thread carries them:
// what is left for warps to issue is the epilogue. Bound by the tensor cores where the taps' channels fill steps of 64.
#include "conv2d.cuh"
#include "hopper.cuh"

namespace {
constexpr int MULTIPLIERS = 8, HOPPER_THREADS = (MULTIPLIERS + 1) * WARP; // warps that multiply, and one that loads

#ifdef HOPPER
constexpr int TILE_ROWS = 128, STEP = 64;

// What a block keeps in shared memory, from a multiple of 1024 on: the swizzle goes by addresses.
template <typename T, int N> struct __align__(1024) HopperMemory {
    static constexpr int DEEP = N > 64 ? 4 : 6; // stages
    static constexpr unsigned BYTES = (TILE_ROWS + N) * STEP * sizeof(T);
    T x[DEEP][TILE_ROWS * STEP], w[DEEP][N * STEP];
    // Of each warp, whose rows lie in different banks; and for two tiles in turn what it found of each run of columns.
    float sum[MULTIPLIERS][16][N + 8], found[2][N][MULTIPLIERS][2];
    Mbarrier full[DEEP], empty[DEEP];
};
// Besides what it takes to reach such a multiple: src/ops/conv2d/wgmma.rs has the numbers.
static_assert(sizeof(HopperMemory<f16, 128>) == 218112 && sizeof(HopperMemory<f16, 64>) == 193536, "as there");

// The loader: one thread.
template <typename T, int N>
__device__ __forceinline__ void load_tiles(HopperMemory<T, N> &memory, const TensorMap &x, const TensorMap &w, int tiles,
                                           int column_tiles, int inputs, int out_height, int out_width, int kernel,
                                           int stride, int pad, bool turned) {
    int stage = 0;
    uint32_t turn = 1; // stages begin empty
    for (int tile = int(blockIdx.x); tile < tiles; tile += int(gridDim.x)) {
        const int row = tile / column_tiles * TILE_ROWS, column = tile % column_tiles * N;
        const int line = row / out_width, image = line / out_height;
        const int at_w = (row - line * out_width) * stride - pad, at_h = (line - image * out_height) * stride - pad;
        for (int tap_h = 0; tap_h < kernel; ++tap_h)
            for (int tap_w = 0; tap_w < kernel; ++tap_w) {
                const int tap = tap_h * kernel + tap_w, of_w = turned ? kernel * kernel - 1 - tap : tap;
                for (int channel = 0; channel < inputs; channel += STEP) {
                    Mbarrier *const full = memory.full + stage;
                    mbarrier_wait(memory.empty + stage, turn);
                    mbarrier_arrive_expect_tx(full, memory.BYTES);
                    tma_load_im2col(memory.x[stage], x, full, channel, at_w, at_h, image, tap_w, tap_h);
                    tma_load_box(memory.w[stage], w, full, channel, of_w, column);
                    if (++stage == memory.DEEP) stage = 0, turn ^= 1;
                }
            }
    }
}

// One warp: of its 16 rows and each `run` columns the mean and the sum of squared differences to it.
template <int N>
__device__ __forceinline__ void warp_moments(const float (*rows)[N + 8], int columns, int run, float (*found)[MULTIPLIERS][2]) {
    const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP, across = min(run, 8);
    for (int first = 0; first < columns; first += run) {
        float sum = 0.0f;
        for (int row = lane / across; row < 16; row += WARP / across)
            for (int c = lane % across; c < run; c += across) sum += rows[row][first + c];
        const float mean = warp_sum(sum) / float(16 * run);
        sum = 0.0f;
        for (int row = lane / across; row < 16; row += WARP / across)
            for (int c = lane % across; c < run; c += across) {
                const float d = rows[row][first + c] - mean;
                sum += d * d;
            }
        sum = warp_sum(sum);
        if (lane > 0) continue;
        found[first / run][warp][0] = mean;
        found[first / run][warp][1] = sum;
    }
}

// x, w: maps of [images, height, width, inputs], in pixels of TILE_ROWS, and of [outputs, kernel * kernel, inputs], both in
// STEP channels with the swizzle of 128 bytes; `turned`: of the weights the last tap comes first. y, moments, run, found: as for `convolve`.
template <typename T, int N>
__device__ __forceinline__ void convolve_tiles(const TensorMap &x, const TensorMap &w, const Epilogue<T> &epilogue, T *y,
                                               int images, int inputs, int out_height, int out_width, int outputs,
                                               int kernel, int stride, int pad, bool turned, float *moments, int run,
                                               int found) {
    using Memory = HopperMemory<T, N>;
    DYNAMIC_SHARED(char, bytes);
    char *const aligned = bytes + (1024 - shared_address(bytes) % 1024) % 1024;
    Memory &memory = *reinterpret_cast<Memory *>(aligned);
    const int per_image = out_height * out_width, rows = images * per_image;
    const int column_tiles = (outputs + N - 1) / N, tiles = (rows + TILE_ROWS - 1) / TILE_ROWS * column_tiles;
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < Memory::DEEP; ++stage) {
            mbarrier_init(memory.full + stage, 1);
            mbarrier_init(memory.empty + stage, MULTIPLIERS);
        }
        fence_mbarrier_init();
        fence_proxy_async();
    }
    __syncthreads();
    if (warp == MULTIPLIERS) {
        if (lane == 0)
            load_tiles<T, N>(memory, x, w, tiles, column_tiles, inputs, out_height, out_width, kernel, stride, pad,
                             turned);
        return;
    }

    const int steps = kernel * kernel * ((inputs + STEP - 1) / STEP), half = warp / 4;
    int stage = 0;
    uint32_t turn = 0, buffer = 0;
    for (int tile = int(blockIdx.x); tile < tiles; tile += int(gridDim.x), buffer ^= 1) {
        float sums[N / 2];
#pragma unroll
        for (float &sum : sums) sum = 0.0f;
        int before = -1; // the stage that products under way may still read
        for (int step = 0; step < steps; ++step) {
            mbarrier_wait(memory.full + stage, turn);
            const uint64_t a = wgmma_rows(memory.x[stage] + half * 64 * STEP), b = wgmma_rows(memory.w[stage]);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < STEP / 16; ++k) Wgmma<T, N>::add(sums, a + k * DEEPER, b + k * DEEPER);
            wgmma_commit();
            wgmma_wait<1>();
            if (before >= 0 && lane == 0) mbarrier_arrive(memory.empty + before);
            before = stage;
            if (++stage == Memory::DEEP) stage = 0, turn ^= 1;
        }
        wgmma_wait<0>();
        if (lane == 0) mbarrier_arrive(memory.empty + before);

        // Through shared memory, so that global memory sees whole packs. A warp's rows are its own.
        constexpr int PACK = Pack<T>::SIZE, PACKS = N / PACK;
        float(*const mine)[N + 8] = memory.sum[warp];
        __syncwarp();
#pragma unroll
        for (int i = 0; i < N / 2; i += 2)
            *reinterpret_cast<float2 *>(&mine[lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + lane % 4 * 2]) = make_float2(sums[i], sums[i + 1]);
        __syncwarp();
        const int row0 = tile / column_tiles * TILE_ROWS + warp * 16, column0 = tile % column_tiles * N;
        const int column = column0 + lane % PACKS * PACK;
#pragma unroll 1
        for (int i = lane / PACKS; i < 16; i += WARP / PACKS) {
            const int row = row0 + i;
            if (row >= rows || column >= outputs) continue;
            const int image = epilogue.shift ? row / per_image : 0;
            epilogue.template write<PACK>(&mine[i][column - column0], y, image, size_t(row), column, moments != nullptr);
        }
        if (!moments) continue;
        // As add_moments: of `found` rows, from those of their warps in order.
        __syncwarp();
        const int columns = min(N, outputs - column0);
        warp_moments<N>(mine, columns, run, memory.found[buffer]);
        named_barrier(1, MULTIPLIERS * WARP);
        const int runs = columns / run, warps = found / 16;
        for (int i = int(threadIdx.x); i < MULTIPLIERS / warps * runs; i += MULTIPLIERS * WARP) {
            const int part = i / runs, r = i - part * runs;
            const float(*const of)[2] = memory.found[buffer][r] + part * warps;
            float mean = 0.0f, squares = 0.0f;
            for (int from = 0; from < warps; ++from) mean += of[from][0];
            mean /= float(warps);
            for (int from = 0; from < warps; ++from) {
                const float d = of[from][0] - mean;
                squares += of[from][1] + d * d * float(16 * run);
            }
            const size_t entry = size_t(tile / column_tiles) * (MULTIPLIERS / warps) + part;
            float *const to = moments + (entry * (outputs / run) + column0 / run + r) * 2;
            to[0] = mean;
            to[1] = squares;
        }
    }
}
#endif

#define HOPPER_PARAMETERS \
    (const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, T *y, int images, int inputs, \
     int out_height, int out_width, int outputs, int kernel, int stride, int pad, int turned, \
     float *moments /* or null */, int run, int found, EPILOGUE_PARAMETERS)
#define HOPPER_ARGUMENTS \
    (x, w, y, images, inputs, out_height, out_width, outputs, kernel, stride, pad, turned, moments, run, found, \
     EPILOGUE_ARGUMENTS)
// The host starts them on compute capability 9.0 alone.
#ifdef HOPPER
#define HOPPER_BLOCKS(name, N) \
    template <typename T> \
    __device__ __forceinline__ void name##_kernel(const TensorMap &x, const TensorMap &w, T *y, int images, int inputs, \
                                                  int out_height, int out_width, int outputs, int kernel, int stride, \
                                                  int pad, int turned, float *moments, int run, int found, \
                                                  EPILOGUE_PARAMETERS) { \
        const Epilogue<T> epilogue = EPILOGUE_OF(outputs); \
        convolve_tiles<T, N>(x, w, epilogue, y, images, inputs, out_height, out_width, outputs, kernel, stride, pad, \
                             turned != 0, moments, run, found); \
    }
#else
#define HOPPER_BLOCKS(name, N) \
    template <typename T, typename... Any> __device__ __forceinline__ void name##_kernel(const Any &...) { __trap(); }
#endif
HOPPER_BLOCKS(conv2d_wgmma_128x128, 128)
HOPPER_BLOCKS(conv2d_wgmma_128x64, 64)
} // namespace

EXPORT_16BIT(HOPPER_THREADS, 1, conv2d_wgmma_128x128, HOPPER_PARAMETERS, HOPPER_ARGUMENTS)
EXPORT_16BIT(HOPPER_THREADS, 1, conv2d_wgmma_128x64, HOPPER_PARAMETERS, HOPPER_ARGUMENTS)
