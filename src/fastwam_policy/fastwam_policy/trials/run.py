"""`fastwam trials`: the trials of a session that are still missing, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import rclpy
from rclpy.signals import SignalHandlerOptions

from fastwam_policy.common.files import alone_in
from fastwam_policy.operate.terminal import single_keys
from fastwam_policy.trials.plan import TrialSession
from fastwam_policy.trials.rig import TrialRig
from galaxea_r1lite_bridge.nodes.managed_node import see_everybody
from galaxea_r1lite_bridge.robot.config import RobotConfig


def run_trials(session: TrialSession, robot: RobotConfig) -> None:
    """Run what is missing; each outcome is kept as soon as it is there.

    Raises:
        ConfigError: mode real has no terminal, or another command runs trials of this session.
        RunError: a process does not come up or ends, or mode real has no bridge.
    """
    if not session.missing():
        return
    with alone_in(session.folder):
        _run_missing(session, robot)


def _run_missing(session: TrialSession, robot: RobotConfig) -> None:
    # rclpy's own handlers end the context at once; the arms must first come to rest.
    see_everybody()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        if session.settings.mode == "sim":
            from fastwam_policy.trials.simulated import SimTrial

            _run(session, lambda folder: SimTrial(robot, folder))
        else:
            from fastwam_policy.trials.on_robot import HELP, RealTrial

            with single_keys() as keys:
                print(HELP)
                _run(session, lambda folder: RealTrial(robot, folder, keys))
    finally:
        rclpy.try_shutdown()


def _run(session: TrialSession, rig_for: Callable[[Path], TrialRig]) -> None:
    settings = session.settings
    for trial in session.missing():
        # Only the number: the operator must not know which policy runs.
        print(f"trial {trial.number} of {len(session.trials)}", flush=True)
        folder = session.begin(trial)
        with closing(rig_for(folder)) as rig:
            outcome = rig.run_trial(settings.policies[trial.policy], trial, settings)
            # The verdict comes first: closing the recording takes time, and may fail.
            print(f"  {'success' if outcome.success else 'no success'} after {outcome.time:.1f} s: {outcome.ended}")
            session.finish(trial, outcome)
