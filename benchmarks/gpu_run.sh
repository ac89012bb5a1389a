#!/usr/bin/env bash
# Everything here that wants a GPU, in pieces of under ten minutes. Each piece can be repeated; training goes on where it was.
#
#   benchmarks/gpu_run.sh tests            the tests marked "gpu"
#   benchmarks/gpu_run.sh timings          time of a step and of a picture, in each precision
#   benchmarks/gpu_run.sh train  [FOLDER]  up to nine minutes of training the built-in model; repeat until it says it is done
#   benchmarks/gpu_run.sh export [FOLDER]  write and measure the model: FOLDER/model, FOLDER/quality
#
# FOLDER (default: runs/lagoon) must hold the drawings: `atoll train data lagoon --folder FOLDER`, which needs a network.
# PYTHON names the interpreter (default: .venv/bin/python, else python3); it needs torch, diffusers and transformers.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
piece=${1:-tests}
folder=${2:-runs/lagoon}
export PYTHONPATH=. PYTHONUNBUFFERED=1
atoll=("$python" -c 'from atoll.cli.main import main; main()')
within() { timeout --signal=INT "$1" "${@:2}"; }

case "$piece" in
  tests) "$python" -m pytest -m gpu -p no:cacheprovider tests ;;
  timings) within 540 "$python" benchmarks/sampling.py --device cuda ;;
  train)
    for stage in vae text scratch; do
      [ -f "$folder/$stage/model/config.json" ] || break
    done
    status=0
    within 540 "${atoll[@]}" train "$stage" lagoon --folder "$folder" --json || status=$?
    case $status in
      0) echo "$stage: done" ;;
      124 | 130) echo "$stage: stopped after nine minutes; its state is in $folder/$stage. Run this again to go on." ;;
      *) exit "$status" ;;
    esac
    ;;
  export)
    "${atoll[@]}" train export lagoon --folder "$folder" --out "$folder/model"
    within 540 "${atoll[@]}" train measure lagoon --folder "$folder" --model "$folder/model"
    ;;
  *)
    sed -n '2,12p' "$0"
    exit 2
    ;;
esac
