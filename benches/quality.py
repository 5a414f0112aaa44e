#!/usr/bin/env python3
"""The tables of docs/quality.md: models of srk and of others on damaged and on clean pictures.

    python3 benches/quality.py --pictures Kodak24 --set Set5=bench/Set5/GT [--set ...] \
        [--model NAME[:STEPS] ...] [--keep FOLDER]

The damaged set is made here, of --pictures: `srk data degrade --preset web`, 16 pictures of 384 x 384 pixels cut at
places and damaged in ways that follow from seed 7 alone, as JPEGs of 96 x 96. Its bicubic row is Pillow's. LPIPS and
DISTS need features (docs/metrics.md). Flat patches: gray and coloured ones of 96 x 96 with noise of 4 to 14 levels,
JPEG 80; what is printed is the noise left, over that of bicubic.
"""
import argparse
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile

from PIL import Image

SRK = os.environ.get("SRK", "target/release/srk")
METRICS = "psnr,ssim,lpips,dists,grid,weave,flat_noise"
COLUMNS = [("psnr_y", "PSNR-Y", 2), ("ssim_y", "SSIM", 3), ("lpips_alex", "LPIPS (AlexNet)", 3),
           ("lpips_vgg", "LPIPS (VGG16)", 3), ("dists", "DISTS", 3), ("flat_noise", "flat noise", 2),
           ("grid", "grid", 2)]


def srk(*args):
    run = subprocess.run([SRK, *map(str, args)], capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"srk {' '.join(map(str, args))}\n{run.stderr}")
    return run.stdout


def means(lines):
    """The event with the means of a set."""
    events = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return [event for event in events if event.get("event") == "summary"][-1]


def enlarged(model, steps, low, to):
    srk("upscale", low, "-o", f"{to}/", "-m", model, "-q", *(["--steps", steps] if steps else []))
    return to


def bicubic(low, to):
    os.makedirs(to)
    for name in sorted(os.listdir(low)):
        with Image.open(f"{low}/{name}") as picture:
            picture = picture.convert("RGB")
            size = (4 * picture.width, 4 * picture.height)
            picture.resize(size, Image.Resampling.BICUBIC).save(f"{to}/{os.path.splitext(name)[0]}.png")
    return to


def patches(folder):
    """Gray and coloured patches with noise; as JPEGs of quality 80."""
    draw = random.Random(1)
    os.makedirs(folder)
    for i in range(12):
        level = [draw.randint(40, 215)] * 3 if i % 2 else [draw.randint(40, 215) for _ in range(3)]
        sigma = 4 + 10 * i / 11
        pixels = bytes(min(255, max(0, round(v + draw.gauss(0, sigma)))) for _ in range(96 * 96) for v in level)
        Image.frombytes("RGB", (96, 96), pixels).save(f"{folder}/{i:02}.jpg", quality=80)
    return folder


def noise(folder):
    """The mean over patches of the deviation of luma, edges left out."""
    deviations = []
    for name in sorted(os.listdir(folder)):
        with Image.open(f"{folder}/{name}") as picture:
            luma = picture.convert("L").crop((32, 32, picture.width - 32, picture.height - 32))
        deviations.append(statistics.pstdev(luma.tobytes()))
    return statistics.mean(deviations)


def row(name, values):
    cells = ["-" if values.get(key) is None else f"{values[key]:.{digits}f}" for key, _, digits in COLUMNS]
    print(f"| {name} | " + " | ".join(cells) + f" | {values.get('patches', '')} |", flush=True)


def head():
    names = ["", *(name for _, name, _ in COLUMNS), "noise left on flat patches"]
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names), flush=True)


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--pictures", help="undamaged pictures of at least 384 pixels a side")
    parse.add_argument("--set", action="append", default=[], metavar="NAME=FOLDER", help="ground truths")
    parse.add_argument("--model", action="append", default=[], metavar="NAME[:STEPS]")
    parse.add_argument("--keep", help="a new folder for all pictures made")
    args = parse.parse_args()
    models = [m.rpartition(":")[::2] if m.rpartition(":")[2].isdigit() else (m, "") for m in args.model]
    models = models or [("srk-photo-x4", "1"), ("srk-photo-x4", "2"), ("srk-photo-x4", "4"), ("srk-x4", "1")]
    place = args.keep or tempfile.mkdtemp(prefix="srk-quality-")
    if args.pictures:
        web = f"{place}/web"
        srk("data", "degrade", args.pictures, web, "--preset", "web", "--count", 16, "--size", 384, "--seed", 7,
            "--format", "jpg")
        flat = patches(f"{place}/flat")
        base = noise(bicubic(flat, f"{place}/flat-bicubic"))
        print("\nDamaged\n")
        head()
        measure = lambda folder: means(srk("eval", folder, f"{web}/high", "--metrics", METRICS, "--json"))
        row("bicubic", {**measure(bicubic(f"{web}/low", f"{place}/web-bicubic")), "patches": "1.00"})
        for i, (model, steps) in enumerate(models):
            values = measure(enlarged(model, steps, f"{web}/low", f"{place}/web-{i}"))
            values["patches"] = f"{noise(enlarged(model, steps, flat, f'{place}/flat-{i}')) / base:.2f}"
            row(f"{os.path.basename(model)}, {steps or 'default'} steps", values)
    for name, _, folder in (s.partition("=") for s in args.set):
        print(f"\n{name}\n")
        head()
        for i, (model, steps) in enumerate(models):
            values = means(srk("eval", "--hr", folder, "-m", model, "--metrics", "psnr,ssim,lpips,dists", "--json",
                               *(["--steps", steps] if steps else [])))
            if i == 0 and isinstance(values.get("bicubic"), dict):
                row("bicubic", values["bicubic"])
            row(f"{os.path.basename(model)}, {steps or 'default'} steps", values)


if __name__ == "__main__":
    main()
