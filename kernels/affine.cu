// Constants times channels plus constants, forward and (without shifts) backward. Host side: src/ops/affine.rs.
// 16 bytes a thread; bound by memory.
#include "elementwise.cuh"

namespace {
struct Line {
    float factor, shift;
};

// x, y: [n], of `channels` interleaved channels, or any number of them if that is 1
template <typename T>
__device__ void affine_kernel(const T *x, T *y, int n, int channels, Line a, Line b, Line c, Line d) {
    for_chunks<T>(n, true, [&](auto chunk, unsigned i) {
        fetch(chunk, x + i);
        unsigned channel = i % unsigned(channels);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            const Line line = channel == 0 ? a : channel == 1 ? b : channel == 2 ? c : d;
            store(&chunk.value[k], line.factor * load(&chunk.value[k]) + line.shift);
            channel = channel + 1 == unsigned(channels) ? 0 : channel + 1;
        }
        put(y + i, chunk);
    });
}
} // namespace

FOR_DTYPES(affine,
           (const T *x, T *y, int n, int channels, float f0, float s0, float f1, float s1, float f2, float s2,
            float f3, float s3),
           (x, y, n, channels, {f0, s0}, {f1, s1}, {f2, s2}, {f3, s3}))
