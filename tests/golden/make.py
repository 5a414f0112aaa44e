"""Makes tests/golden/data: one narrow case of each published network, out of the full set of golden files.

    python3 tests/golden/make.py FOLDER        needs numpy; FOLDER holds the full set (about 9 MB)

A file of the full set holds what the original implementation, in PyTorch on the processor in float64, gives for
parameters and inputs that follow a rule (`fill` in tests/suite/golden/file.rs), so that no weights are needed: outputs,
gradients by the inputs, and of each parameter the norm of its gradient and 16 entries of it. Here two entries are kept,
and what follows from the rule is left out: the weights `w` of the loss. Metadata, with configuration and case, stay.
"""

import json
import pathlib
import struct
import sys

import numpy

CASES = """seed000_c16_attn seed001_dualdomain_c64 seed001_experiment_c16_odd seed002_w16_eval seed003_unet_c16
    seed003_patchd_c16_eval seed004_f32 sr3_inner16_salt resshift_swin_c32 vqf4_ch32_encode vqf4_ch32_decode""".split()
ENTRIES = 2
MOST_BYTES = 1_000_000
DTYPES = {"F32": numpy.float32, "F64": numpy.float64, "I64": numpy.int64, "U8": numpy.uint8}
M = (1 << 64) - 1


def fill(name, count):
    """The rule for inputs: numbers in [-1, 1) that follow from a name."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 & M
    s = numpy.uint64(h) + (numpy.arange(count, dtype=numpy.uint64) + numpy.uint64(1)) * numpy.uint64(0x9E3779B97F4A7C15)
    z = (s ^ (s >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    z ^= z >> numpy.uint64(31)
    return (((z >> numpy.uint64(40)).astype(numpy.float64) - 2**23) / 2**23).astype(numpy.float32)


def read(path):
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:end])
    metadata = header.pop("__metadata__")
    arrays = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        arrays[name] = numpy.frombuffer(data[end + start : end + stop], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return metadata, arrays


def write(path, metadata, arrays):
    names = {dtype: name for name, dtype in DTYPES.items()}
    header, data = {"__metadata__": dict(sorted(metadata.items()))}, b""
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        content = numpy.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": names[array.dtype.type],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main(folder):
    out, total = pathlib.Path(__file__).parent / "data", 0
    out.mkdir(exist_ok=True)
    for case in CASES:
        metadata, arrays = read(folder / f"{case}.safetensors")
        w = arrays.pop("w")
        if (fill(f"{case}.w", w.size).reshape(w.shape) != w).any():
            sys.exit(f"{case}: w is not what its name gives")
        for name, array in arrays.items():
            if name.endswith((".index", ".sample")):
                arrays[name] = array[:, :ENTRIES]
        path = out / f"{case}.safetensors"
        write(path, metadata, arrays)
        total += path.stat().st_size
        print(f"{path.stat().st_size:8} {case}")
    print(f"{total:8} of {MOST_BYTES}")
    if total > MOST_BYTES:
        sys.exit("that is too much")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
