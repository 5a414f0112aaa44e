// Kernels whose threads each write some consecutive elements and meet no other thread: 16 bytes at once
// where the layout allows it, single elements otherwise. Written once for both, over the type of the chunk.
#pragma once
#include "common.cuh"

// One element where a pack does not fit; used as a Pack is.
template <typename T> struct Single {
    static constexpr int SIZE = 1;
    T value[1];
};

template <typename T> __device__ __forceinline__ void fetch(Pack<T> &to, const T *p) { to = load_pack(p); }
template <typename T> __device__ __forceinline__ void fetch(Single<T> &to, const T *p) { to.value[0] = *p; }
template <typename T> __device__ __forceinline__ void put(T *p, const Pack<T> &from) { store_pack(p, from); }
template <typename T> __device__ __forceinline__ void put(T *p, const Single<T> &from) { *p = from.value[0]; }
template <typename T> __device__ __forceinline__ void clear(Pack<T> &v) { v.bits = make_uint4(0, 0, 0, 0); }
template <typename T> __device__ __forceinline__ void clear(Single<T> &v) { store(v.value, 0.0f); }

// body(chunk, i) for chunks at element i that together make 0..n. Chunks are packs if `packed`, except a tail
// that does not fill one. A block covers as many packs as it has threads either way: launch with Grid::packs.
template <typename T, typename Body>
__device__ __forceinline__ void for_chunks(int n, bool packed, Body body) {
    constexpr unsigned SIZE = Pack<T>::SIZE;
    const unsigned block = blockIdx.x * blockDim.x * SIZE, end = n; // n < 2^31, so sums stay below 2^32
    const unsigned from = block + threadIdx.x * (packed ? SIZE : 1), step = packed ? 1 : blockDim.x;
    if (packed && from + SIZE <= end) {
        body(Pack<T>(), from);
        return;
    }
    for (unsigned k = 0, i = from; k < SIZE && i < end; ++k, i += step) body(Single<T>(), i);
}

// y[i] = f(x[i])
template <typename T, typename F> __device__ __forceinline__ void map(const T *x, T *y, int n, F f) {
    for_chunks<T>(n, true, [&](auto chunk, unsigned i) {
        fetch(chunk, x + i);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) store(&chunk.value[k], f(load(&chunk.value[k])));
        put(y + i, chunk);
    });
}

// y[i] = f(a[i], b[i]); y may be a
template <typename T, typename F>
__device__ __forceinline__ void map(const T *a, const T *b, T *y, int n, F f) {
    for_chunks<T>(n, true, [&](auto chunk, unsigned i) {
        auto other = chunk;
        fetch(chunk, a + i);
        fetch(other, b + i);
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
            store(&chunk.value[k], f(load(&chunk.value[k]), load(&other.value[k])));
        }
        put(y + i, chunk);
    });
}

// Whether packs of T fill rows of c elements.
template <typename T> __device__ __forceinline__ bool in_packs(int c) { return c % Pack<T>::SIZE == 0; }

// An element of a map [N, H, W, C].
struct Place {
    unsigned n, y, x, c;
};

// The sizes of a map that decide where its elements lie.
struct Layout {
    unsigned h, w, c;
    __device__ __forceinline__ Layout(int h, int w, int c) : h(h), w(w), c(c) {}
    __device__ __forceinline__ Place place(unsigned i) const {
        const unsigned pixel = i / c, row = pixel / w, image = row / h;
        return {image, row - image * h, pixel - row * w, i - pixel * c};
    }
    __device__ __forceinline__ size_t offset(const Place &p) const {
        return ((size_t(p.n) * h + p.y) * w + p.x) * c + p.c;
    }
};
