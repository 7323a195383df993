"""The client of RunTask against a server in this process."""

import threading

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


class _Unheard:
    """The handle of an action server whose first answer to a goal finds no reader."""

    def __init__(self, handle):
        self._handle, self.answers = handle, 0

    def __getattr__(self, name):
        return getattr(self._handle, name)

    def send_goal_response(self, *arguments):
        self.answers += 1
        if self.answers == 1:
            raise rclpy_implementation.RCLError("client will not receive response")
        self._handle.send_goal_response(*arguments)


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


def test_a_goal_whose_answer_is_lost_is_sent_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(task_rig, "_ACCEPTED", 1.0)
    server._handle = _Unheard(server._handle)
    rig = task_rig.TaskRig("rig", ROBOT, tmp_path / "log")
    try:
        rig.until_loaded()
        result = rig.run_task(1.0)
    finally:
        rig.close()
    assert (result.code, result.message) == (RunTask.Result.SUCCEEDED, "done")
    assert server._handle.answers == 2
