"""A rig that runs tasks: the client of RunTask, and what the simulator says about the towel."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rclpy.action import ActionClient
from rclpy.task import Future

from fastwam_msgs.action import RunTask
from fastwam_msgs.msg import SimulationStatus
from fastwam_policy.common.failure import RunError
from fastwam_policy.launching.rig import Rig
from galaxea_r1lite_bridge.nodes.conversions import duration_message
from galaxea_r1lite_bridge.robot.config import RobotConfig

_NS = 1_000_000_000
_LOADING = 900.0  # s for a policy of billions of parameters to load and, where that is asked for, to compile
_ACCEPTED, _ATTEMPTS = 15.0, 4  # s for a task to be accepted, until it is sent again; and how often it is sent
_ARMED_TIME, _PAUSE = 30.0, 0.2  # s for the policy node to learn that the bridge is armed, and between two attempts
_SILENCE = 60.0  # s without feedback; a task itself may take any time, since simulated time may be slow


class TaskRig(Rig):
    """See the module.

    Attributes:
        simulation: newest status of the simulator, None before the first.
        elapsed: s that the task has run, or has taken in the end, on the nodes' clock.
        goal: the running task's, None without one.
    """

    def __init__(self, name: str, robot: RobotConfig, log: Path) -> None:
        super().__init__(name, robot, log)
        self.simulation: SimulationStatus | None = None
        self.elapsed, self._heard = 0.0, 0.0
        self.goal: Any = None
        self.task = ActionClient(self.node, RunTask, robot.interfaces.run_task)
        self.node.create_subscription(SimulationStatus, robot.interfaces.simulation, self._on_simulation, 10)

    def until_loaded(self) -> None:
        """Wait until the policy node takes tasks."""
        self.until(self.task.server_is_ready, "the policy node", _LOADING)

    def run_task(self, time_limit: float, instruction: str = "") -> RunTask.Result:
        """Run a task to its end; an empty instruction is the policy's default.

        Raises:
            RunError: the policy node does not answer or runs another task, or a process has ended by itself.
        """
        goal = RunTask.Goal(instruction=instruction, time_limit=duration_message(round(_NS * time_limit)))
        deadline = time.monotonic() + _ARMED_TIME
        while True:
            self.elapsed = 0.0
            self.goal = self._send(goal)
            future, self._heard = self.on_its_thread(self.goal.get_result_async), time.monotonic()
            while not future.done():
                if time.monotonic() - self._heard > _SILENCE:
                    raise RunError(f"the policy node does not answer any more. {self.last_lines()}")
                self.pause()
            self.goal, answer = None, future.result()
            if answer.result.code == RunTask.Result.BUSY:  # perhaps one of ours, whose answer was lost
                raise RunError(f"the policy node: {answer.result.message}")
            # The policy node learns a moment after this one that the bridge is armed.
            if answer.result.code != RunTask.Result.BRIDGE_NOT_ARMED or time.monotonic() > deadline:
                return answer.result
            time.sleep(_PAUSE)

    def _send(self, goal: RunTask.Goal) -> Any:
        """The accepted goal.

        rclpy's server drops a goal when it cannot answer because it has not found the client's reader yet, which on
        busy cores happens to the first one. Hence again. The first answer counts; other goals are canceled at theirs.
        """
        sent: list[Future] = []
        taken = None
        try:
            while taken is None and len(sent) < _ATTEMPTS:
                sent.append(self.on_its_thread(lambda: self.task.send_goal_async(goal, self._on_feedback)))
                deadline = time.monotonic() + _ACCEPTED
                while taken is None and time.monotonic() < deadline:
                    self.pause()
                    taken = next((future for future in sent if future.done()), None)
        finally:
            for future in sent:
                if future is not taken:
                    future.add_done_callback(_cancel)
        if taken is None or not taken.result().accepted:
            raise RunError(f"the policy node does not take the task. {self.last_lines()}")
        return taken.result()

    def pause(self) -> None:
        """As Rig.pause; RunError where a process has ended by itself."""
        super().pause()
        if ended := self.group.ended():
            raise RunError(f"{ended[0]} ended with status {ended[1]}. {self.last_lines()}")

    def _on_feedback(self, message: Any) -> None:
        self.elapsed, self._heard = round(float(message.feedback.elapsed), 3), time.monotonic()

    def _on_simulation(self, status: SimulationStatus) -> None:
        self.simulation = status


def _cancel(answer: Future) -> None:
    if answer.result().accepted:
        answer.result().cancel_goal_async()
