// Group normalisation with FiLM and SiLU. Formulas and host side: src/ops/group_norm.
//
// Bound by memory. The threads of a block lie in rows over `columns` packs of V neighbouring channels, so a
// thread keeps the constants of its channels in registers while it walks over pixels. V is 16 bytes, or one
// channel where the number of channels is ragged.
//
// Small maps: one block holds some groups of an image in shared memory and reads memory once (`slab`).
// Large maps: blocks take sums over a chunk of pixels each, a small kernel joins them in order, and a third
// one reads the map again. Sums are of differences to a pixel of the same channel, so that a mean far above
// the deviation does not cancel.
#include "common.cuh"

namespace {
// The place of a thread among `columns` columns of V channels.
template <int V> struct Place {
    int column, row, rows, channel;
    bool active;
    __device__ Place(int columns, int first_channel, int channels) {
        column = int(threadIdx.x) % columns;
        row = int(threadIdx.x) / columns;
        rows = THREADS / columns;
        channel = first_channel + column * V;
        active = row < rows && channel < channels;
    }
};

template <typename T, int V> __device__ __forceinline__ void load_channels(const T *p, float (&v)[V]) {
    if constexpr (V == 1) {
        v[0] = load(p);
    } else {
        const Pack<T> pack = load_pack(p);
#pragma unroll
        for (int i = 0; i < V; ++i) v[i] = load(&pack.value[i]);
    }
}
template <typename T, int V> __device__ __forceinline__ void store_channels(T *p, const float (&v)[V]) {
    if constexpr (V == 1) {
        store(p, v[0]);
    } else {
        Pack<T> pack;
#pragma unroll
        for (int i = 0; i < V; ++i) store(&pack.value[i], v[i]);
        store_pack(p, pack);
    }
}
template <typename T, int V>
__device__ __forceinline__ void copy_channels(T *to, const T *from, float (&v)[V]) {
    if constexpr (V == 1) {
        *to = *from;
    } else {
        store_pack(to, load_pack(from));
    }
    load_channels<T, V>(to, v);
}

// Replaces s and q by their sums over the rows of the block, the same order every time.
// `scratch` holds 2 V floats a thread and is not in use.
template <int V> __device__ void sum_rows(float (&s)[V], float (&q)[V], int columns, float *scratch) {
    const int t = int(threadIdx.x), row = t / columns;
#pragma unroll
    for (int i = 0; i < V; ++i) {
        scratch[i * THREADS + t] = s[i];
        scratch[(V + i) * THREADS + t] = q[i];
    }
    for (int n = THREADS / columns, half; n > 1; n = half) {
        half = (n + 1) / 2;
        __syncthreads();
        if (row + half < n) {
#pragma unroll
            for (int i = 0; i < 2 * V; ++i) {
                scratch[i * THREADS + t] += scratch[i * THREADS + t + half * columns];
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < V; ++i) {
        s[i] = scratch[i * THREADS + t % columns];
        q[i] = scratch[(V + i) * THREADS + t % columns];
    }
}

// What all pixels of one image share: v = (x - center) a + b. A group's statistics are its mean as f32
// holds it, what is missing of the mean, and 1 / deviation.
template <int V> struct Constants {
    float center[V], a[V], b[V];
};
// `stats` starts at `first_group`; scale and shift are those of the image, or null.
template <typename T, int V>
__device__ Constants<V> constants(const float *stats, int first_group, int per_group, const T *gamma,
                                  const T *beta, const T *scale, const T *shift, int channel) {
    Constants<V> c;
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const float *const of_group = stats + 3 * ((channel + i) / per_group - first_group);
        const float weight = of_group[2] * load(gamma + channel + i);
        const float film = scale ? 1.0f + load(scale + channel + i) : 1.0f;
        const float moved = shift ? load(shift + channel + i) : 0.0f;
        c.center[i] = of_group[0];
        c.a[i] = weight * film;
        c.b[i] = (load(beta + channel + i) - of_group[1] * weight) * film + moved;
    }
    return c;
}

// One warp: the statistics of a group from what its channels hold: mean minus `origin`, and the sum of
// squared differences to that mean over `pixels`.
__device__ void group_statistics(const float *of_channels, int per_group, float pixels, float origin,
                                 float eps, float *stats) {
    const int lane = int(threadIdx.x) % WARP;
    float sum = 0.0f, squares = 0.0f;
    for (int j = lane; j < per_group; j += WARP) sum += of_channels[2 * j];
    const float mean = warp_sum(sum) / float(per_group);
    for (int j = lane; j < per_group; j += WARP) {
        const float d = of_channels[2 * j] - mean;
        squares += of_channels[2 * j + 1] + pixels * d * d;
    }
    squares = warp_sum(squares);
    if (lane == 0) {
        const float center = origin + mean;
        stats[0] = center;
        stats[1] = (origin - center) + mean;
        stats[2] = 1.0f / sqrtf(squares / (pixels * float(per_group)) + eps);
    }
}

// One warp: k and l of dx = a dv + k (x - center) + l from the weighted sums of a group's channels.
__device__ void group_slopes(const float *of_channels, int per_group, float pixels, const float *stats,
                             float *slopes) {
    const int lane = int(threadIdx.x) % WARP;
    float g = 0.0f, g_xhat = 0.0f;
    for (int j = lane; j < per_group; j += WARP) {
        g += of_channels[2 * j];
        g_xhat += of_channels[2 * j + 1];
    }
    g = warp_sum(g);
    g_xhat = warp_sum(g_xhat);
    if (lane == 0) {
        const float rest = stats[1], rstd = stats[2], m = pixels * float(per_group);
        const float k = -rstd * rstd * g_xhat / m;
        slopes[0] = k;
        slopes[1] = -rstd * g / m - k * rest;
    }
}

__device__ __forceinline__ float activated(float v, int silu) { return silu ? v * sigmoid(v) : v; }
__device__ __forceinline__ float before_silu(float dy, float v, int silu) {
    if (!silu) return dy;
    const float s = sigmoid(v);
    return dy * s * (1.0f + v * (1.0f - s));
}

// ---------------------------------------------------------------- large maps
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

// ---------------------------------------------------------------- small maps
// Grid [C / width, N]: a block holds `width` channels, whole groups, of an image in shared memory:
// scratch [2 V, THREADS], [width, 2] of channels, [groups, 3] of groups, rounded up to 16 bytes; the map.
template <int V> __device__ __forceinline__ int slab_header(int width, int groups) {
    return 2 * V * THREADS + (2 * width + 3 * groups + 3) / 4 * 4;
}

template <typename T, int V>
__device__ void slab(const T *x, const T *gamma, const T *beta, const T *scale, const T *shift, T *y,
                     float *stats, int pixels, int channels, int groups, int width, float eps, int silu) {
    DYNAMIC_SHARED(float, scratch);
    const int warp = int(threadIdx.x) / WARP, columns = width / V, per_group = channels / groups;
    const int held = width / per_group, first_channel = int(blockIdx.x) * width,
              first_group = int(blockIdx.x) * held;
    float *const of_channels = scratch + 2 * V * THREADS, *const of_groups = of_channels + 2 * width;
    T *const map = reinterpret_cast<T *>(scratch + slab_header<V>(width, held));
    const Place<V> at(columns, first_channel, channels);
    const size_t n = blockIdx.y, image = n * pixels * channels;
    float s[V] = {}, q[V] = {}, pivot[V] = {};
    if (at.active) {
        load_channels<T, V>(x + image + at.channel, pivot);
        for (int r = at.row; r < pixels; r += at.rows) {
            float v[V];
            copy_channels<T, V>(map + (r * columns + at.column) * V,
                                x + image + size_t(r) * channels + at.channel, v);
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
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const int j = at.column * V + i;
            const float origin = load(x + image + (at.channel + i) / per_group * per_group);
            of_channels[2 * j] = (pivot[i] - origin) + s[i] / float(pixels);
            of_channels[2 * j + 1] = fmaxf(q[i] - s[i] * s[i] / float(pixels), 0.0f);
        }
    }
    __syncthreads();
    for (int g = warp; g < held; g += THREADS / WARP) {
        const float origin = load(x + image + first_channel + g * per_group);
        group_statistics(of_channels + 2 * g * per_group, per_group, float(pixels), origin, eps,
                         of_groups + 3 * g);
    }
    __syncthreads();
    for (int i = int(threadIdx.x); i < 3 * held; i += THREADS) {
        stats[3 * (n * groups + first_group) + i] = of_groups[i];
    }
    if (at.active) {
        const Constants<V> c = constants<T, V>(of_groups, first_group, per_group, gamma, beta,
                                               scale ? scale + n * channels : scale,
                                               shift ? shift + n * channels : shift, at.channel);
        for (int r = at.row; r < pixels; r += at.rows) {
            float v[V];
            load_channels<T, V>(map + (r * columns + at.column) * V, v);
#pragma unroll
            for (int i = 0; i < V; ++i) v[i] = activated((v[i] - c.center[i]) * c.a[i] + c.b[i], silu);
            store_channels<T, V>(y + image + size_t(r) * channels + at.channel, v);
        }
    }
}
template <typename T>
__device__ void group_norm_slab_kernel(const T *x, const T *gamma, const T *beta, const T *scale,
                                       const T *shift, T *y, float *stats, int pixels, int channels,
                                       int groups, int width, float eps, int silu) {
    slab<T, Pack<T>::SIZE>(x, gamma, beta, scale, shift, y, stats, pixels, channels, groups, width, eps,
                           silu);
}
template <typename T>
__device__ void group_norm_slab_ragged_kernel(const T *x, const T *gamma, const T *beta, const T *scale,
                                              const T *shift, T *y, float *stats, int pixels, int channels,
                                              int groups, int width, float eps, int silu) {
    slab<T, 1>(x, gamma, beta, scale, shift, y, stats, pixels, channels, groups, width, eps, silu);
}

// The map is x, then dy. sums: [N, 2, C]; dx may be null.
template <typename T, int V>
__device__ void gradient_slab(const T *x, const T *dy, const float *stats, const T *gamma, const T *beta,
                              const T *scale, const T *shift, float *sums, T *dx, int pixels, int channels,
                              int groups, int width, int silu) {
    DYNAMIC_SHARED(float, scratch);
    const int warp = int(threadIdx.x) / WARP, columns = width / V, per_group = channels / groups;
    const int held = width / per_group, first_channel = int(blockIdx.x) * width,
              first_group = int(blockIdx.x) * held;
    float *const of_channels = scratch + 2 * V * THREADS, *const of_groups = of_channels + 2 * width;
    T *const map = reinterpret_cast<T *>(scratch + slab_header<V>(width, held)), *const slope_map =
                                                                                     map + pixels * width;
    const Place<V> at(columns, first_channel, channels);
    const size_t n = blockIdx.y, image = n * pixels * channels;
    const float *const of_image = stats + 3 * n * groups;
    Constants<V> c = {};
    float s[V] = {}, q[V] = {};
    if (at.active) {
        c = constants<T, V>(of_image, 0, per_group, gamma, beta, scale ? scale + n * channels : scale,
                            shift ? shift + n * channels : shift, at.channel);
        for (int r = at.row; r < pixels; r += at.rows) {
            const int here = (r * columns + at.column) * V;
            const size_t there = image + size_t(r) * channels + at.channel;
            float v[V], g[V];
            copy_channels<T, V>(map + here, x + there, v);
            copy_channels<T, V>(slope_map + here, dy + there, g);
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
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const int channel = at.channel + i, j = at.column * V + i;
            const float *const of_group = of_image + 3 * (channel / per_group);
            const float dv = s[i], dv_xhat = of_group[2] * (q[i] - of_group[1] * s[i]);
            const float film = scale ? 1.0f + load(scale + n * channels + channel) : 1.0f;
            const float weight = film * load(gamma + channel);
            sums[n * 2 * channels + channel] = dv;
            sums[n * 2 * channels + channels + channel] = dv_xhat;
            of_channels[2 * j] = weight * dv;
            of_channels[2 * j + 1] = weight * dv_xhat;
        }
    }
    __syncthreads();
    for (int g = warp; g < held; g += THREADS / WARP) {
        group_slopes(of_channels + 2 * g * per_group, per_group, float(pixels),
                     of_image + 3 * (first_group + g), of_groups + 2 * g);
    }
    __syncthreads();
    if (at.active && dx) {
        float k[V], l[V];
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float *const of_group = of_groups + 2 * ((at.channel + i) / per_group - first_group);
            k[i] = of_group[0];
            l[i] = of_group[1];
        }
        for (int r = at.row; r < pixels; r += at.rows) {
            const int here = (r * columns + at.column) * V;
            float v[V], g[V];
            load_channels<T, V>(map + here, v);
            load_channels<T, V>(slope_map + here, g);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                const float d = v[i] - c.center[i], dv = before_silu(g[i], d * c.a[i] + c.b[i], silu);
                v[i] = c.a[i] * dv + (k[i] * d + l[i]);
            }
            store_channels<T, V>(dx + image + size_t(r) * channels + at.channel, v);
        }
    }
}
template <typename T>
__device__ void group_norm_gradient_slab_kernel(const T *x, const T *dy, const float *stats, const T *gamma,
                                                const T *beta, const T *scale, const T *shift, float *sums,
                                                T *dx, int pixels, int channels, int groups, int width,
                                                int silu) {
    gradient_slab<T, Pack<T>::SIZE>(x, dy, stats, gamma, beta, scale, shift, sums, dx, pixels, channels,
                                    groups, width, silu);
}
template <typename T>
__device__ void group_norm_gradient_slab_ragged_kernel(const T *x, const T *dy, const float *stats,
                                                       const T *gamma, const T *beta, const T *scale,
                                                       const T *shift, float *sums, T *dx, int pixels,
                                                       int channels, int groups, int width, int silu) {
    gradient_slab<T, 1>(x, dy, stats, gamma, beta, scale, shift, sums, dx, pixels, channels, groups, width,
                        silu);
}
} // namespace

// Each in packs and, for ragged channels, in single channels.
#define BOTH_WIDTHS(name, parameters, arguments) \
    FOR_DTYPES(name, parameters, arguments) \
    FOR_DTYPES(name##_ragged, parameters, arguments)

BOTH_WIDTHS(group_norm_moments,
            (const T *x, float *partial, int pixels, int channels, int columns, int chunk),
            (x, partial, pixels, channels, columns, chunk))
FOR_DTYPES(group_norm_statistics,
           (const T *x, const float *partial, float *stats, int pixels, int channels, int groups, int chunk,
            float eps),
           (x, partial, stats, pixels, channels, groups, chunk, eps))
BOTH_WIDTHS(group_norm_apply,
            (const T *x, const float *stats, const T *gamma, const T *beta, const T *scale, const T *shift,
             T *y, int pixels, int channels, int groups, int columns, int chunk, int silu),
            (x, stats, gamma, beta, scale, shift, y, pixels, channels, groups, columns, chunk, silu))
BOTH_WIDTHS(group_norm_sums,
            (const T *x, const T *dy, const float *stats, const T *gamma, const T *beta, const T *scale,
             const T *shift, float *partial, int pixels, int channels, int groups, int columns, int chunk,
             int silu),
            (x, dy, stats, gamma, beta, scale, shift, partial, pixels, channels, groups, columns, chunk,
             silu))
FOR_DTYPES(group_norm_slopes,
           (const float *partial, const float *stats, const T *gamma, const T *scale, float *sums,
            float *slopes, int pixels, int channels, int groups, int chunk),
           (partial, stats, gamma, scale, sums, slopes, pixels, channels, groups, chunk))
BOTH_WIDTHS(group_norm_gradient,
            (const T *x, const T *dy, const float *stats, const float *slopes, const T *gamma, const T *beta,
             const T *scale, const T *shift, T *dx, int pixels, int channels, int groups, int columns,
             int chunk, int silu),
            (x, dy, stats, slopes, gamma, beta, scale, shift, dx, pixels, channels, groups, columns, chunk,
             silu))
FOR_DTYPES(group_norm_parameters,
           (const float *sums, const T *gamma, const T *beta, const T *scale, T *dgamma, T *dbeta, T *dscale,
            T *dshift, int images, int channels),
           (sums, gamma, beta, scale, dgamma, dbeta, dscale, dshift, images, channels))
BOTH_WIDTHS(group_norm_slab,
            (const T *x, const T *gamma, const T *beta, const T *scale, const T *shift, T *y, float *stats,
             int pixels, int channels, int groups, int width, float eps, int silu),
            (x, gamma, beta, scale, shift, y, stats, pixels, channels, groups, width, eps, silu))
BOTH_WIDTHS(group_norm_gradient_slab,
            (const T *x, const T *dy, const float *stats, const T *gamma, const T *beta, const T *scale,
             const T *shift, float *sums, T *dx, int pixels, int channels, int groups, int width, int silu),
            (x, dy, stats, gamma, beta, scale, shift, sums, dx, pixels, channels, groups, width, silu))
