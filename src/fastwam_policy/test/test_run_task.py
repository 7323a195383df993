"""The RunTask action and `fastwam operate`, with the real nodes and emulator_node in the robot's place."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from fastwam_msgs.action import RunTask
from fastwam_msgs.msg import ActionChunk, BridgeStatus, Heartbeat, PolicyStatus
from fastwam_policy.operate.switch import key_event
from fastwam_policy.runtime.reasons import PolicyState
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.nodes.conversions import duration_message
from galaxea_r1lite_bridge.nodes.managed_node import qos_profile
from galaxea_r1lite_bridge.robot.config import RobotConfig

from .pseudo_terminal import Terminal

ROBOT = RobotConfig.load()
CODE = RunTask.Result
# Two shared cores are not a robot's: what is tested here is not its timing.
PATIENT = {
    "watchdog.feedback_age.limit": 1.0, "watchdog.overrun.limit": 1.0, "watchdog.feedback_jump.limit": 2.0,
    "watchdog.heartbeat.limit": 1.5, "deadman_silence": 1.2,
}  # fmt: skip
SOON = 5 * 1.8  # s: five times the limit above and the time to brake
STILL = (State.DISARMED, State.HOLDING, State.FAULT)


@pytest.fixture(scope="module")
def nodes(shared_ros, random_bundle):
    """All nodes; the policy is idle."""
    ros = shared_ros
    ros.start("galaxea_r1lite_bridge", "emulator_node", camera_rate=10.0, feedback_rate=60.0)
    ros.start("galaxea_r1lite_bridge", "bridge_node", blending="rtc", **PATIENT)
    ros.start_policy = lambda: ros.start(
        "fastwam_policy", "policy_node", policy=random_bundle, run_on_start=False, realtime="guidance",
        max_observation_age=2.0, max_skew=0.2, task_time_limit=2.0,
    )  # fmt: skip
    ros.policy_process = ros.start_policy()
    beat = ros.node.create_publisher(Heartbeat, ROBOT.interfaces.heartbeat, 10)
    ros.heartbeat = ros.node.create_timer(0.04, lambda: beat.publish(Heartbeat(session=1, pressed=True)))
    ros.estop = ros.node.create_publisher(Bool, ROBOT.interfaces.estop, 10)
    ros.bridge = ros.collect(BridgeStatus, ROBOT.interfaces.bridge_status)
    ros.policy = ros.collect(PolicyStatus, ROBOT.interfaces.policy_status)
    ros.chunks = ros.collect(ActionChunk, ROBOT.interfaces.action_chunk)
    ros.until(lambda: ros.policy and ros.policy[-1].state == PolicyState.IDLE)
    ros.until(lambda: ros.bridge and all(stream.received > 20 for stream in ros.bridge[-1].feedback))
    return ros


def switch(world, on):
    return world.call(SetBool, ROBOT.interfaces.arm, SetBool.Request(data=on)).success


def arm(world):
    world.until(lambda: switch(world, on=True))
    world.until(lambda: world.bridge[-1].state == State.HOLDING)


@pytest.fixture
def world(nodes):
    """The nodes, disarmed, and a heartbeat."""
    nodes.heartbeat.reset()
    nodes.until(lambda: nodes.bridge[-1].heartbeat_age >= 0)
    nodes.estop.publish(Bool(data=False))
    nodes.until(lambda: switch(nodes, on=True))  # which ends an emergency stop
    switch(nodes, on=False)
    nodes.until(lambda: nodes.bridge[-1].state == State.DISARMED)
    nodes.until(lambda: nodes.policy[-1].state == PolicyState.IDLE)
    nodes.chunks.clear()
    return nodes


def no_heartbeat(world):
    """End our own one, and wait until nobody's counts any more."""
    world.heartbeat.cancel()
    world.until(lambda: world.bridge[-1].heartbeat_age < 0)


@contextmanager
def operate(world, *arguments):
    """The operator's console, once it shows the status."""
    terminal = Terminal("operate", "--instruction", "fold the towel", "--time-limit", "60", *arguments)
    try:
        world.until(lambda: terminal.shows("SPACE.emergency.stop"))
        world.until(lambda: terminal.shows(r"(?s)DISARMED, 100 .*policy IDLE"))
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        no_heartbeat(world)


class Client:
    def __init__(self, world):
        self.world, self.feedback = world, []
        self.client = ActionClient(world.node, RunTask, ROBOT.interfaces.run_task)
        assert self.client.wait_for_server(20)

    def start(self, instruction="fold the towel", limit=60.0):
        goal = RunTask.Goal(instruction=instruction, time_limit=duration_message(round(limit * 1e9)))
        sent = self.client.send_goal_async(goal, lambda message: self.feedback.append(message.feedback))
        self.world.until(sent.done)
        return sent.result()

    def result(self, goal):
        future = goal.get_result_async()
        self.world.until(future.done)
        return future.result().status, future.result().result

    def run(self, *args, **kwargs):
        return self.result(self.start(*args, **kwargs))


def test_cancel_time_limit_and_fault(world):
    client = Client(world)
    world.until(lambda: "not armed" in client.run()[1].message)
    arm(world)
    goal = client.start()
    world.until(lambda: world.bridge[-1].state == State.TRACKING)
    world.until(goal.cancel_goal_async().done)
    status, result = client.result(goal)
    assert (status, result.code) == (GoalStatus.STATUS_CANCELED, CODE.CANCELED)
    world.until(lambda: world.bridge[-1].state == State.HOLDING)

    for limit, text in ((1.0, "1 s"), (0.0, "2 s")):  # the second is the node's
        status, result = client.run(limit=limit)
        assert (status, result.code) == (GoalStatus.STATUS_ABORTED, CODE.TIME_LIMIT)
        assert text in result.message

    goal = client.start()
    world.until(lambda: world.bridge[-1].state == State.TRACKING)
    world.until(world.estop.get_subscription_count)
    world.estop.publish(Bool(data=True))
    status, result = client.result(goal)
    assert (status, result.code) == (GoalStatus.STATUS_ABORTED, CODE.FAULT)
    assert "ESTOP" in result.message


def test_a_person_takes_over_in_a_task_and_the_policy_goes_on(world):
    for group in ROBOT.commanded.values():  # a person who wants the arms to be where they are
        wanted = world.node.create_publisher(JointState, group.takeover, 1)
        world.node.create_subscription(JointState, group.feedback, wanted.publish, qos_profile(ROBOT.qos.sensor))
    with operate(world) as terminal:
        terminal.press_until(world, "a", "arm: armed")
        terminal.press_until(world, "s", r"task \d+ s, \d+ chunks")
        world.until(lambda: world.bridge[-1].state == State.TRACKING)
        terminal.press_until(world, "t", "take over: taken over")
        world.until(lambda: world.bridge[-1].state == State.TAKEOVER)
        world.until(lambda: terminal.shows("TAKEOVER, 220 a person has taken over"))
        taken, inferred = world.bridge[-1], world.policy[-1].chunks
        world.until(lambda: world.policy[-1].chunks > inferred + 1)
        world.until(lambda: any(drop.reason == Reason.CHUNK_WHILE_TAKEOVER for drop in world.bridge[-1].drops))
        before = len(world.bridge)
        terminal.press("t")
        world.until(lambda: terminal.shows("give back: given back to the policy"))
        now = world.until(lambda: next((s for s in world.bridge[before:] if s.state == State.TRACKING), None))
        assert (now.session, now.epoch, now.revocations) == (taken.session, taken.epoch, taken.revocations)
        assert not now.taken_over
        first = world.until(lambda: [chunk for chunk in world.chunks if chunk.chunk_id == now.chunk_id])[0]
        assert first.committed_steps == 0, "the policy does not continue what was not executed"
        terminal.press("q")
        assert terminal.process.wait(20) == 0


def test_operate(world):
    with operate(world) as terminal:
        terminal.press_until(world, "a", "arm: armed")
        assert terminal.shows("14 of 14 joints where the policy's training data has them")
        terminal.press_until(world, "s", r"task \d+ s, \d+ chunks")
        world.until(lambda: world.bridge[-1].state == State.TRACKING)
        terminal.press("x")
        world.until(lambda: terminal.shows("task canceled, 2"))
        terminal.press("h")
        world.until(lambda: terminal.shows("home: moving the arms to the start pose"))
        terminal.press(" ")
        world.until(lambda: world.bridge[-1].state == State.ESTOP)
        world.until(lambda: terminal.shows("EMERGENCY STOP pressed"))
        pressed = world.collect(Bool, ROBOT.interfaces.estop)
        world.until(lambda: len(pressed) > 3 and all(message.data for message in pressed))  # for whoever comes later
        terminal.press("a")
        world.until(lambda: terminal.shows("refused, 309"))
        terminal.press("r")
        world.until(lambda: terminal.shows("emergency stop released"))
        terminal.press_until(world, "a", lambda: world.bridge[-1].state == State.HOLDING)
        terminal.press("?")
        # Until the policy node has heard of it, the bridge is still in ESTOP, and a task is refused.
        terminal.press_until(world, "s", lambda: world.bridge[-1].state == State.TRACKING)
        terminal.press("q")
        assert terminal.process.wait(20) == 0
        assert terminal.shows(r"\x1b\[\?1049l(?s:.*)\d disarmed\s*$")
        assert world.bridge[-1].state == State.DISARMED


@pytest.fixture
def console(world):
    """`operate`, whose heartbeat is the only one, with a task that moves the arms."""
    no_heartbeat(world)
    with operate(world) as terminal:
        terminal.press_until(world, "a", "arm: armed")
        terminal.press_until(world, "s", r"task \d+ s, \d+ chunks")
        runs(world)
        yield terminal


def runs(world):
    """Wait until a task moves the arms."""
    world.until(lambda: world.bridge[-1].state == State.TRACKING and world.policy[-1].state == PolicyState.RUNNING)


def ends(world):
    """Wait until the arms are held and the task is over."""
    world.until(lambda: world.bridge[-1].state in STILL, SOON)
    world.until(lambda: world.policy[-1].state == PolicyState.IDLE)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_arms_are_held_when_operate_is_gone(world, console, number):
    console.process.send_signal(number)
    ends(world)
    assert (world.bridge[-1].state, world.bridge[-1].reason) == (State.FAULT, Reason.HEARTBEAT_LOST)


def test_arms_are_disarmed_when_the_terminal_is_closed(world, console):
    console.close()
    ends(world)
    world.until(lambda: world.bridge[-1].state == State.DISARMED, SOON)
    assert console.process.wait(SOON) is not None


def test_ctrl_z_stops_the_arms_and_suspends_nothing(world, console):
    console.press("\x1a")
    ends(world)
    assert (world.bridge[-1].state, world.bridge[-1].reason) == (State.HOLDING, Reason.STOP_REQUESTED)
    console.press("\x13")  # Ctrl-S
    console.process.send_signal(signal.SIGTSTP)
    world.until(lambda: console.text.rpartition("\x1b[H")[2].count("Ctrl-Z stops") == 2)
    console.press("q")
    assert console.process.wait(20) == 0


def test_operate_cancels_the_task_of_another_client(world):
    with operate(world) as terminal:
        arm(world)
        goal = Client(world).start()
        runs(world)
        terminal.press_until(world, "x", "stop: stopping")
        world.until(lambda: world.policy[-1].state == PolicyState.IDLE)
        assert Client(world).result(goal)[1].code in (CODE.CANCELED, CODE.STOPPED)


DOOMED = f"""
import rclpy
from builtin_interfaces.msg import Duration
from rclpy.action import ActionClient
from fastwam_msgs.action import RunTask
from fastwam_msgs.msg import Heartbeat
rclpy.init()
node = rclpy.create_node("doomed")
beat = node.create_publisher(Heartbeat, "{ROBOT.interfaces.heartbeat}", 1)
node.create_timer(0.04, lambda: beat.publish(Heartbeat(session=2, pressed=True)))
client = ActionClient(node, RunTask, "{ROBOT.interfaces.run_task}")
client.wait_for_server()
heard = 0
while heard < 20:  # by the bridge, which must miss it later
    heard += beat.get_subscription_count() > 0
    rclpy.spin_once(node)
client.send_goal_async(RunTask.Goal(time_limit=Duration(sec=60)))
rclpy.spin(node)
"""


def test_a_task_ends_with_its_client_and_the_next_one_is_taken(world):
    """Even though another client's heartbeat goes on."""
    arm(world)
    client = subprocess.Popen([sys.executable, "-c", DOOMED])
    runs(world)
    client.kill()
    client.wait()
    ends(world)
    assert world.bridge[-1].reason == Reason.HEARTBEAT_LOST
    arm(world)
    goal = Client(world).start()
    world.until(lambda: world.bridge[-1].state == State.TRACKING)
    assert world.call(Trigger, ROBOT.interfaces.stop, Trigger.Request()).success
    status, result = Client(world).result(goal)
    assert (status, result.code) == (GoalStatus.STATUS_ABORTED, CODE.STOPPED)
    assert Client(world).run(limit=1.0)[1].code == CODE.TIME_LIMIT, "the stop before does not end it"


def test_without_a_heartbeat_a_task_is_refused(world):
    no_heartbeat(world)
    world.until(lambda: Client(world).run()[1].code == CODE.NO_HEARTBEAT)  # once the policy node knows
    message = Client(world).run()[1].message
    assert "fastwam operate" in message
    assert "\n" not in message


def test_a_task_from_refusal_to_success_and_the_end_of_the_policy(world):
    diagnostics = world.collect(DiagnosticArray, "/diagnostics")
    client = Client(world)
    status, result = client.run()
    assert (status, result.code) == (GoalStatus.STATUS_ABORTED, CODE.BRIDGE_NOT_ARMED)
    world.until(lambda: "not armed" in client.run()[1].message)  # until then nothing was heard of the bridge
    arm(world)
    status, result = client.run("dance")
    assert (status, result.code) == (GoalStatus.STATUS_ABORTED, CODE.NO_EMBEDDING)
    assert not world.chunks, "nothing is computed without a task"

    goal = client.start()
    world.until(lambda: world.bridge[-1].state == State.TRACKING)
    assert client.run()[1].code == CODE.BUSY
    world.until(lambda: len(world.chunks) > 3)
    world.until(lambda: any(chunk.committed_steps for chunk in world.chunks))
    frozen = next(index for index, chunk in enumerate(world.chunks) if chunk.committed_steps)
    assert 1 <= world.chunks[frozen].committed_steps <= 32
    world.until(lambda: client.feedback and client.feedback[-1].chunks > 2)
    assert client.feedback[-1].latency > 0
    publisher = world.node.create_publisher(Bool, ROBOT.interfaces.task_success, 10)
    timer = world.node.create_timer(0.2, lambda: publisher.publish(Bool(data=True)))
    status, result = client.result(goal)
    timer.cancel()
    assert (status, result.code) == (GoalStatus.STATUS_SUCCEEDED, CODE.SUCCEEDED)
    world.until(lambda: (world.bridge[-1].state, world.bridge[-1].reason) == (State.HOLDING, Reason.STOP_REQUESTED))
    world.until(lambda: world.policy[-1].state == PolicyState.IDLE)
    names = {s.name for message in diagnostics for s in message.status}
    assert {f"policy_node: stream {name}" for name in (*ROBOT.cameras, *ROBOT.commanded)} < names
    assert "policy_node: inference" in names

    goal = client.start()
    world.until(lambda: world.bridge[-1].state == State.TRACKING)
    world.policy_process.send_signal(signal.SIGTERM)
    status, result = client.result(goal)
    assert (status, result.code) == (GoalStatus.STATUS_ABORTED, CODE.FAULT)
    assert "deactivated" in result.message
    world.until(lambda: (world.bridge[-1].state, world.bridge[-1].reason) == (State.HOLDING, Reason.STOP_REQUESTED))
    output = world.finish(world.policy_process)
    assert world.policy_process.returncode == 0, output

    world.policy.clear()
    world.start_policy()
    world.until(lambda: world.policy and world.policy[-1].state == PolicyState.IDLE)
    world.until(lambda: "follows another policy" in client.run()[1].message)
    arm(world)
    world.until(lambda: world.bridge[-1].session == 0)
    world.until(lambda: (goal := client.start()).accepted and not settled(world, goal))
    world.until(lambda: world.bridge[-1].session == world.policy[-1].session)


def settled(world, goal):
    """Whether a task was refused at once: the policy node learns a moment later that the bridge was armed."""
    result = goal.get_result_async()
    world.until(lambda: result.done() or world.bridge[-1].state == State.TRACKING)
    return result.done()


def test_the_arms_move_only_while_the_deadman_switch_is_held(world, tmp_path):
    no_heartbeat(world)
    pedal, button = tmp_path / "pedal", tmp_path / "button"
    for path in (pedal, button):
        os.mkfifo(path)
    foot, hand = (os.open(path, os.O_RDWR) for path in (pedal, button))
    with operate(world, "--deadman", pedal, "--estop", button) as terminal:
        terminal.press_until(world, "a", "arm: refused, 312")
        os.write(foot, key_event(pressed=True))
        terminal.press_until(world, "a", "arm: armed")
        terminal.press_until(world, "s", r"task \d+ s, \d+ chunks")
        runs(world)
        os.write(foot, key_event(pressed=False))
        world.until(lambda: world.bridge[-1].state == State.HOLDING, SOON)
        assert world.bridge[-1].reason == Reason.HEARTBEAT_RELEASED
        os.write(foot, key_event(pressed=True))
        os.write(hand, key_event(pressed=True))
        world.until(lambda: world.bridge[-1].state == State.ESTOP)
        os.close(foot)
        world.until(lambda: terminal.shows("DEADMAN SWITCH LOST, .*pedal"))
    os.close(hand)


def test_a_deadman_switch_needs_no_terminal(world, tmp_path):
    no_heartbeat(world)
    os.mkfifo(tmp_path / "pedal")
    foot = os.open(tmp_path / "pedal", os.O_RDWR)
    command = [sys.executable, "-m", "fastwam_policy.cli", "operate", "--deadman", tmp_path / "pedal"]
    shown = tmp_path / "shown"
    with shown.open("w") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file)
    try:
        world.until(lambda: re.search("(?m)^DISARMED, 100 .* policy IDLE", shown.read_text()))
        world.until(lambda: world.bridge[-1].heartbeat_age >= 0)
        assert not switch(world, on=True)
        os.write(foot, key_event(pressed=True))
        world.until(lambda: switch(world, on=True))
        world.until(lambda: re.search("(?m)^HOLDING, ", shown.read_text()))  # it disarms what it knows to be armed
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:  # not by `with`, which waits for it for ever
        process.kill()
    os.close(foot)
    world.until(lambda: world.bridge[-1].state == State.DISARMED)
    text = shown.read_text()
    assert text.endswith("\ndisarmed\n")
    assert "\x1b" not in text


@pytest.mark.parametrize("variables", [{"LINES": "20"}, {"TERM": "dumb"}])
def test_a_terminal_without_room_for_a_screen(world, variables):
    terminal = Terminal("operate", **variables)
    world.until(lambda: terminal.shows("SPACE.emergency.stop"))
    world.until(lambda: terminal.shows(r"DISARMED, 100 .* policy IDLE"))
    terminal.press("q")
    assert terminal.process.wait(20) == 0
    assert "\x1b[?1049h" not in terminal.text
    no_heartbeat(world)


def test_status_says_once_whether_a_task_can_be_run(world):
    def status(*arguments):
        command = [sys.executable, "-m", "fastwam_policy.cli", "status", "--json", "-", *arguments]
        answer = subprocess.run(command, capture_output=True, text=True)
        return answer.returncode, json.loads(answer.stdout), answer.stderr

    code, said, text = status("--seconds", "60")
    assert (code, said["able"], said["obstacles"]) == (0, True, [])
    assert said["bridge"]["state"] == State.DISARMED
    assert {stream["name"] for stream in said["bridge"]["feedback"]} == set(ROBOT.groups)
    assert "DISARMED, 100 " in text
    assert "a task can be run" in text
    code, said, text = status("--namespace", "elsewhere", "--seconds", "1")
    assert (code, said["bridge"], said["policy"]) == (1, None, None)
    assert len(said["obstacles"]) == 2
    assert "no status from bridge_node" in text


def test_operate_needs_a_terminal():
    answer = subprocess.run(
        [sys.executable, "-m", "fastwam_policy.cli", "operate"], input="", capture_output=True, text=True
    )
    assert answer.returncode == 2
    assert "needs a terminal" in answer.stderr
