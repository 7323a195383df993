"""`fastwam bench-execution`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastwam_policy.common.arguments import add_json, add_robot, number, write_figures

NAME, GROUP = "bench-execution", "evaluate"
HELP = "seams, jerk and lag of every blending mode at several latencies; see docs/results/blending.md"
EXAMPLE = "./fastwam bench-execution --latency 0 200 --seeds 2"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--bag", type=Path, help="recording whose targets the chunks vary around (default: sample)")
    parser.add_argument(
        "--latency",
        nargs="+",
        type=number(int, least=0),
        default=[0, 100, 200, 400],
        metavar="MS",
    )
    parser.add_argument("--seeds", type=number(int, least=1), default=5, help="runs with other chunks (default 5)")
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Measure, and print the table."""
    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.common.processes import sample_bag
    from fastwam_policy.performance.execution import bench_execution, table
    from galaxea_r1lite_bridge.execution.settings import BridgeSettings
    from galaxea_r1lite_bridge.robot.config import RobotConfig
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    longest = 1e3 * BridgeSettings.load().watchdog.chunk_age.limit / 2  # to the next chunk it takes that time again
    if max(given.latency) >= longest:
        raise ConfigError(f"--latency must be below {longest:g} ms: no plan is followed any more when a chunk comes")
    robot, latencies = RobotConfig.load(given.robot), [1e-3 * value for value in given.latency]
    results = bench_execution(robot, given.bag or sample_bag(), latencies, given.seeds)
    PlainConsole().print(table(results))
    write_figures(given.json, results)
    return 0
