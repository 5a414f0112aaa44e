"""Times the default models' network in PyTorch on the CPU: a forward and a training step.

    python benches/peers/torch_default.py [--network dual-domain-grid] [--batch 16] [--low 32] [--threads 2] [--bf16]

The same networks as src/models/attentive_grid.rs (the expert of later calls) and, the default before, dual_domain_grid.rs,
f32 or under autocast to bf16, in both memory layouts, eager, or compiled with --compile. Needs torch only. Compare with
`cargo bench --bench step`.
"""

import argparse
import math
import time

import torch
import torch.nn.functional as F
from torch import nn


def dct_matrix(n):
    d = torch.tensor(
        [[math.cos(math.pi * (2 * i + 1) * u / (2 * n)) for i in range(n)] for u in range(n)]
    ) * math.sqrt(2 / n)
    d[0] /= math.sqrt(2)
    return d


class Block(nn.Module):
    def __init__(self, c, f, w):
        super().__init__()
        self.f = f
        self.conv0, self.conv2 = nn.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)
        self.reduce = nn.Conv2d(c, f + w, 1)
        self.dct = nn.Conv2d(f, f, 1, bias=False)
        self.bands = nn.Conv2d(4 * w, 4 * w, 1)
        self.fusion = nn.Conv2d(c + f + w, c, 1)
        self.time = nn.Linear(c, c)
        self.register_buffer("d", dct_matrix(8))

    def blocks(self, x, d):
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 8, 8, w // 8, 8)
        x = torch.einsum("ui,ncaibj,vj->ncaubv", d, x, d)
        return x.reshape(n, c, h, w)

    def haar(self, x):
        a, b, c, d = x[:, :, ::2, ::2], x[:, :, ::2, 1::2], x[:, :, 1::2, ::2], x[:, :, 1::2, 1::2]
        return torch.cat([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d], 1) / 2

    def unhaar(self, x):
        l, p, q, r = x.chunk(4, 1)
        a, b, c, d = l + p + q + r, l + p - q - r, l - p + q - r, l - p - q + r
        x = torch.stack([a, b, c, d], 2) / 2
        n, ch, _, h, w = x.shape
        return F.pixel_shuffle(x.reshape(n, ch * 4, h, w), 2)

    def forward(self, x, time):
        s = F.relu(self.conv2(F.relu(self.conv0(x))))
        f, w = self.reduce(x).split([self.f, self.reduce.out_channels - self.f], 1)
        f = self.blocks(F.relu(self.dct(self.blocks(f, self.d))), self.d.t())
        w = self.unhaar(F.relu(self.bands(self.haar(w))))
        y = x + self.fusion(torch.cat([s, f, w], 1))
        return y + self.time(time)[:, :, None, None]


class Grid(nn.Module):
    def __init__(self, c=64, blocks=8, f=32, w=16, dim=64, scale=4):
        super().__init__()
        self.scale, self.dim = scale, dim
        self.mlp = nn.Sequential(nn.Linear(dim, c), nn.SiLU(), nn.Linear(c, c), nn.SiLU())
        self.stem = nn.Conv2d(3 * scale**2 + 3, c, 3, padding=1)
        self.blocks = nn.ModuleList(Block(c, f, w) for _ in range(blocks))
        self.body = nn.Conv2d(c, c, 3, padding=1)
        self.tail = nn.Conv2d(c, 3 * scale**2, 3, padding=1)

    def forward(self, x, low, t):
        time = self.mlp(embedding(t, self.dim).to(x.dtype))
        stem = self.stem(torch.cat([F.pixel_unshuffle(x, self.scale), low], 1))
        h = stem
        for block in self.blocks:
            h = block(h, time)
        return F.pixel_shuffle(self.tail(self.body(h) + stem), self.scale)


def embedding(t, dim):
    """Sines and cosines of t [N], the last frequency at 1e-4."""
    k = torch.exp(-math.log(1e4) * torch.arange(dim // 2) / (dim // 2 - 1))
    e = t[:, None].float() * k
    return torch.cat([e.sin(), e.cos()], 1)


class GatedBlock(nn.Module):
    def __init__(self, c, dim, depth=4):
        super().__init__()
        self.told = nn.Linear(dim, c)
        self.convs = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1) for _ in range(depth))

    def forward(self, x, told):
        y = x + self.told(told)[:, :, None, None]
        for conv in self.convs[:-1]:
            y = F.leaky_relu(conv(y), 0.1)
        y = self.convs[-1](y)
        return (x + y) * (torch.sigmoid(y) - 0.5)


class Attentive(nn.Module):
    def __init__(self, c=32, blocks=6, dim=32, told=6, scale=4):
        super().__init__()
        self.scale, self.dim, self.count = scale, dim, told
        self.mlp = nn.Sequential(nn.Linear(dim + told, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU())
        self.low = nn.Conv2d(3, c, 3, padding=1)
        self.state = nn.Conv2d(3 * scale**2, c, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(GatedBlock(c, dim) for _ in range(blocks))
        self.body = nn.Conv2d(c, c, 3, padding=1)
        self.tail = nn.Conv2d(c, 3 * scale**2, 3, padding=1)

    def forward(self, x, low, t):
        damage = torch.zeros(len(t), self.count)
        told = self.mlp(torch.cat([embedding(t, self.dim), damage], 1))
        stem = self.low((low + 1) / 2) + self.state(F.pixel_unshuffle(x, self.scale))
        h = stem
        for block in self.blocks:
            h = block(h, told)
        return 2 * F.pixel_shuffle(self.tail(self.body(h) + stem), self.scale) - 1


def best(run, rounds):
    run(), run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3, sorted(times)[len(times) // 2] * 1e3


NETWORKS = {"attentive-grid": Attentive, "dual-domain-grid": Grid}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--network", choices=NETWORKS, default="attentive-grid")
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--low", type=int, default=32)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=8)
    p.add_argument("--compile", action="store_true")
    p.add_argument("--bf16", action="store_true", help="under autocast")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    n, s = a.batch, a.low
    for layout in (torch.contiguous_format, torch.channels_last):
        net = NETWORKS[a.network]().to(memory_format=layout)
        step = torch.compile(net) if a.compile else net
        x = torch.rand(n, 3, 4 * s, 4 * s).to(memory_format=layout)
        low, t = torch.rand(n, 3, s, s).to(memory_format=layout), torch.full((n,), 3.0)
        target = torch.rand_like(x)
        adam = torch.optim.Adam(net.parameters(), lr=1e-4)

        def cast():
            return torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.bf16)

        def forward():
            with torch.inference_mode(), cast():
                step(x, low, t)

        def train():
            adam.zero_grad()
            with cast():
                loss = F.l1_loss(step(x, low, t), target)
            loss.backward()
            adam.step()

        count = sum(p.numel() for p in net.parameters())
        print(f"{a.network} {layout} batch {n} low {s} threads {a.threads} parameters {count}")
        print("  forward       best %.1f ms  median %.1f ms" % best(forward, a.rounds))
        print("  training step best %.1f ms  median %.1f ms" % best(train, a.rounds))


if __name__ == "__main__":
    main()
