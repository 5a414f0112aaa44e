// The nearest row of a codebook for every pixel. Formulas and host side: src/ops/vq_nearest.rs.
// A warp a pixel, a lane every 32nd code; the codebook comes from the caches, whose bandwidth is the bound.
#include "common.cuh"

namespace {
// x, y: [pixels, depth]; codes: [rows, depth]
template <typename T>
__device__ void vq_nearest_forward_kernel(const T *x, const T *codes, T *y, int pixels, int rows, int depth) {
    const int pixel = int(element() / WARP), lane = int(threadIdx.x) % WARP;
    if (pixel >= pixels) return;
    x += size_t(pixel) * depth;
    float least = 3.0e38f;
    int best = rows;
    for (int row = lane; row < rows; row += WARP) {
        float far = 0.0f;
        for (int k = 0; k < depth; ++k) {
            const float difference = load(x + k) - load(codes + row * depth + k);
            far += difference * difference;
        }
        if (far < least) {
            least = far;
            best = row;
        }
    }
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        const float far = __shfl_xor_sync(FULL_MASK, least, offset);
        const int row = __shfl_xor_sync(FULL_MASK, best, offset);
        if (far < least || (far == least && row < best)) {
            least = far;
            best = row;
        }
    }
    // Nothing is near a pixel that is not finite, and it must not be hidden.
    const T *const from = best < rows ? codes + best * depth : x;
    for (int k = lane; k < depth; k += WARP) store(y + size_t(pixel) * depth + k, load(from + k));
}
} // namespace

FOR_DTYPES(vq_nearest_forward, (const T *x, const T *codes, T *y, int pixels, int rows, int depth),
           (x, codes, y, pixels, rows, depth))
