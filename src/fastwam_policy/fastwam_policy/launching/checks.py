"""What a mode would fail of once its nodes run, found before any of them is started."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix

from fastwam_policy.common.processes import ARGUMENTS, Argument, Process, processes, shipped_bundle
from fastwam_policy.data.recordings import check_topics, open_recording
from fastwam_policy.policies.loading import imagining_folder, inspect_policy
from fastwam_policy.policies.robot_check import check_robot
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError


def check_start(
    policy: str, robot: RobotConfig, bag: Path | None = None, instruction: str = "", *, imagine: bool = False
) -> None:
    """Whether policy and instruction are there, and fit the robot and the recording.

    Raises:
        ConfigError: they do not; says which.
    """
    info = inspect_policy(policy, instruction)
    check_robot(info, robot, policy)
    if imagine:
        imagining_folder(policy)
    if bag is not None:
        with closing(open_recording(bag)) as reader:
            check_topics(reader, robot, bag, cameras=[camera.name for camera in info.cameras if camera.required])


def checked_processes(mode: str, arguments: Mapping[str, Argument]) -> list[Process]:
    """As :func:`processes`, for the launch file, after the same checks.

    A policy that is served is not asked: its server may come later, and the policy node waits for it.

    Raises:
        ConfigError: as :func:`check_start`, or RViz is wanted and not installed.
    """
    found = processes(mode, arguments)
    values = {name: default for name, (default, _) in ARGUMENTS.items()} | dict(arguments)
    if values["rviz"]:
        _require_rviz()
    robot = RobotConfig.load(Path(file) if (file := str(values["robot_config"])) else None)
    policy = str(values["policy"])
    if mode == "real" and not policy:
        raise ConfigError("mode real needs a policy that was trained for this robot: policy:=FOLDER")
    if "://" in policy:
        if values["imagine"]:
            imagining_folder(policy)
    else:
        bag = Path(str(values["bag"])) if mode == "replay" else None
        policy, instruction = policy or str(shipped_bundle()), str(values["instruction"])
        check_start(policy, robot, bag, instruction, imagine=bool(values["imagine"]))
    return found


def _require_rviz() -> None:
    """ConfigError where the programs that `rviz` starts are not installed."""
    for package in ("rviz2", "robot_state_publisher"):
        try:
            get_package_prefix(package)
        except PackageNotFoundError:
            raise ConfigError(
                f"rviz:=true needs {package}: sudo apt install ros-$ROS_DISTRO-{package.replace('_', '-')}, or leave "
                "rviz out; `fastwam view` shows the same without it"
            ) from None
