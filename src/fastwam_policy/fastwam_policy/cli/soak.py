"""`fastwam soak`."""

from __future__ import annotations

import argparse

from fastwam_policy.common.arguments import add_json, add_policy, add_robot, number, policy_source, write_figures

NAME, GROUP = "soak", "check"
HELP = "simulated trials for a long time: does what the nodes take of the machine grow?"
EXAMPLE = "./fastwam soak --minutes 2"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--minutes", type=number(float, above=0), default=10.0, help="default 10")
    add_policy(parser, "--policy", default="")
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Run them, and print the figures; 1 where something grows."""
    from dataclasses import asdict

    from rich.table import Table

    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.common.processes import require_simulator, shipped_bundle
    from fastwam_policy.launching.domain import private_domain

    require_simulator()
    source = policy_source(given.policy) if given.policy else str(shipped_bundle())
    with private_domain():
        from fastwam_policy.performance.soak import ALLOWED, soak

        found = soak(source, 60 * given.minutes, given.robot)
    table = Table("node", "memory [MB]", "MB an hour", "threads", "open files")
    for name, grown in found.nodes.items():
        memory, threads, files = (f"{a:.0f} to {b:.0f}" for a, b in (grown.memory, grown.threads, grown.files))
        table.add_row(name, memory, f"{grown.rate:+.1f}", threads, files)
    console, growing = PlainConsole(), [name for name, grown in found.nodes.items() if not grown.flat]
    console.print(table)
    console.print(f"{found.trials} trials in {60 * found.hours:.1f} minutes, {found.succeeded} succeeded")
    if growing:
        console.print(f"growing, by more than {ALLOWED:g} MB an hour or by threads or files: {', '.join(growing)}")
    write_figures(given.json, asdict(found))
    return int(bool(growing))
