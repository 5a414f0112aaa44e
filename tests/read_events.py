#!/usr/bin/env python3
"""Reads the event files of a run with TensorBoard's own package, and compares them with metrics.jsonl.

    python3 tests/read_events.py [SRK]        target/release/srk unless told otherwise

Trains a tiny network for a few steps. Where the package cannot be had, says so and ends with 0.
"""
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import venv
import zlib

PACKAGE = "tensorboard==2.21.0"
SETTINGS = [
    "run.name=tb", "run.steps=6", "model.channels=8", "model.blocks=1", "model.frequency_channels=8",
    "model.wavelet_channels=4", "data.train.crop=32", "data.train.batch=2", "log.every=1", "val.every=3",
    "ckpt.every=3", 'data.train.paths=["in"]', 'data.val.paths=["in"]',
]


def picture(path, width, height, salt):
    """A PNG with edges, without a package for it."""
    rows = b"".join(
        b"\0" + bytes(v for x in range(width) for v in ((x // 5 + y // 7 + salt) % 2 * 140 + 50, x * 2 % 256, y * 2 % 256))
        for y in range(height)
    )

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def read(folder):
    """{name: [(step, value)]} of the event files, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder, size_guidance={"scalars": 0})
    events.Reload()
    found = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
    # TensorBoard 2 hands scalars on as tensors, too.
    for name in events.Tags()["tensors"]:
        from tensorboard.util import tensor_util

        found[name] = [(e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in events.Tensors(name)]
    return found


def with_package(place):
    """Runs this script again where the package is; the exit code, or None if it cannot be had."""
    folder = os.path.join(place, "venv")
    try:
        venv.create(folder, with_pip=True)
        python = os.path.join(folder, "Scripts" if os.name == "nt" else "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "-q", PACKAGE], check=True, capture_output=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or b""
        last = detail.decode(errors="replace").strip().splitlines()[-1:] or [str(error)]
        print(f"skipped: {PACKAGE} cannot be had ({last[0]})")
        return None
    return subprocess.run([python, __file__, *sys.argv[1:]], env={**os.environ, "SRK_TB_AGAIN": "1"}).returncode


def main():
    srk = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "target/release/srk")
    if not os.path.isfile(srk):
        sys.exit(f"{srk} is not there: cargo build --release")
    with tempfile.TemporaryDirectory() as place:
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            if os.environ.get("SRK_TB_AGAIN"):
                sys.exit(f"{PACKAGE} was installed and cannot be imported")
            return with_package(place) or 0
        os.mkdir(os.path.join(place, "in"))
        for i in range(3):
            picture(os.path.join(place, "in", f"{i}.png"), 80, 72, i)
        command = [srk, "train", "--no-config", "--recipe", "dual-domain-grid"]
        for setting in SETTINGS:
            command += ["--set", setting]
        if "--no-config" not in subprocess.run([srk, "--help"], capture_output=True, text=True).stdout:
            command.remove("--no-config")
        subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)
        run = os.path.join(place, "runs", "tb")
        found = read(os.path.join(run, "tb"))
        wanted = {}
        with open(os.path.join(run, "metrics.jsonl")) as lines:
            for line in map(json.loads, lines):
                for name, value in line.items():
                    if name != "step" and isinstance(value, (int, float)):
                        wanted.setdefault(name, []).append((line["step"], value))
    compared = 0
    for tag, values in found.items():
        names = [name for name in wanted if tag in (name.replace("val_", "val/"), f"train/{name}")]
        assert len(names) == 1, f"{tag} is in the event files, and in metrics.jsonl {names} of {sorted(wanted)}"
        lines = wanted.pop(names[0])
        assert [step for step, _ in values] == [step for step, _ in lines], (tag, values, lines)
        for (step, got), (_, value) in zip(values, lines):
            assert math.isclose(got, value, rel_tol=1e-6, abs_tol=1e-7), (tag, step, got, value)
            compared += 1
    assert compared > 10, f"only {compared} values in {sorted(found)}"
    assert not wanted, f"not in the event files: {sorted(wanted)}"
    print(f"TensorBoard reads {compared} values under {len(found)} names as metrics.jsonl has them: {', '.join(sorted(found))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
