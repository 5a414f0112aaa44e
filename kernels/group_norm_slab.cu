// Group normalisation with FiLM and SiLU, of small maps: one block holds some groups of an image in shared memory and
// reads memory once. Formulas and host side: src/ops/group_norm; large maps: group_norm.cu.
//
// Bound by memory.
#include "group_norm.cuh"

namespace {
template <int V> constexpr int AHEAD = V > 1 ? 4 : 2; // what a thread has on its way, in packs or single channels

// One warp: the statistics of a group from what its channels hold: mean minus `origin`, and the sum of
// squared differences to that mean over `pixels`.
__device__ void group_statistics(const float *of_channels, int per_group, float pixels, float origin,
                                 float eps, float *stats) {
    const int lane = int(threadIdx.x) % WARP;
    float sum = 0.0f, squares = 0.0f;
    for (int j = lane; j < per_group; j += WARP) sum += of_channels[2 * j];
    const float mean = __fdividef(warp_sum(sum), float(per_group));
    for (int j = lane; j < per_group; j += WARP) {
        const float d = of_channels[2 * j] - mean;
        squares += of_channels[2 * j + 1] + pixels * d * d;
    }
    squares = warp_sum(squares);
    if (lane == 0) {
        const float center = origin + mean;
        stats[0] = center;
        stats[1] = (origin - center) + mean;
        stats[2] = rsqrtf(__fdividef(squares, pixels * float(per_group)) + eps);
    }
}

// One warp: the slopes from the weighted sums of a group's channels.
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
    if (lane == 0) slopes_of(g, g_xhat, pixels * float(per_group), stats, slopes);
}

// Grid [C / width, N]: a block holds `width` channels, whole groups, of an image in shared memory:
// scratch [2 V, THREADS], at times constants, [width, 2] of channels, [groups, 3] of groups, rounded up to 16 bytes; the map.
template <int V> __device__ __forceinline__ int slab_header(int width, int groups) {
    return 2 * V * THREADS + (2 * width + 3 * groups + 3) / 4 * 4;
}

// x: [N, pixels, c0], x1, beside it: [N, pixels, C - c0]; y: [N, pixels, C].
template <typename T, int V>
__device__ void slab(const T *x, const T *x1, int c0, const T *gamma, const T *beta, const T *scale, const T *shift, T *y,
                     float *stats, int pixels, int channels, int groups, int width, float eps, int silu) {
    DYNAMIC_SHARED(float, scratch);
    const int warp = int(threadIdx.x) / WARP, columns = width / V, per_group = channels / groups;
    const int held = width / per_group, first_channel = int(blockIdx.x) * width,
              first_group = int(blockIdx.x) * held;
    float *const of_channels = scratch + 2 * V * THREADS, *const of_groups = of_channels + 2 * width;
    T *const map = reinterpret_cast<T *>(scratch + slab_header<V>(width, held));
    const Place<V> at(columns, first_channel, channels);
    const size_t n = blockIdx.y, image = n * pixels * channels;
    const auto side = [=](int channel) { return Side<T>(x, x1, c0, channels, n * pixels, channel); };
    float s[V] = {}, q[V] = {}, pivot[V] = {};
    if (at.active) {
        const Side<T> from = side(at.channel);
        load_channels<T, V>(from.at, pivot);
        Channels<T, V> ahead[AHEAD<V>];
        const auto read = [&](int i, int r) { ahead[i].read(from.at + size_t(r) * from.stride); };
        each_row<AHEAD<V>>(at.row, pixels, at.rows, read, [&](int i, int r) {
            float v[V];
            ahead[i].write(map + (r * columns + at.column) * V);
            ahead[i].unpack(v);
#pragma unroll
            for (int e = 0; e < V; ++e) {
                const float d = v[e] - pivot[e];
                s[e] += d;
                q[e] += d * d;
            }
        });
    }
    sum_rows<V>(s, q, columns, scratch);
    if (at.active && at.row == 0) {
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const int j = at.column * V + i;
            const float origin = load(side((at.channel + i) / per_group * per_group).at);
            of_channels[2 * j] = (pivot[i] - origin) + s[i] / float(pixels);
            of_channels[2 * j + 1] = fmaxf(q[i] - s[i] * s[i] / float(pixels), 0.0f);
        }
    }
    __syncthreads();
    for (int g = warp; g < held; g += THREADS / WARP) {
        const float origin = load(side(first_channel + g * per_group).at);
        group_statistics(of_channels + 2 * g * per_group, per_group, float(pixels), origin, eps,
                         of_groups + 3 * g);
    }
    __syncthreads();
    for (int i = int(threadIdx.x); i < 3 * held; i += THREADS) {
        stats[3 * (n * groups + first_group) + i] = of_groups[i];
    }
    find_constants(scratch, width, first_channel, width, of_groups, first_group, per_group, gamma, beta,
                   scale ? scale + n * channels : scale, shift ? shift + n * channels : shift);
    __syncthreads();
    if (at.active) {
        const Constants<V> c = constants<V>(scratch, width, at.column * V);
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
__device__ void group_norm_slab_kernel(const T *x, const T *x1, const T *gamma, const T *beta, const T *scale,
                                       const T *shift, T *y, float *stats, int c0, int pixels, int channels,
                                       int groups, int width, float eps, int silu) {
    slab<T, Pack<T>::SIZE>(x, x1, c0, gamma, beta, scale, shift, y, stats, pixels, channels, groups, width, eps,
                           silu);
}
template <typename T>
__device__ void group_norm_slab_ragged_kernel(const T *x, const T *x1, const T *gamma, const T *beta,
                                              const T *scale, const T *shift, T *y, float *stats, int c0, int pixels,
                                              int channels, int groups, int width, float eps, int silu) {
    slab<T, 1>(x, x1, c0, gamma, beta, scale, shift, y, stats, pixels, channels, groups, width, eps, silu);
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
    find_constants(scratch, width, first_channel, width, of_image, 0, per_group, gamma, beta,
                   scale ? scale + n * channels : scale, shift ? shift + n * channels : shift);
    __syncthreads();
    if (at.active) {
        c = constants<V>(scratch, width, at.column * V);
        Channels<T, V> maps[AHEAD<V> / 2], gradients[AHEAD<V> / 2];
        const auto read = [&](int i, int r) {
            const size_t there = image + size_t(r) * channels + at.channel;
            maps[i].read(x + there);
            gradients[i].read(dy + there);
        };
        each_row<AHEAD<V> / 2>(at.row, pixels, at.rows, read, [&](int i, int r) {
            const int here = (r * columns + at.column) * V;
            float v[V], g[V];
            maps[i].write(map + here);
            gradients[i].write(slope_map + here);
            maps[i].unpack(v);
            gradients[i].unpack(g);
#pragma unroll
            for (int e = 0; e < V; ++e) {
                const float d = v[e] - c.center[e], dv = before_silu(g[e], d * c.a[e] + c.b[e], silu);
                s[e] += dv;
                q[e] += dv * d;
            }
        });
    }
    __syncthreads(); // constants have been read
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

BOTH_WIDTHS(group_norm_slab,
            (const T *x, const T *x1 /* or null */, const T *gamma, const T *beta, const T *scale /* or null */,
             const T *shift /* or null */, T *y, float *stats, int c0, int pixels, int channels, int groups, int width,
             float eps, int silu),
            (x, x1, gamma, beta, scale, shift, y, stats, c0, pixels, channels, groups, width, eps, silu))
BOTH_WIDTHS(group_norm_gradient_slab,
            (const T *x, const T *dy, const float *stats, const T *gamma, const T *beta,
             const T *scale /* or null */, const T *shift /* or null */, float *sums, T *dx /* or null */,
             int pixels, int channels, int groups, int width, int silu),
            (x, dy, stats, gamma, beta, scale, shift, sums, dx, pixels, channels, groups, width, silu))
