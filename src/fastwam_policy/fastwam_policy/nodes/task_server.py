"""The RunTask action: one task from its start to success, time limit, cancel or fault."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from fastwam_msgs.action import RunTask
from fastwam_policy.nodes.bridge_view import BridgeView
from fastwam_policy.policies.robot_check import check_instruction
from fastwam_policy.runtime.inference_loop import InferenceLoop
from fastwam_policy.runtime.reasons import PolicyState
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.nodes.conversions import nanoseconds
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_PERIOD = 0.2  # s between two looks at a running task, and two feedback messages
_STOP_TIME = 3.0  # s within which the arms come to rest
_MOVING = (State.TRACKING, State.STOPPING, State.TAKEOVER)
_Code = RunTask.Result


@dataclass
class _Task:
    goal: Any
    limit_ns: int
    seen_ns: int
    first_chunk: int
    revocations: int
    elapsed_ns: int = 0
    ended: Future = field(default_factory=Future)
    success: bool = False


class TaskServer:
    """The action server of RunTask. Every end of a task stops the inference and lets the bridge decelerate.

    Args:
        node: where the interfaces are made.
        robot: their names.
        loop: what computes the chunks.
        bridge: what is known of the bridge.
        time_limit: s, of a task whose goal has none.
        require_heartbeat: whether a task only begins while somebody answers for the arms; the bridge ends it without.
    """

    def __init__(
        self, node: Node, robot: RobotConfig, loop: InferenceLoop, bridge: BridgeView,
        time_limit: float, *, require_heartbeat: bool,
    ) -> None:  # fmt: skip
        self._node, self._loop, self._bridge = node, loop, bridge
        self._limit_ns, self._require_heartbeat = round(time_limit * 1e9), require_heartbeat
        self._task: _Task | None = None
        self._server = ActionServer(
            node,
            RunTask,
            robot.interfaces.run_task,
            self._execute,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )
        self._success = node.create_subscription(Bool, robot.interfaces.task_success, self._on_success, 10)
        self._stop_client = node.create_client(Trigger, robot.interfaces.stop)
        self._timer = node.create_timer(_PERIOD, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    @property
    def running(self) -> bool:
        """Whether a task is not over yet."""
        return self._task is not None

    def end(self) -> None:
        """Begin to end a running task because the node leaves the active state: stop the bridge, send the result."""
        if self._task is not None and not self._task.ended.done():
            self._task.ended.set_result((_Code.FAULT, "the policy node was deactivated"))

    def destroy(self) -> None:
        """Release all interfaces."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._success)
        self._node.destroy_client(self._stop_client)
        self._server.destroy()

    def _on_success(self, message: Bool) -> None:
        if self._task is not None and message.data:
            self._task.success = True

    async def _execute(self, goal: Any) -> RunTask.Result:
        # One thread runs all callbacks, and nothing is awaited before the task is noted: of two goals one is refused.
        refusal = self._refusal(goal.request.instruction)
        if refusal is not None:
            goal.abort()
            return self._result(*refusal)
        instruction = goal.request.instruction or self._loop.instruction
        task = self._task = _Task(
            goal,
            max(0, nanoseconds(goal.request.time_limit)) or self._limit_ns,
            self._node.get_clock().now().nanoseconds,
            self._loop.chunks,
            self._bridge.revocations,
        )
        try:
            self._loop.set_instruction(instruction)
            self._loop.start()
            self._node.get_logger().info(f"task started: {instruction}")
            code, text = await task.ended
            if self._loop.state != PolicyState.INACTIVE:
                self._loop.pause()
            await self._bring_to_rest()
        finally:  # else every later goal would find it running
            self._task = None
        if code == _Code.SUCCEEDED:
            goal.succeed()
        elif code == _Code.CANCELED:
            goal.canceled()
        else:
            goal.abort()
        return self._result(code, text)

    def _refusal(self, instruction: str) -> tuple[int, str] | None:
        if self._loop.state == PolicyState.INACTIVE:
            return _Code.FAULT, "the policy node is not active"
        if self._task is not None:
            return _Code.BUSY, "another task is running: cancel it first, as x in `fastwam operate` does"
        if instruction:
            try:
                check_instruction(self._loop.info, instruction, self._loop.info.name)
            except ConfigError as error:
                return _Code.NO_EMBEDDING, str(error)
        status = self._bridge.status
        if self._require_heartbeat and status is not None and status.heartbeat_age < 0:
            return _Code.NO_HEARTBEAT, Reason.HEARTBEAT_LOST.text
        return self._bridge_problem()

    def _bridge_problem(self) -> tuple[int, str] | None:
        if self._bridge.state in (State.FAULT, State.ESTOP):
            return _Code.FAULT, f"bridge: {self._bridge.text}"
        if not self._bridge.armed:
            return _Code.BRIDGE_NOT_ARMED, f"bridge: {self._bridge.text}"
        if self._bridge.follows_another(self._loop.session):
            text = "the bridge follows another policy, or this one before it was activated again: arm again"
            return _Code.BRIDGE_NOT_ARMED, text
        return None

    def _result(self, code: int, text: str) -> RunTask.Result:
        self._node.get_logger().info(f"task ended, {code}: {text}")
        return RunTask.Result(code=code, message=text)

    def _look(self) -> None:
        """Publish feedback, and see whether the running task is over."""
        task = self._task
        if task is None or task.ended.done():
            return
        now_ns = self._node.get_clock().now().nanoseconds
        task.elapsed_ns += max(0, now_ns - task.seen_ns)  # a clock that jumps back prolongs nothing
        task.seen_ns, elapsed_ns = now_ns, task.elapsed_ns
        chunks = max(0, self._loop.chunks - task.first_chunk)
        latency = self._loop.latencies[-1][-1] if self._loop.latencies else 0.0
        task.goal.publish_feedback(
            RunTask.Feedback(
                elapsed=elapsed_ns / 1e9,
                chunks=chunks,
                latency=latency,
                state=int(self._loop.state),
                bridge_state=int(self._bridge.state),
                message=": ".join(filter(None, (self._loop.reason.text, self._loop.detail))) or self._bridge.text,
            )
        )
        problem = self._bridge_problem()
        if task.goal.is_cancel_requested:
            task.ended.set_result((_Code.CANCELED, f"canceled after {elapsed_ns / 1e9:.1f} s"))
        elif task.success:
            task.ended.set_result((_Code.SUCCEEDED, f"done after {elapsed_ns / 1e9:.1f} s"))
        elif problem is not None:
            task.ended.set_result(problem)
        elif task.revocations != self._bridge.revocations:
            task.ended.set_result(
                (_Code.STOPPED, f"ended by ~/stop, ~/home or disarming after {elapsed_ns / 1e9:.1f} s")
            )
        elif self._loop.state == PolicyState.FAULT:
            task.ended.set_result((_Code.FAULT, f"policy: {self._loop.reason.text}: {self._loop.detail}"))
        elif task.limit_ns and elapsed_ns > task.limit_ns:
            task.ended.set_result((_Code.TIME_LIMIT, f"not done within {task.limit_ns / 1e9:g} s"))

    async def _bring_to_rest(self) -> None:
        """Let the bridge decelerate, and wait until it has, and until its status says that it was told to."""
        before, steady = self._bridge.revocations, Clock(clock_type=ClockType.STEADY_TIME)
        told = self._stop_client.service_is_ready()
        if told:
            self._stop_client.call_async(Trigger.Request())
        rested, give_up = Future(), steady.now().nanoseconds + round(_STOP_TIME * 1e9)

        def look() -> None:
            resting = self._bridge.state not in _MOVING and not (told and self._bridge.revocations == before >= 0)
            if (resting or steady.now().nanoseconds > give_up) and not rested.done():
                rested.set_result(None)

        timer = self._node.create_timer(_PERIOD / 2, look, clock=steady)
        await rested
        self._node.destroy_timer(timer)
