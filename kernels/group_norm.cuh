// What the kernels of large and of small maps of group normalisation share.
#pragma once
#include "moments.cuh"

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

// Where a channel of an image lies, from its first pixel on, and how far apart pixels are: in x, or, from channel c0 on, in
// x1 beside it. Packs lie in one of them.
template <typename T> struct Side {
    const T *at;
    int stride;
    __device__ __forceinline__ Side(const T *x, const T *x1, int c0, int channels, size_t first_pixel, int channel) {
        const bool beside = channel >= c0;
        stride = beside ? channels - c0 : c0;
        at = (beside ? x1 - c0 : x) + (first_pixel * stride + channel);
    }
};

// V neighbouring channels as memory has them.
template <typename T, int V> struct Channels {
    Pack<T> pack;
    __device__ __forceinline__ void read(const T *p) { pack = load_pack(p); }
    __device__ __forceinline__ void write(T *p) const { store_pack(p, pack); }
    __device__ __forceinline__ void unpack(float (&v)[V]) const {
#pragma unroll
        for (int i = 0; i < V; ++i) v[i] = load(&pack.value[i]);
    }
};
template <typename T> struct Channels<T, 1> {
    T value;
    __device__ __forceinline__ void read(const T *p) { value = *p; }
    __device__ __forceinline__ void write(T *p) const { *p = value; }
    __device__ __forceinline__ void unpack(float (&v)[1]) const { v[0] = load(&value); }
};
template <typename T, int V> __device__ __forceinline__ void load_channels(const T *p, float (&v)[V]) {
    Channels<T, V> channels;
    channels.read(p);
    channels.unpack(v);
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

// read(i, r), then use(i, r), for the rows first, first + step, .. before last. AHEAD of them are read before the first is
// used: a load that had to wait for the store before it would leave memory idle. Beyond the last row it is read again.
template <int AHEAD, typename Read, typename Use>
__device__ __forceinline__ void each_row(int first, int last, int step, Read read, Use use) {
    for (int r = first; r < last; r += AHEAD * step) {
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) read(i, min(r + i * step, last - 1));
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            if (r + i * step < last) use(i, r + i * step);
        }
    }
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
// All threads of a block: the constants of its `count` channels from `first` on, in shared memory, [3][width]. `stats` starts
// at `first_group`; scale and shift are those of the image, or null.
template <typename T>
__device__ void find_constants(float *to, int width, int first, int count, const float *stats, int first_group,
                               int per_group, const T *gamma, const T *beta, const T *scale, const T *shift) {
#pragma unroll 1
    for (int j = int(threadIdx.x); j < count; j += THREADS) {
        const int channel = first + j;
        const float film = scale ? 1.0f + load(scale + channel) : 1.0f;
        const float moved = shift ? load(shift + channel) : 0.0f;
        const float *const of_group = stats + 3 * (channel / per_group - first_group);
        const Normal n = normal(of_group, load(gamma + channel), load(beta + channel), film, moved);
        to[j] = n.center;
        to[width + j] = n.a;
        to[2 * width + j] = n.b;
    }
}
// Of V channels from the `j`th of the block on.
template <int V> __device__ __forceinline__ Constants<V> constants(const float *of_block, int width, int j) {
    Constants<V> c;
    read_floats(c.center, of_block + j);
    read_floats(c.a, of_block + width + j);
    read_floats(c.b, of_block + 2 * width + j);
    return c;
}

// k and l of dx = a dv + k (x - center) + l from the weighted sums of dv and dv xhat over the m numbers of a group.
__device__ __forceinline__ void slopes_of(float g, float g_xhat, float m, const float *stats, float *slopes) {
    const float rest = stats[1], rstd = stats[2], k = -rstd * rstd * g_xhat / m;
    slopes[0] = k;
    slopes[1] = -rstd * g / m - k * rest;
}

__device__ __forceinline__ float before_silu(float dy, float v, int silu) {
    if (!silu) return dy;
    const float s = sigmoid(v);
    return dy * s * (1.0f + v * (1.0f - s));
}
} // namespace

// Each in packs and, for ragged channels, in single channels.
#define BOTH_WIDTHS(name, parameters, arguments) \
    FOR_DTYPES(name, parameters, arguments) \
    FOR_DTYPES(name##_ragged, parameters, arguments)
