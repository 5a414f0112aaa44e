"""Puts what gpu_check.sh measured so far into summary.json, and prints the table.

    python3 gpu_check.py RESULTS        exit code 1 if a step failed or was cut
"""

import json
import pathlib
import sys

ENGINES = ("native", "auto", "cudnn", "cublas")


def lines(path):
    """The JSON objects among the lines of a log."""
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                pass  # a line that a limit on time cut short
    return found


def steps(path):
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    return [{"step": name, "code": code, "seconds": int(s)} for name, code, s in rows]


def ms(seconds):
    return "-" if seconds is None else f"{seconds * 1e3:.3f}"


def table(title, head, rows):
    if not rows:
        return
    print(f"\n{title}")
    rows = [head] + [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def ceilings(bench):
    rows = [["copy", f"{r['gb_per_s']:.0f} GB/s"] for r in bench if r["what"] == "copy"]
    products = [r for r in bench if r["what"] == "product"]
    return rows + [[f"product {r['dtype']}", f"{r['tflop_per_s']:.1f} TFLOP/s"] for r in products]


def operations(benches):
    """Forward in ms: one row an op, size and type, one column an engine."""
    rows = {}
    for engine in ENGINES:
        for r in benches.get(engine, []):
            if r["what"] == "op":
                rows.setdefault((r["op"], r["case"], r["dtype"]), {})[engine] = r
    return [[*key, *(ms(by.get(e, {}).get("forward_s")) for e in ENGINES)] for key, by in rows.items()]


def networks(benches, peer):
    """A call and a training step: one row a network, batch, type and way, srk's and PyTorch's of one name together."""
    rows = []
    for engine, bench in benches.items():
        for r in bench:
            if r["what"] == "network":
                for how in ("launched", "replayed"):
                    times = ["full"] * 2 if "full" in r else [ms(r[f"{how}_s"]), ms(r[f"training_{how}_s"])]
                    rows.append((r, ["srk", f"{engine}, {how}", *times]))
    for r in peer:
        if r["what"] == "torch_network":
            times = [r["error"], "-"] if "error" in r else [ms(r["forward_s"]), ms(r["training_s"])]
            rows.append((r, ["torch", r["how"], *times]))

    def key(r):
        return r["network"], r["batch"], r["dtype"].lower()

    order = {}
    for r, _ in rows:
        order.setdefault(key(r), len(order))
    rows.sort(key=lambda row: order[key(row[0])])
    return [[*key(r), r.get("parameters", "-"), *cells] for r, cells in rows]


def products_of(log):
    """Seconds of the runs of `srk upscale`, and the rates of those of `srk train` once they are warm."""
    seconds = [e["seconds"] for e in lines(log / "upscale.log") if e.get("event") == "file" and "seconds" in e]
    rates = [e["images_per_s"] for e in lines(log / "train.log") if "images_per_s" in e]
    return {"upscale_s": seconds, "train_images_per_s": rates}


def main():
    out = pathlib.Path(sys.argv[1])
    done = steps(out / "steps.tsv")
    benches = {e: lines(out / f"bench-{e}.log") for e in ENGINES}
    benches = {e: b for e, b in benches.items() if b}
    peer = lines(out / "torch.log") + lines(out / "torch-compiled.log")
    product = products_of(out)
    summary = {"steps": done, "bench": benches, "torch": peer, **product}
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    table("ceilings", ["what", "measured"], ceilings(benches.get("native", [])))
    table("ops, forward, ms", ["op", "case", "type", *ENGINES], operations(benches))
    table("networks, ms", ["network", "batch", "type", "parameters", "who", "how", "call", "training step"],
          networks(benches, peer))
    rows = [["srk upscale, s", *(f"{s:.3f}" for s in product["upscale_s"])],
            ["srk train, images/s", *(f"{r:.1f}" for r in product["train_images_per_s"][-3:])]]
    table("the program", ["what", "measured"], [[row[0], "  ".join(row[1:])] for row in rows if row[1:]])
    said = {"0": "passed", "absent": "not there", "cut": "CUT by its time", "no time": "NOT RUN, no time left"}
    table("steps", ["step", "result", "seconds"],
          [[s["step"], said.get(s["code"], f"FAILED ({s['code']})"), s["seconds"]] for s in done])
    sys.exit(any(s["code"] not in ("0", "absent") for s in done))


if __name__ == "__main__":
    main()
