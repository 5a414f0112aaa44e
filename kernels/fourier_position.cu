// Sines and cosines of the place of a pixel. Formulas and host side: src/ops/fourier_position.rs.
// One thread a pixel and frequency; bound by stores. Angles are reduced to one turn as integers.
#include "common.cuh"

namespace {
constexpr int FREQUENCIES = 6;

// Sine and cosine of 2^k pi at / last.
__device__ void wave(int at, int last, int k, float &sine, float &cosine) {
    const unsigned long long turns = static_cast<unsigned long long>(at) << k;
    const int part = int(turns % (2ull * static_cast<unsigned>(last))); // of 2 last, which is one turn
    const float angle = 3.14159265f * (float(part <= last ? part : part - 2 * last) / float(last));
    sine = sinf(angle);
    cosine = cosf(angle);
}

// y: [height, width, 24]; last_row and last_column: of the image
template <typename T>
__device__ void fourier_position_kernel(T *y, int top, int left, int height, int width, int last_row,
                                        int last_column) {
    const size_t at = element();
    if (at >= size_t(height) * width * FREQUENCIES) return;
    const int k = int(at % FREQUENCIES);
    const size_t pixel = at / FREQUENCIES;
    float u[2], v[2];
    wave(left + int(pixel % width), last_column, k, u[0], u[1]);
    wave(top + int(pixel / width), last_row, k, v[0], v[1]);
    store(y + 4 * at, u[0]);
    store(y + 4 * at + 1, v[0]);
    store(y + 4 * at + 2, u[1]);
    store(y + 4 * at + 3, v[1]);
}
} // namespace

FOR_DTYPES(fourier_position, (T *y, int top, int left, int height, int width, int last_row, int last_column),
           (y, top, left, height, width, last_row, last_column))
