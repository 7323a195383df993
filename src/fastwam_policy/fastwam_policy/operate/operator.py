"""`fastwam operate`: arm, start, stop, home and emergency stop from a terminal, with one line of live status."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy
from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from fastwam_msgs.action import RunTask
from fastwam_msgs.msg import BridgeStatus, PolicyStatus
from fastwam_policy.nodes.bridge_view import BridgeView
from fastwam_policy.operate.signals import OperatorSignals
from fastwam_policy.operate.terminal import QUIT, show, single_keys, status_line
from fastwam_policy.runtime.reasons import PolicyState
from galaxea_r1lite_bridge.nodes.conversions import duration_message
from galaxea_r1lite_bridge.robot.config import RobotConfig

_LINE_PERIOD = 0.2  # s between two status lines
_QUIT_TIME = 5.0  # s for a running task to come to its end when the operator quits
_HELP = (
    "SPACE emergency stop   r release it   a arm   d disarm   s start the task   x stop   y task is done   "
    "h arms to the start pose   t torso to it   q quit"
)


class Operator(Node):
    """Node ``operator``: what the keys do, and what is shown."""

    def __init__(self, robot: RobotConfig, instruction: str, time_limit: float, show: Callable[[str], None]) -> None:
        super().__init__("operator")
        names = robot.interfaces
        self._instruction, self._time_limit, self._show = instruction, time_limit, show
        self._bridge, self._policy = BridgeView(), PolicyStatus()
        self._policy_at = 0.0
        self._feedback = RunTask.Feedback()
        self._goal: Any = None
        self.create_subscription(BridgeStatus, names.bridge_status, self._bridge.store, 10)
        self.create_subscription(PolicyStatus, names.policy_status, self._on_policy, 10)
        self._signals = OperatorSignals(self, names)
        self._success = self.create_publisher(Bool, names.task_success, 10)
        self._arm = self.create_client(SetBool, names.arm)
        self._triggers = {
            name: self.create_client(Trigger, getattr(names, name)) for name in ("stop", "home", "home_torso")
        }
        self._task = ActionClient(self, RunTask, names.run_task)

    def press(self, key: str) -> None:
        """Do what a key means."""
        actions: dict[str, Callable[[], None]] = {
            " ": lambda: self._show(self._signals.set_estop(pressed=True)),
            "r": lambda: self._show(self._signals.set_estop(pressed=False)),
            "a": lambda: self._call("arm", self._arm, SetBool.Request(data=True)),
            "d": lambda: self._call("disarm", self._arm, SetBool.Request(data=False)),
            "s": self._start,
            "x": self.stop,
            "y": lambda: self._success.publish(Bool(data=True)),
            "h": lambda: self._call("home", self._triggers["home"], Trigger.Request()),
            "t": lambda: self._call("torso", self._triggers["home_torso"], Trigger.Request()),
        }
        if key in actions:
            actions[key]()
        elif key.isprintable():
            self._show(_HELP)

    def stop(self) -> None:
        """Let the bridge decelerate and hold, and end a running task."""
        self._call("stop", self._triggers["stop"], Trigger.Request())
        goal = self._goal if self.running else None
        if goal is not None:
            goal.cancel_goal_async()

    @property
    def running(self) -> bool:
        """Whether a task of this operator is running; not when its policy node has vanished."""
        if self._goal is not None and not self._task.server_is_ready():
            self._goal = None
            self._show("task ended: the policy node is gone")
        return self._goal is not None

    @property
    def armed(self) -> bool:
        """Whether chunks would move the arms."""
        return self._bridge.armed

    def line(self) -> str:
        """Status in one line."""
        status = self._bridge.status
        parts = [self._bridge.text if status is None or status.reason else self._bridge.state.name]
        if time.monotonic() - self._policy_at < 1.0:
            policy = self._policy
            text = f"policy {PolicyState(policy.state).name}"
            if policy.reason:
                text += f" {policy.reason} {policy.reason_text}"
            elif len(policy.latency_p50):
                text += f" {policy.latency_p50[-1]:.0f} ms {policy.chunk_rate:.1f} Hz"
            parts.append(text)
        else:
            parts.append("no policy")
        if self.running:
            parts.append(f"task {self._feedback.elapsed:.0f} s, {self._feedback.chunks} chunks")
        if status is not None:
            parts.append(f"control {status.control_rate:.0f} Hz")
            limits = sum(count.count for count in status.interventions)
            parts += [f"{limits} limited"] if limits else []
        return " | ".join(parts)

    def _on_policy(self, status: PolicyStatus) -> None:
        self._policy, self._policy_at = status, time.monotonic()

    def _call(self, name: str, client: Any, request: Any) -> None:
        if not client.service_is_ready():
            self._show(f"{name}: no bridge: {client.srv_name} is not there")
            return

        def answered(future: Future) -> None:
            self._show(f"{name}: {future.result().message}")

        client.call_async(request).add_done_callback(answered)

    def _start(self) -> None:
        if self.running:
            self._show("start: a task is running")
            return
        if not self._task.server_is_ready():
            self._show("start: no policy node")
            return
        goal = RunTask.Goal(instruction=self._instruction, time_limit=duration_message(round(1e9 * self._time_limit)))
        self._feedback = RunTask.Feedback()
        self._task.send_goal_async(goal, self._on_feedback).add_done_callback(self._on_accepted)

    def _on_feedback(self, message: Any) -> None:
        self._feedback = message.feedback

    def _on_accepted(self, future: Future) -> None:
        goal = future.result()
        if self._goal is None:
            self._goal = goal
        goal.get_result_async().add_done_callback(lambda result: self._on_result(goal, result))

    def _on_result(self, goal: Any, future: Future) -> None:
        if self._goal is goal:  # and not a second one that was refused
            self._goal = None
        answer = future.result()
        words = {
            GoalStatus.STATUS_SUCCEEDED: "succeeded", GoalStatus.STATUS_CANCELED: "canceled",
            GoalStatus.STATUS_ABORTED: "aborted",
        }  # fmt: skip
        self._show(f"task {words.get(answer.status, 'ended')}, {answer.result.code}: {answer.result.message}")


def operate(robot: RobotConfig, instruction: str, time_limit: float, namespace: str) -> None:
    """Run until q, Ctrl-C or the terminal's end; a running task is then canceled.

    Raises:
        ConfigError: standard input is not a terminal.
    """
    with single_keys() as read:
        arguments = ["--ros-args", "-r", f"__ns:=/{namespace.strip('/')}"] if namespace else []
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: ended.set())
        node = Operator(robot, instruction, time_limit, show)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        closed = threading.Event()
        spinning = threading.Thread(target=_spin, args=(executor, closed), daemon=True)
        try:
            spinning.start()
            show(_HELP)
            while not ended.is_set():
                keys = read(_LINE_PERIOD)
                if QUIT in keys:
                    break
                for key in keys:
                    node.press(key)
                status_line(node.line())
            if node.running:
                show("stopping the task")
                node.stop()
                give_up = time.monotonic() + _QUIT_TIME
                while node.running and time.monotonic() < give_up:
                    time.sleep(0.05)
            if node.armed:
                show("the bridge stays armed and holds the arms: `operate` and d disarm it")
        finally:
            closed.set()
            spinning.join(2.0)
            executor.shutdown()
            node.destroy_node()
            rclpy.try_shutdown()


def _spin(executor: SingleThreadedExecutor, closed: threading.Event) -> None:
    while not closed.is_set():
        executor.spin_once(timeout_sec=0.05)
