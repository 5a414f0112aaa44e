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
        const float film = scale ? 1.0f + load(scale + channel + i) : 1.0f;
        const float moved = shift ? load(shift + channel + i) : 0.0f;
        const Normal n = normal(of_group, load(gamma + channel + i), load(beta + channel + i), film, moved);
        c.center[i] = n.center;
        c.a[i] = n.a;
        c.b[i] = n.b;
    }
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
    const float s = quick_sigmoid(v);
    return dy * s * (1.0f + v * (1.0f - s));
}
} // namespace

// Each in packs and, for ragged channels, in single channels.
#define BOTH_WIDTHS(name, parameters, arguments) \
    FOR_DTYPES(name, parameters, arguments) \
    FOR_DTYPES(name##_ragged, parameters, arguments)
