"""`fastwam check-bundle`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import add_json, add_robot, write_figures

NAME, GROUP = "check-bundle", "check"
HELP = "load a bundle, compare it with the robot and run it once"
EXAMPLE = "./fastwam check-bundle bundles/towel_small"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Say what is in it, or what is wrong with it."""
    from fastwam_policy.common.failure import RunError
    from fastwam_policy.policies.fastwam.bundle import Bundle
    from fastwam_policy.policies.fastwam.policy import FastWamPolicy
    from galaxea_r1lite_bridge.robot.config import RobotConfig
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    robot = RobotConfig.load(given.robot)
    config = Bundle.read_config(given.folder)
    try:
        policy = FastWamPolicy.load(given.folder, given.device)
        policy.bundle.check_robot(robot)
        policy.prepare(config.prompt.default_instruction)
    except ConfigError as error:  # the check has found something
        raise RunError(str(error)) from None
    count = sum(parameter.numel() for parameter in policy.bundle.model.parameters())
    print(f"{config.name}: fits the {config.robot_type}; {count / 1e6:.1f} M parameters, weights: {config.origin}")
    print("instructions: " + "; ".join(sorted(policy.bundle.embeddings)))
    figures = {"name": config.name, "robot": config.robot_type, "parameters": count, "origin": config.origin}
    write_figures(given.json, figures | {"instructions": sorted(policy.bundle.embeddings)})
    return 0
