"""`fastwam check-policy`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import (
    add_json,
    add_mapping,
    add_policy,
    add_robot,
    new_file,
    policy_source,
    write_figures,
)

NAME, GROUP = "check-policy", "check"
HELP = "load a policy, compare it with the robot and run it once"
EXAMPLE = "./fastwam check-policy bundles/towel_small"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_policy(parser)
    add_mapping(parser)
    parser.add_argument(
        "--show",
        default="noise",
        metavar="WHAT",
        help="noise (default), sim for a simulated scene, or a recording's folder",
    )
    parser.add_argument("--plot", type=new_file, metavar="PNG", help="draw the chunk, with the robot's limits")
    parser.add_argument(
        "--imagination", type=Path, metavar="DATASET",
        help="compare what a bundle imagines with a LeRobot dataset that it was not trained with",
    )  # fmt: skip
    parser.add_argument("--video", type=new_file, metavar="MP4", help="film that, what happened beside it")
    parser.add_argument("--device", help="of a bundle: auto (default), cpu, cuda or cuda:1")
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Say what it is, or what is wrong with it."""
    from contextlib import closing

    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.common.failure import RunError
    from fastwam_policy.performance.imagination import check_imagination
    from fastwam_policy.performance.imagination import table as imagination_table
    from fastwam_policy.policies.check import figures, table, try_once
    from fastwam_policy.policies.loading import load_policy, policy_factory
    from fastwam_policy.policies.remote.client import RemotePolicy
    from fastwam_policy.policies.robot_check import check_robot
    from fastwam_policy.simulation.first_look import first_look
    from galaxea_r1lite_bridge.robot.config import RobotConfig
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    if given.video and given.imagination is None:
        raise ConfigError("--video films what is compared with --imagination DATASET: name one")
    robot = RobotConfig.load(given.robot)
    source = policy_source(given.policy, given.mapping)
    policy_factory(source)  # what does not exist is wrong use; what is wrong with it is found by the check
    try:
        with closing(load_policy(source, {"device": given.device} if given.device else {})) as policy:
            check_robot(policy.info, robot, source)
            frame = first_look(
                given.show, robot, [each.name for each in policy.info.cameras if each.name in robot.cameras]
            )
            tried = try_once(policy, frame)
            said = policy.said if isinstance(policy, RemotePolicy) else {}
            found = figures(policy.info, robot, frame, tried, said)
            if given.imagination is not None:
                found["imagination"] = check_imagination(policy, given.imagination, robot, given.video)
    except (ConfigError, ValueError) as error:
        raise RunError(str(error)) from None
    PlainConsole().print(table(found))
    if given.imagination is not None:
        PlainConsole().print(imagination_table(found["imagination"]))
    if given.plot is not None:
        from fastwam_policy.visualization.chunk_plot import plot_chunk

        plot_chunk(given.plot, tried.chunk, robot, frame.joints, found["name"])
        print(f"chunk: {given.plot}")
    write_figures(given.json, found)
    return 0
