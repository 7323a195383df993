"""The processes of one trial: nothing is carried over to the next, and the operator does not see which policy runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray

from fastwam_msgs.action import RunTask
from fastwam_policy.common.failure import RunError
from fastwam_policy.common.processes import Argument, RunMode, processes
from fastwam_policy.launching.task_rig import TaskRig
from fastwam_policy.trials.plan import Trial, TrialOutcome, TrialSettings
from galaxea_r1lite_bridge.robot.config import RobotConfig

_WRITTEN = 60.0  # s for the recorder to finish its file
_OUTCOMES = (
    RunTask.Result.SUCCEEDED, RunTask.Result.TIME_LIMIT, RunTask.Result.CANCELED, RunTask.Result.FAULT,
    RunTask.Result.STOPPED,
)  # fmt: skip


class TrialRig(TaskRig, ABC):
    """See the module. `folder` takes recording/ and nodes.log."""

    def __init__(self, robot: RobotConfig, folder: Path) -> None:
        super().__init__("trials", robot, folder / "nodes.log")
        self._folder = folder
        self._commands: dict[str, list[str]] = {}
        self._recording = False
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    @abstractmethod
    def run_trial(self, policy: str, trial: Trial, settings: TrialSettings) -> TrialOutcome:
        """Run one trial to its end; the bridge is disarmed then."""

    def prepare(self, mode: RunMode, arguments: Mapping[str, Argument]) -> None:
        """Know the processes of a mode; none is started yet."""
        recorded: dict[str, Argument] = {"record": True, "record_images": True, "session": str(self._folder)}
        self._commands = {process.name: process.command() for process in processes(mode, {**arguments, **recorded})}
        self._commands["policy_node"] += ["-p", "run_on_start:=false"]

    def start_nodes(self, *names: str) -> None:
        """Start some of them."""
        for name in names:
            self.group.start(name, self._commands[name])

    def record(self) -> None:
        """Begin the recording: there are messages in it before anything is done."""
        self.start_nodes("recorder_node")
        self.until(lambda: self._recording, "the recorder's first messages")

    def run_task(self, time_limit: float, instruction: str = "") -> RunTask.Result:
        """As TaskRig.run_task; RunError also where the task was refused: that says nothing about the policy."""
        result = super().run_task(time_limit, instruction)
        if result.code not in _OUTCOMES:
            raise RunError(f"the task was refused, {result.code}: {result.message}")
        return result

    def close(self) -> None:
        """Finish the recording, then end everything."""
        if "recorder_node" in self.group:
            self.group.end("recorder_node", patience=_WRITTEN)
        super().close()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith("recorder_node: recording"):
                self._recording |= any(entry.key == "written" and entry.value != "0" for entry in status.values)
