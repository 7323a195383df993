"""`fastwam doctor`."""

from __future__ import annotations

import argparse

from fastwam_policy.common.arguments import add_json, add_robot, number, write_figures

NAME, GROUP = "doctor", "check"
HELP = "what of this machine, its ROS 2 and the robot in sight is fine or not, with a cure; changes nothing"
EXAMPLE = "./fastwam doctor --json report.json"
_STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--seconds", type=number(float, above=0), default=3.0, help="to listen for the robot (default %(default)s)"
    )
    add_robot(parser)
    add_json(parser, "write the findings as JSON, for a bug report")


def run(given: argparse.Namespace) -> int:
    """1 where there is a fault."""
    from collections.abc import Iterator
    from dataclasses import asdict
    from importlib.util import find_spec

    from rich.text import Text

    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.common.middleware import missing
    from fastwam_policy.launching.machine import CHECKS, Finding, look
    from galaxea_r1lite_bridge.robot.config import RobotConfig

    robot = RobotConfig.load(given.robot)

    def robot_in_sight() -> Iterator[Finding]:
        from fastwam_policy.launching.in_sight import in_sight

        yield from in_sight(robot, given.seconds)

    here = find_spec("rclpy") is not None and not missing()
    console, found = PlainConsole(soft_wrap=True), []
    for finding in look([*CHECKS, *([robot_in_sight] if here else [])]):
        found.append(finding)
        line = Text(f"{finding.state:9}", _STYLES[finding.state])
        console.print(line.append(f"{finding.about:20}{finding.text}", "default"))
        if finding.cure:
            console.print(f"{'':9}{'':20}{finding.cure}")
    faults = sum(finding.state == "fault" for finding in found)
    console.print(f"{faults} faults, {sum(finding.state == 'warning' for finding in found)} warnings")
    write_figures(given.json, {"faults": faults, "findings": [asdict(finding) for finding in found]})
    return int(faults > 0)
