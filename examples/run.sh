#!/bin/sh
# Runs every example; CI does. BIN is the folder of the environment's programs.
set -eu
cd "$(dirname "$0")"
for plan in *.plan.toml; do
  "$BIN/fedsec" plan check "$plan"
done
for example in *.py; do
  echo "== $example"
  "$BIN/python" "$example"
done
