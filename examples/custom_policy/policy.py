"""A policy of one's own: it holds the arms where the observation shows them.

./fastwam eval-sim examples/custom_policy/policy.py:Hold --episodes 2
ros2 launch fastwam_policy towel_fold.launch.py mode:=sim policy:=$PWD/examples/custom_policy/policy.py:Hold
"""

import numpy as np

from fastwam_policy import ActionChunk, Channel, Observation, PolicyInfo
from galaxea_r1lite_bridge.robot.config import RobotConfig


class Hold:
    """See fastwam_policy.Policy for what each method is for."""

    def __init__(self, horizon: int = 32) -> None:
        robot = RobotConfig.load()
        joints = tuple(Channel(name, unit) for name, unit in zip(robot.joint_names, robot.units, strict=True))
        # No cameras: none is waited for. A policy that looks has cameras=(CameraInput("head"), ...).
        self.info = PolicyInfo("hold", cameras=(), state=joints, action=joints, fps=15.0, horizon=horizon)

    def prepare(self, instruction: str) -> None:
        """Any instruction will do."""

    def infer(self, observation: Observation) -> ActionChunk:
        """The measured position of each joint, for every step."""
        names = [channel.name for channel in self.info.action]
        row = [observation.joints[name] for name in names]
        return ActionChunk(observation.stamp_ns, self.info.step_ns, names, np.tile(row, (self.info.horizon, 1)))

    def reset(self) -> None:
        """Nothing is remembered."""

    def close(self) -> None:
        """Nothing is held open."""
