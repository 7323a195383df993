"""`fastwam operate`: arm, start, stop, home, take over and emergency stop from a terminal, or by switches."""

from __future__ import annotations

import itertools
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import rclpy
from action_msgs.msg import GoalStatus
from action_msgs.srv import CancelGoal
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from fastwam_msgs.action import RunTask
from fastwam_msgs.msg import BridgeStatus, PolicyStatus
from fastwam_policy.nodes.bridge_view import BridgeView
from fastwam_policy.operate.overview import figures, headline, streams
from fastwam_policy.operate.screen import Screen
from fastwam_policy.operate.signals import OperatorSignals
from fastwam_policy.operate.switch import InputSwitch
from fastwam_policy.operate.terminal import QUIT, SUSPEND, Keys, no_keys, single_keys
from fastwam_policy.policies.familiarity import Familiarity
from fastwam_policy.runtime.reasons import PolicyState
from galaxea_r1lite_bridge.execution.reasons import State
from galaxea_r1lite_bridge.nodes.conversions import duration_message
from galaxea_r1lite_bridge.nodes.ending import Ending, on_ending
from galaxea_r1lite_bridge.nodes.managed_node import see_everybody
from galaxea_r1lite_bridge.robot.config import RobotConfig

_PERIOD = 0.04  # s between two heartbeats
_LINE_TURNS = 5  # turns from one status line to the next
_QUIT_TIME = 5.0  # s for the arms to be disarmed, and for a running task to come to its end, when the operator quits
_ASK_TURNS = 12  # turns from one request to disarm to the next: one may be lost
_STREAMS = 34  # letters, of the table of streams
_FIXED, _FEWEST = 8, 2  # rows that are not figures, streams or messages; messages at least
_KEYS = {
    "SPACE": "emergency stop", "r": "release it", "a": "arm", "d": "disarm", "s": "start", "x": "stop", "y": "done",
    "h": "home", "u": "torso home", "t": "take over, give back", "q": "quit",
}  # fmt: skip
_HELP = "   ".join(f"{key} {does}".replace(" ", "\N{NO-BREAK SPACE}") for key, does in _KEYS.items())


class Operator(Node):
    """Node ``operator``: what the keys do, and what is shown."""

    def __init__(
        self, robot: RobotConfig, instruction: str, time_limit: float, show: Callable[[str], None],
        deadman: InputSwitch | None = None, estop: InputSwitch | None = None,
    ) -> None:  # fmt: skip
        super().__init__("operator")
        names = robot.interfaces
        self.deadman, self._estop = deadman, estop
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
        self._takeover = self.create_client(SetBool, names.takeover)
        self._task = ActionClient(self, RunTask, names.run_task)
        self._cancel = self.create_client(CancelGoal, f"{names.run_task}/_action/cancel_goal")

    def press(self, key: str) -> None:
        """Do what a key means."""
        actions: dict[str, Callable[[], None]] = {
            " ": lambda: self._show(self._signals.set_estop(pressed=True)),
            "r": lambda: self._show(self._signals.set_estop(pressed=False)),
            "a": self._arm_arms,
            "d": lambda: self._call("disarm", self._arm, SetBool.Request(data=False)),
            "s": self._start,
            "x": self.stop,
            "y": lambda: self._success.publish(Bool(data=True)),
            "h": lambda: self._call("home", self._triggers["home"], Trigger.Request()),
            "u": lambda: self._call("torso", self._triggers["home_torso"], Trigger.Request()),
            "t": self._take_over,
        }
        if key in actions:
            actions[key]()
        elif key == SUSPEND:
            self.stop()
            self._show("Ctrl-Z stops the arms and suspends nothing: q quits")
        elif key.isprintable():
            self._show(_HELP)

    def beat(self) -> None:
        """Send a heartbeat, and look at the switches: call it at 20 Hz or more."""
        if self.deadman is not None and _is_lost_now(self.deadman):
            self._show(f"DEADMAN SWITCH LOST, {self.deadman.path}: the arms are held until it is back")
        self._signals.heartbeat.beat(deadman=None if self.deadman is None else self.deadman.held)
        if self._estop is not None:
            presses = self._estop.presses
            if _is_lost_now(self._estop):
                self._show(f"EMERGENCY STOP SWITCH LOST, {self._estop.path}: taken for pressed")
                self.press(" ")
            elif self._estop.presses > presses:
                self.press(" ")

    def _arm_arms(self) -> None:
        policy = self._heard_policy
        if policy is not None and policy.state_known:
            self._show(str(_familiarity(policy)))
        self._call("arm", self._arm, SetBool.Request(data=True))

    def _take_over(self) -> None:
        """A person takes over, or gives back what they have."""
        taken = self._taken_over
        self._call("give back" if taken else "take over", self._takeover, SetBool.Request(data=not taken))

    def stop(self) -> None:
        """Let the bridge decelerate and hold, and end a running task, also another client's."""
        self._call("stop", self._triggers["stop"], Trigger.Request())
        self._cancel_all()

    def leave(self) -> None:
        """Stop and disarm, and wait for that: nobody answers for the arms any more."""
        armed, give_up, turn = self.armed, time.monotonic() + _QUIT_TIME, 0
        while (self.armed or self.running) and time.monotonic() < give_up:
            if turn % _ASK_TURNS == 0:
                if self._arm.service_is_ready():
                    self._arm.call_async(SetBool.Request(data=False))
                self._cancel_all()
            turn += 1
            self.beat()
            time.sleep(_PERIOD)
        if self.armed:
            self._show("the bridge does not answer: it brakes when it misses this console's heartbeat")
        elif armed:
            self._show("disarmed")

    def _cancel_all(self) -> None:
        if self._cancel.service_is_ready():
            self._cancel.call_async(CancelGoal.Request())  # no id and no time: all goals

    @property
    def running(self) -> bool:
        """Whether a task of this operator is running; not when its policy node has vanished."""
        if self._goal is not None and not self._task.server_is_ready():
            self._goal = None
            self._show("task ended: the policy node is gone")
        return self._goal is not None

    @property
    def armed(self) -> bool:
        """Whether the bridge is."""
        return self._bridge.commanding

    def state(self) -> str:
        """Bridge and policy in one line, without figures."""
        parts = [self._bridge.text]
        if self._taken_over and self._bridge.state != State.TAKEOVER:
            parts.append("taken over, and held")
        policy = self._heard_policy
        if policy is None:
            parts.append("no policy")
        else:
            why = f" {policy.reason} {policy.reason_text}" if policy.reason else ""
            parts.append(f"policy {PolicyState(policy.state).name}{why}")
        return " | ".join(parts)

    def line(self) -> str:
        """Status in one line."""
        status, policy, parts = self._bridge.status, self._heard_policy, [self.state()]
        if policy is not None and policy.state == PolicyState.RUNNING and len(policy.latency_p50):
            parts.append(f"{policy.latency_p50[-1]:.0f} ms {policy.chunk_rate:.1f} Hz")
        parts += self._remarks()
        if status is not None:
            parts.append(f"control {status.control_rate:.0f} Hz")
            limits = sum(count.count for count in status.interventions)
            parts += [f"{limits} limited"] if limits else []
        return " | ".join(parts)

    def screen(self, height: int, messages: Sequence[str]) -> RenderableType:
        """Status on a screen of so many rows, above the last messages and the keys."""
        bridge, policy = self._bridge.status, self._heard_policy
        remarks = Text(" | ".join(self._remarks()), no_wrap=True, overflow="ellipsis")
        middle = Table.grid(expand=True, padding=(0, 1))
        middle.add_column(ratio=1)
        middle.add_column(width=_STREAMS)
        left, right = figures(bridge, policy), streams(bridge, policy)
        middle.add_row(left, right)
        room = max(height - _FIXED - max(left.row_count, 1 + right.row_count), _FEWEST)
        shown = [Text(message, no_wrap=True, overflow="ellipsis") for message in messages[-room:]]
        top = (headline(bridge, policy), remarks, Rule(), middle, Rule())
        keys = textwrap.fill(_HELP, shutil.get_terminal_size().columns)  # rich breaks lines at no-break spaces, too
        return Group(*top, *shown, Rule(), Text(keys, style="dim"))

    def _remarks(self) -> list[str]:
        """What the task, the switches and the pose say."""
        parts = []
        if self.running:
            parts.append(f"task {self._feedback.elapsed:.0f} s, {self._feedback.chunks} chunks")
        if self.deadman is not None:
            parts.append(f"deadman {'lost' if self.deadman.lost else 'held' if self.deadman.held else 'RELEASED'}")
        policy = self._heard_policy
        if policy is not None and policy.state_inside < policy.state_known and not self.armed:
            parts.append(f"{policy.state_inside} of {policy.state_known} joints where the policy knows them")
        return parts

    @property
    def _taken_over(self) -> bool:
        status = self._bridge.status
        return status is not None and bool(status.taken_over)

    @property
    def _heard_policy(self) -> PolicyStatus | None:
        return self._policy if time.monotonic() - self._policy_at < 1.0 else None

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

        def send() -> None:
            self._task.send_goal_async(goal, self._on_feedback).add_done_callback(self._on_accepted)

        assert self.executor is not None
        self.executor.create_task(send)  # on its thread: from another one rclpy may miss the answer

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


def _familiarity(status: PolicyStatus) -> Familiarity:
    return Familiarity(status.state_inside, status.state_known, list(status.state_outside))


def _is_lost_now(switch: InputSwitch) -> bool:
    """Read it; whether it was there until now."""
    lost = switch.lost
    switch.read()
    return switch.lost and not lost


def operate(
    robot: RobotConfig, instruction: str, time_limit: float, namespace: str,
    deadman: Path | None = None, estop: Path | None = None,
) -> None:  # fmt: skip
    """Run until q, a signal or the terminal's end; then the arms come to rest and are disarmed.

    Raises:
        ConfigError: a switch cannot be opened, or standard input is not a terminal and there is no deadman switch.
    """
    with ExitStack() as stack:
        held, pressed = (InputSwitch(path) if path is not None else None for path in (deadman, estop))
        switches = [switch for switch in (held, pressed) if switch is not None]
        for switch in switches:
            stack.callback(switch.close)
        read = stack.enter_context(single_keys()) if held is None or sys.stdin.isatty() else no_keys
        arguments = ["--ros-args", "-r", f"__ns:=/{namespace.strip('/')}"] if namespace else []
        see_everybody()
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        ending, screen = on_ending(), Screen()
        stack.callback(screen.close)
        node = Operator(robot, instruction, time_limit, screen.say, held, pressed)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        closed = threading.Event()
        spinning = threading.Thread(target=_spin, args=(executor, closed), daemon=True)
        try:
            spinning.start()
            _read_keys(node, read, ending, screen, switches)
        finally:
            node.leave()
            closed.set()
            spinning.join(2.0)
            executor.shutdown()
            node.destroy_node()
            rclpy.try_shutdown()


def _read_keys(node: Operator, read: Keys, ending: Ending, screen: Screen, switches: Sequence[InputSwitch]) -> None:
    """Until q, `ending`, or the end of the terminal's input or output."""
    if read is not no_keys and not screen.fits:
        screen.say(_HELP)
    for turn in itertools.count():
        for key in read(_PERIOD, [switch.fileno() for switch in switches if not switch.lost]):
            if key == QUIT:
                return
            node.press(key)
        if ending.is_set():
            return
        node.beat()
        if turn % _LINE_TURNS == 0 and not screen.draw(node.state(), node.line(), node.screen):
            return


def _spin(executor: SingleThreadedExecutor, closed: threading.Event) -> None:
    while not closed.is_set():
        executor.spin_once(timeout_sec=0.05)
