// What hopper.cuh calls of the emulation; hopper.cpp has it. Included by cuda_emulation.h.
#pragma once

namespace emulation {
// What a launch is given for a TensorMap: the tensor and the box in plain numbers, which the driver of a GPU packs.
// src/lib.rs has the same. Dimensions are counted from the innermost.
struct PlainMap {
    uint64_t address;
    uint8_t rank, element_bytes, swizzle, im2col; // swizzle: bytes / 32 of a span, 0 for none: 0, 1, 2 or 4
    int8_t lower[2], upper[2];                    // im2col: the corners of the box of pixels, w before h
    uint32_t sizes[4];
    uint64_t strides[3];   // bytes from one to the next of dimensions 1, 2 and 3
    uint32_t box[4];       // im2col: channels, pixels
    uint32_t traversal[4]; // the steps of the box
    uint8_t unused[40];
};
static_assert(sizeof(PlainMap) == 128, "as a TensorMap");

void mbarrier_init(void *barrier, unsigned arrivals, const char *file, int line);
void mbarrier_arrive(void *barrier, unsigned bytes, const char *file, int line);
void mbarrier_wait(void *barrier, unsigned parity, const char *file, int line);
void fence_mbarrier_init();
void fence_proxy_async();
void named_barrier(unsigned number, unsigned threads, const char *file, int line);
void tma_load(void *shared, const void *map, void *barrier, const int *place, unsigned rank, const int *taps, const char *file,
              int line);
uint32_t shared_address(const void *shared);
void wgmma(float *sums, unsigned columns, uint64_t a, uint64_t b, bool bf16, const char *file, int line);
void wgmma_fence(const char *file, int line);
void wgmma_commit(const char *file, int line);
void wgmma_wait(unsigned newest_left_pending, const char *file, int line);
} // namespace emulation
