#!/usr/bin/env bash
# All that a GPU can show, in one go and in under 8 minutes on a bare machine with an NVIDIA driver: the gpu-marked
# tests, engines of nano in both TensorRTs, their parity, and the bench. From the project's top folder:
#
#   benchmarks/gpu_session.sh [--dry-run] [OUT]
#
# OUT (default: out/gpu) gets the reports: send it, or `python -m kanoclip.benchmarks.studies.gpu_reports OUT`.
# Wheels, all from PyPI and NVIDIA's index: the extra gpu-cu13 (driver 580 or newer) or gpu-cu12, that is onnxruntime-gpu
# with CUDA and cuDNN, tensorrt-cu1x, cuda-python and nvidia-ml-py; tensorrt-rtx; torch, onnx, onnxscript and
# open_clip_torch to export; pytest. Python 3.11 or newer. A machine without an index needs them in WHEELS, a folder
# (`pip download -d`), or a virtual environment that has them all in VENV.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

dry=
if [ "${1:-}" = --dry-run ]; then
    dry=1
    shift
fi
out=${1:-out/gpu}
python=${PYTHON:-python3}
venv=${VENV:-.venv-gpu}
failed=()
whole=470 # seconds

# step NAME SECONDS COMMAND...: runs a command with a limit of its own, within all of them; the others go on where it
# fails.
step() {
    local name=$1 limit=$2
    shift 2
    if [ -n "$dry" ]; then
        printf '%s (at most %s s): %s\n' "$name" "$limit" "$*"
        return
    fi
    local started=$SECONDS
    if [ "$((whole - started))" -lt "$limit" ]; then
        limit=$((whole - started))
    fi
    if [ "$limit" -lt 1 ]; then
        printf '%s: left out, the %s s are over\n' "$name" "$whole"
        failed+=("$name")
        return
    fi
    if timeout "$limit" "$@" >"$out/$name.log" 2>&1; then
        printf '%s: done in %s s\n' "$name" "$((SECONDS - started))"
    else
        printf '%s: FAILED with %s after %s s, see %s\n' "$name" "$?" "$((SECONDS - started))" "$out/$name.log"
        failed+=("$name")
    fi
}

# The first number of the driver, 0 without one.
driver() {
    nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1 | cut -d. -f1 | grep -E '^[0-9]+$' || echo 0
}

cuda=13
if [ -z "$dry" ]; then
    mkdir -p "$out"
    found=$(driver)
    if [ "$found" -lt 525 ]; then
        echo "no NVIDIA driver from 525 on answers: nvidia-smi says $found" >&2
        exit 1
    fi
    [ "$found" -ge 580 ] || cuda=12
    nvidia-smi -q >"$out/nvidia-smi.txt"
    [ -d "$venv" ] || "$python" -m venv "$venv"
fi
bin=$venv/bin
index=(--extra-index-url https://pypi.nvidia.com)
[ -z "${WHEELS:-}" ] || index=(--no-index --find-links "$WHEELS")
bundles=$out/bundles
export XDG_CACHE_HOME=$PWD/$out/cache

[ -x "$bin/kanoclip-bench" ] || step install 200 "$bin/pip" install --quiet "${index[@]}" ".[gpu-cu$cuda,export]" pytest pytest-timeout hypothesis
step export-fp32 40 "$bin/kanoclip-export" --fp32 --dynamic-batch 8 --output "$bundles/fp32.kanoclip" --json
step export-fp16 40 "$bin/kanoclip-export" --fp16 --dynamic-batch 8 --output "$bundles/fp16.kanoclip" --json
step export-static 40 "$bin/kanoclip-export" --fp16 --output "$bundles/static.kanoclip" --json
# Each report is written whether the answers agree or not: what drifts is what one wants to know.
for backend in tensorrt tensorrt-rtx onnxruntime onnxruntime-tensorrt; do
    for bundle in fp32 fp16 static; do
        step "doctor-$backend-$bundle" 45 "$bin/kanoclip-doctor" "$bundles/$bundle.kanoclip" \
            --backend "$backend" --device cuda --report "$out/$backend-$bundle.json"
    done
done
step bench 75 "$bin/kanoclip-bench" "$bundles/static.kanoclip" --backend tensorrt \
    --compare tensorrt-rtx,onnxruntime,torch --rounds 200 --stream-seconds 2 --parts latency,gpu,stages,stream,energy \
    --output "$out/bench.json" --markdown "$out/bench.md"
step tests 120 "$bin/python" -m pytest -m gpu -q --timeout 100 tests/runtime/engines
step report 20 "$bin/python" -m kanoclip.benchmarks.studies.gpu_reports "$out" --output "$out/table.md"

if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
