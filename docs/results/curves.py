#!/usr/bin/env python3
"""Draws the loss and the validation PSNR of runs from their metrics.jsonl: curves.py NAME... writes NAME.svg."""
import json
import math
import pathlib
import sys

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 240, 56, 20, 28
HERE = pathlib.Path(__file__).parent


def column(rows, key):
    return [(r["step"], r[key]) for r in rows if isinstance(r.get(key), (int, float))]


def smooth(points, parts=120):
    """Means of equal parts, so that the noise of single batches does not hide the course."""
    size = max(1, math.ceil(len(points) / parts))
    chunks = [points[i:i + size] for i in range(0, len(points), size)]
    return [(c[-1][0], sum(v for _, v in c) / len(c)) for c in chunks]


def line(points, color, steps, low, high):
    def place(point):
        x = LEFT + (WIDTH - LEFT - 10) * point[0] / steps
        share = (math.log(point[1]) - low) / (high - low or 1)
        return f"{x:.1f},{HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share:.1f}"

    path = " ".join(place(p) for p in points)
    return f'<polyline fill="none" stroke="{color}" stroke-width="1.5" points="{path}"/>'


def text(x, y, words, anchor="start", color="#333"):
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{color}">{words}</text>'


def draw(name):
    rows = [json.loads(row) for row in open(HERE / name / "metrics.jsonl")]
    keys = ["loss", "loss_d", "loss_g", "critic_loss", "distance"]
    colors = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b"]
    curves = [(k, smooth([p for p in column(rows, k) if p[1] > 0]), c) for k, c in zip(keys, colors)]
    curves = [curve for curve in curves if curve[1]]
    values = [v for _, points, _ in curves for _, v in points]
    steps = max(s for _, points, _ in curves for s, _ in points)
    low, high = math.log(min(values)), math.log(max(values))
    parts = [line(points, color, steps, low, high) for _, points, color in curves]
    parts += [text(4, TOP + 4, f"{math.exp(high):.3g}"), text(4, HEIGHT - BOTTOM, f"{math.exp(low):.3g}"),
              text(WIDTH - 10, HEIGHT - 8, f"step {steps}", "end")]
    parts += [text(LEFT + 90 * i, 12, key.replace("_", " of ", 1), color=color)
              for i, (key, _, color) in enumerate(curves)]
    body = "\n".join(parts)
    (HERE / f"{name}.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n')


for name in sys.argv[1:]:
    draw(name)
