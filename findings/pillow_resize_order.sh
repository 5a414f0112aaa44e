#!/usr/bin/env bash
# Pillow 13.0.0 changed the order of the two passes of `Image.resize`: rows first if and only if the height shrinks and
# 2 (W - w) < H - h, otherwise columns first; 12.3.0 always makes columns first. Each pass rounds to 8 bits, so the same
# picture shrunk by the same filter differs by a level here and there. Data sets made by one version are not those of
# the other.
#
# Seen: 1080x1920 (W x H) squashed to 256x256 by bicubic differs between 12.3.0 and 13.0.0; 1920x1080 does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/shrink.py" <<'PY'
import hashlib
from PIL import Image

def picture(width, height):
    pixels = bytearray()
    state = 1
    for _ in range(width * height):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        pixels.append(state >> 24)
    return Image.frombytes("L", (width, height), bytes(pixels))

for size in [(1080, 1920), (1920, 1080)]:
    small = picture(*size).resize((256, 256), Image.Resampling.BICUBIC)
    print(size, hashlib.sha256(small.tobytes()).hexdigest()[:16])
PY
for version in 12.3.0 13.0.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install -q "pillow==$version"
    "$folder/$version/bin/python" "$folder/shrink.py" > "$folder/$version.txt"
    echo "pillow $version"
    cat "$folder/$version.txt"
done
tall() { grep '^(1080' "$folder/$1.txt"; }
wide() { grep '^(1920' "$folder/$1.txt"; }
[ "$(tall 12.3.0)" != "$(tall 13.0.0)" ] || { echo "changed: tall pictures are the same now"; exit 1; }
[ "$(wide 12.3.0)" = "$(wide 13.0.0)" ] || { echo "changed: wide pictures differ now"; exit 1; }
echo "as described"
