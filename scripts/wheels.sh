#!/usr/bin/env bash
# sdist and wheel of each Python package into output/wheels, by `python -m build` in a copy: src/ stays as it is.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/start.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
pip "$work/venv/bin/python" --quiet install build==1.6.1
# The packages link to config/, launch/, bags/ and bundles/ at the top; the copy has both.
git ls-files -z --cached --others --exclude-standard LICENSE src config launch bags bundles |
  tar --create --null --files-from - --ignore-failed-read | tar --extract -C "$work"
rm -rf output/wheels
mkdir -p output/wheels
for setup in "$work"/src/*/setup.py; do
  "$work/venv/bin/python" -m build --outdir output/wheels "$(dirname "$setup")" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
done
ls -l output/wheels
