"""`fastwam demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import (
    add_json,
    add_mapping,
    add_policy,
    add_randomization,
    add_robot,
    add_task,
    number,
    policy_source,
    write_figures,
)

NAME, GROUP = "demo", "run"
HELP = "run the nodes on a recording or in the simulator, then print a summary and write a report"
EXAMPLE = "./fastwam demo --seed 7"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "--mode", help="sim (default) or replay (default with --bag); for real see launch/towel_fold.launch.py"
    )
    parser.add_argument("--seed", type=number(int, least=0), default=0, help="scene of mode sim")
    add_task(parser)
    add_randomization(parser, "objects")
    parser.add_argument(
        "--duration",
        type=number(float, least=0),
        default=30.0,
        help="longest simulated time of mode sim, s (default 30)",
    )
    parser.add_argument("--bag", type=Path, help="recording to replay; the shipped sample by default")
    add_policy(parser, "--policy", default="", about="; the shipped bundle by default")
    add_mapping(parser)
    parser.add_argument("--view", action="store_true", help="show it live in the Rerun viewer")
    parser.add_argument("--imagine", action="store_true", help="show what the model imagines and what then happened")
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder for sessions")
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Start it and wait for its end."""
    from fastwam_policy.common.failure import RunError
    from fastwam_policy.common.processes import has_simulator, processes, sample_bag
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    if given.mode == "real":
        raise ConfigError(
            "the demo never moves a robot; use: ros2 launch fastwam_policy towel_fold.launch.py mode:=real"
        )
    mode = given.mode or ("sim" if has_simulator() and given.bag is None else "replay")
    processes(mode, {})
    from fastwam_policy.launching.demo import run_demo

    figures = run_demo(
        mode,
        (given.bag or sample_bag()).resolve(),
        policy_source(given.policy, given.mapping) if given.policy or given.mapping else "",
        given.output.resolve(),
        given.seed,
        given.randomization,
        given.duration,
        task=given.task or "",
        robot_file=given.robot,
        view=given.view,
        imagine=given.imagine,
    )
    write_figures(given.json, figures)
    if figures["chunks"] == 0:
        raise RunError("no chunk was computed; the policy's warnings above say why")
    return 0
