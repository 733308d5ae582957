#!/usr/bin/env bash
# All that is asked of a GPU, in under 8 minutes: are the answers right, then how fast. README.md says how to get here.
#
#   benchmarks/gpu/run.sh --out DIR [--models DIR] [--device cpu] [--quick]
#
# Each question has its seconds and its own file in DIR; one that fails costs the others nothing, and makes this end with 1.
# Without --models they are built first, which takes minutes and a network.
set -uo pipefail
device=cuda quick='' out='' models=''
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=$2; shift 2 ;;
        --out) mkdir -p "$2"; out=$(cd "$2" && pwd); shift 2 ;;
        --models) models=$(cd "$2" && pwd); shift 2 ;;
        --quick) quick=--quick; shift ;;
        *) echo "run.sh: what is $1?" >&2; exit 2 ;;
    esac
done
[ -n "$out" ] || { echo "run.sh: say where the results go: --out DIR" >&2; exit 2; }
cd "$(dirname "$0")/.." || exit
if [ -z "$models" ]; then
    models=$(dirname "$PWD")/.cache/gpu_models
    python -m gpu.prepare "$models" $quick || exit
fi

failed=''
step() { # step NAME SECONDS COMMAND...
    local name=$1 limit_s=$2 began_s=$SECONDS status
    shift 2
    timeout --kill-after 5 "$limit_s" "$@" > "$out/$name.log" 2>&1
    status=$?
    echo "$name: status $status after $((SECONDS - began_s)) of $limit_s s"
    [ "$status" = 0 ] || { failed="$failed $name"; tail -n 20 "$out/$name.log"; }
}
ask() { # ask NAME SECONDS
    step "$1" "$2" python -m "gpu.$1" --device "$device" --models "$models" --out "$out" --seconds "$(($2 - 8))" $quick
}

ask answers 40
if [ "$device" = cuda ]; then
    REDSERVE_REQUIRE_CUDA=1 step engine_tests 45 python -m pytest -q -c ../pyproject.toml ../tests/engine/test_cuda*.py
fi
ask http_share 120
ask curves 65
ask first_request 35
ask memory 35
ask slots 36
ask python_limit 25
ask graphs 34
ask pinned 28
ask nvml_cost 14

echo "took $SECONDS s; results in $out"
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
