// Sums over the rows of a matrix, column by column, always added up in the same order: rows go to the
// threads of a block by their number, blocks take fixed ranges of rows, and `finish_column` adds what the
// blocks found.
#pragma once
#include "elementwise.cuh"

constexpr int COLUMN_CHUNKS = 32; // chunks of columns that a block takes at most

// K sums for each of up to COLUMN_CHUNKS chunks of the c columns, over rows first..last.
// add(chunk, i, column, sums) adds the chunk of elements at i = row c + column to sums[K][Chunk::SIZE];
// done(k, column, sum) receives the results. `scratch` holds K Chunk::SIZE floats a thread.
template <int K, typename Chunk, typename Add, typename Done>
__device__ __forceinline__ void sum_chunks(int first, int last, int c, float *scratch, Add add, Done done) {
    constexpr int V = Chunk::SIZE;
    int width = 1; // threads side by side
    while (width < c / V && width < COLUMN_CHUNKS) width *= 2;
    const int left = blockIdx.x * width * V, column = left + int(threadIdx.x) % width * V;
    const int height = int(blockDim.x) / width, mine = int(threadIdx.x) / width;
    float sums[K][V] = {};
    if (column < c) {
        for (int row = first + mine; row < last; row += height) {
            add(Chunk(), size_t(row) * c + column, column, sums);
        }
    }
#pragma unroll
    for (int k = 0; k < K; ++k) {
#pragma unroll
        for (int v = 0; v < V; ++v) scratch[(mine * K + k) * width * V + column - left + v] = sums[k][v];
    }
    __syncthreads();
    for (int t = threadIdx.x; t < K * width * V; t += blockDim.x) {
        const int at = left + t % (width * V);
        float sum = 0.0f;
        for (int row = 0; row < height; ++row) sum += scratch[row * K * width * V + t];
        if (at < c) done(t / (width * V), at, sum);
    }
}

// sum_chunks with packs where they fill the rows; the launch has a block for every COLUMN_CHUNKS chunks in x.
template <int K, typename T, typename Add, typename Done>
__device__ __forceinline__ void sum_columns(int first, int last, int c, Add add, Done done) {
    static_assert(K <= 2, "sized for two sums of the widest packs");
    SHARED(scratch, float[2 * 8 * THREADS]);
    if (in_packs<T>(c)) {
        sum_chunks<K, Pack<T>>(first, last, c, scratch, add, done);
    } else {
        sum_chunks<K, Single<T>>(first, last, c, scratch, add, done);
    }
}

// The sum over `splits` blocks of one column, whose partial sums lie `stride` apart.
__device__ __forceinline__ float finish_column(const float *partial, int splits, int stride) {
    float sum = 0.0f;
    for (int s = 0; s < splits; ++s) sum += partial[size_t(s) * stride];
    return sum;
}
