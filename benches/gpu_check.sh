#!/usr/bin/env bash
# Everything that only a GPU can tell: kernels against the CPU, repeatability, libraries against our
# kernels, memory errors, speed, and PyTorch beside it. Runs from the folder that
# benches/pack_gpu_check.sh packs; needs an NVIDIA driver, and python3 with torch for the comparison.
#
#   ./gpu_check.sh [OUT]        default: results; OUT/summary.json and a table on standard output
#   STEPS="doctor kernels ..."  only some of: doctor kernels repeat engines sanitizer bench torch
set -uo pipefail
cd "$(dirname "$0")"
out=$(mkdir -p "${1:-results}" && cd "${1:-results}" && pwd)
steps=${STEPS:-doctor kernels repeat engines sanitizer bench torch}
here=$PWD
export SRK_REQUIRE_GPU=1 SRK_TEST_DEVICE=cuda XDG_CACHE_HOME="$out/cache"

# Libraries that torch brought along, where torch is not in an active environment.
if [ -z "${SRK_CUDA_LIBRARIES:-}" ]; then
    SRK_CUDA_LIBRARIES=$(python3 - <<'P' 2>/dev/null
import glob, os, site, sys
roots = [p for p in sys.path + site.getsitepackages() if os.path.isdir(os.path.join(p, "nvidia"))]
wanted = ("cudnn/lib", "cu13/lib", "cublas/lib", "cuda_nvrtc/lib")
print(":".join(dict.fromkeys(d for p in roots for w in wanted for d in glob.glob(f"{p}/nvidia/{w}"))))
P
    )
    export SRK_CUDA_LIBRARIES
fi

: >"$out/steps.tsv"
# step NAME COMMAND...: runs it, keeps its output, notes whether it passed and how long it took.
step() {
    local name=$1 start=$SECONDS code
    shift
    echo "== $name: $*"
    "$@" >"$out/$name.log" 2>&1
    code=$?
    [ "$code" = 0 ] || tail -n 15 "$out/$name.log"
    printf '%s\t%s\t%s\n' "$name" "$code" "$((SECONDS - start))" >>"$out/steps.tsv"
}
wanted() { case " $steps " in *" $1 "*) true ;; *) false ;; esac }
tests() { "$here/bin/suite" --nocapture --test-threads 1 "$@"; }

wanted doctor && step doctor bin/srk doctor

if wanted kernels; then
    for t in kernels kernels_more ops_gpu networks_gpu; do
        SRK_CONV=native step "kernels-$t" tests "$t::"
    done
fi

# The same input twice in two processes: the same bytes.
twice() {
    local image
    for image in images/*.png; do
        bin/srk upscale "$image" "$out/a.png" --device cuda --overwrite &&
            bin/srk upscale "$image" "$out/b.png" --device cuda --overwrite &&
            cmp "$out/a.png" "$out/b.png" || return 1
    done
}
wanted repeat && step repeat twice

# The registry's convolutions by each library. Results that are off fail here, too.
if wanted engines; then
    for engine in cudnn cublas auto; do
        SRK_CONV=$engine step "engine-$engine" tests --ignored --exact engines::on_a_real_gpu
    done
fi

if wanted sanitizer; then
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
    if [ -n "$sanitizer" ]; then
        for tool in memcheck racecheck initcheck synccheck; do
            SRK_CONV=native step "sanitizer-$tool" \
                timeout 900 "$sanitizer" --tool "$tool" --error-exitcode 9 bin/suite --test-threads 1 kernels::f16
        done
    else
        printf 'sanitizer\tabsent\t0\n' >>"$out/steps.tsv"
    fi
fi

if wanted bench; then
    for engine in native auto cudnn cublas; do
        SRK_CONV=$engine step "bench-$engine" bin/gpu
    done
fi
wanted torch && step torch python3 peers/torch_unet.py

rm -rf "$out/cache" "$out"/[ab].png
python3 gpu_check.py "$out"
