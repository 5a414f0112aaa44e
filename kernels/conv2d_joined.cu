// 2-D convolutions that read more than one map: up to five side by side, whose concatenation is never written, and
// pixels that count as 2 x 2, whose enlarged map is not. Formulas and host side: src/ops/conv2d/joined.rs; the
// kernels, and what bounds them, are those of kernels/conv2d.cu.
#include "conv2d.cuh"

namespace {
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
        const Epilogue<T> epilogue = EPILOGUE_OF(outputs); \
        convolve<T, M, N, true>(Maps<T>{x, x1, x2, x3, x4, c0, c1, c2, c3, c4, doubled}, w, epilogue, y, \
                                images, height, width, c0 + c1 + c2 + c3 + c4, out_height, out_width, \
                                outputs, kernel, stride, pad, false, nullptr, 0); \
    }
JOINED_BLOCKS(conv2d_joined_128x64, 128, 64)
JOINED_BLOCKS(conv2d_joined_128x32, 128, 32)
JOINED_BLOCKS(conv2d_joined_64x64, 64, 64)
} // namespace

EXPORT_16BIT(128, 3, conv2d_joined_128x64, JOINED_PARAMETERS, JOINED_ARGUMENTS)
EXPORT_16BIT(128, 4, conv2d_joined_128x32, JOINED_PARAMETERS, JOINED_ARGUMENTS)
EXPORT_BLOCKS(f32, float, 128, 4, conv2d_joined_64x64, JOINED_PARAMETERS, JOINED_ARGUMENTS)
