// Attention in exact f32, for heads of whole packs (d a multiple of 4 up to 128).
//
// A block takes TILE queries (in backward_keys: keys) of one head and walks over the keys (queries) in tiles as long. Each
// product is a block of 64 x 64, as in conv2d: a step has 16 terms of it, whose factors come through shared memory while
// the two steps before are computed; 12 loads of 16 bytes serve 128 multiply-adds of a thread. Scores and their gradients
// lie in shared memory as the factor of the next product.
#pragma once
#include "attention.cuh"

namespace exact {
constexpr int TILE = 64, THREADS_EACH = 128, DEPTH = 16, STAGES = 3, PARTS = TILE / DEPTH;
using Rows = Tile<float, TILE, DEPTH>; // some channels of all rows
template <int D> using Band = Tile<float, DEPTH, TILE>[D / TILE]; // all channels of some rows
using Scores = Product<float, TILE, TILE, false, false>;
using Output = Product<float, TILE, TILE, false, true>;
static_assert(Scores::THREADS == THREADS_EACH && Scores::DEPTH == DEPTH && Output::DEPTH == DEPTH, "one block for all");

// The operands of a step: two parts of rows, or a band.
template <int D> union Stage {
    struct {
        Rows own, other;
    } rows;
    Band<D> band;
};
template <int D> using Ring = Stage<D>[STAGES];
using Weights = Rows[PARTS]; // TILE x TILE, what follows from the scores
using Row = float[TILE];

// Channels `channel` and on of rows `first` and on, zeros beyond the last row and beyond d.
template <int N, int WIDTH>
__device__ __forceinline__ void fill(Tile<float, N, WIDTH> &tile, const float *x, const Head &head, int first, int channel,
                                     int length, int d) {
    constexpr int PACKS = WIDTH / 4, DOWN = THREADS_EACH / PACKS;
    const int row = int(threadIdx.x / PACKS), column = int(threadIdx.x % PACKS) * 4;
#pragma unroll
    for (int i = 0; i < N; i += DOWN) {
        const bool inside = channel + column < d && first + row + i < length;
        copy_in<true>(tile.at(row + i, column), x + head.row(first + row + i) + channel + column, inside);
    }
}
template <int D>
__device__ __forceinline__ void fill_rows(Stage<D> &stage, const float *own, const float *other, const Head &head, int first,
                                          int from, int part, int length, int d) {
    fill(stage.rows.own, own, head, first, part * DEPTH, length, d);
    fill(stage.rows.other, other, head, from, part * DEPTH, length, d);
}
template <int D>
__device__ __forceinline__ void fill_band(Stage<D> &stage, const float *x, const Head &head, int from, int part, int length,
                                          int d) {
#pragma unroll
    for (int block = 0; block < D / TILE; ++block)
        fill(stage.band[block], x, head, from + part * DEPTH, block * TILE, length, d);
}

__device__ __forceinline__ float &weight(Weights &weights, int row, int column) {
    return *weights[column / DEPTH].at(row, column % DEPTH);
}

template <int BLOCKS> __device__ __forceinline__ void clear(Output (&sum)[BLOCKS]) {
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block) sum[block].clear();
}

// sum += weights x, for the rows of x that the part has.
template <int BLOCKS, typename Band>
__device__ __forceinline__ void add_weighted(Output (&sum)[BLOCKS], Weights &weights, Band &band, int part) {
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block) sum[block].add(weights[part], band[block]);
}

template <int BLOCKS, typename Factor>
__device__ __forceinline__ void write(float *to, const Head &head, int first, int length, int d, Output (&sum)[BLOCKS],
                                      Factor factor) {
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block)
#pragma unroll
        for (int i = 0; i < Output::ROWS; ++i) {
            const int row = Output::row(i), column = block * TILE + Output::column(0);
            if (first + row >= length || column >= d) continue;
            Pack<float> pack;
            for (int e = 0; e < 4; ++e) pack.value[e] = sum[block].sum[i][e] * factor(row);
            store_pack(to + head.row(first + row) + column, pack);
        }
}

// y = softmax(scale q k^T) v, and per row the logarithm of the softmax's denominator.
template <int D>
__device__ __forceinline__ void forward(const float *q, const float *k, const float *v, float *y, float *lse, int length,
                                        int heads, int d, float scale) {
    SHARED(ring, Ring<D>);
    SHARED(weights, Weights);
    SHARED(factor, Row); // what each row's sums are multiplied by
    const Head head(length, heads, d);
    const int scores = (d + DEPTH - 1) / DEPTH; // steps of a product of rows
    const int first = int(blockIdx.x) * TILE, all = scores + PARTS;
    const float c = scale * LOG2_E;

    int next = 0, loaded = 0;
    const auto load = [&](int stage) {
        if (loaded < scores) fill_rows(ring[stage], q, k, head, first, next, loaded, length, d);
        else fill_band(ring[stage], v, head, next, loaded - scores, length, d);
        if (++loaded == all) loaded = 0, next += TILE;
    };
    // In the softmax two lanes of a warp share a row.
    const int lane = int(threadIdx.x) % WARP, half = lane / 16 * (PARTS / 2);
    const int own = int(threadIdx.x) / WARP * 16 + lane % 16;
    float most = LOWEST, total = 0.0f;
    const auto softmax = [&] {
        __syncthreads(); // all have written their scores
        Pack<float> packs[PARTS / 2 * 4];
        float now = most;
#pragma unroll
        for (int i = 0; i < PARTS / 2 * 4; ++i) {
            packs[i] = load_pack(weights[half + i / 4].pack(own, i % 4));
            for (int e = 0; e < 4; ++e) now = fmaxf(now, packs[i].value[e]);
        }
        now = fmaxf(now, __shfl_xor_sync(FULL_MASK, now, 16));
        const float shift = now * c, shrink = exp2_approx(most * c - shift);
        most = now;
        total *= shrink;
#pragma unroll
        for (int i = 0; i < PARTS / 2 * 4; ++i) {
            for (int e = 0; e < 4; ++e) total += packs[i].value[e] = exp2_approx(packs[i].value[e] * c - shift);
            store_pack(weights[half + i / 4].pack(own, i % 4), packs[i]);
        }
        if (half == 0) factor[own] = shrink;
    };

    Scores s;
    Output sum[D / TILE];
    clear(sum);
    int part = 0, left = length;
    pipeline<STAGES>((length + TILE - 1) / TILE * all, load, [&](int stage) {
        if (part == 0) s.clear();
        if (part < scores) {
            s.add(ring[stage].rows.own, ring[stage].rows.other);
        } else {
            if (part == scores) {
#pragma unroll
                for (int block = 0; block < D / TILE; ++block)
                    sum[block].each([&](int row, int, float *value) { *value *= factor[row]; });
            }
            add_weighted(sum, weights, ring[stage].band, part - scores);
        }
        if (++part == scores) {
            s.each([&](int row, int column, float *value) { weight(weights, row, column) = *value; });
            if (left < TILE) s.each([&](int row, int column, float *) { // keys that there are not have no probability
                if (column >= left) weight(weights, row, column) = LOWEST;
            });
            softmax();
        }
        if (part == all) part = 0, left -= TILE;
    });

    total += __shfl_xor_sync(FULL_MASK, total, 16);
    if (half == 0) { // barriers of the last steps lie behind the reading of the last tile's factors
        factor[own] = 1.0f / total;
        if (first + own < length) lse[head.statistic(first + own)] = most * scale + __logf(total);
    }
    __syncthreads();
    write(y, head, first, length, d, sum, [&](int row) { return factor[row]; });
}

// dq, for TILE queries a block.
template <int D>
__device__ __forceinline__ void backward_queries(const float *q, const float *k, const float *v, const float *dy,
                                                 const float *lse, const float *delta, float *dq, int length, int heads,
                                                 int d, float scale) {
    SHARED(ring, Ring<D>);
    SHARED(weights, Weights);
    SHARED(row_lse, Row);
    SHARED(row_delta, Row);
    const Head head(length, heads, d);
    const int scores = (d + DEPTH - 1) / DEPTH; // steps of a product of rows
    const int first = int(blockIdx.x) * TILE, products = 2 * scores, all = products + PARTS;
    const float c = scale * LOG2_E;
    for (int i = int(threadIdx.x); i < TILE; i += THREADS_EACH) { // the pipeline has barriers before these are read
        const size_t at = head.statistic(min(first + i, length - 1));
        row_lse[i] = lse[at] * LOG2_E;
        row_delta[i] = delta[at];
    }

    int next = 0, loaded = 0;
    const auto load = [&](int stage) {
        if (loaded < scores) fill_rows(ring[stage], q, k, head, first, next, loaded, length, d);
        else if (loaded < products) fill_rows(ring[stage], dy, v, head, first, next, loaded - scores, length, d);
        else fill_band(ring[stage], k, head, next, loaded - products, length, d);
        if (++loaded == all) loaded = 0, next += TILE;
    };
    Scores s; // of queries and keys, then of gradients and values
    Output sum[D / TILE];
    clear(sum);
    int part = 0, left = length;
    pipeline<STAGES>((length + TILE - 1) / TILE * all, load, [&](int stage) {
        if (part == 0 || part == scores) s.clear();
        if (part < products) s.add(ring[stage].rows.own, ring[stage].rows.other);
        else add_weighted(sum, weights, ring[stage].band, part - products);
        ++part;
        if (part == scores) {
            s.each([&](int row, int column, float *value) {
                weight(weights, row, column) = exp2_approx(*value * c - row_lse[row]);
            });
            if (left < TILE) s.each([&](int row, int column, float *) { // keys that there are not have no probability
                if (column >= left) weight(weights, row, column) = 0.0f;
            });
        }
        if (part == products)
            s.each([&](int row, int column, float *value) { weight(weights, row, column) *= *value - row_delta[row]; });
        if (part == all) part = 0, left -= TILE;
    });
    write(dq, head, first, length, d, sum, [&](int) { return scale; });
}

// dk and dv, for TILE keys a block: the same products transposed. Queries that there are not are zeros with zero
// gradients and statistics, and add nothing: no mask.
template <int D>
__device__ __forceinline__ void backward_keys(const float *q, const float *k, const float *v, const float *dy,
                                              const float *lse, const float *delta, float *dk, float *dv, int length,
                                              int heads, int d, float scale) {
    SHARED(ring, Ring<D>);
    SHARED(weights, Weights);
    SHARED(column_lse, Row);
    SHARED(column_delta, Row);
    const Head head(length, heads, d);
    const int scores = (d + DEPTH - 1) / DEPTH; // steps of a product of rows
    // Probabilities and what they weigh, then their gradients and what those weigh: one tile of weights is enough.
    const int first = int(blockIdx.x) * TILE, half = scores + PARTS, products = half + scores;
    const int all = 2 * half;
    const float c = scale * LOG2_E;

    int next = 0, loaded = 0;
    const auto load = [&](int stage) {
        // Those of the tile before were read in front of its last PARTS steps, and STAGES - 1 barriers follow.
        if (loaded == 0 && threadIdx.x < TILE) {
            const int row = next + int(threadIdx.x);
            column_lse[threadIdx.x] = row < length ? lse[head.statistic(row)] * LOG2_E : 0.0f;
            column_delta[threadIdx.x] = row < length ? delta[head.statistic(row)] : 0.0f;
        }
        if (loaded < scores) fill_rows(ring[stage], k, q, head, first, next, loaded, length, d);
        else if (loaded < half) fill_band(ring[stage], dy, head, next, loaded - scores, length, d);
        else if (loaded < products) fill_rows(ring[stage], v, dy, head, first, next, loaded - half, length, d);
        else fill_band(ring[stage], q, head, next, loaded - products, length, d);
        if (++loaded == all) loaded = 0, next += TILE;
    };
    Scores s; // of keys and queries, then of values and gradients
    Output sum_k[D / TILE], sum_v[D / TILE];
    clear(sum_k);
    clear(sum_v);
    int part = 0;
    pipeline<STAGES>((length + TILE - 1) / TILE * all, load, [&](int stage) {
        if (part == 0 || part == half) s.clear();
        if (part < scores || (part >= half && part < products)) s.add(ring[stage].rows.own, ring[stage].rows.other);
        else if (part < half) add_weighted(sum_v, weights, ring[stage].band, part - scores);
        else add_weighted(sum_k, weights, ring[stage].band, part - products);
        ++part;
        if (part == scores)
            s.each([&](int row, int column, float *value) {
                weight(weights, row, column) = exp2_approx(*value * c - column_lse[column]);
            });
        if (part == products)
            s.each([&](int row, int column, float *value) { weight(weights, row, column) *= *value - column_delta[column]; });
        if (part == all) part = 0;
    });
    write(dk, head, first, length, d, sum_k, [&](int) { return scale; });
    write(dv, head, first, length, d, sum_v, [](int) { return 1.0f; });
}
} // namespace exact
