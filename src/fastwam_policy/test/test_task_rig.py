"""The client of RunTask against a server in this process."""

import threading
import time

import pytest
import rclpy
from rclpy.action import ActionServer
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation

from fastwam_msgs.action import RunTask
from fastwam_policy.launching import task_rig
from galaxea_r1lite_bridge.robot.config import RobotConfig

pytestmark = pytest.mark.nodes
ROBOT = RobotConfig.load()


class _Handle:
    """The handle of an action server or client."""

    def __init__(self, handle):
        self._handle, self.answers, self.sent = handle, 0, 0

    def __getattr__(self, name):
        return getattr(self._handle, name)


class _Unheard(_Handle):
    """Of a server whose first answer to a goal finds no reader."""

    def send_goal_response(self, *arguments):
        self.answers += 1
        if self.answers == 1:
            raise rclpy_implementation.RCLError("client will not receive response")
        self._handle.send_goal_response(*arguments)


class _Slow(_Handle):
    """Of a client that sends a goal, and is then not scheduled for a while."""

    def send_goal_request(self, *arguments):
        self.sent += 1
        number = self._handle.send_goal_request(*arguments)
        time.sleep(0.3)
        return number


@pytest.fixture
def server():
    rclpy.init()
    node, executor = rclpy.create_node("server"), SingleThreadedExecutor()

    def execute(goal):
        goal.succeed()
        return RunTask.Result(code=RunTask.Result.SUCCEEDED, message="done")

    action = ActionServer(node, RunTask, ROBOT.interfaces.run_task, execute)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    yield action
    executor.shutdown()
    thread.join()
    action.destroy()
    node.destroy_node()
    rclpy.shutdown()


@pytest.fixture
def rig(server, tmp_path, monkeypatch):
    monkeypatch.setattr(task_rig, "_ACCEPTED", 1.0)
    rig = task_rig.TaskRig("rig", ROBOT, tmp_path / "log")
    yield rig
    rig.close()


def test_a_goal_whose_answer_is_lost_is_sent_again(server, rig):
    server._handle = _Unheard(server._handle)
    rig.until_loaded()
    result = rig.run_task(1.0)
    assert (result.code, result.message) == (RunTask.Result.SUCCEEDED, "done")
    assert server._handle.answers == 2


def test_an_answer_that_comes_while_the_goal_is_sent_counts(rig):
    rig.task._client_handle = _Slow(rig.task._client_handle)
    rig.until_loaded()
    assert rig.run_task(1.0).code == RunTask.Result.SUCCEEDED
    assert rig.task._client_handle.sent == 1
