// Convolutions of few channels, at most 8 in and out, that fill no packs: the ends of networks whose maps are pictures.
// Formulas and host side: src/ops/conv2d.
//
// Tensor cores would multiply zeros. A thread computes PIXELS outputs, a warp those beside each other; weights lie in shared
// memory in f32, padded with zeros to 4 or 8 outputs, and serve PIXELS pixels a load. Bound by instructions: about 7 a tap,
// channel and pixel for up to 4 outputs; memory's time is less for 3 x 3 taps, about as much for one.
#include "conv2d.cuh"

namespace {
constexpr int FEW_THREADS = 128, PIXELS = 4;
constexpr int TOGETHER = 3; // channels read before the first is used
constexpr int FEW_WEIGHTS = 576; // floats of weights, padded, that a block holds at most

// What a block keeps: weights, then what threads have found, so that the epilogue exists once.
template <int OUTPUTS> struct FewMemory {
    float w[FEW_WEIGHTS];
    float sum[PIXELS][OUTPUTS][FEW_THREADS];
};

// x: [images, height, width, inputs], w: [outputs, kernel, kernel, inputs], y: [images, out_height, out_width, outputs];
// outputs <= OUTPUTS. Blocks: FEW_THREADS PIXELS outputs each.
template <typename T, int OUTPUTS>
__device__ __forceinline__ void convolve_few(const T *x, const T *w, T *y, int images, int height, int width, int inputs,
                                             int out_height, int out_width, int outputs, int kernel, int stride, int pad,
                                             const Epilogue<T> &epilogue) {
    using Memory = FewMemory<OUTPUTS>;
    SHARED(memory, Memory);
    const int depth = kernel * kernel * inputs;
    for (int i = int(threadIdx.x); i < depth * OUTPUTS; i += FEW_THREADS) {
        const int at = i / OUTPUTS, output = i % OUTPUTS;
        memory.w[i] = output < outputs ? load(w + output * depth + at) : 0.0f;
    }
    __syncthreads();

    const int per_image = out_height * out_width, rows = images * per_image;
    const int first = int(blockIdx.x) * (FEW_THREADS * PIXELS) + int(threadIdx.x);
    int from_pixel[PIXELS], from_y[PIXELS], from_x[PIXELS];
#pragma unroll
    for (int p = 0; p < PIXELS; ++p) {
        const int row = first + p * FEW_THREADS, n = row < rows ? row / per_image : 0;
        const int pixel = row - n * per_image, line = pixel / out_width;
        from_pixel[p] = n * height * width;
        from_y[p] = row < rows ? line * stride - pad : FAR;
        from_x[p] = (pixel - line * out_width) * stride - pad;
    }
    float sum[PIXELS][OUTPUTS] = {};
    const float *weights = memory.w;
    for (int a = 0; a < kernel; ++a) {
        for (int b = 0; b < kernel; ++b) {
            const T *from[PIXELS];
            bool inside[PIXELS];
#pragma unroll
            for (int p = 0; p < PIXELS; ++p) {
                const int at_y = from_y[p] + a, at_x = from_x[p] + b;
                inside[p] = unsigned(at_y) < unsigned(height) && unsigned(at_x) < unsigned(width);
                from[p] = ahead(x, from_pixel[p] + (inside[p] ? at_y * width + at_x : 0), inputs);
            }
#pragma unroll 1
            for (int c = 0; c < inputs; c += TOGETHER) {
                float v[TOGETHER][PIXELS];
#pragma unroll
                for (int k = 0; k < TOGETHER; ++k)
#pragma unroll
                    for (int p = 0; p < PIXELS; ++p) {
                        // What lies outside is read from the first pixel, so that no load waits for a condition.
                        v[k][p] = c + k < inputs ? load(from[p] + k) : 0.0f;
                        if (!inside[p]) v[k][p] = 0.0f;
                    }
#pragma unroll
                for (int k = 0; k < TOGETHER; ++k) {
                    if (c + k >= inputs) break;
#pragma unroll
                    for (int o = 0; o < OUTPUTS; o += Pack<float>::SIZE) {
                        const Pack<float> of = load_pack(weights + k * OUTPUTS + o);
#pragma unroll
                        for (int p = 0; p < PIXELS; ++p)
#pragma unroll
                            for (int e = 0; e < Pack<float>::SIZE; ++e) sum[p][o + e] += v[k][p] * of.value[e];
                    }
                }
#pragma unroll
                for (int p = 0; p < PIXELS; ++p) from[p] += TOGETHER;
                weights += TOGETHER * OUTPUTS;
            }
            weights -= (inputs + TOGETHER - 1) / TOGETHER * TOGETHER * OUTPUTS - inputs * OUTPUTS;
        }
    }

    float (*const found)[OUTPUTS][FEW_THREADS] = memory.sum;
    const int thread = int(threadIdx.x);
#pragma unroll
    for (int p = 0; p < PIXELS; ++p)
#pragma unroll
        for (int o = 0; o < OUTPUTS; ++o) found[p][o][thread] = sum[p][o];
#pragma unroll 1
    for (int p = 0; p < PIXELS; ++p) {
        const int row = first + p * FEW_THREADS;
        if (row >= rows) break;
#pragma unroll 1
        for (int o = 0; o < outputs; ++o)
            epilogue.template write<1>(&found[p][o][thread], y, row / per_image, size_t(row), o);
    }
}

#define FEW_PARAMETERS \
    (const T *x, const T *w, T *y, int images, int height, int width, int inputs, int out_height, int out_width, \
     int outputs, int kernel, int stride, int pad, EPILOGUE_PARAMETERS)
#define FEW_ARGUMENTS \
    (x, w, y, images, height, width, inputs, out_height, out_width, outputs, kernel, stride, pad, EPILOGUE_ARGUMENTS)
#define FEW_OUTPUTS(name, OUTPUTS) \
    template <typename T> __device__ void name##_kernel FEW_PARAMETERS { \
        const Epilogue<T> epilogue = EPILOGUE_OF(outputs); \
        convolve_few<T, OUTPUTS>(x, w, y, images, height, width, inputs, out_height, out_width, outputs, kernel, stride, \
                                 pad, epilogue); \
    }
FEW_OUTPUTS(conv2d_few_4, 4)
FEW_OUTPUTS(conv2d_few_8, 8)
} // namespace

FOR_DTYPES_WITH_LIMIT(FEW_THREADS, conv2d_few_4, FEW_PARAMETERS, FEW_ARGUMENTS)
FOR_DTYPES_WITH_LIMIT(FEW_THREADS, conv2d_few_8, FEW_PARAMETERS, FEW_ARGUMENTS)
