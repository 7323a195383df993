"""Read a rosbag2 recording into arrays, without ROS. You see its topics, and where an arm was and was sent.

source scripts/env.sh
python examples/read_a_recording.py bags/towel_fold_sample arm.png
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fastwam_policy.data.recordings import open_recording
from galaxea_r1lite_bridge.robot.config import RobotConfig


def main(path: Path, plot: Path) -> None:
    """A recording that was cut off by a power cut is read up to its cut."""
    recording, group = open_recording(path), RobotConfig.load().groups["left_arm"]
    for connection in recording.connections:
        print(f"{connection.msgcount:6} {connection.topic}  ({connection.msgtype})")

    rows: dict[str, list[list[float]]] = {}
    for connection, logged_ns, data in recording.messages():
        if connection.topic.lstrip("/") in (group.feedback, group.target):
            message = recording.deserialize(data, connection.msgtype)
            seconds = (logged_ns - recording.start_time) / 1e9
            rows.setdefault(connection.topic, []).append([seconds, *message.position[: len(group.joints)]])
    recording.close()

    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    for topic, found in rows.items():
        values = np.array(found)
        print(f"{topic}: array {values.shape}")
        for axis, joint, column in zip(axes, group.joints, values.T[1:], strict=True):
            axis.plot(values[:, 0], column, label=topic)
            axis.set(title=joint, xlabel="time [s]", ylabel=f"[{group.unit}]")
    axes[0].legend(fontsize="x-small")
    figure.savefig(plot)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/read_a_recording.py RECORDING PLOT.png")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
