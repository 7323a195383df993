#!/usr/bin/env bash
# Clients and servers of other projects against ours: make interop
#   PEERS="openpi xpolicylab lerobot"   lerobot as well, which needs Python 3.12 or 3.13 and 2 GB, or 7 where pip's torch is a CUDA build
# Each has an environment of its own in .venv-interop, which is made once, from interop/PEER.txt.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/start.sh"

python_for() { # a peer's Python: ours, or one that it needs
  [ "$1" = lerobot ] || { echo .venv/bin/python; return; }
  local candidate
  for candidate in python3.12 python3.13 $(compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.1[23].*/bin/python3.1[23]" | sort -V); do
    "$candidate" -c 'import sys, venv, ensurepip; print(sys.executable)' 2>/dev/null && return
  done
}

for peer in ${PEERS:-openpi xpolicylab}; do
  python=$(python_for "$peer")
  if [ -z "$python" ]; then
    echo "interop: $peer needs Python 3.12 or 3.13, and there is none here" >&2
    exit 1
  fi
  environment=.venv-interop/$peer
  wanted=$( (cat "interop/$peer.txt"; "$python" -V) | sha256sum)
  if [ "$(cat "$environment/.installed" 2>/dev/null)" != "$wanted" ]; then
    say "$peer in $environment"
    "$python" -m venv --clear "$environment"
    pip "$environment/bin/python" --quiet install -r "interop/$peer.txt"
    echo "$wanted" >"$environment/.installed"
  fi
  export "INTEROP_${peer^^}=$PWD/$environment/bin/python"
done

set +u
. scripts/env.sh
exec .venv/bin/python -m pytest interop
