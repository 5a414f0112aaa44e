#!/usr/bin/env python3
"""Measures on pictures how far the maps of a model's blocks reach, and gives its file limits a quarter beyond that.

    pip install torch numpy pillow
    python3 weights/limits.py weights/srk-x4.safetensors PICTURES

A network that learnt from photographs alone answers edges harder than any in them, as of letters in black and white
without a shade between, with numbers that grow from block to block, until nothing is left of the picture. Within
limits that photographs stay inside of they no longer do, and photographs keep their bits.

PICTURES is a folder; each picture is shrunk by 4 and passes all calls, with the states that it would have. The limits of a block
are written as `block_N.limits`, [2, C]: the least and the largest number of each channel; `later.block_N.limits` are those of the
calls after the first. Printed: how near each call comes to the picture, and the ends of each block.
"""
import json
import pathlib
import struct
import sys

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

MARGIN = 0.25


def read(path):
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:end])
    about = header.pop("__metadata__")

    def tensor(entry):
        begin, stop = entry["data_offsets"]
        assert entry["dtype"] == "F16", entry
        return np.frombuffer(data[end + begin:end + stop], "<f2").reshape(entry["shape"])

    return about, {name: tensor(entry) for name, entry in header.items()}


def write(path, about, tensors):
    header, at = {"__metadata__": about}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(t.tobytes() for t in tensors.values()))


class Call:
    """The call of the network at time t; `later.` is what its names start with where that is not T."""

    def __init__(self, weights, config, t, below):
        self.weights, self.config, self.t, self.below = weights, config, t, below

    def conv(self, name, x):
        bias = self.weights.get(f"{self.below}{name}.bias")
        return functional.conv2d(x, self.weights[f"{self.below}{name}.weight"], bias, padding=1)

    def linear(self, name, x):
        return functional.linear(x, self.weights[f"{self.below}{name}.weight"], self.weights[f"{self.below}{name}.bias"])

    def maps(self, low, state, damage):
        """The output of each block, and of the network, for images [1, 3, H, W]: `low` in [0, 1], `state` in [-1, 1]."""
        half = self.config["time_dim"] // 2
        angles = self.t * 1e4 ** (-torch.arange(half) / (half - 1))
        told = torch.cat([angles.sin(), angles.cos(), torch.tensor(damage)])
        for name in ("told.0", "told.2"):
            told = functional.silu(self.linear(name, told))
        stem = self.conv("conv_1", low)
        if self.below:
            stem = stem + self.conv("state", functional.pixel_unshuffle(state, self.config["scale"]))
        x, blocks = stem, []
        for block in range(1, self.config["blocks"] + 1):
            y = x + self.linear(f"block_{block}.told", told)[:, None, None]
            for k in range(1, 5):
                y = self.conv(f"block_{block}.rep{k}.rep_conv", y)
                y = functional.leaky_relu(y, 0.1) if k < 4 else y
            x = (x + y) * (torch.sigmoid(y) - 0.5)
            blocks.append(x)
        image = self.conv("upsampler.0", self.conv("conv_2", x) + stem)
        return blocks, functional.pixel_shuffle(image, self.config["scale"]) * 2 - 1


def state(truth, enlarged, process, t):
    """ResShift's state at t (Yue et al. 2023, equation 2) with the schedule of `process`, of images in [-1, 1]."""
    eta, last = process["eta"], process["steps"]
    assert eta["kind"] == "paper", eta
    first, power = eta["first"], eta["power"]
    grown = (last - 1) * ((t - 1) / (last - 1)) ** power
    now = first * (eta["last"] / first) ** (grown / (last - 1))
    return truth + now * (enlarged - truth) + process["kappa"] * now ** 0.5 * torch.randn_like(truth)


def main():
    path, pictures = pathlib.Path(sys.argv[1]), sorted(pathlib.Path(sys.argv[2]).iterdir())
    about, tensors = read(path)
    config, process = json.loads(about["srk.config"]), json.loads(about["srk.diffusion"])["process"]
    assert config["kind"] == "attentive-grid", config
    weights = {name: torch.from_numpy(tensor.astype(np.float32)) for name, tensor in tensors.items()}
    calls = [Call(weights, config, process["steps"], "")]
    calls += [Call(weights, config, t, "later.") for t in range(1, process["steps"])]
    ends, errors = {}, {call.t: [] for call in calls}
    torch.manual_seed(0)
    for number, picture in enumerate(pictures):
        truth = Image.open(picture).convert("RGB")
        small = truth.resize((truth.width // 4, truth.height // 4), Image.Resampling.BICUBIC)
        large = small.resize((small.width * 4, small.height * 4), Image.Resampling.BICUBIC)
        truth = truth.crop((0, 0, *large.size))
        low, enlarged, truth = (torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1)[None]
                                for image in (small, large, truth))
        for call in calls:
            # Nothing is known of the damage, or that there is none.
            damage = [[0.0] * 6, [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]][number % 2]
            with torch.no_grad():
                blocks, image = call.maps(low, state(truth * 2 - 1, enlarged * 2 - 1, process, call.t), damage)
            errors[call.t].append(((image / 2 + 0.5 - truth) ** 2).mean().item())
            for block, x in enumerate(blocks):
                found = torch.stack([x.amin((0, 2, 3)), x.amax((0, 2, 3))])
                ends.setdefault(f"{call.below}block_{block + 1}", []).append(found)
    for t, error in errors.items():
        print(f"t = {t}: {-10 * np.log10(np.mean(error)):.2f} dB")
    for block, found in ends.items():
        found = torch.stack(found)
        low, high = found[:, 0].amin(0), found[:, 1].amax(0)
        beyond = MARGIN * (high - low)
        tensors[f"{block}.limits"] = torch.stack([low - beyond, high + beyond]).numpy().astype("<f2")
        print(f"{block}: {low.min():.3f} to {high.max():.3f} in {len(found)} calls")
    about["srk.config"] = json.dumps({**config, "limited": True}, separators=(",", ":"), sort_keys=True)
    write(path, about, tensors)


main()
