#!/usr/bin/env bash
# Check this project on one CUDA GPU, and write a table, in at most eight minutes: bash scripts/gpu_check.sh [--help]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python3}" scripts/gpu_check/gpu_check.py "$@"
