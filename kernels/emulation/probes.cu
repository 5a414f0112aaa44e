// Kernels that exist only in the emulation: its tests run them. A BUG_ macro seeds a mistake; build.rs
// makes a library of each, and the tests show that the checks find it.
#include "common.cuh"

// Each warp reverses its 32 values through shared memory.
KERNEL __launch_bounds__(256) probe_reverse_warps(const float *x, float *y) {
    SHARED(scratch, float[8][32]);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    scratch[warp][lane] = x[element()];
    __syncwarp();
    y[element()] = scratch[warp][31 - lane];
}
REGISTER_KERNEL(probe_reverse_warps, 256);

// y[i] = x[i] - x[i - 1] within each block: reads only what lower threads wrote, so that without the
// barrier a forward order of threads still gives the right numbers.
KERNEL __launch_bounds__(256) probe_difference(const float *x, float *y) {
    SHARED(scratch, float[256]);
    scratch[threadIdx.x] = x[element()];
#if !defined(BUG_PROBE_BARRIER)
    __syncthreads();
#endif
    y[element()] = scratch[threadIdx.x] - (threadIdx.x ? scratch[threadIdx.x - 1] : 0.0f);
}
REGISTER_KERNEL(probe_difference, 256);

// y = x, without a look at its length.
KERNEL __launch_bounds__(256) probe_copy(const float *x, float *y) { y[element()] = x[element()]; }
REGISTER_KERNEL(probe_copy, 256);

// Every block writes the same element.
KERNEL __launch_bounds__(256) probe_blocks_collide(int *y) {
    if (threadIdx.x == 0) y[0] = int(blockIdx.x);
}
REGISTER_KERNEL(probe_blocks_collide, 256);

// Waits for another block: never ends here, and on a GPU only if both blocks are resident.
KERNEL __launch_bounds__(256) probe_wait_for_other_block(volatile int *flag) {
    if (blockIdx.x == 0)
        while (*flag == 0) {}
    else
        *flag = 1;
}
REGISTER_KERNEL(probe_wait_for_other_block, 256);
