#!/usr/bin/env python3
"""Predicts, from the machine code alone, how long the convolution kernels take, beside the floor of the hardware.

    python3 benches/cycle_model.py
    SRK_LAUNCHES=sr3-div2k SRK_BATCH=16 cargo test --release --test suite launches:: -- --nocapture | \
        python3 benches/cycle_model.py -

The second also predicts a call of a network from the launches that it is told of; with SRK_CONV=wgmma in front of cargo, one
whose convolutions are by the kernel for compute capability 9.0 where it fits.

Reads kernels/sass.txt; no GPU, no packages. The figures are a model's, good to about 30 %, and no measurement: they say
which change of the machine code is worth making. Its assumptions, all printed with the result:
  - an HMMA.16816 occupies a quarter of a multiprocessor for 6.35 cycles on 9.0 and 8 on 8.0;
  - shared memory moves 128 bytes a cycle, reads of operands and copies into it together;
  - a scheduler issues 0.80 instructions a cycle with three warps or more, 0.62 with two, 0.38 with one;
  - a block spends 2500 cycles on its set-up, first loads and epilogue, of which 40 % hide behind blocks beside it;
  - by wgmma, products run at the 989 TFLOP/s of the data sheet, at the clock below, and issue nothing; they read both
    factors from shared memory, each of two warpgroups the weights anew, beside what the TMA writes there: 128 bytes a
    cycle in all. Blocks stay for many tiles: of all but the first, loads hide, 40 % of the 2500 cycles, and the epilogue
    does not, as both warpgroups are in it;
  - convolutions of few channels issue 56 instructions a tap, 75 and 12 an output for three channels of it, and 60 an output
    in the end, for four pixels;
  - the L2 cache is never waited for: nothing is known of its speed;
  - a loop within a step counts once: kernels that normalise what they read (conv2d_normed) take longer than said;
  - a launch costs 2 microseconds, one of a recorded call 1;
  - what is no product moves its tensors at 0.85 of the data sheet's bandwidth, and takes at least 1.2 microseconds.
"""
import json
import math
import os
import sys

TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kernels", "sass.txt")
# Multiprocessors, clock in GHz, cycles of an HMMA, TFLOP/s and TB/s of the data sheet.
GPUS = {"H200": ("90a", 132, 1.755, 6.35, 989, 4.8), "H100": ("90a", 132, 1.755, 6.35, 989, 3.35), "A100": ("80", 108, 1.41, 8.0, 312, 2.04)}
# Channels in and out, side of the map, images.
SHAPES = [(64, 64, 256, 1), (128, 128, 64, 1), (256, 256, 32, 1), (512, 512, 16, 1), (64, 64, 256, 16), (128, 128, 64, 16), (256, 256, 32, 16)]
EPILOGUE, HIDDEN, LAUNCH, NODE = 2500, 0.4, 2.0, 1.0
# Rows and columns of a block, warps for them, as src/ops/conv2d/blocks.rs and kernels/gemm.cuh choose them,
# and groups of warps that share the depth of a sum.
BLOCKS = {"conv2d_128x128_f16": (128, 128, 4, 1), "conv2d_128x64_f16": (128, 64, 4, 1), "conv2d_128x32_f16": (128, 32, 4, 1),
          "conv2d_256x64_f16": (256, 64, 4, 1), "conv2d_ragged_f16": (64, 64, 4, 1),
          "conv2d_sliced_128x128_f16": (128, 128, 4, 2), "conv2d_sliced_128x64_f16": (128, 64, 2, 4),
          "conv2d_sliced_64x64_f16": (64, 64, 1, 8), "conv2d_sliced_64x32_f16": (64, 32, 2, 4),
          "conv2d_joined_128x64_f16": (128, 64, 4, 1), "conv2d_joined_128x32_f16": (128, 32, 4, 1),
          "conv2d_joined_sliced_128x128_f16": (128, 128, 4, 2), "conv2d_joined_sliced_128x64_f16": (128, 64, 2, 4),
          "conv2d_joined_sliced_64x64_f16": (64, 64, 1, 8), "conv2d_joined_sliced_64x32_f16": (64, 32, 2, 4),
          "conv2d_normed_128x128_f16": (128, 128, 4, 1), "conv2d_normed_128x64_f16": (128, 64, 4, 1), "conv2d_normed_128x32_f16": (128, 32, 4, 1)}
# As blocks.rs has them: the smallest first.
SLICED = ["conv2d_sliced_64x32_f16", "conv2d_sliced_64x64_f16", "conv2d_sliced_128x64_f16", "conv2d_sliced_128x128_f16"]
MEMORY = {"90a": 227 << 10, "80": 163 << 10}  # shared, of a block
DEPTH = 32  # of a step, in channels
# By wgmma: columns of a tile of 128 rows; channels of a step.
WGMMA, WGMMA_DEPTH = {"conv2d_wgmma_128x128_f16": 128, "conv2d_wgmma_128x64_f16": 64}, 64


def main():
    rows = {}
    for line in open(TABLE):
        if not line.startswith("#"):
            kernel, arch, *numbers = line.split()
            rows[kernel, arch] = list(map(int, numbers))
    print(__doc__[__doc__.index("Reads"):].strip(), "\n")
    if sys.argv[1:] == ["-"]:
        return predict_call([line.split(maxsplit=4)[1:] for line in sys.stdin if line.startswith("launch ")], rows)
    print("3x3 convolution in f16              GPU   kernel         blocks  cycles an HMMA (issue, memory, core)      us  TFLOP/s  floor us")
    for gpu in GPUS:
        for shape in SHAPES:
            print(line_of(gpu, shape, rows))


def line_of(gpu, shape, rows):
    arch, multiprocessors, clock, core, flops, bandwidth = GPUS[gpu]
    inputs, outputs, side, images = shape
    pixels = images * side * side
    kernel = choose(pixels, inputs, outputs, multiprocessors, MEMORY[arch])
    height, width, *_ = BLOCKS[kernel]
    blocks = math.ceil(pixels / height) * math.ceil(outputs / width)
    us, each = product(kernel, rows[kernel, arch], GPUS[gpu], blocks, 9 * inputs)
    us += LAUNCH
    work = 2 * 9 * pixels * inputs * outputs / 1e6
    floor = max(work / flops, 2 * pixels * (inputs + outputs) / bandwidth / 1e6)
    name = f"{inputs} to {outputs} channels, {side}x{side}, {images} images"
    parts = ", ".join(f"{c:4.1f}" for c in each)
    return f"{name:38} {gpu:5} {kernel[7:-4]:12} {blocks:7} {max(each):7.1f} ({parts}) {us:21.1f} {work / us:8.0f} {floor:9.1f}"


def product(kernel, row, gpu, blocks, depth):
    """Microseconds of so many blocks of a kernel, and cycles an HMMA by issue, memory and tensor core."""
    _, multiprocessors, clock, core, _, _ = gpu
    height, width, warps, slices = BLOCKS[kernel]
    loop, hmma, ldsm, ldgsts, _, _, fit, _ = row
    together = min(fit, math.ceil(blocks / multiprocessors))
    each = [loop / hmma / issue(together * slices * warps / 4), 4 * 512 * (ldsm + ldgsts) / hmma / 128, core]
    steps = math.ceil(depth / DEPTH)
    products = height * width * DEPTH / (16 * 8 * 16)  # of a step of all warps, a quarter of them on each scheduler
    block = math.ceil(steps / slices) * slices * products / 4 * max(each)
    full, rest = divmod(blocks, together * multiprocessors)
    cycles = full * (together * block + (1 - HIDDEN) * EPILOGUE)
    cycles += (math.ceil(rest / multiprocessors) * block + EPILOGUE) if rest else HIDDEN * EPILOGUE
    return cycles / clock / 1000, each


def by_wgmma(columns, numbers, gpu):
    """Microseconds of kernels/conv2d_hopper.cu in tiles of so many columns."""
    _, multiprocessors, clock, _, flops, _ = gpu
    images, inputs, out_height, out_width, outputs, taps = numbers[:6]
    tiles = math.ceil(images * out_height * out_width / 128) * math.ceil(outputs / columns)
    steps = taps ** 2 * math.ceil(inputs / WGMMA_DEPTH)
    core = 2 * 128 * columns * WGMMA_DEPTH * multiprocessors * clock / (1000 * flops)
    memory = ((128 + columns) + 2 * (64 + columns)) * WGMMA_DEPTH * 2 / 128  # written, and read by two warpgroups
    cycles = math.ceil(tiles / multiprocessors) * (steps * max(core, memory) + (1 - HIDDEN) * EPILOGUE) + HIDDEN * EPILOGUE
    return cycles / clock / 1000


def of_few(outputs, numbers, gpu):
    """Microseconds of kernels/conv2d_few.cu, which computes so many outputs at once."""
    _, multiprocessors, clock, *_ = gpu
    images, inputs, out_height, out_width, real, kernel = [numbers[i] for i in (0, 3, 4, 5, 6, 7)]
    of_thread = kernel ** 2 * (56 + math.ceil(inputs / 3) * (75 + 12 * outputs)) + 4 * 60 * real
    warps = math.ceil(images * out_height * out_width / 128)
    return warps * of_thread / (4 * multiprocessors) / issue(4) / clock / 1000


def predict_call(launches, rows):
    """Of each GPU: milliseconds of all launches, (kernel, blocks, bytes, numbers) each, and of which kernels."""
    for gpu, numbers in GPUS.items():
        fits = lambda kernel: numbers[0] == "90a" if kernel in WGMMA else kernel not in BLOCKS or rows[kernel, numbers[0]][6] > 0
        if not all(fits(kernel) for kernel, *_ in launches):
            print(f"{gpu}: takes other blocks than these")
            continue
        times = {}
        for kernel, blocks, moved, given in launches:
            depth = depth_of(kernel, json.loads(given))
            us = max(1.2, int(moved) / numbers[5] / 0.85e6)
            if depth:
                us = max(us, product(kernel, rows[kernel, numbers[0]], numbers, int(blocks), depth)[0])
            if kernel in WGMMA:
                us = max(us, by_wgmma(WGMMA[kernel], json.loads(given), numbers))
            if kernel.startswith("conv2d_few"):
                us = max(us, of_few(int(kernel.split("_")[2]), json.loads(given), numbers))
            times.setdefault(kernel, []).append(us + NODE)
        print(f"{gpu}: {len(launches)} launches, {sum(map(sum, times.values())) / 1000:.2f} ms")
        for kernel, each in sorted(times.items(), key=lambda item: -sum(item[1])):
            print(f"    {kernel:36} {len(each):4} {sum(each) / 1000:8.3f} ms")


def depth_of(kernel, numbers):
    """Taps times channels of a product, none for kernels that are none: their arguments as the .cu files declare them."""
    if kernel not in BLOCKS:
        return None
    if "joined" in kernel:
        return sum(numbers[:5]) * numbers[12] ** 2
    if "normed" in kernel:
        return numbers[2]
    return numbers[3] * numbers[7] ** 2


def choose(pixels, inputs, outputs, multiprocessors, granted):
    """As src/ops/conv2d/blocks.rs."""
    cover = lambda kernel: math.ceil(pixels / BLOCKS[kernel][0]) * math.ceil(outputs / BLOCKS[kernel][1])
    sliced = next((kernel for kernel in SLICED if cover(kernel) <= 128), None)
    if sliced and outputs >= 128 and 9 * inputs >= 512:
        height, width, _, slices = BLOCKS[sliced]
        return sliced if slices * 3 * (height + width) * 64 <= granted else SLICED[0]
    enough = lambda columns: math.ceil(pixels / 128) * math.ceil(outputs / columns) >= multiprocessors
    if -(-outputs // 128) * 128 == -(-outputs // 64) * 64 and enough(128):
        return "conv2d_128x128_f16"
    if outputs > 32 and enough(64):
        return "conv2d_256x64_f16" if cover("conv2d_256x64_f16") >= multiprocessors else "conv2d_128x64_f16"
    return "conv2d_128x32_f16"


def issue(warps):
    return 0.80 if warps >= 3 else 0.62 if warps >= 2 else 0.38


if __name__ == "__main__":
    main()
