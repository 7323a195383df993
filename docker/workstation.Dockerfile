# The GPU workstation: everything, on ROS 2 Jazzy with CUDA torch (the wheel brings the CUDA libraries).
#   docker build -f docker/workstation.Dockerfile -t fastwam-workstation .
FROM ros:jazzy-ros-base-noble

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      build-essential cmake git python3-dev python3-venv ros-jazzy-cv-bridge ros-jazzy-robot-state-publisher \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /fastwam
COPY . .
# With ROS sourced, set-up installs no ROS wheels. TORCH chooses another build.
ARG TORCH=torch==2.9.1
RUN . /opt/ros/jazzy/setup.bash && TORCH="$TORCH" scripts/setup.sh

COPY docker/entrypoint.sh /entrypoint.sh
ENTRYPOINT ["/entrypoint.sh"]
CMD ["ros2", "run", "fastwam_policy", "policy_node", "--ros-args", \
     "--params-file", "config/real.yaml", "-p", "policy:=/bundle", "-p", "device:=cuda"]
