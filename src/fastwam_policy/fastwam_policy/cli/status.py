"""`fastwam status`."""

from __future__ import annotations

import argparse

from fastwam_policy.common.arguments import add_json, add_robot, number, write_figures

NAME, GROUP = "status", "run"
HELP = "what bridge and policy say, once; exit status 0: a task can be run, 1: it cannot, and why"
EXAMPLE = "./fastwam status --json status.json"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--seconds", type=number(float, above=0), default=3.0, help="to wait for them (default %(default)s)"
    )
    parser.add_argument("--namespace", default="", help="namespace of the nodes")
    add_robot(parser)
    add_json(parser, "write all fields of both messages as JSON")


def run(given: argparse.Namespace) -> int:
    """1 where something keeps a task from being run."""
    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.operate.listening import hear
    from fastwam_policy.operate.overview import fields, figures, headline, obstacles, streams
    from galaxea_r1lite_bridge.robot.config import RobotConfig

    bridge, policy = hear(RobotConfig.load(given.robot), given.namespace, given.seconds)
    console, found = PlainConsole(), obstacles(bridge, policy)
    console.print(headline(bridge, policy))
    console.print(figures(bridge, policy))
    if bridge is not None or policy is not None:
        console.print(streams(bridge, policy))
    console.print("a task can be run" if not found else "no task can be run:")
    for line in found:
        console.print(f"  {line}", soft_wrap=True)
    write_figures(
        given.json, {"able": not found, "obstacles": found, "bridge": fields(bridge), "policy": fields(policy)}
    )
    return int(bool(found))
