#!/usr/bin/env bash
# Source ROS 2 and the workspace, then become the command, so that it gets the signal to stop.
set -e
. "/opt/ros/$ROS_DISTRO/setup.bash"
if [ -d /fastwam/.venv ]; then . /fastwam/scripts/env.sh; else . /fastwam/install/setup.bash; fi
exec "$@"
