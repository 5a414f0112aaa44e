// 1x1 convolutions of a map whose groups are normalised on the way in, perhaps with SiLU: the normalised map is never
// written. Formulas and host side: src/ops/conv2d/normed.rs.
//
// Each thread normalises in shared memory what it has copied there, each element once for each 128 (64, 32) outputs, as
// group_norm_apply does: the products see the same bits. Bound by memory up to some hundred outputs, beyond by the
// exponentials: a step of 128 x 32 inputs takes 2 x 4096 of them.
#include "conv2d.cuh"
#include "moments.cuh"

namespace {
// Maps as TwoMaps, with center, a and b of each channel in shared memory, [3][channels].
template <typename T> struct NormedMap {
    const T *x, *x1;
    int c0, channels;
    const float *constants;
    int silu;
    static constexpr bool LINEAR = true, NORMED = true;
    static constexpr int doubled = 0;

    __device__ __forceinline__ const T *from(int channel) const { return (channel < c0 ? x : x1 - c0) + channel; }
    __device__ __forceinline__ int stride(int channel) const { return channel < c0 ? c0 : channels - c0; }

    // What this thread has copied to `tile`, packs of the channels from `channel` on. Beyond the last are zeros.
    template <typename Share, typename Tile> __device__ __forceinline__ void normalise(Tile &tile, int channel) const {
        constexpr int PACK = Pack<T>::SIZE;
        if (channel >= channels) return;
        float center[PACK], a[PACK], b[PACK];
        read_floats(center, constants + channel);
        read_floats(a, constants + channels + channel);
        read_floats(b, constants + 2 * channels + channel);
#pragma unroll 1
        for (int i = 0; i < Share::COUNT; ++i) {
            T *const at = tile.template share<Share>(i);
            Pack<T> pack = load_pack(at);
#pragma unroll
            for (int e = 0; e < PACK; ++e)
                store(&pack.value[e], activated((load(&pack.value[e]) - center[e]) * a[e] + b[e], silu));
            store_pack(at, pack);
        }
    }
};

// x: [images, pixels, c0], x1, beside it: [images, pixels, inputs - c0], pixels a multiple of 128; partial: [images,
// pixels / seen, inputs / of_run, 2], absolute, as conv2d and group_norm_moments leave it; gamma, beta: [inputs]; w:
// [outputs, inputs]; y: [images, pixels, outputs].
template <typename T, int M, int N>
__device__ __forceinline__ void convolve_normed(const T *x, const T *x1, int c0, const float *partial, const T *gamma,
                                                const T *beta, const T *w, T *y, int images, int pixels, int inputs,
                                                int outputs, int groups, int of_run, int seen, int silu, float eps,
                                                float *moments, int run, int found, const Epilogue<T> &epilogue) {
    using Memory = BlockMemory<T, M, N, false>;
    DYNAMIC_SHARED(Memory, memory);
    float *const constants = reinterpret_cast<float *>(memory + 1); // [3][inputs], then [groups][3]
    float *const stats = constants + 3 * inputs;
    const int column_tiles = (outputs + N - 1) / N, image = int(blockIdx.x) / column_tiles * M / pixels;
    const int per_group = inputs / groups, runs = per_group / of_run, next = inputs / of_run * 2;
    const float *const of_image = partial + size_t(image) * (pixels / seen) * next;
    for (int g = int(threadIdx.x) / WARP; g < groups; g += int(blockDim.x) / WARP)
        join(of_image + g * runs * 2, next, runs, of_run, pixels, seen, 0.0f, eps, stats + 3 * g);
    __syncthreads();
    for (int c = int(threadIdx.x); c < inputs; c += int(blockDim.x)) {
        const Normal n = normal(stats + 3 * (c / per_group), load(gamma + c), load(beta + c), 1.0f, 0.0f);
        constants[c] = n.center;
        constants[inputs + c] = n.a;
        constants[2 * inputs + c] = n.b;
    }
    __syncthreads();
    const NormedMap<T> maps = {x, x1, c0, inputs, constants, silu};
    convolve<T, M, N, true>(memory, maps, w, epilogue, y, images, 1, pixels, inputs, 1, pixels, outputs, 1, 1, 0, false,
                            moments, run, found);
}

#define NORMED_PARAMETERS \
    (const T *x, const T *x1 /* or null */, const float *partial, const T *gamma, const T *beta, const T *w, T *y, \
     int images, int pixels, int inputs, int outputs, int groups, int of_run, int seen, int silu, float eps, \
     float *moments /* or null */, int run, int found, int c0, EPILOGUE_PARAMETERS)
#define NORMED_ARGUMENTS \
    (x, x1, partial, gamma, beta, w, y, images, pixels, inputs, outputs, groups, of_run, seen, silu, eps, moments, \
     run, found, c0, EPILOGUE_ARGUMENTS)
#define NORMED_BLOCKS(name, M, N) \
    template <typename T> __device__ void name##_kernel NORMED_PARAMETERS { \
        const Epilogue<T> epilogue = EPILOGUE_OF(outputs); \
        convolve_normed<T, M, N>(x, x1, c0, partial, gamma, beta, w, y, images, pixels, inputs, outputs, groups, of_run, \
                                 seen, silu, eps, moments, run, found, epilogue); \
    }
NORMED_BLOCKS(conv2d_normed_128x128, 128, 128)
NORMED_BLOCKS(conv2d_normed_128x64, 128, 64)
NORMED_BLOCKS(conv2d_normed_128x32, 128, 32)
} // namespace

// As in conv2d.cu.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define PER_SM 1
#else
#define PER_SM 2
#endif
EXPORT_16BIT(128, PER_SM, conv2d_normed_128x128, NORMED_PARAMETERS, NORMED_ARGUMENTS)
EXPORT_16BIT(128, 3, conv2d_normed_128x64, NORMED_PARAMETERS, NORMED_ARGUMENTS)
EXPORT_16BIT(128, 4, conv2d_normed_128x32, NORMED_PARAMETERS, NORMED_ARGUMENTS)
