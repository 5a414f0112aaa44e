"""Times three networks in PyTorch on a GPU: one call and one training step, as lines of JSON.

    python3 benches/peers/torch_unet.py [--batch 1 16] [--dtype f16 bf16] [--rounds 20]

They have the names, sizes and batches that `cargo bench --bench gpu` times (benches/gpu.rs), and the same parameters,
which each row counts: `dual_domain_grid` is the default model's (src/models/dual_domain_grid.rs), from 64 to 256
pixels; `unet_64` the UNet of SR3 with 64 base channels (src/models/sr3_unet.rs), at 128 pixels; `attention_unet` the
deep one of the recipe sr3-div2k (src/models/attention_unet.rs) without its attention, at 256 pixels.

Each eager in channels_last, as a CUDA graph, and compiled with max-autotune. A call has its weights in half precision,
as srk's has. A training step is l1_loss, backward, the norm clipped, and Adam; it holds weights in f32 under autocast.
Needs torch only.
"""

import argparse
import copy
import json
import math

import torch
import torch.nn.functional as F
from torch import nn

from torch_default import Grid


def conv3(c_in, c_out, stride=1):
    return nn.Conv2d(c_in, c_out, 3, stride, 1)


def sinusoid(t, width, interleaved):
    """Sines, then cosines, or each frequency's in turn."""
    half = width // 2
    k = torch.exp(torch.arange(half, device=t.device) * (-math.log(1e4) / half))
    e = t[:, None].float() * k
    both = torch.stack([e.sin(), e.cos()], 2 if interleaved else 1)
    return both.reshape(t.shape[0], width)


class Stage(nn.Module):
    """Norm, SiLU, a convolution, and a shift by what t has to say."""

    def __init__(self, groups, c_in, c_out, kernel, time):
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(groups, c_in), nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)
        self.time = nn.Linear(time, c_out) if time else None

    def forward(self, x, e):
        y = self.conv(F.silu(self.norm(x)))
        return y if self.time is None else y + self.time(e)[:, :, None, None]


class Block(nn.Module):
    """Stages, and beside them a convolution where channels change; the sum has `share` of that."""

    def __init__(self, stages, c_in, c_out, kernel, share):
        super().__init__()
        self.stages, self.share = nn.ModuleList(stages), share
        self.skip = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2) if c_in != c_out else nn.Identity()

    def forward(self, x, e):
        y = x
        for stage in self.stages:
            y = stage(y, e)
        return self.share * self.skip(x) + y


class Attention(nn.Module):
    """One head."""

    def __init__(self, c):
        super().__init__()
        self.norm, self.qkv = nn.GroupNorm(32, c), nn.Conv2d(c, 3 * c, 1, bias=False)
        self.out = nn.Conv2d(c, c, 1)

    def forward(self, x, e):
        n, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, 3, 1, c, h * w).transpose(3, 4)
        a = F.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2])
        return x + self.out(a.transpose(2, 3).reshape(n, c, h, w))


class Then(nn.Module):
    """A layer that t tells nothing, on a map made twice as large if `grows`."""

    def __init__(self, layer, grows=False):
        super().__init__()
        self.layer, self.grows = layer, grows

    def forward(self, x, e):
        return self.layer(F.interpolate(x, scale_factor=2.0, mode="nearest") if self.grows else x)


class UNet(nn.Module):
    """Layers in a row. Behind those of `keeps` the map is kept; before those of `joins` the last kept one joins it,
    in front if `front`."""

    def __init__(self, front):
        super().__init__()
        self.layers, self.keeps, self.joins, self.front = nn.ModuleList(), set(), set(), front

    def add(self, layer, keeps=False, joins=False):
        self.keeps |= {len(self.layers)} if keeps else set()
        self.joins |= {len(self.layers)} if joins else set()
        self.layers.append(layer)

    def run(self, x, e):
        kept = []
        for i, layer in enumerate(self.layers):
            if i in self.joins:
                x = torch.cat([kept.pop(), x] if self.front else [x, kept.pop()], 1)
            x = layer(x, e)
            if i in self.keeps:
                kept.append(x)
        return x


class Unet64(UNet):
    """SR3's with multipliers 1, 2, 2, 4; 2 blocks a level, 3 on the way up; attention at an eighth of the side."""

    def __init__(self, base=64, multipliers=(1, 2, 2, 4), depth=2):
        super().__init__(front=False)
        self.base = base
        self.level = nn.Sequential(nn.Linear(base, 4 * base), nn.SiLU(), nn.Linear(4 * base, base))
        last = len(multipliers) - 1
        c, kept = base, [base]

        def block(c_in, c_out, attends, joins=False, keeps=False):
            stages = [Stage(32, c_in, c_out, 3, base), Stage(32, c_out, c_out, 3, 0)]
            self.add(Block(stages, c_in, c_out, 1, 1.0), joins=joins, keeps=keeps and not attends)
            if attends:
                self.add(Attention(c_out), keeps=keeps)

        self.add(Then(conv3(6, base)), keeps=True)
        for level, m in enumerate(multipliers):
            for _ in range(depth):
                block(c, base * m, level == last, keeps=True)
                c = base * m
                kept.append(c)
            if level < last:
                self.add(Then(conv3(c, c, 2)), keeps=True)
                kept.append(c)
        block(c, c, True)
        block(c, c, False)
        for level, m in reversed(list(enumerate(multipliers))):
            for _ in range(depth + 1):
                block(c + kept.pop(), base * m, level == last, joins=True)
                c = base * m
            if level:
                self.add(Then(conv3(c, c), grows=True))
        self.add(Stage(32, c, 3, 3, 0))

    def forward(self, x, low, t):
        e = self.level(sinusoid(t, self.base, False).to(x.dtype))
        return self.run(torch.cat([low, x], 1), e)


class AttentionUNet(UNet):
    """Deep BigGAN blocks, three in a row, on five levels."""

    def __init__(self, c=64, time=1000):
        super().__init__(front=True)
        self.time = time

        def blocks(c_in, c_out, joins=False, keeps=False):
            for i in range(3):
                inputs = c_in if i == 0 else c_out
                widths = [(inputs, inputs, 1), (inputs, c_out, 3), (c_out, c_out, 3), (c_out, c_out, 1)]
                stages = [Stage(max(a // 16, 1), a, b, kernel, time if k < 3 else 0)
                          for k, (a, b, kernel) in enumerate(widths)]
                block = Block(stages, inputs, c_out, 3, 0.5**0.5)
                self.add(block, joins=joins and i == 0, keeps=keeps and i == 2)

        def grow(c_out):
            self.add(Then(nn.ConvTranspose2d(2 * c_out, c_out, 2, 2)))

        for rows in ([(6, c)], [(c, 2 * c)], [(2 * c, 4 * c)], [(4 * c, 8 * c), (8 * c, 8 * c)]):
            for k, (c_in, c_out) in enumerate(rows):
                blocks(c_in, c_out, keeps=k + 1 == len(rows))
            self.add(Then(nn.MaxPool2d(2)))
        blocks(8 * c, 16 * c)
        blocks(16 * c, 16 * c)
        grow(8 * c)
        blocks(16 * c, 8 * c, joins=True)
        blocks(8 * c, 8 * c)
        for m in (4, 2, 1):
            grow(m * c)
            blocks(2 * m * c, m * c, joins=True)
        blocks(c, 3)

    def forward(self, x, low, t):
        return self.run(torch.cat([low, x], 1), sinusoid(t, self.time, True).to(x.dtype))


class GpuGrid(Grid):
    """The default network with its table of frequencies where the input is."""

    def forward(self, x, low, t):
        with torch.device(x.device):
            return super().forward(x, low, t)


def seconds(run, rounds):
    """Median time of one run, between events, warm; about a second in all."""
    def timed(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(runs):
            run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3 / runs

    for _ in range(3):
        run()
    once = max(timed(1), 1e-6)
    runs = max(1, min(5, int(0.05 / once)))
    times = [timed(runs) for _ in range(max(3, min(rounds, int(1.0 / once / runs))))]
    return sorted(times)[len(times) // 2]


def graphed(run):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


# Name, network, and the sides of the state and of what is seen beside it.
NETWORKS = (("dual_domain_grid", GpuGrid, 256, 64), ("unet_64", Unet64, 128, 128),
            ("attention_unet", AttentionUNet, 256, 256))


def measure(make, sides, batch, dtype, how, rounds):
    torch.manual_seed(0)
    net = make().cuda().to(memory_format=torch.channels_last)
    step = torch.compile(net, mode="max-autotune") if how == "compiled" else net
    x, low = (torch.rand(batch, 3, side, side, device="cuda").to(memory_format=torch.channels_last) for side in sides)
    t = torch.full((batch,), 0.5, device="cuda")
    adam = torch.optim.Adam(net.parameters(), lr=1e-4, fused=True, capturable=True)

    half = copy.deepcopy(net).to(dtype)
    fast = torch.compile(half, mode="max-autotune") if how == "compiled" else half
    inputs = [v.to(dtype) for v in (x, low, t)]

    def call():
        with torch.inference_mode():
            return fast(*inputs)

    def train():
        adam.zero_grad()
        # Each weight is cast once a step either way; what a cache keeps cannot be in a graph.
        with torch.autocast("cuda", dtype, cache_enabled=how != "graph"):
            loss = F.l1_loss(step(x, low, t).float(), x)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0, foreach=True)
        adam.step()

    recorded = graphed if how == "graph" else lambda run: run
    return {"parameters": sum(p.numel() for p in net.parameters()),
            "forward_s": seconds(recorded(call), rounds), "training_s": seconds(recorded(train), rounds)}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    p.add_argument("--dtype", nargs="+", default=["f16", "bf16"], choices=["f16", "bf16"])
    p.add_argument("--how", nargs="+", default=["eager", "graph", "compiled"])
    p.add_argument("--rounds", type=int, default=20)
    a = p.parse_args()
    torch.backends.cudnn.benchmark = True
    print(json.dumps({"what": "torch", "version": torch.__version__, "cuda": torch.version.cuda,
                      "cudnn": torch.backends.cudnn.version(), "gpu": torch.cuda.get_device_name()}))
    # Compiling takes minutes: last, so that a limit on time costs only that.
    for how in a.how:
        for network, make, *sides in NETWORKS:
            for dtype in a.dtype:
                for batch in a.batch:
                    row = {"what": "torch_network", "network": network, "how": how,
                           "dtype": dtype, "batch": batch}
                    try:
                        precision = {"f16": torch.float16, "bf16": torch.bfloat16}[dtype]
                        row |= measure(make, sides, batch, precision, how, a.rounds)
                    except RuntimeError as error:
                        row["error"] = str(error).splitlines()[0]
                        torch.cuda.empty_cache()
                    torch.compiler.reset()
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
