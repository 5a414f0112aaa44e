"""Times two networks in PyTorch on a GPU: one call and one training step, as lines of JSON.

    python3 benches/peers/torch_unet.py [--batch 1 16] [--dtype f16 bf16] [--rounds 20]

`grid` is the default model's network (src/models/dual_domain_grid.rs), at 64 x 64 to 256 x 256;
`unet` a UNet of 64 base channels as DDPM and SR3 have it (17.3 M parameters; 256 x 256 in and out,
unshuffled by 4). Each eager in channels_last, compiled with max-autotune, and eager as a CUDA graph. A
call has its weights in half precision, as srk's has; a training step holds them in f32 under autocast, and
contains the clipping of the norm and the optimizer. Needs torch only. The counterpart is
`cargo bench --bench gpu`.
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


class ResBlock(nn.Module):
    def __init__(self, c_in, c_out, time):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, c_in), conv3(c_in, c_out)
        self.time = nn.Linear(time, c_out)
        self.norm2, self.conv2 = nn.GroupNorm(32, c_out), conv3(c_out, c_out)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x, e):
        h = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(e))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm, self.qkv, self.out = nn.GroupNorm(32, c), nn.Conv2d(c, 3 * c, 1), nn.Conv2d(c, c, 1)

    def forward(self, x):
        n, c, h, w = x.shape
        heads = c // 64
        qkv = self.qkv(self.norm(x)).reshape(n, 3, heads, 64, h * w).transpose(3, 4)
        a = F.scaled_dot_product_attention(qkv[:, 0], qkv[:, 1], qkv[:, 2])
        return x + self.out(a.transpose(2, 3).reshape(n, c, h, w))


class UNet(nn.Module):
    """Multipliers 1, 2, 2, 4; 2 residual blocks a level, 3 on the way up; attention at 16 x 16."""

    def __init__(self, base=64, multipliers=(1, 2, 2, 4), depth=2, shuffle=4, size=64, attention=16):
        super().__init__()
        self.shuffle, self.base, time = shuffle, base, 4 * base
        self.time = nn.Sequential(nn.Linear(base, time), nn.SiLU(), nn.Linear(time, time))
        self.stem = conv3(6 * shuffle**2, base)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        c, skips = base, [base]
        for level, m in enumerate(multipliers):
            for _ in range(depth):
                self.down.append(self.stage(c, base * m, time, size == attention))
                c = base * m
                skips.append(c)
            if level + 1 < len(multipliers):
                self.down.append(conv3(c, c, 2))
                skips.append(c)
                size //= 2
        self.middle = nn.ModuleList([ResBlock(c, c, time), Attention(c), ResBlock(c, c, time)])
        for level, m in reversed(list(enumerate(multipliers))):
            for _ in range(depth + 1):
                self.up.append(self.stage(c + skips.pop(), base * m, time, size == attention))
                c = base * m
            if level:
                self.up.append(conv3(c, c))
                size *= 2
        self.norm, self.last = nn.GroupNorm(32, c), conv3(c, 3 * shuffle**2)

    def stage(self, c_in, c_out, time, attention):
        return nn.ModuleList([ResBlock(c_in, c_out, time)] + [Attention(c_out)] * attention)

    def run(self, stage, h, e):
        h = stage[0](h, e)
        return stage[1](h) if len(stage) > 1 else h

    def forward(self, x, low, t):
        half = self.base // 2
        k = torch.exp(torch.arange(half, device=t.device) * (-math.log(1e4) / half))
        e = t[:, None].float() * k
        e = self.time(torch.cat([e.cos(), e.sin()], 1).to(x.dtype))
        h = self.stem(F.pixel_unshuffle(torch.cat([x, low], 1), self.shuffle))
        skips = [h]
        for m in self.down:
            h = self.run(m, h, e) if isinstance(m, nn.ModuleList) else m(h)
            skips.append(h)
        h = self.middle[2](self.middle[1](self.middle[0](h, e)), e)
        for m in self.up:
            if isinstance(m, nn.ModuleList):
                h = self.run(m, torch.cat([h, skips.pop()], 1), e)
            else:
                h = m(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.last(F.silu(self.norm(h))), self.shuffle)


class GpuGrid(Grid):
    """The default network with its table of frequencies where the input is."""

    def forward(self, x, low, t):
        with torch.device(x.device):
            return super().forward(x, low, t)


def seconds(run, rounds):
    """Median time of one run, between events, warm."""
    for _ in range(5):
        run()
    times = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(5):
            run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 5e3)
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


def measure(network, make, batch, dtype, how, rounds):
    torch.manual_seed(0)
    net = make().cuda().to(memory_format=torch.channels_last)
    step = torch.compile(net, mode="max-autotune") if how == "compiled" else net
    x = torch.rand(batch, 3, 256, 256, device="cuda").to(memory_format=torch.channels_last)
    side = 64 if network == "grid" else 256
    low = torch.rand(batch, 3, side, side, device="cuda").to(memory_format=torch.channels_last)
    t = torch.full((batch,), 3.0, device="cuda")
    adam = torch.optim.Adam(net.parameters(), lr=1e-4, fused=True)

    half = copy.deepcopy(net).to(dtype)
    fast = torch.compile(half, mode="max-autotune") if how == "compiled" else half
    inputs = [v.to(dtype) for v in (x, low, t)]

    def call():
        with torch.inference_mode():
            return fast(*inputs)

    def train():
        adam.zero_grad()
        with torch.autocast("cuda", dtype):
            loss = F.l1_loss(step(x, low, t).float(), x)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0, foreach=True)
        adam.step()

    run = graphed(call) if how == "graph" else call
    row = {"forward_s": seconds(run, rounds)}
    if how != "graph":
        row["training_s"] = seconds(train, rounds)
    return row


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
        for network, make in (("grid", GpuGrid), ("unet", UNet)):
            for dtype in a.dtype:
                for batch in a.batch:
                    row = {"what": "torch_network", "network": network, "how": how,
                           "dtype": dtype, "batch": batch}
                    try:
                        precision = {"f16": torch.float16, "bf16": torch.bfloat16}[dtype]
                        row |= measure(network, make, batch, precision, how, a.rounds)
                    except RuntimeError as error:
                        row["error"] = str(error).splitlines()[0]
                    torch.compiler.reset()
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
