"""Load a policy, show it three pictures, plot the chunk that it predicts.

source scripts/env.sh
python examples/run_a_policy.py bundles/towel_small examples/images chunk.png
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from fastwam_policy import Observation, check_robot, load_policy
from galaxea_r1lite_bridge.robot.config import RobotConfig


def main(source: str, pictures: Path, plot: Path) -> None:
    """`pictures` holds one image for each camera of the policy, such as head.jpg."""
    policy, robot = load_policy(source), RobotConfig.load()
    check_robot(policy.info, robot, source)
    policy.prepare(policy.info.default_instruction)

    files = {path.stem: path for path in pictures.iterdir()}
    images = {camera.name: np.asarray(Image.open(files[camera.name]).convert("RGB")) for camera in policy.info.cameras}
    home = [value for group in robot.commanded.values() for value in group.home]
    joints = dict(zip(robot.joint_names, home, strict=True))
    chunk = policy.infer(Observation(0, images, joints, policy.info.default_instruction))
    policy.close()

    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots(1, 2)
    seconds = np.arange(len(chunk.actions)) * chunk.step_ns / 1e9
    for channel, column in zip(policy.info.action, chunk.actions.T, strict=True):
        axes[int(channel.unit == "mm")].plot(seconds, column, label=channel.name)
    for axis, unit in zip(axes, ("rad", "mm"), strict=True):
        axis.set(xlabel="time after the observation [s]", ylabel=f"target [{unit}]")
        axis.legend(fontsize="x-small")
    figure.savefig(plot)
    print(f"{policy.info.name}: {len(chunk.actions)} steps of {len(chunk.names)} joints -> {plot}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python examples/run_a_policy.py POLICY FOLDER_OF_PICTURES PLOT.png")
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
