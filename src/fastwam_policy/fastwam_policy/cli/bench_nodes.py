"""`fastwam bench-nodes`."""

from __future__ import annotations

import argparse

from fastwam_policy.common.arguments import add_json, add_robot, number, write_figures

NAME, GROUP = "bench-nodes", "evaluate"
HELP = "what bridge, recorder and monitor take of a core at the robot's rates"
EXAMPLE = "./fastwam bench-nodes --seconds 5"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--seconds", type=number(float, least=1), default=20.0, help="to measure for (default 20)")
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Measure, and print the figures."""
    from dataclasses import asdict

    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.launching.domain import private_domain

    with private_domain():
        from fastwam_policy.performance.node_costs import measure_nodes

        costs = measure_nodes(given.seconds, given.robot)
    console = PlainConsole()
    for name, cost in costs.nodes.items():
        console.print(f"{name}: {100 * cost.cpu:.1f} % of a core, {cost.memory:.0f} MB")
    console.print(f"the bridge followed a plan {100 * costs.tracking:.0f} % of the time, at {costs.rate:.1f} Hz")
    write_figures(given.json, asdict(costs))
    return 0
