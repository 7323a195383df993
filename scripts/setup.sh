#!/usr/bin/env bash
# Set up everything the project needs, into .venv and install/; does nothing when that is done already, and goes on where it was interrupted.
# What is chosen once is kept in .setup, and used by every later call:
#   PYTHON=python3.12      the Python of .venv
#   TORCH=torch==2.9.1     the build of torch; without, one that is installed already (>= 2.4) is kept
#   ROS=/opt/ros/jazzy     a ROS 2 installation, or pypi: wheels of ROS 2 Jazzy. Without, the one that is sourced, else pypi
# A .venv that is a link is somebody's own: it is used, and nothing is installed into it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/start.sh"
export LC_ALL=C
debian() { printf 'On Debian or Ubuntu: sudo apt install %s' "$*"; }
chosen() { sed -n "s/^$1=//p" .setup | tail -n 1; }
isolated() { local python=$1; shift; "$python" -I "$@" 2>/dev/null; }  # without the user's variables, folders and modules
about() { isolated "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2], sys.base_prefix)'; }  # also of a virtual environment's base
program() { isolated "$1" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))'; }
is_on_top_of_ros() { grep -qs '^include-system-site-packages = true' "$1/pyvenv.cfg"; }

# 1. What must be there
strange=$(printf %s "$PWD" | tr -d 'A-Za-z0-9/._+@~-')
[ -z "$strange" ] || die "the folder's path, $PWD, has '$strange' in it, which compilers and Python programs here do not bear: move the folder"
[ -w . ] || die "$PWD: user $(id -u) may not write here"
for tool in cmake git c++ flock; do
  command -v "$tool" >/dev/null || die "$tool is missing. $(debian cmake git build-essential util-linux)"
done
exec 9>>.setup
flock -n 9 || { say "waiting for another set-up of this folder"; flock 9; }

current=$(about .venv/bin/python) || current=
if [ -L .venv ]; then
  [ -n "$current" ] || die ".venv is a link to $(readlink .venv), and no Python runs there: remove the link, or cure it"
  [ -z "${PYTHON:-}${TORCH:-}${ROS:-}" ] || say "PYTHON, TORCH and ROS change nothing: .venv is a link to $(readlink .venv)"
  python=.venv/bin/python
else
  python=${PYTHON:-$(chosen PYTHON)}
  if [ -z "$python" ] && [ -n "$current" ]; then python=$(program .venv/bin/python); fi
  python=${python:-python3}
fi
another="Name another: make setup PYTHON=python3.12"
identity=$(about "$python") || die "Python 3.10 to 3.13 is needed, and $python does not run. $another"
case ${identity%% *} in 3.1[0-3]) ;; *) die "Python 3.10 to 3.13 is needed, $python is Python ${identity%% *}. $another" ;; esac

sourced=$(isolated "$python" scripts/environment.py ros)
ros=${ROS:-$(chosen ROS)}
if [ -n "$current" ] && { [ -z "$ros" ] || [ -L .venv ]; }; then
  if is_on_top_of_ros .venv; then ros=$sourced; else ros=pypi; fi
fi
ros=${ros:-${sourced:-pypi}} ros=${ros%/}
eval "$(isolated "$python" scripts/environment.py without "$ros")"
if [ "$ros" = pypi ]; then
  [ -z "$sourced" ] || say "ROS 2 from PyPI is used here, not $sourced. To change that: make setup ROS=$sourced"
  requirements=requirements.txt
else
  [ -f "$ros/setup.bash" ] || die "$ros: there is no setup.bash of a ROS 2 installation. Wheels from PyPI instead: make setup ROS=pypi"
  [ -z "$sourced" ] || [ "$sourced" = "$ros" ] ||
    die "$sourced is sourced, and this folder is set up with $ros: use a new shell, or change it: make setup ROS=$sourced"
  if [ -z "$sourced" ]; then set +u; . "$ros/setup.bash"; set -u; fi
  requirements=requirements-numpy1.txt  # a distribution's message packages are compiled against NumPy 1, and fail with NumPy 2
fi
torch=${TORCH:-$(chosen TORCH)}
[[ -z $torch || $torch == *torch* ]] || die "TORCH=$torch: a build of torch is needed, such as make setup TORCH=torch==2.9.1"
[ -L .venv ] || {
  kept="ROS=$ros"
  if [ -n "${PYTHON:-}" ]; then kept+=$'\n'PYTHON=$(program "$python")
  elif [ -n "$(chosen PYTHON)" ]; then kept+=$'\n'PYTHON=$python; fi
  [ -z "$torch" ] || kept+=$'\n'TORCH=$torch
  echo "$kept" >.setup
}

# 2. Python packages
place="location=$PWD
python=$identity
ros=$ros"
wanted="$place
torch=$torch
requirements=$(sha256sum <"$requirements")"

fits() { # whether an environment is of the Python and the ROS 2 that are wanted
  [ "$(about "$1/bin/python")" = "$identity" ] && if is_on_top_of_ros "$1"; then [ "$ros" != pypi ]; else [ "$ros" = pypi ]; fi
}
require_index() { # of a Python's pip: whether it reaches one at all, by a small package
  local folder
  folder=$(mktemp -d)
  pip "$1" --retries 1 --timeout 20 --quiet download --no-deps --dest "$folder" "$(grep -m 1 -o '^wheel==[0-9.]*' "$requirements")" ||
    die "pip reaches no package index, as it says above: nothing was changed. Is there a network? A proxy is named by https_proxy, another index by PIP_INDEX_URL"
  rm -r "$folder"
}
progress() { # of pip's lines: how many packages, of how many where that is known
  local word name rest count=0 all=$1
  while read -r word name rest; do
    case $word in
      Ignoring) all=$((all - 1)); continue ;;  # it is for another Python
      Collecting | Requirement) count=$((count + 1)) ;;
      Installing) name=unpacking ;;
      *) continue ;;
    esac
    [ "$word" != Requirement ] || name=${rest##*: }
    name="   $count${all:+ of $all}: ${name%%[=<>;]*}"
    if [ -n "$live" ]; then printf '\r\033[K%s' "$name"
    elif [ $((count % 50)) = 0 ] || [ "$word" = Installing ]; then echo "$name"; fi
  done
  if [ -n "$live" ]; then printf '\r\033[K'; fi
}
install() { # how many packages, pip's arguments
  pip .venv/bin/python install --progress-bar off "${@:2}" | tee -a log/pip.txt | progress "$1" ||
    die "pip failed, as it says above. What is installed stays: make setup goes on from there"
}
move_here() { # an environment that was copied or moved names its first place in its programs and in CMake files
  local first
  first=$(sed -n '1s,^#!\(.*\)/bin/python.*,\1,p' .venv/bin/pip) || return 0
  [ -z "$first" ] || [ "$first" = "$PWD/.venv" ] || {
    say "the environment names another place, $first: it is adapted to this one"
    { grep -rlIFZ "$first/" .venv/bin .venv/share || true; } | xargs -0 -r sed -i "s,$first/,$PWD/.venv/,g"
    sed -i "s,$first,$PWD/.venv,g" .venv/pyvenv.cfg .venv/bin/activate*
  }
}
name_headers() { # the wheels' CMake files name the headers of the machine they were built on
  .venv/bin/python -I - <<'PY'
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
}

mkdir -p log
if [ -L .venv ]; then
  :
elif [ "$(cat .venv/.installed 2>/dev/null)" != "$wanted" ]; then
  if ! fits .venv; then
    isolated "$python" -c 'import venv, ensurepip' || die "$python has no venv. $(debian python3-venv)"
    isolated "$python" -c 'import sysconfig; open(sysconfig.get_path("include") + "/Python.h")' || die "$python has no headers. $(debian python3-dev)"
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1000000) }')
    [ "$free" -ge 3 ] || die "$PWD: 3 GB are needed, or 7 where pip's torch is a CUDA build; the disk has $free GB free"
    [ "$free" -ge 8 ] || say "the disk has $free GB free: enough for a CPU build of torch (3 GB), not for a CUDA build (7 GB)"
    [ -z "$current" ] || require_index .venv/bin/python
    # What works stays until its successor is complete.
    if [ -e .venv/.installed ] && [ ! -e .venv.before ]; then mv .venv .venv.before; fi
    rm -rf .venv
    if fits .venv.before; then
      mv .venv.before .venv
    else
      say "Python ${identity%% *} in .venv, with ROS 2 from $ros (3 GB, or 7 where pip's torch is a CUDA build; once)"
      options=()
      [ "$ros" = pypi ] || options=(--system-site-packages)
      isolated "$python" -m venv "${options[@]}" .venv || die "$python -m venv failed. $(debian python3-venv)"
      require_index .venv/bin/python
    fi
  else
    say "bringing the packages in .venv up to date"
    move_here
    # pip writes RECORD last: a package without it was interrupted.
    find .venv/lib/*/site-packages -maxdepth 1 -name '*.dist-info' ! -exec test -e '{}/RECORD' ';' -exec rm -r '{}' +
  fi
  if [ "$ros" = pypi ]; then
    install "$(grep -c '^[a-z]' "$requirements")" --no-deps -r "$requirements"
    name_headers
  else
    awk '/^[a-z]/ { others = !/^ros-/ } others' "$requirements" |  # with their hashes, a line each
      install "$(grep '^[a-z]' "$requirements" | grep -vc '^ros-')" --no-deps -r /dev/stdin
  fi
  if [ -n "$torch" ] || ! isolated .venv/bin/python -c 'import sys, torch; sys.exit(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 4))'; then
    install "" "${torch:-torch==2.13.0}" "numpy==$(isolated .venv/bin/python -c 'import numpy; print(numpy.__version__)')" "setuptools<80"
  fi
  echo "$wanted" >.venv/.installed
  rm -rf .venv.before
fi

# 3. Workspace. Python files are linked, so only messages, package files and lists of files need a new build.
built="$wanted
workspace=$( (find src launch config bags bundles -not -name '*.pyc' -type f | sort; find src -path '*/fastwam_msgs/*' -type f -exec cat {} +; cat src/*/setup.py src/*/package.xml) | sha256sum)"
if [ "$(cat install/.built 2>/dev/null)" != "$built" ]; then
  say "building the workspace"
  # What was built for another place, Python or ROS 2 cannot be built on.
  if [ -f build/.place ] && [ "$(cat build/.place)" != "$place" ]; then rm -rf build install; fi
  mkdir -p build
  echo "$place" >build/.place
  export PATH="$PWD/.venv/bin:$PATH" MAKEFLAGS="-j$(nproc)"  # by itself, colcon lets a busy machine do one thing at a time
  [ "$ros" != pypi ] || export AMENT_PREFIX_PATH="$PWD/.venv" CMAKE_PREFIX_PATH="$PWD/.venv"
  .venv/bin/python .venv/bin/colcon --log-base log build --base-paths src --symlink-install \
    --cmake-args -DPython3_EXECUTABLE="$PWD/.venv/bin/python" >log/colcon.txt 2>&1 || {
    cat log/colcon.txt
    die "colcon build failed, see above and log/latest_build"
  }
  echo "$built" >install/.built
fi
