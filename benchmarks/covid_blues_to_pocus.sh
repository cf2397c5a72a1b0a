#!/usr/bin/env bash
# Pretrain on COVID-BLUES, evaluate on POCUS by group folds, against random weights: every figure of docs/results/covid-blues-to-pocus.md.
#
#   bash benchmarks/covid_blues_to_pocus.sh CLIPS OUT
#
# CLIPS holds the folders pocus_lung/ and covid_blues/ with their labels.csv. About an hour and a half on two cores with bfloat16 instructions;
# a run that was stopped goes on when the script is started again.
#
# No clip stands in both sets: the evaluator compares them each time, and would refuse.
set -euo pipefail
CLIPS=$1
OUT=$2
BIN=${BIN:-.venv/bin}

"$BIN/usdata" build covid-blues --raw "$CLIPS/covid_blues" --out "$OUT/covid-blues"
"$BIN/usdata" build pocus-convex --raw "$CLIPS/pocus_lung" --out "$OUT/pocus-convex"

pretrain() {
  local name=$1
  shift
  [ -f "$OUT/runs/$name/export/backbone.safetensors" ] && return
  "$BIN/uscl" pretrain "$OUT/covid-blues" --out "$OUT/runs/$name" --resume \
    --set image_size=96 --set batch_size=68 --set precision=bfloat16 "$@"
}
pretrain figure --set epochs=400
pretrain crops --set epochs=600 --set labels.weight=0 --set 'augment.scale=[0.25,1.0]' --set augment.blur=0.5
pretrain crops-labels --set epochs=600 --set 'augment.scale=[0.25,1.0]' --set augment.blur=0.5

weights=(--weights random --weights "$OUT/runs/figure" --weights "$OUT/runs/crops" --weights "$OUT/runs/crops-labels")
for size in 96 128; do
  for kind in linear knn; do
    "$BIN/uscl" evaluate "$kind" "$OUT/pocus-convex" "${weights[@]}" --image-size "$size" --seeds 5 --out "$OUT/$kind-$size" --overwrite
  done
done
