"""The command `fastwam trials`."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_TIME_LIMIT = {"sim": 20.0, "real": 120.0}  # s


def add_trials(commands: Any) -> None:
    """Add it to the parser of `fastwam`."""
    trials = commands.add_parser(
        "trials", help="repeated trials of one bundle, or of two in blinded order, on the robot or in the simulator"
    )
    trials.add_argument("output", type=Path, help="folder to write, or to go on in after an interruption")
    trials.add_argument("--n", type=int, default=10, help="trials of each bundle (default 10)")
    trials.add_argument("--mode", choices=["sim", "real"], default="sim", help="real needs an operator (default sim)")
    trials.add_argument("--bundle", type=Path, action="append", required=True, help="given twice: the two are compared")
    trials.add_argument("--instruction", default="", help="task; the bundle's default where it is left out")
    trials.add_argument("--time-limit", type=float, metavar="S", help="of a trial (default 20 in sim, 120 in real)")
    trials.add_argument("--first-seed", type=int, default=0, help="scene of the first trial, mode sim (default 0)")
    trials.add_argument("--randomization", choices=["none", "towel", "full"], default="towel", help="of the scenes")
    trials.set_defaults(run=_trials)


def _trials(given: argparse.Namespace) -> int:
    from fastwam_policy.common.processes import require_simulator

    if given.mode == "sim":
        require_simulator()
    import numpy as np
    from rich.console import Console

    from fastwam_policy.launching.domain import private_domain
    from fastwam_policy.trials.plan import LETTERS, TrialSession, TrialSettings, with_bundles
    from fastwam_policy.trials.report import table, write_reports

    limit = _TIME_LIMIT[given.mode] if given.time_limit is None else given.time_limit
    if given.n < 1 or limit <= 0 or given.first_seed < 0 or len(given.bundle) > len(LETTERS):
        raise ConfigError(
            "--n must be at least 1, --time-limit above 0, --first-seed not negative, and --bundle given once or twice"
        )
    robot = RobotConfig.load()
    settings = TrialSettings(
        (), (), given.n, given.mode, given.instruction, limit, given.randomization, given.first_seed
    )
    settings = with_bundles(settings, [bundle.resolve() for bundle in given.bundle], robot)
    session = TrialSession(given.output.resolve(), settings, np.random.default_rng())
    if done := len(session.trials) - len(session.missing()):
        print(f"{done} of {len(session.trials)} trials are there already")
    with private_domain() if given.mode == "sim" else nullcontext():
        from fastwam_policy.trials.run import run_trials

        run_trials(session, robot)
    console = Console()
    console.print(table(write_reports(session, robot)))
    console.print(f"report: {session.folder / 'report.html'}")
    return 0
