// The gradient of a convolution's input, and transposed convolution: weights are read where they lie, [Co][k][k][Ci], Ci
// next to each other, where conv2d.cu reads them along the depth. Formulas and host side: src/ops/conv2d; what bounds
// it stands in conv2d.cu.
#include "conv2d.cuh"

namespace {
#define BACK_PARAMETERS \
    (const T *x, const T *w, T *y, int images, int height, int width, int inputs, int out_height, int out_width, \
     int outputs, int kernel, int stride, int pad, EPILOGUE_PARAMETERS)
#define BACK_ARGUMENTS \
    (x, w, y, images, height, width, inputs, out_height, out_width, outputs, kernel, stride, pad, EPILOGUE_ARGUMENTS)
#define BACK_BLOCKS(name, M, N) \
    template <typename T> __device__ void name##_kernel BACK_PARAMETERS { \
        using Memory = BlockMemory<T, M, N, true>; \
        SHARED(memory, Memory); \
        const Epilogue<T> epilogue = EPILOGUE_OF(outputs); \
        convolve<T, M, N, true, true>(&memory, OneMap<T>{x, inputs}, w, epilogue, y, images, height, width, inputs, \
                                      out_height, out_width, outputs, kernel, stride, pad, true, nullptr, 0, 0); \
    }
BACK_BLOCKS(conv2d_back_128x128, 128, 128)
BACK_BLOCKS(conv2d_back_128x64, 128, 64)
BACK_BLOCKS(conv2d_back_128x32, 128, 32)
BACK_BLOCKS(conv2d_back_64x64, 64, 64)
} // namespace

// As in conv2d.cu.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define PER_SM 1
#else
#define PER_SM 2
#endif
EXPORT_16BIT(128, PER_SM, conv2d_back_128x128, BACK_PARAMETERS, BACK_ARGUMENTS)
EXPORT_16BIT(128, 3, conv2d_back_128x64, BACK_PARAMETERS, BACK_ARGUMENTS)
EXPORT_16BIT(128, 4, conv2d_back_128x32, BACK_PARAMETERS, BACK_ARGUMENTS)
EXPORT_BLOCKS(f32, float, 128, 4, conv2d_back_64x64, BACK_PARAMETERS, BACK_ARGUMENTS)
