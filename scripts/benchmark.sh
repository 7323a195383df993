#!/usr/bin/env bash
# Build the environment of a benchmark's simulator, .venv-benchmark/NAME, from requirements-NAME.txt: scripts/benchmark.sh libero
# Nothing is done where it is there already. Each package is checked against its hash.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/start.sh"
name=$1 python=${PYTHON:-python3}
environment=.venv-benchmark/$name requirements=requirements-$name.txt
newest=13
[ "$name" != robotwin ] || newest=11  # of SAPIEN's and NumPy 1.26's wheels
"$python" -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $newest))" || {
  echo "benchmark-$name: Python 3.10 to 3.$newest is needed, $python is $("$python" -V 2>&1). Name another: make PYTHON=python3.11 ..." >&2
  exit 1
}
wanted=$( (cat "$requirements"; "$python" -V) | sha256sum)
[ "$(cat "$environment/.installed" 2>/dev/null)" != "$wanted" ] || exit 0
say "the simulator of $name in $environment (1 to 2 GB, once)"
"$python" -m venv --clear "$environment"
pip "$environment/bin/python" --quiet install --no-deps --require-hashes -r "$requirements"
echo "$wanted" >"$environment/.installed"
