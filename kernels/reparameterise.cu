// Draws from normal distributions. Formulas and host side: src/ops/reparameterise.rs. An element a thread:
// latent codes are small.
#include "common.cuh"

namespace {
// m, s, noise, z: [n]
template <typename T>
__device__ void reparameterise_forward_kernel(const T *m, const T *s, const T *noise, T *z, int n) {
    const size_t i = element();
    if (i < size_t(n)) store(z + i, load(m + i) + expf(0.5f * load(s + i)) * load(noise + i));
}

// s, noise, dz, ds: [n]
template <typename T>
__device__ void reparameterise_backward_kernel(const T *s, const T *noise, const T *dz, T *ds, int n) {
    const size_t i = element();
    if (i < size_t(n)) store(ds + i, 0.5f * load(dz + i) * load(noise + i) * expf(0.5f * load(s + i)));
}
} // namespace

FOR_DTYPES(reparameterise_forward, (const T *m, const T *s, const T *noise, T *z, int n), (m, s, noise, z, n))
FOR_DTYPES(reparameterise_backward, (const T *s, const T *noise, const T *dz, T *ds, int n), (s, noise, dz, ds, n))
