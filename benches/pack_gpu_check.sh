#!/usr/bin/env bash
# Packs what benches/gpu_check.sh needs on a machine with a GPU but without Rust.
#
#   benches/pack_gpu_check.sh [FOLDER]      default: target/gpu_check; also FOLDER.tar.gz, below 60 MB
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-target/gpu_check}
rm -rf "$out"
mkdir -p "$out/bin" "$out/peers" "$out/images"

# The paths of the executables that cargo builds for these arguments, one a line.
built() {
    cargo "$@" --release --locked --message-format=json-render-diagnostics |
        python3 -c '
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if m.get("executable"):
        print(m["target"]["name"], m["executable"])'
}

export CARGO_PROFILE_RELEASE_STRIP=true CARGO_PROFILE_RELEASE_DEBUG=0
export CARGO_PROFILE_BENCH_STRIP=true CARGO_PROFILE_BENCH_DEBUG=0
{
    built build --bin srk
    built test --no-run --test suite
    built bench --no-run --bench gpu
} | while read -r name path; do
    cp "$path" "$out/bin/$name"
    strip "$out/bin/$name" 2>/dev/null || true
done

cp benches/gpu_check.sh benches/gpu_check.py "$out/"
cp benches/peers/torch_default.py benches/peers/torch_unet.py "$out/peers/"
cp examples/*.png "$out/images/"
git describe --always --dirty >"$out/version" 2>/dev/null || echo unknown >"$out/version"
tar -czf "$out.tar.gz" -C "$(dirname "$out")" "$(basename "$out")"
size=$(stat -c %s "$out.tar.gz")
echo "$out.tar.gz: $((size >> 20)) MiB; on the GPU's machine: ./gpu_check.sh"
[ "$size" -lt 60000000 ] || { echo "that is more than 60 MB" >&2; exit 1; }
