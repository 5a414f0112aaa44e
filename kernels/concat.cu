// One input of a concatenation along the channels. Host side: src/ops/concat.rs; gradients are slices.
// Every thread moves 16 bytes of channels of a pixel, or single ones where they do not align; bound by
// memory.
#include "elementwise.cuh"

namespace {
// x: [pixels, len], n elements; y: [pixels, channels], of which this writes from..from + len
template <typename T>
__device__ void concat_part_kernel(const T *x, T *y, int n, int channels, int from, int len) {
    const bool packed = in_packs<T>(channels) && in_packs<T>(from) && in_packs<T>(len);
    for_chunks<T>(n, packed, [&](auto chunk, unsigned i) {
        const unsigned pixel = i / unsigned(len), c = i - pixel * len;
        fetch(chunk, x + i);
        put(y + size_t(pixel) * channels + from + c, chunk);
    });
}
} // namespace

FOR_DTYPES(concat_part, (const T *x, T *y, int n, int channels, int from, int len),
           (x, y, n, channels, from, len))
