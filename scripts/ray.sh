#!/usr/bin/env bash
# A rehearsal with Ray: make ray. It is installed once beside .venv, in .venv-ray, from requirements-ray.txt.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/start.sh"
wanted=$( (cat requirements-ray.txt; .venv/bin/python -V) | sha256sum)
if [ "$(cat .venv-ray/.installed 2>/dev/null)" != "$wanted" ]; then
  say "Ray in .venv-ray"
  rm -rf .venv-ray
  pip .venv/bin/python --quiet install --no-deps --target .venv-ray -r requirements-ray.txt
  echo "$wanted" >.venv-ray/.installed
fi
set +u
. scripts/env.sh
PYTHONPATH=$PWD/.venv-ray${PYTHONPATH:+:$PYTHONPATH} exec .venv/bin/python src/fastwam_policy/test/ray_two_nodes.py
