#!/bin/sh
# What a GPU does with the lifted networks, on JAX without TensorFlow, in two calls of at most six minutes each:
#     sh benchmarks/gpu_check.sh steps                        training and inference at 96^3, beside PyTorch
#     sh benchmarks/gpu_check.sh adrenal adrenalmnist3d.npz   a training in three precisions
# SIDES=128 measures at 128^3, which takes a call of its own. A line that begins with csv, follows each figure.
# A trial on a CPU:
#     SIDES=16 NETWORKS=demo BATCH=2 sh benchmarks/gpu_check.sh steps
#     EPOCHS=1 VOLUMES=64 sh benchmarks/gpu_check.sh adrenal adrenalmnist3d.npz
# PYTHON names the interpreter, which needs jax, keras and h5py; torch where its twin is to be measured.
set -u
here=$(dirname "$0")
PYTHON=${PYTHON:-python3}
OUT=${OUT:-.}
export KERAS_BACKEND=jax XLA_PYTHON_CLIENT_PREALLOCATE=false
limit=350 # seconds of a call

case "${1:-}" in
steps)
    torch=
    "$PYTHON" -c 'import torch' 2>/dev/null && torch=--torch || echo "PyTorch is not installed: its twin is left out"
    # shellcheck disable=SC2086 # lists of words
    exec timeout "$limit" "$PYTHON" "$here/gpu_step.py" --network ${NETWORKS:-cnn resnet18} --side ${SIDES:-96} \
        --batch "${BATCH:-8}" --limit "${BATCH:-8}" --timeout 180 --processes 2 --output "$OUT/gpu_step.csv" $torch
    ;;
adrenal)
    exec timeout "$limit" "$PYTHON" "$here/gpu_adrenal.py" "${2:?the path of adrenalmnist3d.npz}" \
        --epochs "${EPOCHS:-25}" ${VOLUMES:+--volumes "$VOLUMES"}
    ;;
*)
    sed -n '2,9s/^# //p' "$0"
    exit 2
    ;;
esac
