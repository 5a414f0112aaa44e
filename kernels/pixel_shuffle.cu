// Channels to pixels and back. Formulas and host side: src/ops/pixel_shuffle.rs.
// A thread moves the r r elements that go with a pixel of the small map and a channel of the large one, for
// 16 bytes of such channels at once where r is 2 or 3; bound by memory.
#include "elementwise.cuh"

namespace {
// Where the element of small pixel p.x in row p.n and large channel p.c lies in the large map, for i = j = 0.
__device__ __forceinline__ size_t corner(const Place &p, int w, int c, int r) {
    return Layout(r, w * r, c).offset({p.n, 0, p.x * r, p.c});
}

// many: [N, h, w, c R R], few: [N, h R, w R, c]; n elements of N h w c
template <int R, bool inverse, typename T>
__device__ __forceinline__ void move_chunks(const T *x, T *y, int n, int w, int c) {
    const Layout small(1, w, c); // a row is an image of height 1
    for_chunks<T>(n, in_packs<T>(c), [&](auto chunk, unsigned i) {
        const size_t deep = size_t(i) * R * R, flat = corner(small.place(i), w, c, R);
        const size_t row = size_t(w) * R * c;
        decltype(chunk) from[R * R], to[R * R];
#pragma unroll
        for (int j = 0; j < R * R; ++j) {
            fetch(from[j], x + (inverse ? flat + j / R * row + j % R * c : deep + j * chunk.SIZE));
        }
#pragma unroll
        for (int k = 0; k < chunk.SIZE; ++k) {
#pragma unroll
            for (int j = 0; j < R * R; ++j) { // element `at` of the deep chunks is element k of flat chunk j
                const int at = k * R * R + j;
                if (inverse) {
                    to[at / chunk.SIZE].value[at % chunk.SIZE] = from[j].value[k];
                } else {
                    to[j].value[k] = from[at / chunk.SIZE].value[at % chunk.SIZE];
                }
            }
        }
#pragma unroll
        for (int j = 0; j < R * R; ++j) {
            put(y + (inverse ? deep + j * chunk.SIZE : flat + j / R * row + j % R * c), to[j]);
        }
    });
}

template <bool inverse, typename T>
__device__ __forceinline__ void move(const T *x, T *y, int n, int w, int c, int r) {
    if (r == 2) return move_chunks<2, inverse>(x, y, n, w, c);
    if (r == 3) return move_chunks<3, inverse>(x, y, n, w, c);
    const Layout small(1, w, c);
    for_chunks<T>(n, false, [&](auto, unsigned i) {
        const size_t deep = size_t(i) * r * r, flat = corner(small.place(i), w, c, r);
        for (int j = 0; j < r * r; ++j) {
            const size_t at = flat + (size_t(j / r) * w * r + j % r) * c;
            y[inverse ? deep + j : at] = x[inverse ? at : deep + j];
        }
    });
}

// x: [N, h, w, c r r]; y: [N, h r, w r, c]; n elements of N h w c
template <typename T> __device__ void pixel_shuffle_kernel(const T *x, T *y, int n, int w, int c, int r) {
    move<false>(x, y, n, w, c, r);
}

// x: [N, h r, w r, c]; y: [N, h, w, c r r]; n elements of N h w c
template <typename T> __device__ void pixel_unshuffle_kernel(const T *x, T *y, int n, int w, int c, int r) {
    move<true>(x, y, n, w, c, r);
}
} // namespace

FOR_DTYPES(pixel_shuffle, (const T *x, T *y, int n, int w, int c, int r), (x, y, n, w, c, r))
FOR_DTYPES(pixel_unshuffle, (const T *x, T *y, int n, int w, int c, int r), (x, y, n, w, c, r))
