"""`fastwam trials`."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path

from fastwam_policy.common.arguments import (
    add_json,
    add_mapping,
    add_policy,
    add_randomization,
    add_robot,
    number,
    one_line,
    policy_source,
    write_figures,
)

NAME, GROUP = "trials", "evaluate"
HELP = "repeated trials of one policy, or of two in blinded order, on the robot or in the simulator"
EXAMPLE = "./fastwam trials output/today --n 5 --policy bundles/towel_small"
_TIME_LIMIT = {"sim": 20.0, "real": 120.0}  # s


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("output", type=Path, help="folder to write, or to continue after an interruption")
    parser.add_argument("--n", type=number(int, least=1), default=10, help="trials of each policy (default 10)")
    parser.add_argument("--mode", choices=["sim", "real"], default="sim", help="real needs an operator (default sim)")
    add_policy(parser, "--policy", action="append", required=True, about="; given twice: the two are compared")
    add_mapping(parser, action="append", default=[], about="; given twice: the second is of the second address")
    parser.add_argument(
        "--instruction", type=one_line, default="", help="task; the policy's default where it is left out"
    )
    parser.add_argument(
        "--time-limit", type=number(float, above=0), metavar="S", help="of a trial (default 20 in sim, 120 in real)"
    )
    parser.add_argument(
        "--first-seed", type=number(int, least=0), default=0, help="scene of the first trial, mode sim (default 0)"
    )
    add_randomization(parser, "objects")
    add_robot(parser)
    add_json(parser)


def run(given: argparse.Namespace) -> int:
    """Run the trials that are missing, and write the reports."""
    from fastwam_policy.common.processes import require_simulator

    if given.mode == "sim":
        require_simulator()
    import numpy as np

    from fastwam_policy.common.console import PlainConsole
    from fastwam_policy.launching.domain import private_domain
    from fastwam_policy.trials.plan import LETTERS, TrialSession, TrialSettings, with_policies
    from fastwam_policy.trials.report import table, write_reports
    from galaxea_r1lite_bridge.robot.config import RobotConfig
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    if len(given.policy) > len(LETTERS):
        raise ConfigError(f"--policy is given once, or twice to compare two; got {len(given.policy)}")
    limit = given.time_limit or _TIME_LIMIT[given.mode]
    robot = RobotConfig.load(given.robot)
    settings = TrialSettings(
        (), (), given.n, given.mode, given.instruction, limit, given.randomization, given.first_seed,
        str(given.robot or ""),
    )  # fmt: skip
    addresses = [source for source in given.policy if "://" in source]
    if len(given.mapping) > len(addresses):
        raise ConfigError(
            f"--mapping is given once for each --policy with an address, {len(addresses)}; got {len(given.mapping)}"
        )
    mappings = dict(zip(addresses, given.mapping, strict=False))
    sources = [policy_source(source, mappings.get(source)) for source in given.policy]
    settings = with_policies(settings, sources, robot)
    session = TrialSession(given.output.resolve(), settings, np.random.default_rng())
    if done := len(session.trials) - len(session.missing()):
        print(f"{done} of {len(session.trials)} trials are there already")
    with private_domain() if given.mode == "sim" else nullcontext():
        from fastwam_policy.trials.run import run_trials

        run_trials(session, robot)
    console, figures = PlainConsole(), write_reports(session, robot)
    console.print(table(figures))
    console.print(f"report: {session.folder / 'report.html'}")
    write_figures(given.json, figures)
    return 0
