#!/usr/bin/env bash
# Set up everything the project needs, into .venv and install/; does nothing when that is done already.
# With a sourced ROS 2 (ROS_DISTRO is set) its rclpy and tools are used, else ROS 2 Jazzy comes as wheels from PyPI.
# TORCH chooses the build of torch, such as TORCH=torch==2.9.1; one that is installed already (>= 2.4) is kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
say() { printf '\033[1m== %s\033[0m\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

for tool in cmake git c++; do
  command -v "$tool" >/dev/null || die "$tool is missing. On Debian or Ubuntu: sudo apt install cmake git build-essential"
done
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' ||
  die "Python 3.10 to 3.13 is needed, $python is $("$python" -V 2>&1). Name another: make PYTHON=python3.12 ..."

# 1. Python packages
case "${AMENT_PREFIX_PATH:-}" in *"$PWD/.venv"*) unset ROS_DISTRO ;; esac  # scripts/env.sh was sourced: that ROS 2 is .venv's own
if [ -n "${ROS_DISTRO:-}" ]; then source_of_ros="sourced ROS 2 $ROS_DISTRO"; else source_of_ros="ROS 2 Jazzy from PyPI"; fi
# A distribution's message packages are compiled against NumPy 1, and cannot be imported with NumPy 2.
requirements=requirements.txt
[ -z "${ROS_DISTRO:-}" ] || requirements=requirements-numpy1.txt
wanted=$(cat "$requirements" <(echo "$source_of_ros $("$python" -V) ${TORCH:-}") | sha256sum)
if [ "$(cat .venv/.installed 2>/dev/null)" != "$wanted" ]; then
  say "Python environment in .venv, $source_of_ros (about 2 GB, once)"
  options=()
  [ -n "${ROS_DISTRO:-}" ] && options=(--system-site-packages)
  "$python" -m venv --clear "${options[@]}" .venv ||
    die "python3 -m venv failed. On Debian or Ubuntu: sudo apt install python3-venv python3-dev"
  pip() { .venv/bin/python -m pip --quiet --disable-pip-version-check "$@" 2> >(grep -v 'is ignored: it is neither' >&2); }
  if [ -n "${ROS_DISTRO:-}" ]; then
    grep -v '^ros-' "$requirements" | pip install --no-deps -r /dev/stdin
  else
    pip install --no-deps -r requirements.txt
    # The wheels' CMake files name the headers of the machine they were built on.
    .venv/bin/python - <<'PY'
import pathlib, re, sysconfig
import numpy
paths = sysconfig.get_paths()
for file in (pathlib.Path(".venv") / "share").rglob("*.cmake"):
    text = file.read_text()
    fixed = re.sub(r"/opt/python/[^;\"]*?/site-packages/numpy/_?core/include", numpy.get_include(), text)
    fixed = re.sub(r"/opt/python/[^;\"]*?/include/python3\.\d+", paths["include"], fixed)
    if fixed != text:
        file.write_text(fixed)
PY
  fi
  if ! .venv/bin/python -c 'import sys, torch; sys.exit(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 4))' 2>/dev/null; then
    pip install "${TORCH:-torch==2.13.0}" "numpy==$(.venv/bin/python -c 'import numpy; print(numpy.__version__)')" "setuptools<80"
  fi
  echo "$wanted" >.venv/.installed
fi

# 2. Workspace. Python files are linked, so only messages, package files and lists of files need a new build.
built=$( (cat .venv/.installed; find src launch config bags bundles -not -name '*.pyc' -type f | sort; find src -path '*/fastwam_msgs/*' -type f -exec cat {} +; cat src/*/setup.py src/*/package.xml) | sha256sum)
if [ "$(cat install/.built 2>/dev/null)" != "$built" ]; then
  say "building the workspace"

  export PATH="$PWD/.venv/bin:$PATH"
  [ -n "${ROS_DISTRO:-}" ] || export AMENT_PREFIX_PATH="$PWD/.venv" CMAKE_PREFIX_PATH="$PWD/.venv"
  mkdir -p log
  .venv/bin/python -m colcon --log-base log build --base-paths src --symlink-install \
    --cmake-args -DPython3_EXECUTABLE="$PWD/.venv/bin/python" >log/colcon.txt 2>&1 || {
    cat log/colcon.txt
    die "colcon build failed, see above and log/latest_build"
  }
  echo "$built" >install/.built
fi
