"""`fastwam operate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import add_robot, number, one_line

NAME, GROUP = "operate", "run"
HELP = "arm, start, stop, home, take over and emergency stop from a terminal"
EXAMPLE = './fastwam operate --instruction "fold the towel" --time-limit 60'


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--instruction", type=one_line, default="", help="task; the policy node's by default")
    parser.add_argument(
        "--time-limit", type=number(float, least=0), default=0.0, metavar="S", help="of a task; 0 for the policy node's"
    )
    parser.add_argument(
        "--deadman", type=Path, metavar="DEVICE",
        help="pedal, gamepad or keyboard, such as /dev/input/by-id/…-event-kbd: the arms move only while it is held",
    )  # fmt: skip
    parser.add_argument("--estop", type=Path, metavar="DEVICE", help="the same, of which any key is the emergency stop")
    parser.add_argument("--namespace", default="", help="namespace of the nodes")
    add_robot(parser)


def run(given: argparse.Namespace) -> int:
    """Run until q, a signal or the terminal's end."""
    from fastwam_policy.operate.operator import operate
    from galaxea_r1lite_bridge.robot.config import RobotConfig

    robot = RobotConfig.load(given.robot)
    operate(robot, given.instruction, given.time_limit, given.namespace, given.deadman, given.estop)
    return 0
