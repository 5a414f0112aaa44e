// 2-D convolutions that read more than one map: up to five side by side, whose concatenation is never written, and
// pixels that count as 2 x 2, whose enlarged map is not. Formulas and host side: src/ops/conv2d/joined.rs; the
// kernels, and what bounds them, are those of kernels/conv2d.cu.
#include "conv2d.cuh"

namespace {
template <typename T, int M, int N, int SLICES = 1>
__device__ __forceinline__ void convolve_maps(BlockMemory<T, M, N, false> *memories, const Maps<T> &maps,
                                              const Epilogue<T> &epilogue, const T *w, T *y, int images, int height,
                                              int width, int out_height, int out_width, int outputs, int kernel,
                                              int stride, int pad) {
    const int inputs = maps.c0 + maps.c1 + maps.c2 + maps.c3 + maps.c4;
    convolve<T, M, N, true, false, SLICES>(memories, maps, w, epilogue, y, images, height, width, inputs, out_height,
                                           out_width, outputs, kernel, stride, pad, false, nullptr, 0, 0);
}

#define JOINED_PARAMETERS \
    (const T *x, const T *x1 /* or null */, const T *x2 /* or null */, const T *x3 /* or null */, \
     const T *x4 /* or null */, const T *w, T *y, int c0, int c1, int c2, int c3, int c4, int doubled, \
     int images, int height, int width, int out_height, int out_width, int outputs, int kernel, int stride, \
     int pad, EPILOGUE_PARAMETERS)
#define JOINED_ARGUMENTS \
    (x, x1, x2, x3, x4, w, y, c0, c1, c2, c3, c4, doubled, images, height, width, out_height, out_width, \
     outputs, kernel, stride, pad, EPILOGUE_ARGUMENTS)
#define JOINED_BLOCKS(name, M, N) \
    template <typename T> __device__ void name##_kernel JOINED_PARAMETERS { \
        using Memory = BlockMemory<T, M, N, false>; \
        SHARED(memory, Memory); \
        convolve_maps<T, M, N>(&memory, Maps<T>{x, x1, x2, x3, x4, c0, c1, c2, c3, c4, doubled}, \
                               EPILOGUE_OF(outputs), w, y, images, height, width, out_height, out_width, outputs, \
                               kernel, stride, pad); \
    }
JOINED_BLOCKS(conv2d_joined_128x64, 128, 64)
JOINED_BLOCKS(conv2d_joined_128x32, 128, 32)
JOINED_BLOCKS(conv2d_joined_64x64, 64, 64)
// As in conv2d.cu.
#define JOINED_SLICED(name, M, N, SLICES) \
    template <typename T> __device__ void name##_kernel JOINED_PARAMETERS { \
        using Memory = BlockMemory<T, M, N, false>; \
        DYNAMIC_SHARED(Memory, memories); \
        convolve_maps<T, M, N, SLICES>(memories, Maps<T>{x, x1, x2, x3, x4, c0, c1, c2, c3, c4, doubled}, \
                                       EPILOGUE_OF(outputs), w, y, images, height, width, out_height, out_width, \
                                       outputs, kernel, stride, pad); \
    }
JOINED_SLICED(conv2d_joined_sliced_128x128, 128, 128, 2)
JOINED_SLICED(conv2d_joined_sliced_128x64, 128, 64, 4)
JOINED_SLICED(conv2d_joined_sliced_64x64, 64, 64, 8)
JOINED_SLICED(conv2d_joined_sliced_64x32, 64, 32, 4)
} // namespace

EXPORT_16BIT(128, 3, conv2d_joined_128x64, JOINED_PARAMETERS, JOINED_ARGUMENTS)
EXPORT_16BIT(128, 4, conv2d_joined_128x32, JOINED_PARAMETERS, JOINED_ARGUMENTS)
EXPORT_16BIT(256, 1, conv2d_joined_sliced_128x128, JOINED_PARAMETERS, JOINED_ARGUMENTS)
EXPORT_16BIT(256, 1, conv2d_joined_sliced_128x64, JOINED_PARAMETERS, JOINED_ARGUMENTS)
EXPORT_16BIT(256, 1, conv2d_joined_sliced_64x64, JOINED_PARAMETERS, JOINED_ARGUMENTS)
EXPORT_16BIT(256, 2, conv2d_joined_sliced_64x32, JOINED_PARAMETERS, JOINED_ARGUMENTS)
EXPORT_BLOCKS(f32, float, 128, 4, conv2d_joined_64x64, JOINED_PARAMETERS, JOINED_ARGUMENTS)
