"""`fastwam eval-sim`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import (
    STDOUT,
    add_denoise_steps,
    add_json,
    add_mapping,
    add_policy,
    add_randomization,
    add_robot,
    add_task,
    add_workers,
    new_file,
    number,
    policy_source,
    write_figures,
)

NAME, GROUP = "eval-sim", "evaluate"
HELP = "how often a policy does a task in the simulator"
EXAMPLE = "./fastwam eval-sim bundles/towel_small --randomization objects --episodes 10"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_policy(parser)
    add_mapping(parser)
    add_task(parser)
    parser.add_argument("--episodes", type=number(int, least=1), default=100)
    parser.add_argument("--first-seed", type=number(int, least=0), default=0, help="training uses seeds from 10000")
    add_randomization(parser)
    parser.add_argument(
        "--latency",
        type=number(float, least=0),
        default=0.15,
        metavar="S",
        help="from image to chunk (default %(default)s)",
    )
    parser.add_argument(
        "--replan",
        type=number(float, above=0),
        default=0.5,
        metavar="S",
        help="between inferences (default %(default)s)",
    )
    parser.add_argument(
        "--delay", type=number(float, least=0, below=1), default=0.0, metavar="S",
        help="by which targets arrive late at the robot (default: not at all)",
    )  # fmt: skip
    parser.add_argument(
        "--hover-interval", type=number(float, least=0), default=0.0, metavar="S",
        help="between inferences where the arms hover, so that they follow the chunk further (default: as --replan)",
    )  # fmt: skip
    parser.add_argument(
        "--gripper-hysteresis", type=number(float, least=0), default=0.0, metavar="MM",
        help="a gripper turns back only for more than this (default: for anything)",
    )  # fmt: skip
    add_denoise_steps(parser, "of a bundle, in place of its own number")
    parser.add_argument("--blending", choices=["switch", "ensemble", "rtc"], default="switch")
    parser.add_argument(
        "--time-limit", type=number(float, above=0), default=20.0, metavar="S", help="of an episode (default 20)"
    )
    add_workers(parser)
    parser.add_argument(
        "--nodes", action="store_true", help="through the ROS 2 nodes, one after the other, with the latency they have"
    )
    parser.add_argument("--log", type=new_file, default="eval_sim.log", help="output of the nodes (with --nodes)")
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="write a video of each failure")
    add_robot(parser)
    add_json(parser, "write the figures as JSON, from the first episode on; the same evaluation continues from there")


def run(given: argparse.Namespace) -> int:
    """Run the episodes that are missing, and print the figures."""
    from fastwam_policy.common.processes import require_simulator

    require_simulator()
    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.simulation.episode import EpisodeSettings
    from fastwam_policy.simulation.evaluate import evaluate, table
    from galaxea_r1lite_bridge.execution.settings import BridgeSettings
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError
    from galaxea_r1lite_sim.tasks import TASKS

    bridge = BridgeSettings.load({"gripper_hysteresis": given.gripper_hysteresis})
    oldest = bridge.watchdog.chunk_age.limit
    if given.latency >= oldest:
        raise ConfigError(f"--latency must be below {oldest:g} s, from which on the bridge drops a chunk")
    if given.hover_interval and given.latency + given.hover_interval >= oldest:
        raise ConfigError(f"--hover-interval and --latency must be below {oldest:g} s together: an older chunk is held")
    settings = EpisodeSettings(
        given.randomization, given.latency, given.replan, given.blending, given.time_limit, task=given.task or "fold",
        instruction=TASKS[given.task].instruction if given.task else "",
        hover_interval=given.hover_interval, gripper_hysteresis=given.gripper_hysteresis, delay=given.delay,
    )  # fmt: skip
    seeds = range(given.first_seed, given.first_seed + given.episodes)
    source = policy_source(given.policy, given.mapping)
    if given.nodes and given.videos:
        raise ConfigError("--nodes films nothing: leave --videos out")
    if given.videos:
        try:
            given.videos.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--videos {given.videos}: cannot be written: {error.strerror}") from None
    figures, steps = None if given.json == STDOUT else given.json, given.denoise_steps or 0
    if given.nodes:
        from fastwam_policy.launching.domain import private_domain

        with private_domain():
            from fastwam_policy.simulation.through_nodes import evaluate_nodes

            summary = evaluate_nodes(source, seeds, settings, given.log, figures, given.robot, steps)
    else:
        summary = evaluate(
            source, seeds, settings, given.where, given.videos, figures=figures, robot=given.robot, denoise_steps=steps
        )
    title = f"{Path(source).name}, task {settings.task}, randomization {settings.level}"
    PlainConsole().print(table(summary, title))
    if given.json == STDOUT:
        write_figures(STDOUT, summary)
    return 0
