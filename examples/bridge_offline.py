"""Run the bridge without a robot, on a made-up clock. You see how a plan that leaps is followed within the limits.

source scripts/env.sh
python examples/bridge_offline.py bridge.png
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from galaxea_r1lite_bridge.execution.offline import LaggingJoints, OfflineBridge
from galaxea_r1lite_bridge.execution.plan import Chunk
from galaxea_r1lite_bridge.execution.settings import BridgeSettings
from galaxea_r1lite_bridge.robot.config import RobotConfig

STEP_NS = 10**9 // 15
JOINT, LEAP = 5, 0.5  # the left arm's last one, which turns the gripper and hits nothing; rad


def main(plot: Path) -> None:
    """The plan stands for 0.3 s, then wants to be elsewhere within one step of 1/15 s."""
    robot, settings = RobotConfig.load(), BridgeSettings.load()
    home = np.concatenate([group.home for group in robot.groups.values()])
    bridge = OfflineBridge(robot, settings, LaggingJoints(home, lag=0.05))
    bridge.arm()

    plan = np.tile(robot.home, (32, 1))
    plan[4:, JOINT] += LEAP
    begin_ns = bridge.clock.now_ns
    bridge.send(Chunk(1, 0, begin_ns, STEP_NS, robot.joint_names, plan), delay_ns=0)

    rows = []
    for _ in range(200):
        command = bridge.tick()
        if command.motion is not None:
            seconds = (bridge.clock.now_ns - begin_ns) / 1e9
            rows.append([seconds, command.motion.position[JOINT], bridge.plant.measured()[JOINT]])
    times, sent, measured = np.array(rows).T
    fastest = np.abs(np.diff(sent)).max() / (bridge.period_ns / 1e9)
    print(
        f"asked for {LEAP / (STEP_NS / 1e9):.1f} rad/s, sent {fastest:.2f} rad/s at most; the end: {command.state.name}"
    )

    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    axis.step(np.arange(32) / 15, plan[:, JOINT], where="post", label="plan")
    axis.plot(times, sent, label="command")
    axis.plot(times, measured, label="measured")
    axis.set(xlabel="time [s]", ylabel=f"{robot.joint_names[JOINT]} [rad]")
    axis.legend()
    figure.savefig(plot)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/bridge_offline.py PLOT.png")
    main(Path(sys.argv[1]))
