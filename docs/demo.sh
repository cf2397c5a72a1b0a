#!/usr/bin/env bash
# The whole way once, on simulated clips: what `make demo` runs. Minutes on two cores, no GPU.
set -euo pipefail
BIN=${BIN:-.venv/bin}
DEMO=${DEMO:-demo}
rm -rf "$DEMO/raw" "$DEMO/set" "$DEMO/run" "$DEMO/evaluation"

step() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$BIN/${@:1:1}" "${@:2}"; }

step usdata phantom "$DEMO/raw" --videos 80
# Half of the patients are set apart as the split 'test'; pretraining sees the split 'train' alone.
step usdata build phantom --raw "$DEMO/raw" --out "$DEMO/set" --set split.test=0.5
step usdata audit "$DEMO/set"
step uscl pretrain "$DEMO/set" --out "$DEMO/run" --recipe demo

printf '\nOn all clips an evaluation is refused, for half of them were pretrained on:\n'
code=0
step uscl evaluate linear "$DEMO/set" --weights random --weights "$DEMO/run" --out "$DEMO/evaluation" || code=$?
[ "$code" = 2 ] || { echo "the leakage guard should have refused this with exit code 2, and it was $code"; exit 1; }

printf '\nOn the patients that were set apart it holds:\n'
step uscl evaluate linear "$DEMO/set" --weights random --weights "$DEMO/run" --where split=test --folds 4 --out "$DEMO/evaluation"

cat <<TXT

The whole way is done. What there is to see:
  raw clips             $DEMO/raw           (truth.csv lists what was planted in them)
  data set              $DEMO/set           (frames.parquet opens in pandas, DuckDB, Polars)
  audit report          $DEMO/set/report.html
  training run          $DEMO/run           (weights: $DEMO/run/export/backbone.safetensors)
  evaluation report     $DEMO/evaluation/report.html
The evaluation shows how, not how well: minutes of training on a few simulated patients prove nothing about a method. Of the five planted
faults the audit names the copy under another patient too; what a burned-in name needs is in docs/guide/privacy.md.
Next: your own clips. See docs/guide/your-own-clips.md
TXT
