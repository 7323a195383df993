# The robot's PC: bridge and messages on ROS 2 Humble, without torch.
#   docker build -f docker/robot.Dockerfile -t fastwam-robot .
FROM ros:humble-ros-base-jammy

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Jammy's pydantic is version 1, so that one comes from PyPI; the rest are Humble's own packages.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      python3-colcon-common-extensions python3-numpy python3-opencv python3-pip python3-yaml \
      ros-humble-diagnostic-msgs ros-humble-geometry-msgs ros-humble-lifecycle-msgs ros-humble-sensor-msgs \
      ros-humble-std-srvs ros-humble-trajectory-msgs \
 && rm -rf /var/lib/apt/lists/* \
 && pip3 install --no-cache-dir "pydantic==2.14.3"

WORKDIR /fastwam
COPY LICENSE LICENSE
COPY config config
COPY src/fastwam_msgs src/fastwam_msgs
COPY src/galaxea_r1lite_bridge src/galaxea_r1lite_bridge
RUN . /opt/ros/humble/setup.bash && colcon build

COPY docker/entrypoint.sh /entrypoint.sh
ENTRYPOINT ["/entrypoint.sh"]
CMD ["ros2", "run", "galaxea_r1lite_bridge", "bridge_node", "--ros-args", "--params-file", "config/real.yaml"]
