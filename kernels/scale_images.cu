// A number for each image of a batch, multiplied with all of it. Host side: src/ops/scale_images.rs.
// One thread an element; bound by memory.
#include "common.cuh"

namespace {
// x, y: [N, each], n elements; factors: [N]
template <typename T>
__device__ void scale_images_kernel(const T *x, const float *factors, T *y, int n, int each) {
    const size_t i = element();
    if (i < size_t(n)) store(y + i, factors[i / each] * load(x + i));
}
} // namespace

FOR_DTYPES(scale_images, (const T *x, const float *factors, T *y, int n, int each), (x, factors, y, n, each))
