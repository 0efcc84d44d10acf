#!/usr/bin/env bash
# Checks a build with `--features cuda` on this machine's GPU, and measures it.
#
#   app/scripts/gpu-check.sh FORGETLAB OUT [STEP…]
#
# Steps, each with a time limit of its own; one that fails is a row of the table, not the end. The exit code says
# whether one did:
#   machine    what this machine is
#   verify     numbers of independent implementations, f32 and bf16; where one is wrong, kernel by kernel once more
#   families   the same of every family of models
#   opinions   logits of every family beside candle-transformers' own
#   tests      the engine's tests on the GPU; $FORGETLAB_GPU_TESTS names their binary, built with
#              cargo test --no-run --release -p forgetlab-engine --features cuda
#   repeat     the same run twice: equal CSVs
#   killed     the same run, killed and resumed: equal CSVs
#   instruct   a pretrained model, from end to end
#   sweep      a sweep of small text models
#   memory     more than fits must end in words
#   footprint  what llama-1b takes of the GPU's memory, beside what is predicted
#   chunks     the same run with other chunks of what is generated
#   sanitizer  compute-sanitizer's memcheck on verify, where it is installed
#   bench      in turn with PyTorch, where python3 has it
#   paper      the toy experiment with the paper's settings, as far as it comes in its time
set -uo pipefail
binary=$(realpath "$1") && mkdir -p "$2" && out=$(realpath "$2") && shift 2 || exit 2
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
steps=${*:-machine verify families opinions tests repeat killed instruct sweep memory footprint chunks sanitizer bench
    paper}
device=${FORGETLAB_DEVICE:-cuda}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export FORGETLAB_RESULTS=$work/results
small=(run toy-continual --preset smoke --device "$device" --no-cache --set phases.steps=60
    --set training.checkpoint_seconds=0)
declare -A limit=([machine]=30 [verify]=60 [families]=60 [opinions]=60 [tests]=120 [repeat]=90 [killed]=90
    [instruct]=60 [sweep]=90 [memory]=120 [footprint]=150 [chunks]=60 [sanitizer]=90 [bench]=420 [paper]=420)
skipped=77

# Runs a program for what is left of the step's time.
timed() { timeout -k 5 "$((deadline > SECONDS ? deadline - SECONDS : 1))" "$@"; }

forgetlab() { timed "$binary" "$@"; }

# Whether two runs have the same CSVs but for times.
same() {
    python3 - "$@" <<'PY'
import csv, sys
def figures(run):
    for name in ("metrics.csv", "summary.csv", "plugin_metrics.csv"):
        for row in csv.DictReader(open(f"{run}/{name}")):
            yield {k: v for k, v in row.items() if not k.startswith("seconds")}
a, b = (list(figures(run)) for run in sys.argv[1:])
different = [(x, y) for x, y in zip(a, b) if x != y]
if different or len(a) != len(b):
    sys.exit(f"{len(a)} and {len(b)} rows, {len(different)} differ; first: {different[:1]}")
print(f"{len(a)} rows are equal")
PY
}

machine() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader
    lscpu | grep -E '^(Model name|CPU\(s\))'
    forgetlab --version && forgetlab doctor
}

verify() {
    verified && return
    [ $? -eq 124 ] && return 124
    # The kernel that failed is named, if one did.
    FORGETLAB_CUDA_SYNC=1 verified
    return 1
}

verified() {
    forgetlab verify --device "$device" &&
        forgetlab verify --device "$device" --fixture "$root/tests/fixtures/llama-tiny-tied" &&
        forgetlab verify --device "$device" --fixture "$root/tests/fixtures/llama-tiny-untied"
}

families() { of_families --fixture; }

opinions() { of_families; }

# Verifies every family, and goes on where one fails.
of_families() {
    local folder failed=0
    for folder in "$root"/tests/fixtures/llama-tiny-{tied,untied} "$root"/tests/fixtures/families/*/; do
        forgetlab verify --device "$device" "$@" "$folder" || failed=1
    done
    return $failed
}

tests() {
    [ -n "${FORGETLAB_GPU_TESTS:-}" ] || return $skipped
    timed "$FORGETLAB_GPU_TESTS" gpu:: --test-threads 1 --nocapture
}

repeat() {
    forgetlab "${small[@]}" --out "$work/a" && forgetlab "${small[@]}" --out "$work/b" && same "$work/a" "$work/b"
}

killed() {
    [ -d "$work/a" ] || forgetlab "${small[@]}" --out "$work/a" || return
    "$binary" "${small[@]}" --out "$work/c" &
    local run=$!
    until ls "$work"/c/arms/none-seed0/checkpoints/*.json >"$work/ls" 2>&1 || ! kill -0 $run; do
        [ $SECONDS -lt $deadline ] || break
        sleep 0.05
    done
    kill -KILL $run
    wait $run
    [ $? -eq 137 ] || { echo 'it was over before it was killed' && return 1; }
    # What trains ends with it, once the GPU lets it go.
    sleep 5
    forgetlab resume "$work/c" --no-cache && same "$work/a" "$work/c"
}

instruct() {
    forgetlab run instruct --preset smoke --device "$device" --out "$work/instruct"
}

sweep() {
    forgetlab run learning-rate --preset smoke --device "$device" --out "$work/sweep"
}

memory() {
    forgetlab bench --config llama-1b --work train --batch 2048 --micro-batch 2048 --seconds 1 --dtype bf16 \
        --device "$device" >"$work/memory.log" 2>&1
    local code=$?
    cat "$work/memory.log"
    [ $code -ne 0 ] && [ $code -ne 124 ] && grep -qi 'memory' "$work/memory.log" &&
        ! grep -q 'panicked' "$work/memory.log"
}

footprint() {
    local work_of
    for work_of in train generate; do
        forgetlab bench --config llama-1b --work $work_of --dtype bf16 --seconds 1 --device "$device" || return
    done
}

# What is generated a few rows at a time may differ in last bits, and so in a token now and then: the figures are shown.
chunks() {
    forgetlab "${small[@]}" --arms none,self-generated:kl --out "$work/whole" &&
        forgetlab "${small[@]}" --arms none,self-generated:kl --set training.generation_bytes=10000 --out "$work/cut" ||
        return
    same "$work/whole" "$work/cut" || echo 'so other chunks have other last bits here'
}

sanitizer() {
    command -v compute-sanitizer || return $skipped
    timed compute-sanitizer --tool memcheck --error-exitcode 9 "$binary" verify --device "$device"
}

bench() {
    python3 -c 'import torch' || return $skipped
    local threads=$(($(nproc) < 8 ? $(nproc) : 8))
    timed python3 "$root/tests/peers/compare.py" --forgetlab "$binary" --device "$device" --rounds 3 --seconds 2 \
        --threads "$threads" ${FORGETLAB_GPU_ITEMS:+--items "$FORGETLAB_GPU_ITEMS"} --out "$out/bench.md"
}

paper() {
    forgetlab run toy-continual --preset paper --device "$device" --out "$work/paper"
    local code=$?
    mkdir -p "$out/paper" && cp "$work"/paper/{*.csv,*.toml,*.json} "$work"/paper/figures/*.png "$out/paper"
    # It stops where it is when its time is over.
    [ $code -eq 124 ] && echo 'not to its end' && return 0
    return $code
}

: >"$out/steps.txt"
failed=0
for step in $steps; do
    begun=$SECONDS deadline=$((SECONDS + limit[$step]))
    "$step" >"$out/$step.log" 2>&1
    case $? in
        0) word=passed ;;
        "$skipped") word=skipped ;;
        124) word='out of time' failed=1 ;;
        *) word=FAILED failed=1 ;;
    esac
    printf '%-10s %-12s %4d s\n' "$step" "$word" $((SECONDS - begun)) | tee -a "$out/steps.txt"
done
exit $failed
