#!/usr/bin/env bash
# Everything that only a GPU can tell: kernels against the CPU, speed, training, repeatability, libraries against our
# kernels, memory errors, and PyTorch beside it. Runs from the folder that benches/pack_gpu_check.sh packs; needs an
# NVIDIA driver, and python3, with torch for the comparison.
#
#   ./gpu_check.sh [--seconds N] [--gpus N] [OUT]
#                                          default: 540, one GPU, results; OUT/summary.json and a table on standard
#                                          output; with several GPUs also the step `ranks`: training with all of them
#   STEPS="doctor kernels ..."             only some of the steps; `first` is those below up to memcheck, the
#                                          default, `rest` is what follows
#
# It ends within N seconds: each step has a budget, gets what the ones before it left, and is cut where the budgets of
# those behind it begin. The table is printed after every step. What matters most comes first.
set -uo pipefail
cd "$(dirname "$0")"
seconds=540
export GPUS=${GPUS:-1}
while :; do
    case ${1:-} in
        --seconds) seconds=$2 ;;
        --gpus) GPUS=$2 ;;
        *) break ;;
    esac
    shift 2
done
out=$(mkdir -p "${1:-results}" && cd "${1:-results}" && pwd)
here=$PWD
export SRK_REQUIRE_GPU=1 SRK_TEST_DEVICE=cuda XDG_CACHE_HOME="$out/cache"

# Budgets, in seconds of 540.
order=(doctor:10 kernels:110 bench-native:60 torch:80 upscale:40 train:60 ranks:90 bench-auto:40 engines:60 memcheck:80
    torch-compiled:200 bench-wgmma:60 bench-all:60 bench-cudnn:60 bench-cublas:60 racecheck:80 initcheck:70 synccheck:70)
first="doctor kernels bench-native torch upscale train bench-auto engines memcheck"
[ "$GPUS" -lt 2 ] || first="doctor kernels bench-native upscale train ranks torch bench-auto engines memcheck"
rest="torch-compiled bench-wgmma bench-all bench-cudnn bench-cublas racecheck initcheck synccheck"
case "${STEPS:-first}" in
    first) wanted=" $first " ;;
    rest) wanted=" $rest " ;;
    *) wanted=" $STEPS " ;;
esac

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

tests() { bin/suite --nocapture --test-threads 1 "$@"; }

# One picture three times: the time of each, the first with its start, and the same bytes.
upscale() {
    local i image
    for image in images/*.png; do
        for i in 1 2 3; do
            bin/srk upscale "$image" "$out/$i.png" --device cuda --overwrite --json || return 1
        done
        cmp "$out/1.png" "$out/2.png" && cmp "$out/2.png" "$out/3.png" || return 1
    done
}

# 40 steps twice: the same bytes, and images a second.
train() {
    local i
    for i in 1 2; do
        rm -rf "$out/runs-$i"
        bin/srk train --recipe dual-domain-grid --device cuda --out "$out/runs-$i" --json --set run.name=check \
            --set run.steps=40 --set data.train.paths='["images"]' --set data.val.paths='["images"]' \
            --set val.every=40 --set ckpt.every=40 --set log.every=5 || return 1
    done
    cmp "$out"/runs-{1,2}/check/ckpt/40/model.safetensors && cmp "$out"/runs-{1,2}/check/ckpt/40/ema.safetensors
}

# As many steps with one GPU and with all of them: the same bytes with fixed sums, and images a second with fast ones.
ranks() {
    local how gpus reduce
    for how in 1-fixed "$GPUS-fixed" 1-fast "$GPUS-fast"; do
        gpus=${how%-*} reduce=${how#*-}
        rm -rf "$out/runs-$how"
        bin/srk train --recipe dual-domain-grid --gpus "$gpus" --device cuda --out "$out/runs-$how" --json \
            --set run.name=check --set run.steps=40 --set "run.reduce=$reduce" --set 'data.train.paths=["images"]' \
            --set 'data.val.paths=["images"]' --set val.every=40 --set ckpt.every=40 --set log.every=5 || return 1
    done
    cmp "$out/runs-1-fixed/check/ckpt/40/model.safetensors" "$out/runs-$GPUS-fixed/check/ckpt/40/model.safetensors" ||
        return 1
    # The pictures of one GPU, shared by all of them.
    for how in cuda:0 cuda:all; do
        bin/srk upscale images -o "$out/pictures-$how" --device "$how" --overwrite --json || return 1
    done
    diff -r "$out/pictures-cuda:0" "$out/pictures-cuda:all"
}

# The registry's convolutions by the kernel for 9.0 and by each library. Results that are off fail here, too.
engines() {
    local engine
    for engine in wgmma cudnn cublas auto all; do
        SRK_CONV=$engine tests --ignored --exact engines::on_a_real_gpu || return
    done
}

sanitizer() {
    local found
    found=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
    [ -n "$found" ] || return 77
    SRK_CONV=native SRK_CUDA_RECYCLE=0 "$found" --tool "$1" --error-exitcode 9 bin/suite --test-threads 1 kernels::f16
}

do_step() {
    case $1 in
        doctor) bin/srk doctor ;;
        kernels) SRK_CONV=native tests kernels:: kernels_more:: ops_gpu:: networks_gpu:: ;;
        bench-*) SRK_CONV=${1#bench-} bin/gpu ;;
        torch) python3 peers/torch_unet.py --how graph eager ;;
        torch-compiled) python3 peers/torch_unet.py --how compiled ;;
        upscale | train | ranks | engines) "$1" ;;
        *) sanitizer "$1" ;;
    esac
}

# One step in a process group of its own, for `timeout` to end whole.
if [ -n "${SRK_CHECK_STEP:-}" ]; then
    do_step "$SRK_CHECK_STEP"
    exit
fi

# The seconds of an entry of `order`, its share of all; a step starts and ends within 2.
budget() {
    local share=$((${1#*:} * seconds / 540))
    echo $((share > 2 ? share : 2))
}

: >"$out/steps.tsv"
for entry in "${order[@]}"; do
    name=${entry%:*}
    case $wanted in *" $name "*) ;; *) continue ;; esac
    due=0 behind=
    for other in "${order[@]}"; do
        [ -z "$behind" ] || case $wanted in *" ${other%:*} "*) due=$((due + $(budget "$other"))) ;; esac
        [ "$other" != "$entry" ] || behind=yes
    done
    own=$(budget "$entry")
    limit=$((seconds - SECONDS - due))
    left=$((seconds - SECONDS - 2))
    [ "$limit" -ge "$own" ] || limit=$own
    [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -lt 1 ]; then
        printf '%s\tno time\t0\n' "$name" >>"$out/steps.tsv"
        continue
    fi
    echo "== $name, at most $limit s"
    start=$SECONDS
    SRK_CHECK_STEP=$name timeout -k 2 "$limit" bash "$here/gpu_check.sh" "$out" >"$out/$name.log" 2>&1
    code=$?
    case $code in
        0) ;;
        77) code=absent ;;
        124 | 137) code="cut" ;;
        *) tail -n 15 "$out/$name.log" ;;
    esac
    printf '%s\t%s\t%s\n' "$name" "$code" "$((SECONDS - start))" >>"$out/steps.tsv"
    python3 gpu_check.py "$out"
done
rm -rf "$out/cache" "$out"/[123].png "$out"/runs-*
python3 gpu_check.py "$out" >"$out/table.txt"
