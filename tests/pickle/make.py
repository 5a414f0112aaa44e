"""Writes the checkpoints of this folder with PyTorch; numbers are what tests/suite/import.rs expects."""
import argparse, collections
import numpy as np
import torch

n = torch.arange(24, dtype=torch.float32) / 8
sd = collections.OrderedDict(
    plain=n.view(4, 6), turned=n.view(4, 6).t(), part=n[5:17].view(3, 4), strided=n[1::5],
    half=n[:6].view(3, 2).half(), bf=n[:5].bfloat16(), f64=n[:4].view(2, 2).double(),
    count=torch.tensor(7), i8=torch.tensor([1, -2], dtype=torch.int8), i16=torch.tensor([300, -4], dtype=torch.int16),
    i32=torch.tensor([3, -4], dtype=torch.int32), u8=torch.tensor([3, 250], dtype=torch.uint8),
    flag=torch.tensor([True, False]), parameter=torch.nn.Parameter(n[:3].clone()), empty=torch.zeros(0, 3))
model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
with torch.no_grad():
    for i, p in enumerate(model.parameters()):
        p.copy_(torch.arange(p.numel(), dtype=torch.float32).view(p.shape) + 100 * i)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
model(torch.randn(2, 1, 4, 4)).sum().backward()
before = {k: v.clone() for k, v in model.state_dict().items()}
optimizer.step()
with torch.no_grad():
    for k, v in model.state_dict().items():
        v.copy_(before[k])
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
whole = {"epoch": 3, "model_state": model.state_dict(), "optimizer_state": optimizer.state_dict(),
         "scheduler_state": schedule.state_dict(), "best": np.float64(2.5), "args": argparse.Namespace(a=1, b="x"),
         "random": np.random.get_state()[1][:3]}
for zip_file, kind in ((True, "zip"), (False, "legacy")):
    torch.save(sd, f"types.{kind}.pth", _use_new_zipfile_serialization=zip_file)
    torch.save(whole, f"whole.{kind}.pth", _use_new_zipfile_serialization=zip_file)
