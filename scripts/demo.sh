#!/usr/bin/env bash
# The whole job in a fresh campaign: plans -> gates 1-3 -> seeds -> report -> ledger. No GPU, no network.
set -euo pipefail
cd "$(dirname "$0")/.."
began=$SECONDS

if [ -f .demo/golf.yaml ]; then
  (cd .demo && golfctl runs stop --all --reason "a new demo begins") >/dev/null 2>&1 || true
fi
rm -rf .demo
python -m trainer.data
golfctl init .demo --preset cpu-demo --plans plans
cd .demo
golfctl plan check

# Exit code 1 means a gate said no: one of the demo's plans is meant to fail. Anything else is a real failure.
golfctl gate run --yes || [ $? -eq 1 ]
golfctl seeds --n 3 --yes
echo
golfctl report --html experiments/report.html
golfctl audit ngram-tables
golfctl ledger verify
echo "The whole job took $((SECONDS - began)) s. Look around: cd .demo && golfctl"
