"""A trial that the simulator judges."""

from __future__ import annotations

from fastwam_msgs.action import RunTask
from fastwam_policy.simulation.through_nodes import task_failure
from fastwam_policy.trials.plan import Trial, TrialOutcome, TrialSettings
from fastwam_policy.trials.rig import TrialRig
from galaxea_r1lite_sim.tasks.fold import Fold


class SimTrial(TrialRig):
    """A trial that the simulator judges."""

    def run_trial(self, policy: str, trial: Trial, settings: TrialSettings) -> TrialOutcome:
        """The seed's scene, arm, run the task to its end, disarm."""
        self.prepare(
            "sim",
            {
                "policy": policy,
                "seed": trial.seed,
                "randomization": settings.randomization,
                "robot_config": settings.robot,
            },
        )
        self.start_nodes("sim_node", "bridge_node", "policy_node")
        self.until_loaded()
        self.until(lambda: self.simulation is not None, "the simulator")
        self.record()
        self.arm()
        result = self.run_task(settings.time_limit, settings.instruction)
        self.arm(wanted=False)
        success = result.code == RunTask.Result.SUCCEEDED
        return TrialOutcome(success, self.elapsed, Fold.done if success else task_failure(result, self))
