// Sines and cosines of a time step. Formulas and host side: src/ops/time_embedding.rs.
// One thread an element. In double precision: an angle of 1000 as f32 is off by 3e-5, and there are few of them.
#include "common.cuh"

namespace {
enum { SIN_COS, COS_SIN, INTERLEAVED, SIN_COS_TO_END, RAW }; // as TimeEmbedding

// t: [count]; y: [count, dim]
template <typename T>
__device__ void time_embedding_kernel(const float *t, T *y, int count, int dim, int kind) {
    const size_t at = element();
    if (at >= size_t(count) * dim) return;
    const int i = int(at % dim), half = dim / 2;
    const double time = double(t[at / dim]);
    if (kind == RAW) {
        store(y + at, float(time));
        return;
    }
    const int k = kind == INTERLEAVED ? i / 2 : i % half, last = kind == SIN_COS_TO_END ? half - 1 : half;
    const bool first = kind == INTERLEAVED ? i % 2 == 0 : i < half, sine = first != (kind == COS_SIN);
    const double angle = time * pow(1e4, -double(k) / double(last));
    store(y + at, float(sine ? sin(angle) : cos(angle)));
}
} // namespace

FOR_DTYPES(time_embedding, (const float *t, T *y, int count, int dim, int kind), (t, y, count, dim, kind))
