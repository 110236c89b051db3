#!/usr/bin/env bash
# What is still owed a GPU, most valuable first. Each step resumes where it stood and is cut off before 9 minutes;
# call it again until it says "done". Nothing here has been run on a GPU yet.
#
#   benchmarks/gpu.sh           the list
#   benchmarks/gpu.sh STEP      one step; results go to $OUT (default runs/gpu)
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-runs/gpu}
AVSEG=${AVSEG:-.venv/bin/avseg}
PYTHON=${PYTHON:-.venv/bin/python}
LIMIT=${LIMIT:-500} # seconds

# The full edition, 224 px: 600 training, 100 validation and 500 test videos.
data() {
    timeout "$LIMIT" "$AVSEG" data synth "$OUT/full" --subset s4 --edition full --videos 1200 --val 100 --test 500 --seed 0
    timeout "$LIMIT" "$AVSEG" data prepare "$OUT/full" --subset s4
}

# A table of the paper at 224 px on the full edition, five seeds; it goes on where the last call was cut off.
table() {
    timeout "$LIMIT" "$AVSEG" reproduce "$1" --data.root "$OUT/full" --seeds 5 --out "$OUT/reproduce" --set "${BIG[@]}"
}

# Speed and memory, group by group, so that what is cut off loses one group alone.
bench() {
    local group
    for group in attention forward step; do
        if [ -f "$OUT/bench-$group.json" ]; then continue; fi
        timeout "$LIMIT" "$AVSEG" bench --device cuda --only "$group" --options eager,channels_last,bf16,bf16+compile \
            --json "$OUT/bench-$group.json"
        return
    done
    echo "done: bench; then: python -m benchmarks.document $OUT/bench-*.json docs/speed.md"
}

# The shipped model on more scenes and for more steps than a CPU had time for; weigh its size and its
# scores against avseg/shipped/README.md before it takes that one's place.
shipped() {
    local root=$OUT/scenes
    [ -d "$OUT/stamps" ] || "$AVSEG" data stamps "$OUT/stamps"
    timeout "$LIMIT" "$AVSEG" data synth "$root" --subset s4 --edition small --videos 5000 --val 100 --test 200 \
        --seed 300 --objects "$OUT/stamps"
    timeout "$LIMIT" "$AVSEG" data synth "$root" --subset ms3 --edition small --videos 2000 --val 100 --test 200 \
        --seed 301 --objects "$OUT/stamps"
    timeout "$LIMIT" "$AVSEG" data prepare "$root"
    timeout "$LIMIT" "$AVSEG" train --config configs/shipped.yaml --data.root "$root" --run.out "$OUT/shipped" \
        --run.resume true --run.accelerator gpu --run.precision bf16-mixed --run.channels_last true \
        --optim.batch_size 64 --optim.epochs 32 --ufe.burn_in 12
    for subset in s4 ms3; do
        "$AVSEG" evaluate "$OUT/shipped" --data.root "$root" --data.subset "$subset" --data.split test \
            --json "$OUT/shipped-$subset.json"
    done
}
BIG=(run.accelerator=gpu run.precision=bf16-mixed model.width=128 model.inputs.image_size=224 optim.batch_size=24
    optim.epochs=60 ufe.burn_in=20 run.validate_every=5)

case "${1:-list}" in
list)
    cat <<'LIST'
sync          prove that a training step never waits for the GPU
bench         speed and memory on the GPU against the plain reference, a group at a time
shipped       a better model for the package: its configuration on more scenes, for longer
data          write and prepare the full edition (CPU)
calibrate     the full edition: baseline, deaf and blind, without UFE; freeze it before the next steps
table5        NF x DF at 224 px, five seeds, on the full edition; call it again until it prints the table
controls      the controls of table5, the same way; controls10: of the 10 % column of table3
long          table5 trained 2.5 times as long, the same way
table3        5 to 100 % of the labels, the same way
LIST
    ;;
sync) timeout "$LIMIT" "$PYTHON" -m pytest tests/training/test_options.py -k never_waited ;;
bench) bench ;;
shipped) shipped ;;
data) data ;;
calibrate)
    timeout "$LIMIT" "$PYTHON" benchmarks/calibrate.py "$OUT/full" "$OUT/calibration" --run.accelerator=gpu \
        --run.resume=true --model.width=128 --model.inputs.image_size=224 --optim.batch_size=24 --optim.epochs=60
    ;;
table5 | controls | controls10 | long | table3) table "$1" ;;
*) echo "unknown step: $1; see the list: benchmarks/gpu.sh" >&2; exit 2 ;;
esac
