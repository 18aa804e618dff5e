#!/usr/bin/env bash
# What one CUDA card makes of this project, as a table, in under eight minutes: bash scripts/gpu_check.sh [--help]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python3}" scripts/gpu_check/gpu_check.py "$@"
