# Source this from bash: puts .venv, ROS 2 and the built workspace on the paths of this shell.
# (A sourced ROS 2 stays; otherwise the one in .venv is used.)
_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PATH="$_root/.venv/bin:$PATH"
if [ -n "${ROS_DISTRO:-}" ]; then
  # `ros2` runs on the system's Python, but loads launch files that need what is in .venv.
  PYTHONPATH="$("$_root/.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'):${PYTHONPATH:-}"
  export PYTHONPATH
else
  export ROS_DISTRO=jazzy ROS_VERSION=2 ROS_PYTHON_VERSION=3
  export AMENT_PREFIX_PATH="$_root/.venv"
fi
export COLCON_PYTHON_EXECUTABLE="$_root/.venv/bin/python"
# Two CPU-bound processes whose OpenMP threads spin while waiting slow each other down ten times and more.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-0}"
. "$_root/install/local_setup.bash"
unset _root
