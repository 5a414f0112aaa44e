// Group normalisation with FiLM and SiLU. Formulas and host side: src/ops/group_norm.
//
// Bound by memory. The threads of a block lie in rows over `columns` packs of V neighbouring channels, so a
// thread keeps the constants of its channels in registers while it walks over pixels. V is 16 bytes, or one
// channel where the number of channels is ragged.
//
// Large maps (small ones: group_norm_slab.cu): blocks take sums over a chunk of pixels each, a small kernel joins
// them in order, and a third one reads the map again. Sums are of differences to a pixel of the same channel, so
// that a mean far above the deviation does not cancel.
#include "group_norm.cuh"

namespace {
// Grids are [columns of channels, chunks of pixels, N].
// x: [N, pixels, C]; partial: [N, chunks, 2, C], mean minus the image's first pixel, and squares.
template <typename T, int V>
__device__ void moments(const T *x, float *partial, int pixels, int channels, int columns, int chunk) {
    DYNAMIC_SHARED(float, scratch);
    const Place<V> at(columns, int(blockIdx.x) * columns * V, channels);
    const int first = int(blockIdx.y) * chunk, last = min(first + chunk, pixels);
    const T *const image = x + size_t(blockIdx.z) * pixels * channels + at.channel;
    float s[V] = {}, q[V] = {}, pivot[V] = {};
    if (at.active) {
        load_channels<T, V>(image + size_t(first) * channels, pivot);
#pragma unroll 4
        for (int r = first + at.row; r < last; r += at.rows) {
            float v[V];
            load_channels<T, V>(image + size_t(r) * channels, v);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                const float d = v[i] - pivot[i];
                s[i] += d;
                q[i] += d * d;
            }
        }
    }
    sum_rows<V>(s, q, columns, scratch);
    if (at.active && at.row == 0) {
        float origin[V];
        load_channels<T, V>(image, origin);
        float *const out =
            partial + (size_t(blockIdx.z) * gridDim.y + blockIdx.y) * 2 * channels + at.channel;
        const float n = float(last - first);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            out[i] = (pivot[i] - origin[i]) + s[i] / n;
            out[channels + i] = fmaxf(q[i] - s[i] * s[i] / n, 0.0f);
        }
    }
}
template <typename T>
__device__ void group_norm_moments_kernel(const T *x, float *partial, int pixels, int channels, int columns,
                                          int chunk) {
    moments<T, Pack<T>::SIZE>(x, partial, pixels, channels, columns, chunk);
}
template <typename T>
__device__ void group_norm_moments_ragged_kernel(const T *x, float *partial, int pixels, int channels,
                                                 int columns, int chunk) {
    moments<T, 1>(x, partial, pixels, channels, columns, chunk);
}

// Joins the chunks: one block a group, grid [G, N], one warp a channel at a time. stats: [N, G, 3].
template <typename T>
__device__ void group_norm_statistics_kernel(const T *x, const float *partial, float *stats, int pixels,
                                             int channels, int groups, int chunk, float eps) {
    DYNAMIC_SHARED(float, of_channels); // [C / G, 2]
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    const int per_group = channels / groups, chunks = (pixels + chunk - 1) / chunk;
    const int first = int(blockIdx.x) * per_group;
    const T *const origins = x + size_t(blockIdx.y) * pixels * channels + first;
    for (int j = warp; j < per_group; j += THREADS / WARP) {
        const float *const of_chunks = partial + size_t(blockIdx.y) * chunks * 2 * channels + first + j;
        float sum = 0.0f, squares = 0.0f;
        for (int k = lane; k < chunks; k += WARP) {
            sum += float(min(chunk, pixels - k * chunk)) * of_chunks[size_t(k) * 2 * channels];
        }
        const float mean = warp_sum(sum) / float(pixels);
        for (int k = lane; k < chunks; k += WARP) {
            const float d = of_chunks[size_t(k) * 2 * channels] - mean;
            squares += of_chunks[size_t(k) * 2 * channels + channels] +
                       float(min(chunk, pixels - k * chunk)) * d * d;
        }
        squares = warp_sum(squares);
        if (lane == 0) {
            of_channels[2 * j] = (load(origins + j) - load(origins)) + mean;
            of_channels[2 * j + 1] = squares;
        }
    }
    __syncthreads();
    if (warp == 0) {
        float *const out = stats + 3 * (size_t(blockIdx.y) * groups + blockIdx.x);
        group_statistics(of_channels, per_group, float(pixels), load(origins), eps, out);
    }
}

// x, y: [N, pixels, C]; stats: [N, G, 3]; gamma, beta: [C]; scale, shift: [N, C] or null.
template <typename T, int V>
__device__ void apply(const T *x, const float *stats, const T *gamma, const T *beta, const T *scale,
                      const T *shift, T *y, int pixels, int channels, int groups, int columns, int chunk,
                      int silu) {
    const Place<V> at(columns, int(blockIdx.x) * columns * V, channels);
    if (!at.active) return;
    const size_t n = blockIdx.z;
    const int first = int(blockIdx.y) * chunk, last = min(first + chunk, pixels);
    const Constants<V> c = constants<T, V>(stats + 3 * n * groups, 0, channels / groups, gamma, beta,
                                           scale ? scale + n * channels : scale,
                                           shift ? shift + n * channels : shift, at.channel);
    const size_t image = n * pixels * channels + at.channel;
#pragma unroll 4
    for (int r = first + at.row; r < last; r += at.rows) {
        float v[V];
        load_channels<T, V>(x + image + size_t(r) * channels, v);
#pragma unroll
        for (int i = 0; i < V; ++i) v[i] = activated((v[i] - c.center[i]) * c.a[i] + c.b[i], silu);
        store_channels<T, V>(y + image + size_t(r) * channels, v);
    }
}
template <typename T>
__device__ void group_norm_apply_kernel(const T *x, const float *stats, const T *gamma, const T *beta,
                                        const T *scale, const T *shift, T *y, int pixels, int channels,
                                        int groups, int columns, int chunk, int silu) {
    apply<T, Pack<T>::SIZE>(x, stats, gamma, beta, scale, shift, y, pixels, channels, groups, columns, chunk,
                            silu);
}
template <typename T>
__device__ void group_norm_apply_ragged_kernel(const T *x, const float *stats, const T *gamma, const T *beta,
                                               const T *scale, const T *shift, T *y, int pixels, int channels,
                                               int groups, int columns, int chunk, int silu) {
    apply<T, 1>(x, stats, gamma, beta, scale, shift, y, pixels, channels, groups, columns, chunk, silu);
}

// Sums of dv and of dv xhat over the pixels of a chunk. partial: [N, chunks, 2, C].
template <typename T, int V>
__device__ void sums(const T *x, const T *dy, const float *stats, const T *gamma, const T *beta,
                     const T *scale, const T *shift, float *partial, int pixels, int channels, int groups,
                     int columns, int chunk, int silu) {
    DYNAMIC_SHARED(float, scratch);
    const Place<V> at(columns, int(blockIdx.x) * columns * V, channels);
    const size_t n = blockIdx.z;
    const int first = int(blockIdx.y) * chunk, last = min(first + chunk, pixels),
              per_group = channels / groups;
    const size_t image = n * pixels * channels + at.channel;
    float s[V] = {}, q[V] = {};
    if (at.active) {
        const Constants<V> c = constants<T, V>(stats + 3 * n * groups, 0, per_group, gamma, beta,
                                               scale ? scale + n * channels : scale,
                                               shift ? shift + n * channels : shift, at.channel);
#pragma unroll 2
        for (int r = first + at.row; r < last; r += at.rows) {
            float v[V], g[V];
            load_channels<T, V>(x + image + size_t(r) * channels, v);
            load_channels<T, V>(dy + image + size_t(r) * channels, g);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                const float d = v[i] - c.center[i], dv = before_silu(g[i], d * c.a[i] + c.b[i], silu);
                s[i] += dv;
                q[i] += dv * d;
            }
        }
    }
    sum_rows<V>(s, q, columns, scratch);
    if (at.active && at.row == 0) {
        float *const out = partial + (n * gridDim.y + blockIdx.y) * 2 * channels + at.channel;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float *const of_group = stats + 3 * (n * groups + (at.channel + i) / per_group);
            out[i] = s[i];
            out[channels + i] = of_group[2] * (q[i] - of_group[1] * s[i]);
        }
    }
}
template <typename T>
__device__ void group_norm_sums_kernel(const T *x, const T *dy, const float *stats, const T *gamma,
                                       const T *beta, const T *scale, const T *shift, float *partial,
                                       int pixels, int channels, int groups, int columns, int chunk,
                                       int silu) {
    sums<T, Pack<T>::SIZE>(x, dy, stats, gamma, beta, scale, shift, partial, pixels, channels, groups,
                           columns, chunk, silu);
}
template <typename T>
__device__ void group_norm_sums_ragged_kernel(const T *x, const T *dy, const float *stats, const T *gamma,
                                              const T *beta, const T *scale, const T *shift, float *partial,
                                              int pixels, int channels, int groups, int columns, int chunk,
                                              int silu) {
    sums<T, 1>(x, dy, stats, gamma, beta, scale, shift, partial, pixels, channels, groups, columns, chunk,
               silu);
}

// Joins the chunks: one block a group, grid [G, N], one warp a channel at a time.
// sums: [N, 2, C]; slopes: [N, G, 2].
template <typename T>
__device__ void group_norm_slopes_kernel(const float *partial, const float *stats, const T *gamma,
                                         const T *scale, float *sums, float *slopes, int pixels, int channels,
                                         int groups, int chunk) {
    DYNAMIC_SHARED(float, of_channels); // [C / G, 2]
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    const int per_group = channels / groups, chunks = (pixels + chunk - 1) / chunk;
    const size_t n = blockIdx.y;
    for (int j = warp; j < per_group; j += THREADS / WARP) {
        const int channel = int(blockIdx.x) * per_group + j;
        const float *const of_chunks = partial + n * chunks * 2 * channels + channel;
        float dv = 0.0f, dv_xhat = 0.0f;
        for (int k = lane; k < chunks; k += WARP) {
            dv += of_chunks[size_t(k) * 2 * channels];
            dv_xhat += of_chunks[size_t(k) * 2 * channels + channels];
        }
        dv = warp_sum(dv);
        dv_xhat = warp_sum(dv_xhat);
        if (lane == 0) {
            const float film = scale ? 1.0f + load(scale + n * channels + channel) : 1.0f;
            const float weight = film * load(gamma + channel);
            sums[n * 2 * channels + channel] = dv;
            sums[n * 2 * channels + channels + channel] = dv_xhat;
            of_channels[2 * j] = weight * dv;
            of_channels[2 * j + 1] = weight * dv_xhat;
        }
    }
    __syncthreads();
    const size_t group = n * groups + blockIdx.x;
    if (warp == 0) group_slopes(of_channels, per_group, float(pixels), stats + 3 * group, slopes + 2 * group);
}

template <typename T, int V>
__device__ void gradient(const T *x, const T *dy, const float *stats, const float *slopes, const T *gamma,
                         const T *beta, const T *scale, const T *shift, T *dx, int pixels, int channels,
                         int groups, int columns, int chunk, int silu) {
    const Place<V> at(columns, int(blockIdx.x) * columns * V, channels);
    if (!at.active) return;
    const size_t n = blockIdx.z;
    const int first = int(blockIdx.y) * chunk, last = min(first + chunk, pixels),
              per_group = channels / groups;
    const Constants<V> c = constants<T, V>(stats + 3 * n * groups, 0, per_group, gamma, beta,
                                           scale ? scale + n * channels : scale,
                                           shift ? shift + n * channels : shift, at.channel);
    float k[V], l[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const float *const of_group = slopes + 2 * (n * groups + (at.channel + i) / per_group);
        k[i] = of_group[0];
        l[i] = of_group[1];
    }
    const size_t image = n * pixels * channels + at.channel;
#pragma unroll 2
    for (int r = first + at.row; r < last; r += at.rows) {
        float v[V], g[V];
        load_channels<T, V>(x + image + size_t(r) * channels, v);
        load_channels<T, V>(dy + image + size_t(r) * channels, g);
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float d = v[i] - c.center[i], dv = before_silu(g[i], d * c.a[i] + c.b[i], silu);
            v[i] = c.a[i] * dv + (k[i] * d + l[i]);
        }
        store_channels<T, V>(dx + image + size_t(r) * channels, v);
    }
}
template <typename T>
__device__ void group_norm_gradient_kernel(const T *x, const T *dy, const float *stats, const float *slopes,
                                           const T *gamma, const T *beta, const T *scale, const T *shift,
                                           T *dx, int pixels, int channels, int groups, int columns,
                                           int chunk, int silu) {
    gradient<T, Pack<T>::SIZE>(x, dy, stats, slopes, gamma, beta, scale, shift, dx, pixels, channels, groups,
                               columns, chunk, silu);
}
template <typename T>
__device__ void
group_norm_gradient_ragged_kernel(const T *x, const T *dy, const float *stats, const float *slopes,
                                  const T *gamma, const T *beta, const T *scale, const T *shift, T *dx,
                                  int pixels, int channels, int groups, int columns, int chunk, int silu) {
    gradient<T, 1>(x, dy, stats, slopes, gamma, beta, scale, shift, dx, pixels, channels, groups, columns,
                   chunk, silu);
}

// One thread a channel: the gradients of gamma, beta [C], scale and shift [N, C]; the images in order.
template <typename T>
__device__ void group_norm_parameters_kernel(const float *sums, const T *gamma, const T *beta, const T *scale,
                                             T *dgamma, T *dbeta, T *dscale, T *dshift, int images,
                                             int channels) {
    const int c = int(element());
    if (c >= channels) return;
    float of_gamma = 0.0f, of_beta = 0.0f;
    for (int n = 0; n < images; ++n) {
        const size_t at = size_t(n) * channels + c;
        const float dv = sums[at + size_t(n) * channels], dv_xhat = sums[at + size_t(n + 1) * channels];
        const float film = scale ? 1.0f + load(scale + at) : 1.0f;
        of_gamma += film * dv_xhat;
        of_beta += film * dv;
        if (scale) {
            store(dscale + at, load(gamma + c) * dv_xhat + load(beta + c) * dv);
            store(dshift + at, dv);
        }
    }
    store(dgamma + c, of_gamma);
    store(dbeta + c, of_beta);
}
} // namespace

BOTH_WIDTHS(group_norm_moments,
            (const T *x, float *partial, int pixels, int channels, int columns, int chunk),
            (x, partial, pixels, channels, columns, chunk))
FOR_DTYPES(group_norm_statistics,
           (const T *x, const float *partial, float *stats, int pixels, int channels, int groups, int chunk,
            float eps),
           (x, partial, stats, pixels, channels, groups, chunk, eps))
BOTH_WIDTHS(group_norm_apply,
            (const T *x, const float *stats, const T *gamma, const T *beta, const T *scale /* or null */,
             const T *shift /* or null */, T *y, int pixels, int channels, int groups, int columns, int chunk,
             int silu),
            (x, stats, gamma, beta, scale, shift, y, pixels, channels, groups, columns, chunk, silu))
BOTH_WIDTHS(group_norm_sums,
            (const T *x, const T *dy, const float *stats, const T *gamma, const T *beta,
             const T *scale /* or null */, const T *shift /* or null */, float *partial, int pixels,
             int channels, int groups, int columns, int chunk, int silu),
            (x, dy, stats, gamma, beta, scale, shift, partial, pixels, channels, groups, columns, chunk,
             silu))
FOR_DTYPES(group_norm_slopes,
           (const float *partial, const float *stats, const T *gamma, const T *scale /* or null */,
            float *sums, float *slopes, int pixels, int channels, int groups, int chunk),
           (partial, stats, gamma, scale, sums, slopes, pixels, channels, groups, chunk))
BOTH_WIDTHS(group_norm_gradient,
            (const T *x, const T *dy, const float *stats, const float *slopes, const T *gamma, const T *beta,
             const T *scale /* or null */, const T *shift /* or null */, T *dx, int pixels, int channels,
             int groups, int columns, int chunk, int silu),
            (x, dy, stats, slopes, gamma, beta, scale, shift, dx, pixels, channels, groups, columns, chunk,
             silu))
FOR_DTYPES(group_norm_parameters,
           (const float *sums, const T *gamma, const T *beta, const T *scale /* or null */, T *dgamma, T *dbeta,
            T *dscale /* or null */, T *dshift /* or null */, int images, int channels),
           (sums, gamma, beta, scale, dgamma, dbeta, dscale, dshift, images, channels))
