// Products of tiles in shared memory, for convolution and attention.
//
// 16-bit types: tensor cores, ldmatrix feeding mma.m16n8k16. f32: FFMA, exact. Both keep at most 64
// accumulators a thread, which together with fragments and addresses stays under 128 registers.
#pragma once
#include "common.cuh"

// ROWS x COLUMNS elements in packs of 16 bytes. Packs are permuted within a row so that eight packs
// below each other, which is what ldmatrix reads, lie in different banks without padding.
template <typename T, int ROWS, int COLUMNS> struct __align__(16) Tile {
    static constexpr int PACK = Pack<T>::SIZE, PACKS = COLUMNS / PACK, WIDTH = COLUMNS;
    static_assert(PACKS >= 2 && (PACKS & (PACKS - 1)) == 0, "rows of a power of two of packs");
    T elements[ROWS * COLUMNS];

    __device__ __forceinline__ T *pack(int row, int pack) {
        const int turn = PACKS >= 8 ? row % 8 : row / (8 / PACKS) % PACKS;
        return elements + row * COLUMNS + (pack ^ turn) * PACK;
    }
    __device__ __forceinline__ T *at(int row, int column) { return pack(row, column / PACK) + column % PACK; }
    // What a thread fills of row i of its share. Rows that are a multiple of 8 apart are permuted alike.
    template <typename Share> __device__ __forceinline__ T *share(int i) {
        if constexpr (Share::DOWN % 8 == 0) return at(Share::row(0), Share::column()) + i * Share::DOWN * COLUMNS;
        else return at(Share::row(i), Share::column());
    }
};

// Copies a whole pack (asynchronously) or one element into shared memory; zero where it is not `inside`. Nothing is read
// then, wherever `from` points.
template <bool PACKED, typename T>
__device__ __forceinline__ void copy_in(T *shared, const T *from, bool inside) {
    if (PACKED) {
        cp_async_16(shared, from, inside ? 16 : 0);
    } else {
        store(shared, inside ? load(from) : 0.0f);
    }
}

// Fragments of mma.m16n8k16 at (row or column, depth) of a tile that is [row][depth], or [depth][row]: the `i`th of those
// below each other, 16 rows apart, which are permuted alike: one address serves all.
template <typename Tile>
__device__ __forceinline__ void load_a(uint32_t (&r)[4], Tile &tile, int row, int depth, int i = 0) {
    const int lane = threadIdx.x % WARP;
    ldmatrix_x4(r, tile.pack(row + lane % 16, depth / 8 + lane / 16) + i * 16 * Tile::WIDTH);
}
template <typename Tile>
__device__ __forceinline__ void load_a_transposed(uint32_t (&r)[4], Tile &tile, int row, int depth) {
    const int lane = threadIdx.x % WARP;
    ldmatrix_x4_transposed(r, tile.pack(depth + lane / 16 * 8 + lane % 8, row / 8 + lane / 8 % 2));
}
// Two fragments of b: columns 0-7 in r[0] and r[1], columns 8-15 in r[2] and r[3].
template <typename Tile>
__device__ __forceinline__ void load_b(uint32_t (&r)[4], Tile &tile, int column, int depth, int i = 0) {
    const int lane = threadIdx.x % WARP;
    ldmatrix_x4(r, tile.pack(column + lane / 16 * 8 + lane % 8, depth / 8 + lane / 8 % 2) + i * 16 * Tile::WIDTH);
}
template <typename Tile>
__device__ __forceinline__ void load_b_transposed(uint32_t (&r)[4], Tile &tile, int column, int depth, int i = 0) {
    const int lane = threadIdx.x % WARP;
    ldmatrix_x4_transposed(r, tile.pack(depth + lane % 16, column / 8 + lane / 16) + i * 16 * Tile::WIDTH);
}

// How a block of M x N is divided among warps. Warps of 64 x 64 read 128 bytes of shared memory an mma, those of
// 64 x 32 read 192, those of 32 x 32 read 256, which is where the tensor cores of sm_80 begin to wait.
template <typename T, int M, int N, int WARPS = 4> struct Blocking {
    static constexpr int OF_WARP = M * N / WARPS;
    static constexpr int WARP_M = OF_WARP >= 64 * 32 && sizeof(T) == 2 ? 64 : 32;
    static constexpr int WARP_N = OF_WARP >= 64 * 64 && sizeof(T) == 2 ? 64 : 32;
    static constexpr int THREADS = M / WARP_M * (N / WARP_N) * WARP;
    static constexpr int DEPTH = 4 * Pack<T>::SIZE; // rows of 64 bytes
    __device__ static int warp_row() { return int(threadIdx.x) / WARP % (M / WARP_M) * WARP_M; }
    __device__ static int warp_column() { return int(threadIdx.x) / WARP / (M / WARP_M) * WARP_N; }
};

// The sums of a block: M x N = [M][DEPTH] * [N][DEPTH]^T. Where a factor is transposed its tile is [DEPTH][M], or
// [DEPTH][N].
template <typename T, int M, int N, bool TRANSPOSED_A, bool TRANSPOSED_B, int WARPS = 4>
struct Product : Blocking<T, M, N, WARPS> {
    using Base = Blocking<T, M, N, WARPS>;
    static constexpr int ROW_TILES = Base::WARP_M / 16, COLUMN_TILES = Base::WARP_N / 8;
    static constexpr int RUN = 2; // neighbouring columns that a thread holds
    float sum[ROW_TILES][COLUMN_TILES][4];

    __device__ __forceinline__ void clear() {
        for (auto &row : sum)
            for (auto &tile : row)
                for (float &v : tile) v = 0.0f;
    }
    template <typename TileA, typename TileB> __device__ __forceinline__ void add(TileA &a, TileB &b) {
        const int row = Base::warp_row(), column = Base::warp_column();
#pragma unroll
        for (int k = 0; k < Base::DEPTH; k += 16) {
            uint32_t fa[ROW_TILES][4], fb[COLUMN_TILES / 2][4];
#pragma unroll
            for (int i = 0; i < ROW_TILES; ++i) {
                if (TRANSPOSED_A) load_a_transposed(fa[i], a, row + i * 16, k);
                else load_a(fa[i], a, row, k, i);
            }
#pragma unroll
            for (int j = 0; j < COLUMN_TILES / 2; ++j) {
                if (TRANSPOSED_B) load_b_transposed(fb[j], b, column + j * 16, k);
                else load_b(fb[j], b, column, k, j);
            }
#pragma unroll
            for (int i = 0; i < ROW_TILES; ++i)
#pragma unroll
                for (int j = 0; j < COLUMN_TILES; ++j)
                    mma_m16n8k16<T>(sum[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
        }
    }
    // f(row, column, the sums of RUN columns from there on), for all that this thread holds.
    template <typename F> __device__ __forceinline__ void each(F f) {
        const int lane = threadIdx.x % WARP;
        const int row = Base::warp_row() + lane / 4, column = Base::warp_column() + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < ROW_TILES; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half)
#pragma unroll
                for (int j = 0; j < COLUMN_TILES; ++j)
                    f(row + i * 16 + half * 8, column + j * 8, &sum[i][j][half * 2]);
    }
};

// The same in exact f32. Lanes stand 4 x 8; a thread's rows and columns are spread so that the packs
// that a warp reads at a time are neighbours.
template <int M, int N, bool TRANSPOSED_A, bool TRANSPOSED_B>
struct Product<float, M, N, TRANSPOSED_A, TRANSPOSED_B> : Blocking<float, M, N> {
    using Base = Blocking<float, M, N>;
    static constexpr int ROWS = Base::WARP_M / 4, COLUMNS = Base::WARP_N / 8;
    static constexpr int RUN = 1;
    float sum[ROWS][COLUMNS];

    __device__ __forceinline__ static int row(int i) {
        const int lane = threadIdx.x % WARP / 8;
        return Base::warp_row() + (TRANSPOSED_A ? i / 4 * 16 + lane * 4 + i % 4 : i * 4 + lane);
    }
    __device__ __forceinline__ static int column(int j) {
        const int lane = threadIdx.x % 8;
        return Base::warp_column() + (TRANSPOSED_B ? j / 4 * 32 + lane * 4 + j % 4 : j * 8 + lane);
    }
    // Packs of rows that are a multiple of 8 apart are permuted alike: one address serves all of them.
    template <typename TileA> __device__ __forceinline__ static float *pack_a(TileA &a, int i, int pack) {
        return a.pack(row(i % 2), pack) + i / 2 * 8 * TileA::WIDTH;
    }
    template <typename TileB> __device__ __forceinline__ static float *pack_b(TileB &b, int j, int pack) {
        return b.pack(column(0), pack) + j * 8 * TileB::WIDTH;
    }
    __device__ __forceinline__ void clear() {
        for (auto &row : sum)
            for (float &v : row) v = 0.0f;
    }
    __device__ __forceinline__ void add_outer(const float (&a)[ROWS], const float (&b)[COLUMNS]) {
#pragma unroll
        for (int i = 0; i < ROWS; ++i)
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) sum[i][j] += a[i] * b[j];
    }
    // [DEPTH][M] and [DEPTH][N]: a pack is four rows at one depth.
    template <typename TileA, typename TileB>
    __device__ __forceinline__ void add_transposed(TileA &a, TileB &b) {
#pragma unroll 4
        for (int k = 0; k < Base::DEPTH; ++k) {
            float ra[ROWS], rb[COLUMNS];
#pragma unroll
            for (int i = 0; i < ROWS; i += 4) {
                const Pack<float> p = load_pack(a.pack(k, row(i) / 4));
                for (int e = 0; e < 4; ++e) ra[i + e] = p.value[e];
            }
#pragma unroll
            for (int j = 0; j < COLUMNS; j += 4) {
                const Pack<float> p = load_pack(b.pack(k, column(j) / 4));
                for (int e = 0; e < 4; ++e) rb[j + e] = p.value[e];
            }
            add_outer(ra, rb);
        }
    }
    // [M][DEPTH] and [N][DEPTH]: a pack is one row at four depths.
    template <typename TileA, typename TileB> __device__ __forceinline__ void add_direct(TileA &a, TileB &b) {
#pragma unroll 1
        for (int pack = 0; pack < Base::DEPTH / 4; ++pack) {
            Pack<float> pa[ROWS], pb[COLUMNS];
#pragma unroll
            for (int i = 0; i < ROWS; ++i) pa[i] = load_pack(pack_a(a, i, pack));
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) pb[j] = load_pack(pack_b(b, j, pack));
#pragma unroll
            for (int e = 0; e < 4; ++e)
#pragma unroll
                for (int i = 0; i < ROWS; ++i)
#pragma unroll
                    for (int j = 0; j < COLUMNS; ++j) sum[i][j] += pa[i].value[e] * pb[j].value[e];
        }
    }
    template <typename TileA, typename TileB> __device__ __forceinline__ void add(TileA &a, TileB &b) {
        static_assert(TRANSPOSED_B || !TRANSPOSED_A, "nothing asks for that");
        if constexpr (TRANSPOSED_A) add_transposed(a, b);
        else if constexpr (TRANSPOSED_B) add_mixed(a, b);
        else add_direct(a, b);
    }
    // [M][DEPTH] and [DEPTH][N].
    template <typename TileA, typename TileB> __device__ __forceinline__ void add_mixed(TileA &a, TileB &b) {
#pragma unroll 1
        for (int pack = 0; pack < Base::DEPTH / 4; ++pack) {
            Pack<float> pa[ROWS];
#pragma unroll
            for (int i = 0; i < ROWS; ++i) pa[i] = load_pack(pack_a(a, i, pack));
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                float ra[ROWS], rb[COLUMNS];
#pragma unroll
                for (int i = 0; i < ROWS; ++i) ra[i] = pa[i].value[e];
#pragma unroll
                for (int j = 0; j < COLUMNS; j += 4) {
                    const Pack<float> p = load_pack(b.pack(pack * 4 + e, column(j) / 4));
                    for (int i = 0; i < 4; ++i) rb[j + i] = p.value[i];
                }
                add_outer(ra, rb);
            }
        }
    }
    template <typename F> __device__ __forceinline__ void each(F f) {
#pragma unroll
        for (int i = 0; i < ROWS; ++i)
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) f(row(i), column(j), &sum[i][j]);
    }
};

// Runs `multiply(stage)` for each of `steps` steps while the next STAGES - 1 steps are on their way
// into the other stages. `fill(stage)` is called once a step, in order. ALONE: each warp has stages of its own.
template <int STAGES, bool ALONE = false, typename Fill, typename Multiply>
__device__ __forceinline__ void pipeline(int steps, Fill fill, Multiply multiply) {
    int stage = 0, free = 0;
    for (int step = 1 - STAGES; step < steps; ++step) {
        if (step >= 0) {
            cp_async_wait<STAGES - 2>();
            // The stage has arrived for all, and `free` has been read by all.
            if constexpr (ALONE) __syncwarp();
            else __syncthreads();
        }
        if (step + STAGES - 1 < steps) fill(free);
        cp_async_commit();
        free = free + 1 == STAGES ? 0 : free + 1;
        if (step >= 0) {
            multiply(stage);
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
    }
}

// As EXPORT_KERNEL, for kernels of which `blocks` are to share a multiprocessor.
#define EXPORT_BLOCKS(suffix, type, threads, blocks, name, parameters, arguments) \
    namespace in_##suffix { \
        using T = type; \
        KERNEL __launch_bounds__(threads, blocks) name##_##suffix parameters { name##_kernel<T> arguments; } \
        REGISTER_KERNEL(name##_##suffix, threads); \
    }
#define EXPORT_16BIT(threads, blocks, name, parameters, arguments) \
    EXPORT_BLOCKS(f16, __half, threads, blocks, name, parameters, arguments) \
    EXPORT_BLOCKS(bf16, __nv_bfloat16, threads, blocks, name, parameters, arguments)
#define EXPORT_ALL(threads, blocks, name, parameters, arguments) \
    EXPORT_BLOCKS(f32, float, threads, blocks, name, parameters, arguments) \
    EXPORT_16BIT(threads, blocks, name, parameters, arguments)
