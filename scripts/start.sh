# Sourced by the scripts beside it: goes to the project's root, and leaves behind what leads astray of a user's shell.
unset CDPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_ROOT
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1
cd "$(dirname "${BASH_SOURCE[0]}")/.." && cd "$(pwd -P)"

live='' bold='' plain=''  # on a terminal: a line that changes, and bold letters
if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then
  live=yes
  [ -n "${NO_COLOR:-}" ] || bold=$'\033[1m' plain=$'\033[0m'
fi
say() { printf '%s== %s%s\n' "$bold" "$*" "$plain"; }
die() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; exit 1; }
pip() { "$1" -I -m pip "${@:2}" 2> >(grep -v 'is ignored: it is neither' >&2); }  # of a Python
