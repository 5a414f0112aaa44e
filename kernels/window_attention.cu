// Attention within the windows of a map. Formulas and host side: src/ops/window_attention.rs.
// A block does one head of one window, all in shared memory: each element is read and written once, and of
// the 4 x 64 flops an element (backward 10 x 64) the loads of their operands from there are the bound.
#include "common.cuh"

namespace {
constexpr int WARPS = THREADS / WARP, PER_LANE = 2; // windows have at most 64 pixels

// The window and head of this block. Tiles are [pixels][d + 1], scores [pixels][pixels + 1].
struct Window {
    int h, w, c, side, shift, edges, d, pixels, top, left;

    __device__ Window(int h, int w, int c, int side, int shift, int edges)
        : h(h), w(w), c(c), side(side), shift(shift), edges(edges), d(c / int(gridDim.y)), pixels(side * side),
          top(int(blockIdx.x) / (w / side) * side), left(int(blockIdx.x) % (w / side) * side) {}

    // The number of pixel i in the batch.
    __device__ size_t place(int i) const {
        const int y = top + i / side + shift, x = left + i % side + shift;
        return (size_t(blockIdx.z) * h + (y < h ? y : y - h)) * w + (x < w ? x : x - w);
    }
    // Whether the mask hides pixels i and j from each other.
    __device__ bool apart(int i, int j) const {
        if (!edges) return (top + i % side + shift >= h) != (top + j % side + shift >= h);
        const bool below = (top + i / side + shift >= h) != (top + j / side + shift >= h);
        return below || (left + i % side + shift >= w) != (left + j % side + shift >= w);
    }
    __device__ int entry(int i, int j) const {
        return (i / side - j / side + side - 1) * (2 * side - 1) + i % side - j % side + side - 1;
    }
    // The channels of this head from channel `from` of x, of `stride` channels a pixel.
    template <typename T> __device__ void read(float *tile, const T *x, int stride, int from) const {
        for (int i = int(threadIdx.x); i < pixels * d; i += THREADS) {
            const int pixel = i / d, k = i - pixel * d;
            tile[pixel * (d + 1) + k] = load(x + place(pixel) * stride + from + int(blockIdx.y) * d + k);
        }
    }
    __device__ float dot(const float *a, int i, const float *b, int j) const {
        float sum = 0.0f;
        for (int k = 0; k < d; ++k) sum += a[i * (d + 1) + k] * b[j * (d + 1) + k];
        return sum;
    }
    // Channels from `from` of y = factor * weights x, or with weights transposed.
    template <bool TRANSPOSED, typename T>
    __device__ void product(T *y, int stride, int from, const float *weights, const float *x, float factor) const {
        for (int i = int(threadIdx.x); i < pixels * d; i += THREADS) {
            const int pixel = i / d, k = i - pixel * d;
            float sum = 0.0f;
            for (int j = 0; j < pixels; ++j) {
                const int at = TRANSPOSED ? j * (pixels + 1) + pixel : pixel * (pixels + 1) + j;
                sum += weights[at] * x[j * (d + 1) + k];
            }
            store(y + place(pixel) * stride + from + int(blockIdx.y) * d + k, factor * sum);
        }
    }
    // p = the probabilities; a warp takes a row. All threads have to arrive; none waits at the end.
    template <typename T>
    __device__ void probabilities(float *p, const float *q, const float *k, const T *table, float scale) const {
        const int lane = int(threadIdx.x) % WARP;
        for (int i = int(threadIdx.x) / WARP; i < pixels; i += WARPS) {
            float s[PER_LANE], most = -3.0e38f, total = 0.0f;
#pragma unroll
            for (int e = 0; e < PER_LANE; ++e) {
                const int j = lane + e * WARP;
                s[e] = -3.0e38f;
                if (j < pixels) {
                    const float bias = load(table + entry(i, j) * int(gridDim.y) + int(blockIdx.y));
                    s[e] = dot(q, i, k, j) * scale + bias + (apart(i, j) ? -100.0f : 0.0f);
                }
                most = fmaxf(most, s[e]);
            }
#pragma unroll
            for (int offset = WARP / 2; offset > 0; offset /= 2)
                most = fmaxf(most, __shfl_xor_sync(FULL_MASK, most, offset));
#pragma unroll
            for (int e = 0; e < PER_LANE; ++e) {
                s[e] = lane + e * WARP < pixels ? __expf(s[e] - most) : 0.0f;
                total += s[e];
            }
            total = 1.0f / warp_sum(total);
#pragma unroll
            for (int e = 0; e < PER_LANE; ++e)
                if (lane + e * WARP < pixels) p[i * (pixels + 1) + lane + e * WARP] = s[e] * total;
        }
    }
};

// qkv: [N, h, w, 3 c]; table: [(2 side - 1)^2, heads]; y: [N, h, w, c]
template <typename T>
__device__ void window_attention_forward_kernel(const T *qkv, const T *table, T *y, int h, int w, int c,
                                                int side, int shift, int edges, float scale) {
    DYNAMIC_SHARED(float, memory);
    const Window window(h, w, c, side, shift, edges);
    const int tile = window.pixels * (window.d + 1);
    float *const q = memory, *const k = q + tile, *const v = k + tile, *const p = v + tile;
    window.read(q, qkv, 3 * c, 0);
    window.read(k, qkv, 3 * c, c);
    window.read(v, qkv, 3 * c, 2 * c);
    __syncthreads();
    window.probabilities(p, q, k, table, scale);
    __syncthreads();
    window.template product<false>(y, c, 0, p, v, 1.0f);
}

// dy: [N, h, w, c]; dqkv: [N, h, w, 3 c]; partial: [N windows, (2 side - 1)^2, heads]
template <typename T>
__device__ void window_attention_backward_kernel(const T *qkv, const T *table, const T *dy, T *dqkv,
                                                 float *partial, int h, int w, int c, int side, int shift,
                                                 int edges, float scale) {
    DYNAMIC_SHARED(float, memory);
    const Window window(h, w, c, side, shift, edges);
    const int tile = window.pixels * (window.d + 1), n = window.pixels;
    float *const q = memory, *const k = q + tile, *const v = k + tile, *const g = v + tile, *const p = g + tile;
    window.read(q, qkv, 3 * c, 0);
    window.read(k, qkv, 3 * c, c);
    window.read(v, qkv, 3 * c, 2 * c);
    window.read(g, dy, c, 0);
    __syncthreads();
    window.probabilities(p, q, k, table, scale);
    __syncthreads();
    window.template product<true>(dqkv, 3 * c, 2 * c, p, g, 1.0f);
    __syncthreads();
    // p becomes ds
    const int lane = int(threadIdx.x) % WARP;
    for (int i = int(threadIdx.x) / WARP; i < n; i += WARPS) {
        float ds[PER_LANE], delta = 0.0f;
#pragma unroll
        for (int e = 0; e < PER_LANE; ++e) {
            const int j = lane + e * WARP;
            ds[e] = j < n ? window.dot(g, i, v, j) : 0.0f;
            if (j < n) delta += p[i * (n + 1) + j] * ds[e];
        }
        delta = warp_sum(delta);
#pragma unroll
        for (int e = 0; e < PER_LANE; ++e) {
            const int j = lane + e * WARP;
            if (j < n) p[i * (n + 1) + j] *= ds[e] - delta;
        }
    }
    __syncthreads();
    window.template product<false>(dqkv, 3 * c, 0, p, k, scale);
    window.template product<true>(dqkv, 3 * c, c, p, q, scale);
    const int across = 2 * side - 1, heads = int(gridDim.y);
    partial += (size_t(blockIdx.z) * gridDim.x + blockIdx.x) * across * across * heads + blockIdx.y;
    for (int entry = int(threadIdx.x); entry < across * across; entry += THREADS) {
        const int down = entry / across - side + 1, right = entry % across - side + 1; // of i, seen from j
        float sum = 0.0f;
        for (int y = max(0, down); y < side + min(0, down); ++y)
            for (int x = max(0, right); x < side + min(0, right); ++x)
                sum += p[(y * side + x) * (n + 1) + (y - down) * side + x - right];
        partial[entry * heads] = sum;
    }
}
} // namespace

FOR_DTYPES(window_attention_forward,
           (const T *qkv, const T *table, T *y, int h, int w, int c, int side, int shift, int edges,
            float scale),
           (qkv, table, y, h, w, c, side, shift, edges, scale))
FOR_DTYPES(window_attention_backward,
           (const T *qkv, const T *table, const T *dy, T *dqkv, float *partial, int h, int w, int c, int side,
            int shift, int edges, float scale),
           (qkv, table, dy, dqkv, partial, h, w, c, side, shift, edges, scale))
