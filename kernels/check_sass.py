#!/usr/bin/env python3
"""Counts machine code in kernels/prebuilt/, of tensor-core kernels and of some that memory bounds, and compares it with
kernels/sass.txt and kernels/streams.txt.

    python3 kernels/check_sass.py [--write]

Needs Linux, Python 3.9 and pip; no CUDA, no GPU. nvdisasm comes as a Python package into the cache folder (SRK_CACHE,
else ~/.cache/srk). For each kernel that multiplies in tensor cores, of f16, and each architecture: the innermost loop
with products, whose instructions for each product decide how fast it can be, what of them moves operands, and how many
blocks share a multiprocessor. Fails
  - if a loop or the registers grow by more than 3 %, or blocks become fewer;
  - if a loop moves operands or waits more often;
  - on accesses to local memory, which are spills, that the table has not;
  - if a loop shrinks by more than 3 %, or kernels come or go: then --write makes the tables anew.
Likewise for each kernel of GroupNorm the loop that reads maps: its instructions for 16 bytes, with SiLU and without, and
how many loads are on their way before one is waited for.
"""
import argparse
import collections
import concurrent.futures as futures
import glob
import lzma
import os
import re
import struct
import subprocess
import sys
import tempfile
import time

import prebuild
from prebuild import read

PACKAGE = "nvidia-cuda-nvdisasm==13.2.86"
TABLE = os.path.join(prebuild.ROOT, "sass.txt")
STREAMS = os.path.join(prebuild.ROOT, "streams.txt")
STREAMED = ["group_norm", "group_norm_slab"]  # sources of kernels that read maps once
SLACK = 0.03
HEAD = """\
# Written by check_sass.py --write. Of each tensor-core kernel and architecture: instructions of the innermost loop with
# products, of them HMMA (HGMMA in kernels by wgmma), LDSM, LDGSTS and BAR, then registers of a thread, blocks that share a
# multiprocessor, and accesses to local memory in the whole kernel: spills, of which there should be none.
"""
HEAD_OF_STREAMS = """\
# Written by check_sass.py --write. Of each kernel of GroupNorm in packs and architecture: instructions of the loop that reads
# maps, the loads of 16 bytes in it, and how many of these follow one another within AHEAD instructions.
"""
AHEAD = 32
# Kilobytes of shared memory and most threads of a multiprocessor.
LIMITS = {"75": (64, 1024), "80": (164, 2048), "86": (100, 1536), "89": (100, 1536),
          "90a": (228, 2048), "100": (228, 2048), "120": (100, 1536)}
# Of a warp, m16n8k16, and of a warpgroup, m64nNk16.
PRODUCTS = ("HMMA", "HGMMA")
# Bytes of shared memory that src/ops/conv2d/blocks.rs and wgmma.rs give blocks of kernels with these in their names.
SHARED_BY_HOST = {"_256x64": 3 * (256 + 64) * 64, "_sliced_128x128": 2 * 3 * (128 + 128) * 64, "_sliced_128x64": 4 * 3 * (128 + 64) * 64,
                  "_sliced_64x64": 8 * 3 * (64 + 64) * 64, "_sliced_64x32": 4 * 3 * (64 + 32) * 64,
                  "_normed_128x128": 3 * (128 + 128) * 64, "_normed_128x64": 3 * (128 + 64) * 64, "_normed_128x32": 3 * (128 + 32) * 64,
                  "_wgmma_128x128": 1024 + 218112, "_wgmma_128x64": 1024 + 193536}
REGCOUNT, MAX_THREADS = 0x2f, 0x05  # attributes of .nv.info: (symbol, registers), and what __launch_bounds__ says
Row = collections.namedtuple("Row", "loop hmma ldsm ldgsts bar registers blocks local")
Stream = collections.namedtuple("Stream", "loop loads together")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table")
    parser.add_argument("--packs", default=f"{prebuild.ROOT}/prebuilt", help="folder of the packs")
    options = parser.parse_args()
    started = time.time()
    cache = os.environ.get("SRK_CACHE") or os.path.expanduser("~/.cache/srk")
    nvdisasm = f"{prebuild.fetch(cache, PACKAGE)}/nvidia/cu13/bin/nvdisasm"
    os.chmod(nvdisasm, 0o755)

    codes = [code for pack in sorted(glob.glob(f"{options.packs}/*.bin")) if multiplies(pack) for code in unpacked(pack)]
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(row for rows in pool.map(lambda code: counted(nvdisasm, *code), codes) for row in rows)
    packs = [f"{options.packs}/{stem}.bin" for stem in STREAMED]
    streams = dict(row for pack in packs for code in unpacked(pack) for row in streamed(nvdisasm, *code))
    if options.write:
        lines = [" ".join(map(str, [*key, *row])) for key, row in sorted(found.items())]
        prebuild.write(TABLE, (HEAD + "\n".join(lines) + "\n").encode())
        lines = [" ".join(map(str, [*key, *row])) for key, row in sorted(streams.items())]
        prebuild.write(STREAMS, (HEAD_OF_STREAMS + "\n".join(lines) + "\n").encode())
    failures = differences(found, table(TABLE, Row)) + slower(streams, table(STREAMS, Stream))
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{len(found) + len(streams)} loops, {len(failures)} failures, {time.time() - started:.1f} s")
    sys.exit(1 if failures else 0)


def multiplies(pack):
    """Whether the source of a pack, or what it includes, has products of tensor cores."""
    source = f"{prebuild.ROOT}/{os.path.basename(pack)[:-4]}.cu"
    return any(os.path.basename(f) == "gemm.cuh" for f in prebuild.included(source))


def unpacked(pack):
    """(architecture, code) of the machine code in a pack, as prebuild.pack writes it."""
    data, at = read(pack), 8
    for _ in range(struct.unpack_from("<I", data, 4)[0]):
        length = struct.unpack_from("<I", data, at)[0]
        name = data[at + 4:at + 4 + length].decode()
        at += 4 + length + 4 + 8 + 8  # name; kind, size; hash
        size = struct.unpack_from("<I", data, at)[0]
        if name in LIMITS:
            yield name, lzma.decompress(data[at + 4:at + 4 + size], format=lzma.FORMAT_ALONE)
        at += 4 + size


def counted(nvdisasm, arch, code):
    """((kernel, architecture), Row) of each kernel with products."""
    sections = elf(code)
    rows = []
    for name, part in disassembled(nvdisasm, code):
        if name.endswith("_f16") and any(f" {product}" in part for product in PRODUCTS):
            loop, local = loop_of(part)
            registers, blocks = occupancy(sections, name, arch)
            rows.append(((name, arch), Row(*loop, registers, blocks, local)))
    return rows


def streamed(nvdisasm, arch, code):
    """((kernel, architecture), Stream) of each kernel that reads maps in packs."""
    for name, part in disassembled(nvdisasm, code):
        loops = [loop for loop in parsed(part)[1] if name.endswith("_f16") and "LDG.128" in loop]
        if loops:
            loop = min(loops, key=len)
            first = loop.index("LDG.128")
            yield (name, arch), Stream(len(loop), loop.count("LDG.128"), loop[first:first + AHEAD].count("LDG.128"))


def disassembled(nvdisasm, code):
    """(name, text) of each kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        text = subprocess.run([nvdisasm, "-c", file.name], check=True, capture_output=True, text=True).stdout
    return [(part[:part.index(",")], part) for part in re.split(r"^\t?\.section\t\.text\.", text, flags=re.M)[1:]]


def loop_of(text):
    """Counts of the smallest loop with products, and accesses to local memory of the whole kernel."""
    opcodes, loops = parsed(text)
    loop = min((body for body in loops if not set(PRODUCTS).isdisjoint(body)), key=len, default=[])
    counts = collections.Counter(loop)
    products = sum(counts[name] for name in PRODUCTS)
    local = sum(opcode in ("LDL", "STL") for opcode in opcodes)
    return (len(loop), products, *(counts[name] for name in ("LDSM", "LDGSTS", "BAR"))), local


def parsed(text):
    """The operations of a kernel, and those of each loop; loads of 16 bytes with their width."""
    opcodes, labels, branches = [], {}, []
    for line in text.splitlines():
        label = re.match(r"(\.L_x_\d+|\.L_\d+):", line)
        code = re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?\s*([A-Z][A-Z0-9_]*)(.*)", line)
        if label:
            labels[label[1]] = len(opcodes)
        elif code:
            target = re.search(r"`\((\.L_\w+)\)", code[2]) if code[1] == "BRA" else None
            if target:
                branches.append((len(opcodes), target[1]))
            opcodes.append(code[1] + ".128" * (code[1] == "LDG" and ".128" in code[2]))
    return opcodes, [opcodes[labels[to]:at + 1] for at, to in branches if labels.get(to, at + 1) <= at]


def elf(code):
    """{name: (info, content or size)} of the sections of a cubin."""
    offset, size, count, names = *struct.unpack_from("<Q", code, 40), *struct.unpack_from("<HHH", code, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", code, offset + i * size) for i in range(count)]
    strings = headers[names][4]
    sections = {}
    for name, kind, _, _, at, length, _, info, _, _ in headers:
        end = code.index(b"\0", strings + name)
        sections[code[strings + name:end].decode()] = (info, length, b"" if kind == 8 else code[at:at + length])
    return sections


def occupancy(sections, name, arch):
    """Registers of a thread, and blocks that fit a multiprocessor."""
    symbol = sections[f".text.{name}"][0] & 0xffffff
    registers = dict(pair for pair in attributes(sections[".nv.info"][2], REGCOUNT))[symbol]
    shared = sections.get(f".nv.shared.{name}", (0, 0, b""))[1]
    shared += sum(by_host for part, by_host in SHARED_BY_HOST.items() if part in name)
    threads = next(attributes(sections[f".nv.info.{name}"][2], MAX_THREADS))[0]
    kilobytes, most = LIMITS[arch]
    by_registers = 65536 // (-(-registers * 32 // 256) * 256 * threads // 32)
    reserved = 0 if arch == "75" else 1024
    by_shared = (kilobytes << 10) // (-(-shared // 128) * 128 + reserved) if shared + reserved else 32
    return registers, min(by_registers, by_shared, most // threads)


def attributes(info, wanted):
    """The first two numbers of each such attribute of a section .nv.info."""
    at = 0
    while at + 4 <= len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        if attribute == wanted and form == 4:
            yield struct.unpack_from("<II", info, at + 4)
        at += 4 + (size if form == 4 else 0)


def table(path, row):
    rows = {}
    for line in read(path).decode().splitlines() if os.path.exists(path) else []:
        if line and not line.startswith("#"):
            kernel, arch, *numbers = line.split()
            rows[kernel, arch] = row(*map(int, numbers))
    return rows


def slower(found, listed):
    """Where the loops that read maps are not what their table says."""
    name, anew = os.path.relpath(STREAMS), "; --write makes it anew"
    said = [f"{kernel} for {arch} is in one of {name} and the machine code alone{anew}"
            for kernel, arch in found.keys() ^ listed.keys()]
    for key in found.keys() & listed.keys():
        is_now, was = found[key], listed[key]
        change = (is_now.loop / is_now.loads) / (was.loop / was.loads) - 1
        if abs(change) > SLACK or is_now.together != was.together:
            said.append(f"{' for '.join(key)}: {show(is_now)}; {name} has {show(was)}{anew}")
    return said


def differences(found, listed):
    """Where the code is not what the table says."""
    name, anew = os.path.relpath(TABLE), "; write it anew with --write"
    said = []
    for (kernel, arch), is_now in found.items():
        was = listed.get((kernel, arch))
        if not was:
            said.append(f"{kernel} for {arch} is not in {name}{anew}")
            continue
        each = lambda row: row.loop / max(row.hmma, 1)
        worse = [field for field in ("ldsm", "ldgsts", "bar")
                 if getattr(is_now, field) * was.hmma > getattr(was, field) * is_now.hmma]
        worse += ["instructions a product"] * (each(is_now) > each(was) * (1 + SLACK))
        worse += ["registers"] * (is_now.registers > was.registers * (1 + SLACK))
        worse += ["blocks"] * (is_now.blocks < was.blocks)
        worse += ["spills"] * (is_now.local > was.local)
        if worse:
            said.append(f"{kernel} for {arch}: {', '.join(worse)}: {show(is_now)}; {name} has {show(was)}")
        elif each(is_now) < each(was) * (1 - SLACK):
            said.append(f"{kernel} for {arch} became better: {show(is_now)}, was {show(was)}{anew}")
    return said + [f"{kernel} for {arch} is there no more{anew}" for kernel, arch in listed if (kernel, arch) not in found]


def show(row):
    return " ".join(f"{field} {value}" for field, value in zip(row._fields, row))


if __name__ == "__main__":
    main()
