#!/usr/bin/env python3
"""Predicts, from the machine code alone, how long the convolution kernels take, beside the floor of the hardware.

    python3 benches/cycle_model.py

Reads kernels/sass.txt; no GPU, no packages. The figures are a model's, good to about 30 %, and no measurement: they say
which change of the machine code is worth making. Its assumptions, all printed with the result:
  - an HMMA.16816 occupies a quarter of a multiprocessor for 6.35 cycles on 9.0 and 8 on 8.0;
  - shared memory moves 128 bytes a cycle, reads of operands and copies into it together;
  - a scheduler issues 0.80 instructions a cycle with three warps or more, 0.62 with two, 0.38 with one;
  - a block spends 2500 cycles on its set-up, first loads and epilogue, of which 40 % hide behind blocks beside it;
  - a launch costs 2 microseconds.
"""
import math
import os

TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kernels", "sass.txt")
# Multiprocessors, clock in GHz, cycles of an HMMA, TFLOP/s and TB/s of the data sheet.
GPUS = {"H100": ("90a", 132, 1.755, 6.35, 989, 3.35), "A100": ("80", 108, 1.41, 8.0, 312, 2.04)}
# Channels in and out, side of the map, images.
SHAPES = [(64, 64, 256, 1), (128, 128, 64, 1), (256, 256, 32, 1), (64, 64, 256, 16), (128, 128, 64, 16), (256, 256, 32, 16)]
EPILOGUE, HIDDEN, LAUNCH = 2500, 0.4, 2.0
# Rows and columns of a block, and its warps, as src/ops/conv2d/cuda.rs and kernels/gemm.cuh choose them.
BLOCKS = {"conv2d_128x128_f16": (128, 128, 4), "conv2d_128x64_f16": (128, 64, 4), "conv2d_128x32_f16": (128, 32, 4)}
DEPTH = 32  # of a step, in channels


def main():
    rows = {}
    for line in open(TABLE):
        if not line.startswith("#"):
            kernel, arch, *numbers = line.split()
            rows[kernel, arch] = list(map(int, numbers))
    print(__doc__[__doc__.index("Reads"):].strip(), "\n")
    print("3x3 convolution in f16              GPU   kernel     blocks  cycles an HMMA (issue, memory, core)      us  TFLOP/s  floor us")
    for gpu in GPUS:
        for shape in SHAPES:
            print(line_of(gpu, shape, rows))


def line_of(gpu, shape, rows):
    arch, multiprocessors, clock, core, flops, bandwidth = GPUS[gpu]
    inputs, outputs, side, images = shape
    pixels = images * side * side
    kernel = choose(pixels, outputs, multiprocessors)
    height, width, warps = BLOCKS[kernel]
    loop, hmma, ldsm, ldgsts, _, _, fit, _ = rows[kernel, arch]
    blocks = math.ceil(pixels / height) * math.ceil(outputs / width)
    together = min(fit, math.ceil(blocks / multiprocessors))
    each = [loop / hmma / issue(together * warps / 4), 4 * 512 * (ldsm + ldgsts) / hmma / 128, core]
    steps = math.ceil(9 * inputs / DEPTH)
    products = height * width * DEPTH / (16 * 8 * 16)  # of a step of all warps, a quarter of them on each scheduler
    block = steps * products / 4 * max(each)
    full, rest = divmod(blocks, together * multiprocessors)
    cycles = full * (together * block + (1 - HIDDEN) * EPILOGUE)
    cycles += (math.ceil(rest / multiprocessors) * block + EPILOGUE) if rest else HIDDEN * EPILOGUE
    us = cycles / clock / 1000 + LAUNCH
    work = 2 * 9 * pixels * inputs * outputs / 1e6
    floor = max(work / flops, 2 * pixels * (inputs + outputs) / bandwidth / 1e6)
    name = f"{inputs} to {outputs} channels, {side}x{side}, {images} images"
    parts = ", ".join(f"{c:4.1f}" for c in each)
    return f"{name:38} {gpu:5} {kernel[7:-4]:8} {blocks:7} {max(each):7.1f} ({parts}) {us:21.1f} {work / us:8.0f} {floor:9.1f}"


def choose(pixels, outputs, multiprocessors):
    """As gather_blocks of src/ops/conv2d/cuda.rs."""
    enough = lambda columns: math.ceil(pixels / 128) * math.ceil(outputs / columns) >= multiprocessors
    if -(-outputs // 128) * 128 == -(-outputs // 64) * 64 and enough(128):
        return "conv2d_128x128_f16"
    return "conv2d_128x64_f16" if outputs > 32 and enough(64) else "conv2d_128x32_f16"


def issue(warps):
    return 0.80 if warps >= 3 else 0.62 if warps >= 2 else 0.38


if __name__ == "__main__":
    main()
