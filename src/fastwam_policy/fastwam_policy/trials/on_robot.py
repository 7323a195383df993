"""A trial on the robot: an operator at the terminal lays out the towel, lets the arms move, and judges.

The bridge runs already, next to the robot; the policy and the recorder are started for each trial. The bridge is armed
only after a key of the operator, and disarmed before anybody is asked to reach into the workspace.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from fastwam_msgs.action import RunTask
from fastwam_msgs.msg import BridgeStatus
from fastwam_policy.launching.rig import Rig
from fastwam_policy.nodes.bridge_view import BridgeView
from fastwam_policy.operate.signals import OperatorSignals
from fastwam_policy.operate.terminal import QUIT, SUSPEND, show, status_line
from fastwam_policy.trials.plan import Trial, TrialOutcome, TrialSettings
from fastwam_policy.trials.rig import TrialRig
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.robot.config import RobotConfig

HELP = (
    "SPACE emergency stop   r release it   ENTER go on   while a trial runs: y success   n failure   "
    "i intervene: stop the arms   q quit"
)
_LOOK = 0.03  # s to wait for a key, with which heartbeats come at 20 Hz or more
_HOME = "Hands off, people clear. ENTER arms the bridge and moves the arms to the start pose, which disarms it again."
_BEGIN = "Lay out the towel, step back, a hand on the red button. ENTER arms the bridge and starts the trial."


class _StoppedError(Exception):
    """The operator pressed the emergency stop before the task was running."""


class RealTrial(TrialRig):
    """See the module. `keys` waits so many s for keys and returns them."""

    def __init__(self, robot: RobotConfig, folder: Path, keys: Callable[[float], str]) -> None:
        super().__init__(robot, folder)
        names = robot.interfaces
        self._keys, self._bridge = keys, BridgeView()
        self._confirmed, self._acting, self._leaving = False, False, False
        self._verdict, self._interventions = "", 0
        self.node.create_subscription(BridgeStatus, names.bridge_status, self._bridge.store, 10)
        self._signals = OperatorSignals(self.node, names)
        self._success = self.node.create_publisher(Bool, names.task_success, 10)
        self._homing = self.node.create_client(Trigger, names.home)
        self._stopping = self.node.create_client(Trigger, names.stop)

    def run_trial(self, policy: str, trial: Trial, settings: TrialSettings) -> TrialOutcome:
        """Start pose, towel, task, disarm; the operator confirms each motion."""
        self.until(lambda: self._bridge.status is not None, "bridge_node, which runs next to the robot")
        others = self.robot.interfaces.policy_status
        self.until(
            lambda: not self.node.count_publishers(others), "the end of another policy_node: trials start their own"
        )
        self.prepare("real", {"policy": policy, "robot_config": settings.robot})
        self.start_nodes("policy_node")  # it loads while the operator is busy
        self._when_confirmed(_HOME, self._go_home)
        self.until_loaded()
        results: list[RunTask.Result] = []
        self._when_confirmed(_BEGIN, lambda: self._begin(settings, results))
        self._disarm()
        success = results[0].code == RunTask.Result.SUCCEEDED
        ended = "success, says the operator" if success else self._verdict or results[0].message
        return TrialOutcome(success, self.elapsed, ended, self._interventions)

    def pause(self) -> None:
        """Handle keys, show the status, and send a heartbeat."""
        self._signals.heartbeat.beat()
        if self._leaving:
            Rig.pause(self)
            return
        super().pause()
        for key in self._keys(_LOOK):
            self._press(key)
        if not status_line(self._bridge.text + (f" | trial {self.elapsed:.0f} s" if self.goal is not None else "")):
            raise KeyboardInterrupt

    def close(self) -> None:
        """Disarm, whatever happened, then end what was started."""
        self._leaving = True
        try:
            self._disarm()
        finally:
            status_line("")
            super().close()

    def _press(self, key: str) -> None:
        if key in (QUIT, SUSPEND):
            raise KeyboardInterrupt
        if key == " ":
            show(self._signals.set_estop(pressed=True))
            if self.goal is not None:
                self._verdict, self._interventions = "emergency stop by the operator", 1
            elif self._acting:
                raise _StoppedError
        elif key == "r":
            show(self._signals.set_estop(pressed=False))
        elif key == "\n":
            self._confirmed = True
        elif self.goal is not None and key == "y":
            self._success.publish(Bool(data=True))
        elif self.goal is not None and key in "ni":
            self._interventions = int(key == "i")
            self._verdict = "stopped by the operator" if key == "i" else "failure, says the operator"
            if self._stopping.service_is_ready():
                self._stopping.call_async(Trigger.Request())
            self.goal.cancel_goal_async()
        else:
            show(HELP)

    def _when_confirmed(self, question: str, act: Callable[[], bool]) -> None:
        """Ask, and act when the operator has confirmed; again, until the act was done."""
        done = False
        while not done:
            show(question)
            self._confirmed = False
            while not self._confirmed:
                self.pause()
            try:
                self._acting = True
                done = act()
            except _StoppedError:
                pass
            finally:
                self._acting = False
            if not done:
                self._disarm()

    def _go_home(self) -> bool:
        if not (self._arm() and self._call("home", self._homing, Trigger.Request())):
            return False
        self.until(lambda: self._at_home or not self._bridge.armed, "the start pose")
        arrived = self._at_home
        self._disarm()
        return arrived

    def _begin(self, settings: TrialSettings, results: list[RunTask.Result]) -> bool:
        """Run the task; its result is appended."""
        if "recorder_node" not in self.group:
            self.record()
        if not self._arm():
            return False
        results.append(self.run_task(settings.time_limit, settings.instruction))
        return True

    @property
    def _at_home(self) -> bool:
        status = self._bridge.status
        return status is not None and (status.state, status.reason) == (State.HOLDING, Reason.AT_HOME)

    def _arm(self) -> bool:
        if not self._call("arm", self.arming, SetBool.Request(data=True)):
            return False
        self.until(lambda: self._bridge.armed, "the bridge's confirmation that it is armed")
        return True

    def _disarm(self) -> None:
        if self.arming.service_is_ready():
            self._call("disarm", self.arming, SetBool.Request(data=False))
        if not self._leaving:
            self.until(lambda: not self._bridge.armed, "the bridge's confirmation that it is disarmed")

    def _call(self, name: str, client: object, request: object) -> bool:
        answer = self.ask(client, request)
        if answer is None or not answer.success:
            show(f"{name}: {'the bridge does not answer' if answer is None else answer.message}")
        return answer is not None and bool(answer.success)
