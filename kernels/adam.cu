// One step of Adam for all parameters, with unscaling, clipping and the moving average. Formulas:
// src/ops/adam.rs, src/ops/ema.rs; host side: src/ops/adam.rs, tables: src/ops/multi_tensor.rs.
// One launch, a block a chunk of a tensor; bound by memory. What changes from step to step is read from
// device memory, so that a recorded graph can be replayed.
#include "common.cuh"

namespace {
constexpr int CHUNK = 4096; // elements of a block, as in src/ops/multi_tensor.rs
// The scalars of src/ops/adam.rs, which knows them from here.
enum Scalar { RATE, ROOT, SHRINK, TAKE, MEAN, LIMIT, NORM, FACTOR, SKIP };

// Four elements at a time, the last ones of a tensor perhaps fewer.
template <int size> struct Bits {
    using type = uint2;
};
template <> struct Bits<16> {
    using type = uint4;
};
template <typename T> union __align__(4 * sizeof(T)) Four {
    typename Bits<4 * int(sizeof(T))>::type bits;
    T value[4];
    __device__ __forceinline__ Four() {}
};
template <typename T> __device__ __forceinline__ Four<T> read(const T *p, int n) {
    Four<T> four;
    if (n == 4) {
        four.bits = *reinterpret_cast<const typename Bits<4 * int(sizeof(T))>::type *>(p);
    } else {
#pragma unroll
        for (int k = 0; k < 4; ++k) four.value[k] = p[k < n ? k : 0];
    }
    return four;
}
template <typename T> __device__ __forceinline__ void write(T *p, const Four<T> &four, int n) {
    if (n == 4) {
        *reinterpret_cast<typename Bits<4 * int(sizeof(T))>::type *>(p) = four.bits;
    } else {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            if (k < n) p[k] = four.value[k];
        }
    }
}

// blocks: [blocks, 2] tensor and first element; lengths: [count]; tensors: [5, count] addresses of values,
// first and second moments, averages, and of copies of the values as T or 0; gradients: [count] or 0.
template <typename T>
__device__ void adam_step_kernel(const int *blocks, const int *lengths, const unsigned long long *tensors,
                                 const unsigned long long *gradients, const float *scalars, int count,
                                 float keep1, float keep2, float new1, float new2, float eps) {
    if (scalars[SKIP] != 0.0f) return;
    const int tensor = blocks[2 * blockIdx.x], first = blocks[2 * blockIdx.x + 1];
    const int length = min(CHUNK, lengths[tensor] - first);
    float *const values = reinterpret_cast<float *>(tensors[tensor]) + first;
    float *const firsts = reinterpret_cast<float *>(tensors[count + tensor]) + first;
    float *const seconds = reinterpret_cast<float *>(tensors[2 * count + tensor]) + first;
    float *const averages = reinterpret_cast<float *>(tensors[3 * count + tensor]) + first;
    T *const copies = reinterpret_cast<T *>(tensors[4 * count + tensor]);
    const T *const slopes = reinterpret_cast<const T *>(gradients[tensor]);
    const float rate = scalars[RATE], root = scalars[ROOT], shrink = scalars[SHRINK], take = scalars[TAKE];
    const float factor = scalars[FACTOR];
    for (int i = 4 * int(threadIdx.x); i < length; i += 4 * THREADS) {
        const int n = min(4, length - i);
        Four<float> value = read(values + i, n), average = read(averages + i, n);
        if (slopes) {
            const Four<T> slope = read(slopes + first + i, n);
            Four<float> m = read(firsts + i, n), v = read(seconds + i, n);
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const float g = load(&slope.value[k]) * factor;
                m.value[k] = keep1 * m.value[k] + new1 * g;
                v.value[k] = keep2 * v.value[k] + new2 * g * g;
                value.value[k] =
                    value.value[k] * shrink - rate * m.value[k] / (sqrtf(v.value[k]) * root + eps);
            }
            write(firsts + i, m, n);
            write(seconds + i, v, n);
            write(values + i, value, n);
        }
        Four<T> copy;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            average.value[k] += take * (value.value[k] - average.value[k]);
            store(&copy.value[k], value.value[k]);
        }
        write(averages + i, average, n);
        if (copies) write(copies + first + i, copy, n);
    }
}
} // namespace

FOR_DTYPES(adam_step,
           (const int *blocks, const int *lengths, const unsigned long long *tensors,
            const unsigned long long *gradients, const float *scalars, int count, float keep1, float keep2,
            float new1, float new2, float eps),
           (blocks, lengths, tensors, gradients, scalars, count, keep1, keep2, new1, new2, eps))
