#!/usr/bin/env bash
# The whole way once, on simulated clips: what `make demo` runs. Minutes on two cores, no GPU.
set -euo pipefail
BIN=${BIN:-.venv/bin}
DEMO=${DEMO:-demo}
rm -rf "$DEMO/raw" "$DEMO/set" "$DEMO/run" "$DEMO/evaluation"

step() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$BIN/${@:1:1}" "${@:2}"; }

step usdata phantom "$DEMO/raw"
step usdata build phantom --raw "$DEMO/raw" --out "$DEMO/set"
step usdata audit "$DEMO/set"
step uscl pretrain "$DEMO/set" --out "$DEMO/run" --recipe demo
step uscl evaluate linear "$DEMO/set" --weights random --weights "$DEMO/run" --out "$DEMO/evaluation"

cat <<TXT

The whole way is done. What there is to see:
  raw clips             $DEMO/raw           (truth.csv lists what was planted in them)
  data set              $DEMO/set           (frames.parquet opens in pandas, DuckDB, Polars)
  audit report          $DEMO/set/report.html
  training run          $DEMO/run           (weights: $DEMO/run/export/backbone.safetensors)
  evaluation report     $DEMO/evaluation/report.html
The evaluation shows how, not how well: minutes of training on a few simulated patients prove nothing about a method. Two of the five planted
faults, a re-encoded copy and a burned-in name, are not found by this version's audit.
Next: your own clips. See docs/guide/your-own-clips.md
TXT
