#!/usr/bin/env python3
"""Compiles kernels/*.cu with nvcc 13 and looks at what comes out.

    python3 kernels/check_nvcc.py [--table FILE]

Needs Linux, Python 3.9, pip and g++; no CUDA, no GPU. nvcc comes as Python packages into the cache folder (SRK_CACHE,
else ~/.cache/srk), as do results: only what changed is compiled. Fails
  - on any warning, for each architecture (SRK_CHECK_ARCHS, such as "75,90a", else all);
  - on register spills beyond those that kernels/spills.txt allows;
  - if an entry's parameters or launch bounds are not those that the emulation has for it.
"""
import argparse
import concurrent.futures as futures
import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import time

import prebuild
from prebuild import read

ROOT = prebuild.ROOT
PACKAGES = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
]
FLAGS = ["-O3", "-std=c++17", "-Werror", "all-warnings", "-Xptxas", "-v"]
RESULTS = 1  # counts the forms that a result of a compilation had
SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", help="file for registers, shared memory and spills of each kernel")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilations at a time")
    parser.add_argument("--kernels", default=ROOT, help="folder of the sources")
    options = parser.parse_args()
    started = time.time()
    cache = os.environ.get("SRK_CACHE") or os.path.expanduser("~/.cache/srk")
    nvcc = f"{prebuild.fetch(cache, *PACKAGES)}/nvidia/cu13/bin/nvcc"
    results = os.path.join(cache, "check_nvcc")
    os.makedirs(results, exist_ok=True)

    everything = [name[3:] for name in prebuild.ARCHITECTURES if name.startswith("sm_")]
    archs = [a for a in os.environ.get("SRK_CHECK_ARCHS", "").split(",") if a] or everything
    sources = sorted(glob.glob(f"{options.kernels}/*.cu"))
    work = [(nvcc, results, source, arch) for arch in ["ptx", *archs] for source in sources]
    with futures.ThreadPoolExecutor(options.jobs) as pool:
        done = list(pool.map(compile_one, work))

    failures = [said for _, said in done if said]
    rows = [tuple(row) for found, _ in done for row in found.get("kernels", [])]
    failures += spills(rows, os.path.relpath(f"{options.kernels}/spills.txt"), archs == everything)
    if options.kernels == ROOT:
        failures += differences([entry for found, _ in done for entry in found.get("entries", [])])
    if options.table:
        lines = [" ".join(map(str, row)) for row in sorted(rows)]
        prebuild.write(options.table, "\n".join(["# kernel arch registers shared spills", *lines, ""]).encode())
    for failure in failures:
        print(failure, file=sys.stderr)
    most = max((row[2] for row in rows), default=0)
    print(f"{len(sources)} files, {len(rows)} kernels on {len(archs)} architectures, at most {most} registers, "
          f"{sum(row[4] > 0 for row in rows)} with spills, {len(failures)} failures, {time.time() - started:.1f} s")
    sys.exit(1 if failures else 0)


def compile_one(job):
    """What was found, and what the compiler complains of, from the cache if the same was compiled before."""
    nvcc, results, source, arch = job
    folder = os.path.dirname(source)
    content = b"\0".join(read(f) for f in prebuild.included(source))
    key = hashlib.sha256(f"{PACKAGES} {FLAGS} {RESULTS} {arch} {os.path.basename(source)} ".encode() + content).hexdigest()
    cached = os.path.join(results, key)
    if os.path.exists(cached):
        return json.loads(read(cached)), ""
    output = cached + ".out"
    kind = ["-ptx", "-arch=compute_80"] if arch == "ptx" else ["-cubin", f"-gencode=arch=compute_{arch},code=sm_{arch}"]
    ran = subprocess.run([nvcc, *FLAGS, *kind, "-I", folder, source, "-o", output], capture_output=True, text=True)
    if ran.returncode:
        return {}, f"{os.path.basename(source)} for {arch}:\n{ran.stdout}{ran.stderr}"
    found = {"entries": entries(read(output).decode())} if arch == "ptx" else {"kernels": usage(ran.stderr, arch)}
    os.remove(output)
    prebuild.write(cached, json.dumps(found).encode())
    return found, ""


def usage(text, arch):
    """(kernel, arch, registers, bytes of static shared memory, bytes of spills), as ptxas -v says them."""
    rows = []
    for part in text.split("Compiling entry function '")[1:]:
        number = lambda pattern: int((re.search(pattern, part) or [0, 0])[1])
        spilled = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
        registers, shared = number(r"Used (\d+) registers"), number(r"(\d+) bytes smem")
        rows.append((part.split("'")[0], arch, registers, shared, spilled))
    return rows


def spills(rows, listed, complete):
    """Spills that the list does not allow, and entries of the list that nothing needs."""
    allowed = {}
    for line in read(listed).decode().splitlines() if os.path.exists(listed) else []:
        if line.strip() and not line.startswith("#"):
            kernel, arch, most = line.split()
            allowed[kernel, arch] = int(most)
    failures = []
    for kernel, arch, _, _, spilled in rows:
        most = allowed.get((kernel, arch), 0)
        if spilled > most:
            failures.append(f"{kernel} for {arch}: {spilled} bytes of spills; {listed} allows {most}")
    needed = {(row[0], row[1]) for row in rows if row[4]}
    return failures + [f"{listed}: {k} for {a} spills no more" for k, a in allowed if complete and (k, a) not in needed]


def entries(ptx):
    """(name, largest block or 0, bytes of each parameter) of each entry."""
    found = []
    for name, parameters, attributes in re.findall(r"\.entry\s+(\w+)\s*\((.*?)\)(.*?)\{", ptx, re.S):
        # Structs are arrays of bytes: .param .align 128 .b8 name[128]
        declared = re.findall(r"\.param\s+(?:\.align\s+\d+\s+)?\.[a-z]+(\d+)[^,\[]*(?:\[(\d+)\])?", parameters)
        sizes = [SIZES[bits] * int(count or 1) for bits, count in declared]
        bound = [int(n) for n in re.findall(r"\d+", (re.search(r"\.maxntid ([\d, ]+)", attributes) or ["", ""])[1])]
        threads = bound[0] if bound else 0
        for n in bound[1:]:
            threads *= n
        found.append((name, threads, sizes))
    return found


def differences(compiled):
    """Where nvcc and the emulation disagree on an entry."""
    command = ["cargo", "run", "-q", "--release", "--locked", "-p", "cuda-emulation", "--example", "registry"]
    registry = {}
    for line in subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines():
        name, threads, *sizes = line.split()
        if not name.startswith("probe_"):
            registry[name] = (int(threads), [int(size) for size in sizes])
    failures = []
    for name, threads, sizes in compiled:
        stated, emulated = registry.pop(name, (0, None))
        if emulated is None:
            failures.append(f"{name}: no REGISTER_KERNEL")
        elif emulated != list(sizes):
            failures.append(f"{name}: parameters of {sizes} bytes, in the emulation {emulated}")
        elif stated and stated != threads:
            failures.append(f"{name}: launch bound {threads}, registered with {stated}")
    return failures + [f"{name}: registered, but no entry" for name in registry]


if __name__ == "__main__":
    main()
