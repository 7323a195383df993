#!/usr/bin/env bash
# Types and tests on every Python 3.10 to 3.13 that is here, each with NumPy 1.26 and NumPy 2: make matrix
#   PYTHONS="3.11 3.12"  NUMPYS="1.26"   some of them
#   TESTS="path or pytest options"       some of the tests
#   MATRIX=folder                        where to work, and keep everything; else a temporary folder, removed at the end
# Each combination has a copy of this tree (what git tracks, or would) and an environment of its own: .venv is not touched.
# It costs a set-up each (minutes, and at a time 3 GB of disk, or 7 where pip's torch is a CUDA build) and the time of the tests:
# hours for all of them on two cores.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/start.sh"
[ -z "${ROS_DISTRO:-}" ] || { echo "matrix: run it in a new shell, where neither ROS 2 nor scripts/env.sh is sourced" >&2; exit 2; }

find_python() { # full path of a Python of that version, from PATH or pyenv; pyenv's shims exist for versions that do not run
  local candidate
  for candidate in "python$1" $(compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1.*/bin/python$1" | sort -rV); do
    "$candidate" -c 'import sys, venv, ensurepip; print(sys.executable)' 2>/dev/null && return
  done
}

try() { # python, folder, NumPy
  mkdir -p "$2"
  git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from - --ignore-failed-read | tar --extract -C "$2"
  cd "$2"
  git init --quiet && git add --all
  [ "$3" != 1.26 ] || cp requirements-numpy1.txt requirements.txt
  make --no-print-directory setup PYTHON="$1"
  .venv/bin/python -c 'import sys, numpy; print("Python", sys.version.split()[0], "NumPy", numpy.__version__)'
  set +u
  . scripts/env.sh
  .venv/bin/mypy
  # shellcheck disable=SC2086  words of a command line
  eval ".venv/bin/pytest ${TESTS:--n 2 --dist worksteal}"
}

work=${MATRIX:-$(mktemp -d)}
results=() passed=0 failed=0
for version in ${PYTHONS:-3.10 3.11 3.12 3.13}; do
  python=$(find_python "$version")
  for numpy in ${NUMPYS:-1.26 2}; do
    name="Python $version, NumPy $numpy"
    folder="$work/python$version-numpy$numpy"
    if [ -z "$python" ]; then
      results+=("$name: not run, there is no such Python here")
    elif [ "$version $numpy" = "3.13 1.26" ]; then
      results+=("$name: not run, NumPy 1.26 has no wheel for Python 3.13")
    else
      say "$name, in $folder"
      set +e  # not `if try …`: in a condition, a failed step of it would not end it
      (set -e; try "$python" "$folder" "$numpy")
      status=$?
      set -e
      if [ $status -eq 0 ]; then
        results+=("$name: passed") passed=$((passed + 1))
      else
        results+=("$name: FAILED") failed=$((failed + 1))
      fi
      [ -n "${MATRIX:-}" ] || rm -rf "$folder"
    fi
  done
done
printf '%s\n' "${results[@]}"
[ -n "${MATRIX:-}" ] || rm -rf "$work"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
