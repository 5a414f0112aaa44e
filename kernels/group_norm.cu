// Group normalisation with FiLM and SiLU. Formulas and host side: src/ops/group_norm.
//
// Bound by memory. The threads of a block lie in rows over `columns` packs of V neighbouring channels, so a
// thread keeps the constants of its channels in registers while it walks over pixels. V is 16 bytes, or one
// channel where the number of channels is ragged.
//
// Large maps (small ones: group_norm_slab.cu): blocks take sums over a chunk of pixels each; the blocks that read the map
// again join them first, each for itself and in the same order, which is a few numbers a chunk and group. Sums are of
// differences to a pixel of the same channel, so that a mean far above the deviation does not cancel.
#include "group_norm.cuh"

namespace {
template <int V> constexpr int AHEAD = V > 1 ? 4 : 2; // what a thread has on its way, in packs or single channels

// Grids are [columns of channels, chunks of pixels, N].
// What chunks found lies as [N, chunks, C / run, 2]: of `run` neighbouring channels of a group the mean, minus the first
// channel of the group in the image's first pixel unless it is `absolute`, and the sum of squared differences to that
// mean. A run is a group, or what divides groups where a block has not whole ones. Convolutions find absolute ones.
// x: [N, pixels, c0], x1, beside it: [N, pixels, C - c0].
template <typename T, int V>
__device__ void moments(const T *x, const T *x1, int c0, float *partial, int pixels, int channels, int groups, int run,
                        int columns, int chunk, int absolute) {
    DYNAMIC_SHARED(float, scratch);
    const int first_channel = int(blockIdx.x) * columns * V;
    const Place<V> at(columns, first_channel, channels);
    const int first = int(blockIdx.y) * chunk, last = min(first + chunk, pixels);
    const auto side = [=](int channel) { return Side<T>(x, x1, c0, channels, size_t(blockIdx.z) * pixels, channel); };
    float s[V] = {}, q[V] = {}, pivot[V] = {};
    if (at.active) {
        const Side<T> from = side(at.channel);
        load_channels<T, V>(from.at + size_t(first) * from.stride, pivot);
        Channels<T, V> ahead[AHEAD<V>];
        const auto read = [&](int i, int r) { ahead[i].read(from.at + size_t(r) * from.stride); };
        each_row<AHEAD<V>>(first + at.row, last, at.rows, read, [&](int i, int) {
            float v[V];
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
    __syncthreads(); // the sums have been read
    const int per_group = channels / groups, count = last - first;
    const float n = float(count);
    if (at.active && at.row == 0) {
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const int channel = at.channel + i, local = channel - first_channel;
            const float origin = absolute ? 0.0f : load(side(channel / per_group * per_group).at);
            scratch[2 * local] = (pivot[i] - origin) + s[i] / n;
            scratch[2 * local + 1] = fmaxf(q[i] - s[i] * s[i] / n, 0.0f);
        }
    }
    __syncthreads();
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP;
    const int runs = min(columns * V, channels - first_channel) / run;
    float *const out = partial + ((size_t(blockIdx.z) * gridDim.y + blockIdx.y) * (channels / run) + first_channel / run) * 2;
    for (int r = warp; r < runs; r += THREADS / WARP) {
        const float *const of_run = scratch + 2 * r * run;
        float sum = 0.0f, squares = 0.0f;
        for (int c = lane; c < run; c += WARP) sum += of_run[2 * c];
        const float mean = warp_sum(sum) / float(run);
        for (int c = lane; c < run; c += WARP) {
            const float d = of_run[2 * c] - mean;
            squares += of_run[2 * c + 1] + n * d * d;
        }
        squares = warp_sum(squares);
        if (lane == 0) {
            out[2 * r] = mean;
            out[2 * r + 1] = squares;
        }
    }
}
template <typename T>
__device__ void group_norm_moments_kernel(const T *x, const T *x1, float *partial, int c0, int pixels, int channels,
                                          int groups, int run, int columns, int chunk, int absolute) {
    moments<T, Pack<T>::SIZE>(x, x1, c0, partial, pixels, channels, groups, run, columns, chunk, absolute);
}
template <typename T>
__device__ void group_norm_moments_ragged_kernel(const T *x, const T *x1, float *partial, int c0, int pixels,
                                                 int channels, int groups, int run, int columns, int chunk,
                                                 int absolute) {
    moments<T, 1>(x, x1, c0, partial, pixels, channels, groups, run, columns, chunk, absolute);
}

// x: [N, pixels, c0], x1, beside it: [N, pixels, C - c0]; y: [N, pixels, C]; partial: as moments leave it, in chunks of
// `found` pixels; stats: [N, G, 3], which is written;
// gamma, beta: [C]; scale, shift: [N, C] or null.
template <typename T, int V>
__device__ void apply(const T *x, const T *x1, int c0, const float *partial, float *stats, const T *gamma, const T *beta,
                      const T *scale, const T *shift, T *y, int pixels, int channels, int groups, int run, int found,
                      int columns, int chunk, int absolute, int silu, float eps) {
    DYNAMIC_SHARED(float, of_block); // constants, then [groups of the block, 3]
    const size_t n = blockIdx.z;
    const int width = columns * V, first_channel = int(blockIdx.x) * width, per_group = channels / groups;
    const int count = min(width, channels - first_channel);
    const int first_group = first_channel / per_group, last_group = (first_channel + count - 1) / per_group;
    float *const joined = of_block + 3 * width;
    const auto side = [=](int channel) { return Side<T>(x, x1, c0, channels, n * pixels, channel); };
    const int runs = per_group / run, next = channels / run * 2, chunks = (pixels + found - 1) / found;
    for (int g = first_group + int(threadIdx.x) / WARP; g <= last_group; g += THREADS / WARP) {
        float *const to = joined + 3 * (g - first_group);
        const float origin = absolute ? 0.0f : load(side(g * per_group).at);
        join(partial + n * chunks * next + g * runs * 2, next, runs, run, pixels, found, origin, eps, to);
        // The block that has the first channel of a group.
        if (blockIdx.y == 0 && threadIdx.x % WARP == 0 && g * per_group >= first_channel) {
            for (int i = 0; i < 3; ++i) stats[3 * (n * groups + g) + i] = to[i];
        }
    }
    __syncthreads();
    find_constants(of_block, width, first_channel, count, joined, first_group, per_group, gamma, beta,
                   scale ? scale + n * channels : scale, shift ? shift + n * channels : shift);
    __syncthreads();
    const Place<V> at(columns, first_channel, channels);
    if (!at.active) return;
    const int first = int(blockIdx.y) * chunk, last = min(first + chunk, pixels);
    const Constants<V> c = constants<V>(of_block, width, at.column * V);
    const Side<T> from = side(at.channel);
    T *const to = y + n * pixels * channels + at.channel;
    Channels<T, V> ahead[AHEAD<V>];
    const auto read = [&](int i, int r) { ahead[i].read(from.at + size_t(r) * from.stride); };
    each_row<AHEAD<V>>(first + at.row, last, at.rows, read, [&](int i, int r) {
        float v[V];
        ahead[i].unpack(v);
#pragma unroll
        for (int e = 0; e < V; ++e) v[e] = activated((v[e] - c.center[e]) * c.a[e] + c.b[e], silu);
        store_channels<T, V>(to + size_t(r) * channels, v);
    });
}
template <typename T>
__device__ void group_norm_apply_kernel(const T *x, const T *x1, const float *partial, float *stats, const T *gamma,
                                        const T *beta, const T *scale, const T *shift, T *y, int c0, int pixels,
                                        int channels, int groups, int run, int found, int columns, int chunk,
                                        int absolute, int silu, float eps) {
    apply<T, Pack<T>::SIZE>(x, x1, c0, partial, stats, gamma, beta, scale, shift, y, pixels, channels, groups, run, found,
                            columns, chunk, absolute, silu, eps);
}
template <typename T>
__device__ void group_norm_apply_ragged_kernel(const T *x, const T *x1, const float *partial, float *stats,
                                               const T *gamma, const T *beta, const T *scale, const T *shift, T *y,
                                               int c0, int pixels, int channels, int groups, int run, int found,
                                               int columns, int chunk, int absolute, int silu, float eps) {
    apply<T, 1>(x, x1, c0, partial, stats, gamma, beta, scale, shift, y, pixels, channels, groups, run, found, columns, chunk,
                absolute, silu, eps);
}

// Sums of dv and of dv xhat over the pixels of a chunk. partial: [N, chunks, 2, C]; of_runs: the same of `run` channels
// each, weighted as dx has them, [N, chunks, 2, C / run].
template <typename T, int V>
__device__ void sums(const T *x, const T *dy, const float *stats, const T *gamma, const T *beta,
                     const T *scale, const T *shift, float *partial, float *of_runs, int pixels, int channels,
                     int groups, int run, int columns, int chunk, int silu) {
    DYNAMIC_SHARED(float, scratch); // constants, then sums
    const int of_block = columns * V, first_channel = int(blockIdx.x) * of_block;
    const Place<V> at(columns, first_channel, channels);
    const size_t n = blockIdx.z;
    const int first = int(blockIdx.y) * chunk, last = min(first + chunk, pixels),
              per_group = channels / groups;
    const size_t image = n * pixels * channels + at.channel;
    find_constants(scratch, of_block, first_channel, min(of_block, channels - first_channel), stats + 3 * n * groups, 0,
                   per_group, gamma, beta, scale ? scale + n * channels : scale, shift ? shift + n * channels : shift);
    __syncthreads();
    float s[V] = {}, q[V] = {};
    if (at.active) {
        const Constants<V> c = constants<V>(scratch, of_block, at.column * V);
        Channels<T, V> maps[AHEAD<V> / 2], gradients[AHEAD<V> / 2];
        const auto read = [&](int i, int r) {
            maps[i].read(x + image + size_t(r) * channels);
            gradients[i].read(dy + image + size_t(r) * channels);
        };
        each_row<AHEAD<V> / 2>(first + at.row, last, at.rows, read, [&](int i, int) {
            float v[V], g[V];
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
    __syncthreads(); // the sums have been read
    const size_t chunk_of_all = n * gridDim.y + blockIdx.y;
    if (at.active && at.row == 0) {
        float *const out = partial + chunk_of_all * 2 * channels + at.channel;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const int channel = at.channel + i, j = channel - first_channel;
            const float *const of_group = stats + 3 * (n * groups + channel / per_group);
            const float dv_xhat = of_group[2] * (q[i] - of_group[1] * s[i]);
            const float film = scale ? 1.0f + load(scale + n * channels + channel) : 1.0f;
            const float weight = film * load(gamma + channel);
            out[i] = s[i];
            out[channels + i] = dv_xhat;
            scratch[j] = weight * s[i];
            scratch[of_block + j] = weight * dv_xhat;
        }
    }
    __syncthreads();
    const int runs = channels / run, held = min(of_block, channels - first_channel) / run;
    float *const out = of_runs + chunk_of_all * 2 * runs + first_channel / run;
    for (int r = int(threadIdx.x); r < held; r += THREADS) {
        float g = 0.0f, g_xhat = 0.0f;
        for (int j = r * run; j < (r + 1) * run; ++j) {
            g += scratch[j];
            g_xhat += scratch[of_block + j];
        }
        out[r] = g;
        out[runs + r] = g_xhat;
    }
}
template <typename T>
__device__ void group_norm_sums_kernel(const T *x, const T *dy, const float *stats, const T *gamma,
                                       const T *beta, const T *scale, const T *shift, float *partial,
                                       float *of_runs, int pixels, int channels, int groups, int run, int columns,
                                       int chunk, int silu) {
    sums<T, Pack<T>::SIZE>(x, dy, stats, gamma, beta, scale, shift, partial, of_runs, pixels, channels, groups,
                           run, columns, chunk, silu);
}
template <typename T>
__device__ void group_norm_sums_ragged_kernel(const T *x, const T *dy, const float *stats, const T *gamma,
                                              const T *beta, const T *scale, const T *shift, float *partial,
                                              float *of_runs, int pixels, int channels, int groups, int run,
                                              int columns, int chunk, int silu) {
    sums<T, 1>(x, dy, stats, gamma, beta, scale, shift, partial, of_runs, pixels, channels, groups, run, columns,
               chunk, silu);
}

// One warp a channel: what `chunks` chunks of each image found, the images in order, becomes the gradients of gamma,
// beta [C], scale and shift [N, C].
template <typename T>
__device__ __forceinline__ void join_parameters(const float *partial, const T *gamma, const T *beta, const T *scale,
                                                T *dgamma, T *dbeta, T *dscale, T *dshift, int images, int chunks,
                                                int channels, int channel) {
    const int lane = int(threadIdx.x) % WARP;
    float of_gamma = 0.0f, of_beta = 0.0f;
    for (int n = 0; n < images; ++n) {
        const float *const of_chunks = partial + size_t(n) * chunks * 2 * channels + channel;
        const size_t at = size_t(n) * channels + channel;
        float dv = 0.0f, dv_xhat = 0.0f;
#pragma unroll 4
        for (int k = lane; k < chunks; k += WARP) {
            dv += of_chunks[size_t(k) * 2 * channels];
            dv_xhat += of_chunks[size_t(k) * 2 * channels + channels];
        }
        dv = warp_sum(dv);
        dv_xhat = warp_sum(dv_xhat);
        const float film = scale ? 1.0f + load(scale + at) : 1.0f;
        of_gamma += film * dv_xhat;
        of_beta += film * dv;
        if (scale && lane == 0) {
            store(dscale + at, load(gamma + channel) * dv_xhat + load(beta + channel) * dv);
            store(dshift + at, dv);
        }
    }
    if (lane > 0) return;
    store(dgamma + channel, of_gamma);
    store(dbeta + channel, of_beta);
}

// `parts` blocks in y write dx of `chunk` pixels each; those behind them find the gradients of parameters, a warp for each
// of the channels, from what sums() found of chunks of `found` pixels.
template <typename T, int V>
__device__ void gradient(const T *x, const T *dy, const float *stats, const float *partial, const float *of_runs,
                         const T *gamma, const T *beta, const T *scale, const T *shift, T *dx, T *dgamma, T *dbeta,
                         T *dscale, T *dshift, int images, int pixels, int channels, int groups, int run, int found,
                         int columns, int chunk, int parts, int silu) {
    DYNAMIC_SHARED(float, of_channels); // constants, then [groups of the block, 2]
    const int warp = int(threadIdx.x) / WARP, lane = int(threadIdx.x) % WARP, of_block = columns * V;
    const int first_channel = int(blockIdx.x) * of_block, chunks = (pixels + found - 1) / found;
    const size_t n = blockIdx.z;
    if (int(blockIdx.y) >= parts) {
        const int j = (int(blockIdx.y) - parts) * (THREADS / WARP) + warp, channel = first_channel + j;
        if (n > 0 || j >= of_block || channel >= channels) return;
        return join_parameters(partial, gamma, beta, scale, dgamma, dbeta, dscale, dshift, images, chunks, channels,
                               channel);
    }
    const Place<V> at(columns, first_channel, channels);
    const int per_group = channels / groups, count = min(of_block, channels - first_channel);
    const int first_group = first_channel / per_group, last_group = (first_channel + count - 1) / per_group;
    const int runs = channels / run, each = per_group / run;
    float *const slopes = of_channels + 3 * of_block;
    find_constants(of_channels, of_block, first_channel, count, stats + 3 * n * groups, 0, per_group, gamma, beta,
                   scale ? scale + n * channels : scale, shift ? shift + n * channels : shift);
    for (int group = first_group + warp; group <= last_group; group += THREADS / WARP) {
        const float *const of_chunks = of_runs + n * chunks * 2 * runs + group * each;
        float g = 0.0f, g_xhat = 0.0f;
        for (int k = lane; k < chunks; k += WARP) {
            const float *const of_chunk = of_chunks + size_t(k) * 2 * runs;
#pragma unroll 2
            for (int r = 0; r < each; ++r) {
                g += of_chunk[r];
                g_xhat += of_chunk[runs + r];
            }
        }
        g = warp_sum(g);
        g_xhat = warp_sum(g_xhat);
        float *const to = slopes + 2 * (group - first_group);
        if (lane == 0) slopes_of(g, g_xhat, float(pixels) * float(per_group), stats + 3 * (n * groups + group), to);
    }
    __syncthreads();
    if (!at.active) return;
    const int first = int(blockIdx.y) * chunk, last = min(first + chunk, pixels);
    const Constants<V> c = constants<V>(of_channels, of_block, at.column * V);
    float k[V], l[V];
#pragma unroll
    for (int i = 0; i < V; ++i) {
        const float *const of_group = slopes + 2 * ((at.channel + i) / per_group - first_group);
        k[i] = of_group[0];
        l[i] = of_group[1];
    }
    const size_t image = n * pixels * channels + at.channel;
    Channels<T, V> maps[AHEAD<V> / 2], gradients[AHEAD<V> / 2];
    const auto read = [&](int i, int r) {
        maps[i].read(x + image + size_t(r) * channels);
        gradients[i].read(dy + image + size_t(r) * channels);
    };
    each_row<AHEAD<V> / 2>(first + at.row, last, at.rows, read, [&](int i, int r) {
        float v[V], g[V];
        maps[i].unpack(v);
        gradients[i].unpack(g);
#pragma unroll
        for (int e = 0; e < V; ++e) {
            const float d = v[e] - c.center[e], dv = before_silu(g[e], d * c.a[e] + c.b[e], silu);
            v[e] = c.a[e] * dv + (k[e] * d + l[e]);
        }
        store_channels<T, V>(dx + image + size_t(r) * channels, v);
    });
}
#define GRADIENT_PARAMETERS \
    (const T *x, const T *dy, const float *stats, const float *partial, const float *of_runs, const T *gamma, \
     const T *beta, const T *scale /* or null */, const T *shift /* or null */, T *dx /* or null */, T *dgamma, \
     T *dbeta, T *dscale /* or null */, T *dshift /* or null */, int images, int pixels, int channels, int groups, \
     int run, int found, int columns, int chunk, int parts, int silu)
#define GRADIENT_ARGUMENTS \
    (x, dy, stats, partial, of_runs, gamma, beta, scale, shift, dx, dgamma, dbeta, dscale, dshift, images, pixels, \
     channels, groups, run, found, columns, chunk, parts, silu)
template <typename T> __device__ void group_norm_gradient_kernel GRADIENT_PARAMETERS {
    gradient<T, Pack<T>::SIZE> GRADIENT_ARGUMENTS;
}
template <typename T> __device__ void group_norm_gradient_ragged_kernel GRADIENT_PARAMETERS {
    gradient<T, 1> GRADIENT_ARGUMENTS;
}

// Behind group_norm_gradient_slab, one thread a channel: the gradients of gamma, beta [C], scale and shift [N, C]; the
// images in order.
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
            (const T *x, const T *x1 /* or null */, float *partial, int c0, int pixels, int channels, int groups, int run,
             int columns, int chunk, int absolute),
            (x, x1, partial, c0, pixels, channels, groups, run, columns, chunk, absolute))
BOTH_WIDTHS(group_norm_apply,
            (const T *x, const T *x1 /* or null */, const float *partial, float *stats, const T *gamma, const T *beta,
             const T *scale /* or null */, const T *shift /* or null */, T *y, int c0, int pixels, int channels,
             int groups, int run, int found, int columns, int chunk, int absolute, int silu, float eps),
            (x, x1, partial, stats, gamma, beta, scale, shift, y, c0, pixels, channels, groups, run, found, columns,
             chunk, absolute, silu, eps))
BOTH_WIDTHS(group_norm_sums,
            (const T *x, const T *dy, const float *stats, const T *gamma, const T *beta,
             const T *scale /* or null */, const T *shift /* or null */, float *partial, float *of_runs, int pixels,
             int channels, int groups, int run, int columns, int chunk, int silu),
            (x, dy, stats, gamma, beta, scale, shift, partial, of_runs, pixels, channels, groups, run, columns, chunk,
             silu))
BOTH_WIDTHS(group_norm_gradient, GRADIENT_PARAMETERS, GRADIENT_ARGUMENTS)
FOR_DTYPES(group_norm_parameters,
           (const float *sums, const T *gamma, const T *beta, const T *scale /* or null */, T *dgamma, T *dbeta,
            T *dscale /* or null */, T *dshift /* or null */, int images, int channels),
           (sums, gamma, beta, scale, dgamma, dbeta, dscale, dshift, images, channels))
