# Source this from bash or zsh: puts .venv, the ROS 2 that was chosen at set-up and the built workspace on this shell's paths.
if [ -n "${BASH_VERSION:-}" ]; then
  _fastwam=${BASH_SOURCE[0]} _fastwam_shell=bash
elif [ -n "${ZSH_VERSION:-}" ]; then
  eval '_fastwam=${(%):-%x}' && _fastwam_shell=zsh
else
  echo "fastwam: scripts/env.sh is for bash and zsh" >&2
  return 2
fi
_fastwam=$(CDPATH='' builtin cd "$(dirname "$_fastwam")/.." && pwd -P)
if [ -x "$_fastwam/.venv/bin/python" ]; then
  _fastwam_lines=$("$_fastwam/.venv/bin/python" -I "$_fastwam/scripts/environment.py" exports "$_fastwam" "$_fastwam_shell") ||
    _fastwam_lines="return 2"
else
  echo "fastwam: not set up yet; run: make setup" >&2
  _fastwam_lines="return 2"
fi
eval "$_fastwam_lines"
. "$_fastwam/install/local_setup.$_fastwam_shell"
unset _fastwam _fastwam_shell _fastwam_lines
