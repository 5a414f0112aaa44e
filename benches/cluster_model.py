#!/usr/bin/env python3
"""Predicts what clusters of blocks would make of GroupNorm in training, beside what its kernels take now.

    SRK_LAUNCHES=sr3-div2k SRK_BATCH=8 cargo test --release --test suite launches:: -- --nocapture | \
        python3 benches/cluster_model.py

Maps that no block's shared memory holds are read twice: moments, then apply; sums, then gradient. A cluster of 2, 4 or 8 blocks of
compute capability 9.0 could hold a run of groups of an image between them and read memory once. There is no such kernel: this
says whether one would pay, for an H200. Reads kernels/streams.txt; no GPU, no packages. A model's figures, good to about 30 %.

By bytes alone: a launch takes its tensors at 0.85 of the data sheet's bandwidth, at least 1.2 microseconds, and one more.
By instructions, too, with the rates of cycle_model.py and these assumptions:
  - a phase (a kernel, or a cluster's reading and its writing) takes its bytes or its instructions, whichever is longer;
  - what the loop of a kernel has stands for all it issues; a cluster reads with the loop of the slab's kernel, and writes
    with that of apply, or gradient;
  - a map of up to half of the L2 cache's 50 MB is still there when it is read again, of others nothing;
  - clusters of 8 are 16 at a time where a block fills a multiprocessor, those of 4 are 33, of 2 66;
  - a block of 256 threads has 16 KiB on its way, and a multiprocessor needs 25 for its share of the bandwidth;
  - a block spends 2500 cycles on its set-up and barriers, of which 40 % hide behind blocks beside it;
  - a gradient by clusters leaves the sums for parameters to a second launch, as that of the slab does.
"""
import collections
import json
import math
import os
import sys

from cycle_model import EPILOGUE, GPUS, HIDDEN, NODE, issue

STREAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kernels", "streams.txt")
ARCH, MULTIPROCESSORS, CLOCK, _, _, TERABYTES = GPUS["H200"]
BANDWIDTH, CYCLES = 0.85e6 * TERABYTES, 1000 * CLOCK  # of a microsecond
THREADS, WARPS, REGISTERS, SHARED, GRANTED = 256, 8, 65536, 228 << 10, 227 << 10
IN_FLIGHT, NEEDED, STAYS = 16, 25, 25e6
AT_A_TIME = {2: 66, 4: 33, 8: 16}
# Of each direction: maps held, the kernels of now with the maps that they move, those whose loops a cluster runs, registers.
Direction = collections.namedtuple("Direction", "held first moves second moves_again reads writes registers extra")
DIRECTIONS = {"group_norm_moments": Direction(1, "group_norm_moments", 1, "group_norm_apply", 2, "group_norm_slab", "group_norm_apply", 64, 0),
              "group_norm_sums": Direction(2, "group_norm_sums", 2, "group_norm_gradient", 3, "group_norm_gradient_slab",
                                           "group_norm_gradient", 80, 1)}


def main():
    loops = {}
    for line in open(STREAMS):
        if not line.startswith("#") and line.split()[1] == ARCH:
            kernel, _, loop, loads, _ = line.split()
            loops[kernel[:-4]] = int(loop) / int(loads)
    launches = [line.split(maxsplit=4)[1:] for line in sys.stdin if line.startswith("trained ")]
    norms = collections.Counter(filter(None, (norm_of(kernel, int(blocks), json.loads(given)) for kernel, blocks, _, given in launches)))
    print("images, pixels, channels, groups        times  MB each   now by bytes  clusters     now  clusters, us")
    total = collections.Counter()
    for (kernel, size, *sizes), times in sorted(norms.items()):
        way, bytes_of_map = DIRECTIONS[kernel], sizes[0] * sizes[1] * sizes[2] * size
        found = cluster(way, size, sizes, loops)
        figures = [by_bytes(way.moves, bytes_of_map) + by_bytes(way.moves_again, bytes_of_map),
                   by_bytes(way.held + 1, bytes_of_map) + way.extra * (1.2 + NODE), by_kernels(way, bytes_of_map, loops), found and found[0]]
        if not found:
            figures[1] = figures[0]
            figures[3] = figures[2]
        said = f"clusters of {found[1]}, {found[2]} a multiprocessor" if found else "do not hold it"
        print(f"{kernel[11:]:8} {' '.join(map(str, sizes)):28} {times:5} {bytes_of_map / 1e6:8.1f} "
              f"{figures[0]:14.1f} {figures[1]:9.1f} {figures[2]:7.1f} {figures[3]:9.1f}  {said}")
        for name, figure in zip(("now by bytes", "clusters by bytes", "now", "clusters", "better of both"), [*figures, min(figures[2:])]):
            total[kernel[11:], name] += times * figure / 1000
    for (kernel, name), figure in total.items():
        print(f"{kernel:8} {name:18} {figure:8.3f} ms")
    print(f"{len(launches)} launches, their tensors {sum(int(moved) for _, _, moved, _ in launches) / BANDWIDTH / 1000:.1f} ms")


def norm_of(kernel, blocks, numbers):
    """(kernel, bytes of a number, images, pixels, channels, groups) of the first of two launches, else none."""
    name, ragged = kernel[:kernel.rindex("_")].removesuffix("_ragged"), "_ragged" in kernel
    if name not in DIRECTIONS or (name == "group_norm_moments" and numbers[7]):  # what a convolution asks for stays
        return None
    pixels, channels, groups, _, columns, chunk = numbers[1:7] if name == "group_norm_moments" else numbers[:6]
    size = 4 if kernel.endswith("f32") else 2
    across = math.ceil(channels / (1 if ragged else 16 // size) / columns)
    return name, size, blocks // (across * math.ceil(pixels / chunk)), pixels, channels, groups


def by_bytes(maps, bytes_of_map):
    return max(1.2, maps * bytes_of_map / BANDWIDTH) + NODE


def by_kernels(way, bytes_of_map, loops):
    """Microseconds of both launches of now, where a second reading may come from the cache."""
    warps = REGISTERS // (way.registers * THREADS) * WARPS
    packs, time = bytes_of_map / 16, 0
    for kernel, maps in (way.first, way.moves), (way.second, way.moves_again - way.held * (bytes_of_map <= STAYS)):
        instructions = packs / 32 * loops[kernel] * way.held
        time += max(1.2, maps * bytes_of_map / BANDWIDTH, instructions / issued(MULTIPROCESSORS, warps)) + NODE
    return time


def cluster(way, size, sizes, loops):
    """(microseconds, blocks of a cluster, blocks that share a multiprocessor) of the best size, or none."""
    images, pixels, channels, groups = sizes
    pack = 16 // size if channels % (16 // size) == 0 else 1
    whole = [width for width in range(1, channels + 1) if channels % width == 0 and width % (channels // groups) == 0 and width % pack == 0]
    width = next((width for width in whole if width * size >= 32 or width == channels), None)
    best = None
    for many, at_a_time in AT_A_TIME.items():
        held = width and math.ceil(pixels / many) * width * size
        shared = width and 8 * pack * THREADS + 8 * width + 12 * width * groups // channels + way.held * held
        if not width or shared > GRANTED:
            continue
        fit = min(REGISTERS // (way.registers * THREADS), SHARED // (shared + 1024))
        blocks, places, time = channels // width * images * many, at_a_time * many, NODE + way.extra * (1.2 + NODE)
        while blocks > 0:
            now = min(blocks, places * fit)
            together, busy = math.ceil(now / places), min(now, places)
            moves = BANDWIDTH * busy / MULTIPROCESSORS
            reading = max(now * way.held * held / moves / min(1, together * IN_FLIGHT / NEEDED),
                          now * held / 16 / 32 * loops[way.reads] * way.held / issued(busy, together * WARPS))
            writing = max(now * held / moves, now * held / 16 / 32 * loops[way.writes] * way.held / issued(busy, together * WARPS))
            time += reading + writing + EPILOGUE / CYCLES * (1 - HIDDEN * (together > 1))
            blocks -= now
        best = min(best or (time, many, fit), (time, many, fit))
    return best


def issued(multiprocessors, warps):
    """Instructions of a microsecond."""
    return multiprocessors * 4 * issue(warps / 4) * CYCLES


if __name__ == "__main__":
    main()
