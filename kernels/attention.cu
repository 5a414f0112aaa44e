// Attention without a matrix of all scores. Formulas and host side: src/ops/attention.rs.
//
// A block takes ROWS queries (in attention_keys: keys) of one head, a warp 16 of them, and walks over
// the keys (queries) in tiles. Scores stay in registers: the accumulators of one product are, rounded to
// 16 bits, the operand of the next. Backward recomputes them from the saved log-sum-exp, once for dq
// and once for dk and dv, so that no two blocks add to one place.
//
// Tensor cores for 16-bit heads that fill packs (d a multiple of 8 up to 128; zeros beyond, to 64 or 128), tiles of exact
// f32 for those of f32 (a multiple of 4): attention_f32.cuh. The kernels named _any take what is left and every d up to
// 256: a warp for a query, a lane for a key; _wide, up to 512.
//
// Per tile of 64 queries x 64 keys x d = 64, forward: 16 KiB in, 2 x 2 x 64^3 = 1 Mflop, 64 a byte,
// enough for the L2 cache; bound by the tensor cores and, at small d, by the exponentials.
#include "attention_f32.cuh"

namespace {
constexpr int ROWS = 64, WARPS = ROWS / 16;

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int offset = WARP / 2; offset > 0; offset /= 2) v = fmaxf(v, __shfl_xor_sync(FULL_MASK, v, offset));
    return v;
}

// ---------------------------------------------------------------- tensor cores

// Two floats as 16-bit neighbours, as fragments and stores want them.
template <typename T> union Pair {
    uint32_t bits;
    T value[2];
    __device__ __forceinline__ Pair(float low, float high) {
        store(&value[0], low);
        store(&value[1], high);
    }
};

// tile = rows `first` and on of one head, zeros below the last and beyond d. A thread copies one pack of every DOWN-th row.
template <typename T, int N, int D>
__device__ __forceinline__ void fill(Tile<T, N, D> &tile, const T *x, const Head &head, int first, int length, int d) {
    constexpr int PACK = Pack<T>::SIZE, PACKS = D / PACK, DOWN = WARPS * WARP / PACKS;
    static_assert(DOWN % 8 == 0 && N % DOWN == 0, "rows of a thread are permuted alike, and as many for all");
    const int row = int(threadIdx.x / PACKS), column = int(threadIdx.x % PACKS) * PACK;
    const T *const from = x + head.row(first + row) + column;
    T *const to = tile.at(row, column);
#pragma unroll
    for (int i = 0; i < N; i += DOWN)
        copy_in<true>(to + i * D, from + size_t(i) * head.stride, column < d && first + row + i < length);
}

template <int COUNT> __device__ __forceinline__ void clear(float (&sum)[COUNT][4]) {
#pragma unroll
    for (int j = 0; j < COUNT; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[j][e] = 0.0f;
}

// sum = a[row .. row + 16] b^T over D, for the rows of b.
template <typename T, int N, int M, int D>
__device__ __forceinline__ void scores(float (&sum)[N / 8][4], Tile<T, M, D> &a, int row, Tile<T, N, D> &b) {
    clear(sum);
#pragma unroll 4 // like this all kernels do without spills
    for (int k = 0; k < D; k += 16) {
        uint32_t fa[4], fb[4];
        load_a(fa, a, row, k);
#pragma unroll
        for (int j = 0; j < N; j += 16) {
            load_b(fb, b, 0, k, j / 16);
            mma_m16n8k16<T>(sum[j / 8], fa, fb[0], fb[1]);
            mma_m16n8k16<T>(sum[j / 8 + 1], fa, fb[2], fb[3]);
        }
    }
}

// sum += weights x, where the weights are accumulators of an earlier product, over the N rows of x.
template <typename T, int N, int D>
__device__ __forceinline__ void add_weighted(float (&sum)[D / 8][4], const float (&weights)[N / 8][4],
                                             Tile<T, N, D> &x) {
#pragma unroll
    for (int k = 0; k < N; k += 16) {
        const float *const left = weights[k / 8], *const right = weights[k / 8 + 1];
        const uint32_t fa[4] = {Pair<T>(left[0], left[1]).bits, Pair<T>(left[2], left[3]).bits,
                                Pair<T>(right[0], right[1]).bits, Pair<T>(right[2], right[3]).bits};
#pragma unroll
        for (int c = 0; c < D; c += 16) {
            uint32_t fb[4];
            load_b_transposed(fb, x, c, 0, k / 16);
            mma_m16n8k16<T>(sum[c / 8], fa, fb[0], fb[1]);
            mma_m16n8k16<T>(sum[c / 8 + 1], fa, fb[2], fb[3]);
        }
    }
}

// Where the accumulators of this thread stand: rows row() and row() + 8, columns column(j) and the next.
__device__ __forceinline__ int warp_row() { return int(threadIdx.x) / WARP * 16; }
__device__ __forceinline__ int row_of(int half) {
    return warp_row() + int(threadIdx.x) % WARP / 4 + half * 8;
}
__device__ __forceinline__ int column_of(int j) { return j * 8 + int(threadIdx.x) % 4 * 2; }

// The four lanes that share a row agree on its sum or maximum.
__device__ __forceinline__ float row_sum(float v) {
    v += __shfl_xor_sync(FULL_MASK, v, 1);
    return v + __shfl_xor_sync(FULL_MASK, v, 2);
}
__device__ __forceinline__ float row_max(float v) {
    v = fmaxf(v, __shfl_xor_sync(FULL_MASK, v, 1));
    return fmaxf(v, __shfl_xor_sync(FULL_MASK, v, 2));
}

template <typename T, int TILES>
__device__ __forceinline__ void write(T *to, const Head &head, int first, int length, int d,
                                      const float (&sum)[TILES][4], const float (&factor)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = first + row_of(half);
#pragma unroll
        for (int j = 0; j < TILES; ++j) {
            if (row >= length || column_of(j) >= d) continue;
            const Pair<T> pair(sum[j][half * 2] * factor[half], sum[j][half * 2 + 1] * factor[half]);
            *reinterpret_cast<uint32_t *>(to + head.row(row) + column_of(j)) = pair.bits;
        }
    }
}

// The first `left` columns of a tile stay: beyond them are keys that there are not. Zeros would have a probability.
template <int TILES> __device__ __forceinline__ void hide(float (&s)[TILES][4], int left) {
#pragma unroll
    for (int j = 0; j < TILES; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e)
            if (column_of(j) + e % 2 >= left) s[j][e] = LOWEST;
}

// y = softmax(scale q k^T) v, and per row the logarithm of the softmax's denominator.
template <typename T, int D> __device__ __forceinline__ void forward(const T *q, const T *k, const T *v, T *y,
                                                                     float *lse, int length, int heads, int d,
                                                                     float scale) {
    constexpr int KEYS = D <= 64 ? 64 : 32, STAGES = 2;
    using Queries = Tile<T, ROWS, D>;
    using Keys = Tile<T, KEYS, D>[STAGES];
    SHARED(query, Queries);
    SHARED(key, Keys);
    SHARED(value, Keys);
    const Head head(length, heads, d);
    const int first = int(blockIdx.x) * ROWS;
    const float c = scale * LOG2_E;

    float sum[D / 8][4], most[2] = {LOWEST, LOWEST}, total[2] = {0.0f, 0.0f}; // `most` of scores that are not scaled
    clear(sum);
    fill(query, q, head, first, length, d); // arrives with the first keys
    int next = 0, left = length;
    const auto load = [&](int stage) {
        fill(key[stage], k, head, next, length, d);
        fill(value[stage], v, head, next, length, d);
        next += KEYS;
    };
    pipeline<STAGES>((length + KEYS - 1) / KEYS, load, [&](int stage) {
        float s[KEYS / 8][4];
        scores(s, query, warp_row(), key[stage]);
        if (left < KEYS) hide(s, left);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float now = s[0][half * 2];
#pragma unroll
            for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) now = fmaxf(now, s[j][half * 2 + e]);
            now = fmaxf(most[half], row_max(now));
            const float shift = now * c, shrink = exp2_approx(most[half] * c - shift);
            most[half] = now;
            total[half] *= shrink;
#pragma unroll
            for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e)
                    total[half] += s[j][half * 2 + e] = exp2_approx(s[j][half * 2 + e] * c - shift);
#pragma unroll
            for (int j = 0; j < D / 8; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) sum[j][half * 2 + e] *= shrink;
        }
        add_weighted(sum, s, value[stage]);
        left -= KEYS;
    });

    float factor[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        total[half] = row_sum(total[half]);
        factor[half] = 1.0f / total[half];
        const int row = first + row_of(half);
        if (threadIdx.x % 4 == 0 && row < length) lse[head.statistic(row)] = most[half] * scale + __logf(total[half]);
    }
    write(y, head, first, length, d, sum, factor);
}

// The tiles that backward walks over: their rows, and how many of each map a block holds. For 128 channels there is one: with
// two, blocks of 64 KiB would be 1 of a multiprocessor's 2 on 8.6, 8.9 and 12.0, and 2 of 3 on 8.0. So a map's next tile is
// on its way while products read the other map's, in the order that values, or gradients, come first. With 16 rows a product
// would load 1 pack of fragments, not 0.75. Turing waits for copies anyway, once for both maps.
constexpr int STEP = 32;
template <int D> constexpr int HELD = D <= 64 ? 2 : 1;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool ASYNCHRONOUS = false;
#else
constexpr bool ASYNCHRONOUS = true;
#endif

// All copies are there, and whatever has been read may be overwritten.
__device__ __forceinline__ void arrived() {
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
}

// dq, for ROWS queries a block.
template <typename T, int D>
__device__ __forceinline__ void backward_queries(const T *q, const T *k, const T *v, const T *dy,
                                                 const float *lse, const float *delta, T *dq, int length,
                                                 int heads, int d, float scale) {
    using Queries = Tile<T, ROWS, D>;
    using Keys = Tile<T, STEP, D>[HELD<D>];
    SHARED(query, Queries);
    SHARED(gradient, Queries);
    SHARED(key, Keys);
    SHARED(value, Keys);
    const Head head(length, heads, d);
    const int first = int(blockIdx.x) * ROWS;
    const float c = scale * LOG2_E;
    fill(query, q, head, first, length, d); // arrives with the first tiles
    fill(gradient, dy, head, first, length, d);
    float row_lse[2], row_delta[2], sum[D / 8][4];
    clear(sum);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const size_t at = head.statistic(min(first + row_of(half), length - 1));
        row_lse[half] = lse[at] * LOG2_E;
        row_delta[half] = delta[at];
    }
    float s[STEP / 8][4], dp[STEP / 8][4];
    const auto of_keys = [&](int stage) { scores(s, query, warp_row(), key[stage]); };
    const auto of_values = [&](int stage) { scores(dp, gradient, warp_row(), value[stage]); };
    const auto of_both = [&](int stage, int left) {
        if (left < STEP) hide(s, left);
#pragma unroll
        for (int j = 0; j < STEP / 8; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) backward_scores(s[j][e], dp[j][e], row_lse[e / 2], row_delta[e / 2], c);
        add_weighted(sum, dp, key[stage]);
    };
    if constexpr (HELD<D> > 1) {
        int next = 0, left = length;
        const auto load = [&](int stage) {
            fill(key[stage], k, head, next, length, d);
            fill(value[stage], v, head, next, length, d);
            next += STEP;
        };
        pipeline<HELD<D>>((length + STEP - 1) / STEP, load, [&](int stage) {
            of_keys(stage);
            of_values(stage);
            of_both(stage, left);
            left -= STEP;
        });
    } else {
        if (ASYNCHRONOUS) fill(value[0], v, head, 0, length, d);
        for (int from = 0; from < length; from += STEP) {
            arrived(); // the values; the keys before have been read
            fill(key[0], k, head, from, length, d);
            if constexpr (ASYNCHRONOUS) {
                of_values(0);
                arrived(); // the keys; the values have been read
                if (from + STEP < length) fill(value[0], v, head, from + STEP, length, d);
            } else {
                fill(value[0], v, head, from, length, d);
                arrived();
                of_values(0);
            }
            of_keys(0);
            of_both(0, length - from);
        }
    }
    const float factor[2] = {scale, scale};
    write(dq, head, first, length, d, sum, factor);
}

// dk and dv, for ROWS keys a block: the same products transposed. Queries that there are not are zeros with zero
// gradients and statistics, and add nothing: no mask.
template <typename T, int D>
__device__ __forceinline__ void backward_keys(const T *q, const T *k, const T *v, const T *dy,
                                              const float *lse, const float *delta, T *dk, T *dv, int length,
                                              int heads, int d, float scale) {
    static_assert(STEP <= WARP, "a lane holds what belongs to a row");
    using Keys = Tile<T, ROWS, D>;
    using Queries = Tile<T, STEP, D>[HELD<D>];
    SHARED(key, Keys);
    SHARED(value, Keys);
    SHARED(query, Queries);
    SHARED(gradient, Queries);
    const Head head(length, heads, d);
    const int first = int(blockIdx.x) * ROWS, lane = int(threadIdx.x) % WARP;
    const float c = scale * LOG2_E;
    fill(key, k, head, first, length, d); // arrives with the first tiles
    fill(value, v, head, first, length, d);
    float sum_k[D / 8][4], sum_v[D / 8][4];
    clear(sum_k);
    clear(sum_v);
    float s[STEP / 8][4], dp[STEP / 8][4], row_lse, row_delta;
    const auto ask = [&](int from) { // before the products, needed behind them: once a row and warp
        const bool inside = lane < STEP && from + lane < length;
        const size_t at = head.statistic(from + lane);
        row_lse = inside ? lse[at] * LOG2_E : 0.0f;
        row_delta = inside ? delta[at] : 0.0f;
    };
    const auto of_queries = [&](int stage) { scores(s, key, warp_row(), query[stage]); };
    const auto of_gradients = [&](int stage) { scores(dp, value, warp_row(), gradient[stage]); };
    const auto of_both = [&] {
#pragma unroll
        for (int j = 0; j < STEP / 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const float column_lse = __shfl_sync(FULL_MASK, row_lse, column_of(j) + e);
                const float column_delta = __shfl_sync(FULL_MASK, row_delta, column_of(j) + e);
#pragma unroll
                for (int half = 0; half < 4; half += 2)
                    backward_scores(s[j][half + e], dp[j][half + e], column_lse, column_delta, c);
            }
    };
    if constexpr (HELD<D> > 1) {
        int next = 0, from = 0;
        const auto load = [&](int stage) {
            fill(query[stage], q, head, next, length, d);
            fill(gradient[stage], dy, head, next, length, d);
            next += STEP;
        };
        pipeline<HELD<D>>((length + STEP - 1) / STEP, load, [&](int stage) {
            ask(from);
            of_queries(stage);
            of_gradients(stage);
            of_both();
            add_weighted(sum_v, s, gradient[stage]);
            add_weighted(sum_k, dp, query[stage]);
            from += STEP;
        });
    } else {
        if (ASYNCHRONOUS) fill(gradient[0], dy, head, 0, length, d);
        for (int from = 0; from < length; from += STEP) {
            arrived(); // the gradients; the queries before have been read
            fill(query[0], q, head, from, length, d);
            if constexpr (!ASYNCHRONOUS) {
                fill(gradient[0], dy, head, from, length, d);
                arrived();
            }
            ask(from);
            of_gradients(0);
            if constexpr (ASYNCHRONOUS) arrived(); // the queries
            of_queries(0);
            of_both();
            add_weighted(sum_v, s, gradient[0]);
            if constexpr (ASYNCHRONOUS) {
                __syncthreads(); // the gradients have been read
                if (from + STEP < length) fill(gradient[0], dy, head, from + STEP, length, d);
            }
            add_weighted(sum_k, dp, query[0]);
        }
    }
    const float one[2] = {1.0f, 1.0f}, factor[2] = {scale, scale};
    write(dk, head, first, length, d, sum_k, factor);
    write(dv, head, first, length, d, sum_v, one);
}

// ---------------------------------------------------------------- any width, any type

// A warp works for one row (`own`); the block shares a tile of LINES rows with one float of padding each. Where
// rows are so wide that a tile has 16, two lanes share one, and each takes every second channel of it.
template <int D> struct Strip {
    static constexpr int LINES = D <= 256 ? 32 : 16, PARTS = WARP / LINES, MOST_PER_LANE = D / WARP;
    using Sums = float[MOST_PER_LANE];
    float *tile, *own[2];
    int d, length, lane, line, part, row;

    __device__ Strip(float *memory, int d, int length) : tile(memory), d(d), length(length) {
        const int warp = int(threadIdx.x) / WARP, warps = int(blockDim.x) / WARP;
        own[0] = memory + LINES * (d + 1) + warp * 2 * d;
        own[1] = own[0] + d;
        lane = int(threadIdx.x) % WARP;
        line = lane % LINES;
        part = lane / LINES;
        row = int(blockIdx.x) * warps + warp;
    }
    template <typename T> __device__ void load_own(int which, const T *x, const Head &head) {
        for (int c = lane; c < d; c += WARP)
            own[which][c] = row < length ? load(x + head.row(row) + c) : 0.0f;
    }
    template <typename T> __device__ void load_tile(const T *x, const Head &head, int first) {
        __syncthreads(); // the previous tile has been read
        for (int i = int(threadIdx.x); i < LINES * d; i += int(blockDim.x)) {
            const int at = i / d, c = i - at * d;
            tile[at * (d + 1) + c] = first + at < length ? load(x + head.row(first + at) + c) : 0.0f;
        }
        __syncthreads();
    }
    // The product of the own row with this lane's row of the tile, in every lane that has it.
    __device__ float dot(int which) const {
        float sum = 0.0f;
        for (int c = part; c < d; c += PARTS) sum += own[which][c] * tile[line * (d + 1) + c];
        if (PARTS == 2) sum += __shfl_xor_sync(FULL_MASK, sum, LINES);
        return sum;
    }
    // sum += the rows of the tile, row j times the weight of lane j.
    __device__ void add_weighted(Sums &sum, float weight) const {
#pragma unroll 1
        for (int j = 0; j < LINES; ++j) {
            const float w = __shfl_sync(FULL_MASK, weight, j);
#pragma unroll
            for (int i = 0; i < MOST_PER_LANE; ++i)
                if (lane + i * WARP < d) sum[i] += w * tile[j * (d + 1) + lane + i * WARP];
        }
    }
    template <typename T>
    __device__ void write(T *to, const Head &head, const Sums &sum, float factor) {
#pragma unroll
        for (int i = 0; i < MOST_PER_LANE; ++i)
            if (row < length && lane + i * WARP < d)
                store(to + head.row(row) + lane + i * WARP, sum[i] * factor);
    }
};

template <typename T, int D> __device__ void forward_any(const T *q, const T *k, const T *v, T *y,
                                                                   float *lse, int length, int heads, int d,
                                                                   float scale) {
    DYNAMIC_SHARED(float, memory);
    const Head head(length, heads, d);
    Strip<D> strip(memory, d, length);
    strip.load_own(0, q, head);
    typename Strip<D>::Sums sum = {};
    const float c = scale * LOG2_E;
    float most = LOWEST, total = 0.0f;
    for (int from = 0; from < length; from += Strip<D>::LINES) {
        strip.load_tile(k, head, from);
        const float dot = strip.dot(0); // by all lanes: they share rows
        const float score = from + strip.line < length ? dot : LOWEST, now = fmaxf(most, warp_max(score));
        const float shift = now * c, shrink = exp2_approx(most * c - shift), p = exp2_approx(score * c - shift);
        most = now;
        total = total * shrink + warp_sum(strip.part == 0 ? p : 0.0f);
#pragma unroll
        for (float &s : sum) s *= shrink;
        strip.load_tile(v, head, from);
        strip.add_weighted(sum, p);
    }
    if (strip.lane == 0 && strip.row < length) lse[head.statistic(strip.row)] = most * scale + __logf(total);
    strip.write(y, head, sum, 1.0f / total);
}

template <typename T, int D> __device__ void queries_any(const T *q, const T *k, const T *v,
                                                                   const T *dy, const float *lse,
                                                                   const float *delta, T *dq, int length,
                                                                   int heads, int d, float scale) {
    DYNAMIC_SHARED(float, memory);
    const Head head(length, heads, d);
    Strip<D> strip(memory, d, length);
    strip.load_own(0, q, head);
    strip.load_own(1, dy, head);
    const size_t at = head.statistic(min(strip.row, length - 1));
    const float row_lse = lse[at] * LOG2_E, row_delta = delta[at], c = scale * LOG2_E;
    typename Strip<D>::Sums sum = {};
    for (int from = 0; from < length; from += Strip<D>::LINES) {
        strip.load_tile(v, head, from);
        float dp = strip.dot(1);
        strip.load_tile(k, head, from);
        const float dot = strip.dot(0);
        float s = from + strip.line < length ? dot : LOWEST;
        backward_scores(s, dp, row_lse, row_delta, c);
        strip.add_weighted(sum, dp);
    }
    strip.write(dq, head, sum, scale);
}

template <typename T, int D> __device__ void keys_any(const T *q, const T *k, const T *v,
                                                                const T *dy, const float *lse,
                                                                const float *delta, T *dk, T *dv, int length,
                                                                int heads, int d, float scale) {
    DYNAMIC_SHARED(float, memory);
    const Head head(length, heads, d);
    Strip<D> strip(memory, d, length);
    strip.load_own(0, k, head);
    strip.load_own(1, v, head);
    typename Strip<D>::Sums sum_k = {}, sum_v = {};
    const float c = scale * LOG2_E;
    for (int from = 0; from < length; from += Strip<D>::LINES) {
        const bool inside = from + strip.line < length; // zeros beyond, which add nothing
        const size_t at = head.statistic(from + strip.line);
        const float row_lse = inside ? lse[at] * LOG2_E : 0.0f, row_delta = inside ? delta[at] : 0.0f;
        strip.load_tile(q, head, from);
        float s = strip.dot(0);
        strip.load_tile(dy, head, from);
        float dp = strip.dot(1);
        backward_scores(s, dp, row_lse, row_delta, c);
        strip.add_weighted(sum_v, s);
        strip.load_tile(q, head, from);
        strip.add_weighted(sum_k, dp);
    }
    strip.write(dk, head, sum_k, scale);
    strip.write(dv, head, sum_v, 1.0f);
}

// delta[row] = sum of y dy over the d elements of a row of one head. A warp a row.
template <typename T>
__device__ void attention_delta_kernel(const T *y, const T *dy, float *delta, int rows, int d) {
    const int row = int(element() / WARP), lane = int(threadIdx.x) % WARP;
    float sum = 0.0f;
    for (int c = lane; c < d && row < rows; c += WARP) {
        const size_t at = size_t(row) * d + c;
        sum += load(y + at) * load(dy + at);
    }
    sum = warp_sum(sum);
    if (lane == 0 && row < rows) delta[row] = sum;
}

#define ATTENTION(name, body, D, parameters, arguments) \
    template <typename T> __device__ void name##_kernel parameters { body<T, D> arguments; }
#define ATTENTION_IN_TILES(name, body, D, parameters, arguments) \
    template <typename T> __device__ void name##_kernel parameters { \
        if constexpr (sizeof(T) == 4) exact::body<D> arguments; \
        else body<T, D> arguments; \
    }
ATTENTION_IN_TILES(attention_forward_64, forward, 64, FORWARD_PARAMETERS, FORWARD_ARGUMENTS)
ATTENTION_IN_TILES(attention_forward_128, forward, 128, FORWARD_PARAMETERS, FORWARD_ARGUMENTS)
ATTENTION_IN_TILES(attention_queries_64, backward_queries, 64, QUERIES_PARAMETERS, QUERIES_ARGUMENTS)
ATTENTION_IN_TILES(attention_queries_128, backward_queries, 128, QUERIES_PARAMETERS, QUERIES_ARGUMENTS)
ATTENTION_IN_TILES(attention_keys_64, backward_keys, 64, KEYS_PARAMETERS, KEYS_ARGUMENTS)
ATTENTION_IN_TILES(attention_keys_128, backward_keys, 128, KEYS_PARAMETERS, KEYS_ARGUMENTS)
ATTENTION(attention_forward_any, forward_any, 256, FORWARD_PARAMETERS, FORWARD_ARGUMENTS)
ATTENTION(attention_forward_wide, forward_any, 512, FORWARD_PARAMETERS, FORWARD_ARGUMENTS)
ATTENTION(attention_queries_any, queries_any, 256, QUERIES_PARAMETERS, QUERIES_ARGUMENTS)
ATTENTION(attention_queries_wide, queries_any, 512, QUERIES_PARAMETERS, QUERIES_ARGUMENTS)
ATTENTION(attention_keys_any, keys_any, 256, KEYS_PARAMETERS, KEYS_ARGUMENTS)
ATTENTION(attention_keys_wide, keys_any, 512, KEYS_PARAMETERS, KEYS_ARGUMENTS)
} // namespace

// Blocks for 64 channels that fit a multiprocessor: Turing has shared memory for two, and then more registers.
#define QUERIES_PER_SM (ASYNCHRONOUS ? 4 : 2)
#define EXPORT_TILES(f32_blocks, blocks, name, parameters, arguments) \
    EXPORT_BLOCKS(f32, float, 128, f32_blocks, name, parameters, arguments) \
    EXPORT_16BIT(128, blocks, name, parameters, arguments)
EXPORT_TILES(3, 3, attention_forward_64, FORWARD_PARAMETERS, FORWARD_ARGUMENTS)
EXPORT_TILES(2, 3, attention_forward_128, FORWARD_PARAMETERS, FORWARD_ARGUMENTS)
EXPORT_TILES(3, QUERIES_PER_SM, attention_queries_64, QUERIES_PARAMETERS, QUERIES_ARGUMENTS)
EXPORT_TILES(2, 3, attention_queries_128, QUERIES_PARAMETERS, QUERIES_ARGUMENTS)
EXPORT_TILES(2, 3, attention_keys_64, KEYS_PARAMETERS, KEYS_ARGUMENTS)
EXPORT_TILES(2, 2, attention_keys_128, KEYS_PARAMETERS, KEYS_ARGUMENTS)
FOR_DTYPES(attention_forward_any, FORWARD_PARAMETERS, FORWARD_ARGUMENTS)
FOR_DTYPES(attention_queries_any, QUERIES_PARAMETERS, QUERIES_ARGUMENTS)
FOR_DTYPES(attention_keys_any, KEYS_PARAMETERS, KEYS_ARGUMENTS)
FOR_DTYPES_WITH_LIMIT(128, attention_forward_wide, FORWARD_PARAMETERS, FORWARD_ARGUMENTS)
FOR_DTYPES_WITH_LIMIT(128, attention_queries_wide, QUERIES_PARAMETERS, QUERIES_ARGUMENTS)
FOR_DTYPES_WITH_LIMIT(128, attention_keys_wide, KEYS_PARAMETERS, KEYS_ARGUMENTS)
FOR_DTYPES(attention_delta, (const T *y, const T *dy, float *delta, int rows, int d), (y, dy, delta, rows, d))
