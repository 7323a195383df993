"""bridge_node as a process, over real ROS 2, with emulator_node in the robot's place."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectoryPoint

from fastwam_msgs.msg import ActionChunk, BridgeStatus, Heartbeat, PolicyStatus
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.nodes.conversions import duration_message, time_message
from galaxea_r1lite_bridge.nodes.managed_node import PRIVATE_DOMAIN, qos_profile
from galaxea_r1lite_bridge.robot.config import RobotConfig

ROBOT = RobotConfig.load()
HOME = [value for group in ROBOT.commanded.values() for value in group.home]
STEP = 66_666_667
SLOW_MACHINE = {"watchdog.feedback_age.limit": 1.0, "watchdog.overrun.limit": 1.0}  # two shared cores are not a robot's


@pytest.fixture
def status(ros):
    return ros.collect(BridgeStatus, ROBOT.interfaces.bridge_status)


@pytest.fixture
def commands(ros):
    return ros.collect(JointState, ROBOT.groups["left_arm"].target)


@pytest.fixture
def robot(ros):
    return ros.start("galaxea_r1lite_bridge", "emulator_node", cameras=False)


@pytest.fixture
def chunks(ros):
    return ros.node.create_publisher(ActionChunk, ROBOT.interfaces.action_chunk, 5)


def start(ros, **parameters):
    return ros.start("galaxea_r1lite_bridge", "bridge_node", **(SLOW_MACHINE | parameters))


def chunk(target, *, chunk_id=1, epoch=1, session=1, age=0.0, names=None):
    message = ActionChunk(session=session, chunk_id=chunk_id, epoch=epoch, step=duration_message(STEP))
    message.header.stamp = time_message(time.time_ns() - round(age * 1e9))
    message.trajectory.joint_names = names or ROBOT.joint_names
    message.trajectory.points = [JointTrajectoryPoint(positions=target)] * 32
    return message


def in_state(status, state, reason=None):
    return lambda: status and status[-1].state == state and reason in (None, status[-1].reason)


def has_been(status, state, reason=None):
    """For a state that lasts only so long as a chunk: a busy test may look too late."""
    return lambda: any(message.state == state and reason in (None, message.reason) for message in status)


def arm(ros, *, on=True):
    return ros.call(SetBool, ROBOT.interfaces.arm, SetBool.Request(data=on))


def arm_when_ready(ros, status):
    names = (ROBOT.interfaces.action_chunk, ROBOT.interfaces.estop)  # of the bridge's side nodes: found later
    mine = [publisher for publisher in ros.node.publishers if publisher.topic_name.endswith(names)]
    ros.until(lambda: all(publisher.get_subscription_count() for publisher in mine))
    ros.until(lambda: status and all(stream.received > 50 for stream in status[-1].feedback))
    ros.until(lambda: arm(ros).success)
    ros.until(in_state(status, State.HOLDING, Reason.ARMED))


def trigger(ros, name):
    return ros.call(Trigger, getattr(ROBOT.interfaces, name), Trigger.Request())


def set_parameter(ros, node, name, **value):
    request = SetParameters.Request(parameters=[Parameter(name=name, value=ParameterValue(**value))])
    return ros.call(SetParameters, f"{node}/set_parameters", request).results[0]


def emulate_fault(ros, fault):
    assert set_parameter(
        ros, "emulator_node", "fault", type=ParameterType.PARAMETER_STRING, string_value=fault
    ).successful


def near(*offsets):
    return [value + offset for value, offset in zip(HOME, [*offsets, *[0.0] * (14 - len(offsets))], strict=True)]


def test_arm_track_stop_home_disarm(ros, robot, chunks, status, commands):
    whole = ros.collect(JointState, ROBOT.interfaces.command)
    base = ros.collect(TwistStamped, ROBOT.base.target)
    torso = ros.collect(JointState, ROBOT.groups["torso"].target)
    bridge = start(ros)
    ros.until(in_state(status, State.DISARMED, Reason.NOT_ARMED))
    time.sleep(0.3)
    assert not commands, "a disarmed bridge sends nothing"
    late = set_parameter(ros, "bridge_node", "home_speed", type=ParameterType.PARAMETER_DOUBLE, double_value=0.5)
    assert not late.successful
    assert late.reason.startswith("home_speed: bridge_node reads its parameters when it is configured. Start it")

    arm_when_ready(ros, status)
    ros.until(lambda: commands and base)
    assert not any((base[-1].twist.linear.x, base[-1].twist.angular.z)), "the base is told to stand still"
    assert list(commands[-1].velocity) == list(ROBOT.groups["left_arm"].limits.velocity), "the robot's speed limit"

    chunks.publish(chunk(near(0.2)))
    ros.until(has_been(status, State.TRACKING))
    ros.until(lambda: math.isclose(commands[-1].position[0], HOME[0] + 0.2, abs_tol=1e-5))
    first = [message.position[0] for message in commands]
    assert max(b - a for a, b in zip(first, first[1:], strict=False)) < 1.5 * 0.02 + 1e-6, "1.5 rad/s, two periods"
    assert len(status[-1].limited) == 14
    assert max(abs(message.velocity[0]) for message in whole) > 0.1
    assert status[-1].interventions

    assert trigger(ros, "stop").success
    ros.until(in_state(status, State.HOLDING, Reason.STOP_REQUESTED))
    chunks.publish(chunk(near(0.3), chunk_id=2))
    ros.until(lambda: any(drop.reason == Reason.CHUNK_OLD_EPOCH for drop in status[-1].drops))

    assert trigger(ros, "home").success
    ros.until(has_been(status, State.TRACKING, Reason.HOMING))
    ros.until(in_state(status, State.HOLDING, Reason.AT_HOME))
    assert commands[-1].position[0] == pytest.approx(HOME[0], abs=1e-3)
    assert not torso
    assert trigger(ros, "home_torso").success
    ros.until(lambda: torso)

    arm(ros, on=False)
    ros.until(in_state(status, State.DISARMED))
    bridge.send_signal(signal.SIGINT)
    ros.finish(bridge)
    assert bridge.returncode == 0
    ros.until(in_state(status, State.INACTIVE))


@pytest.mark.parametrize(
    "how",
    [signal.SIGTERM, "lifecycle"]
    + [pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)],
)  # test_ending.py sees that each of them is caught
def test_a_node_that_is_ended_in_motion_decelerates_first(ros, robot, chunks, status, how):
    sent = ros.collect(JointState, ROBOT.interfaces.command)
    bridge = start(ros)
    arm_when_ready(ros, status)
    chunks.publish(chunk(near(1.2)))
    ros.until(lambda: sent and abs(sent[-1].velocity[0]) > 0.5)
    if how != "lifecycle":
        bridge.send_signal(how)
    else:
        ros.change_state("bridge_node", Transition.TRANSITION_ACTIVE_SHUTDOWN)
    ros.finish(bridge)
    assert bridge.returncode == 0
    ros.until(in_state(status, State.INACTIVE))
    assert sent[-1].velocity[0] == pytest.approx(0.0, abs=0.1)
    assert any(message.state == State.STOPPING for message in status)


def test_signals_that_interrupt_each_other_do_not_hold_the_node_up(ros, robot, chunks, status):
    bridge = start(ros)
    arm_when_ready(ros, status)
    chunks.publish(chunk(near(1.2)))
    ros.until(in_state(status, State.TRACKING))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2) * 50:
        bridge.send_signal(number)
        time.sleep(0.0005)  # for a handler to begin
    ros.finish(bridge)
    ros.until(in_state(status, State.INACTIVE))
    assert bridge.returncode == 0


def test_bad_feedback_and_bad_chunks(ros, chunks, status, commands):
    bridge = start(ros)
    answer = arm(ros)
    assert not answer.success
    assert "300" in answer.message

    ros.start("galaxea_r1lite_bridge", "emulator_node", cameras=False)
    arm_when_ready(ros, status)
    chunks.publish(chunk(near(), names=["x"] * 14))
    chunks.publish(chunk([math.nan] * 14))
    chunks.publish(chunk(near(), age=9.0))
    wanted = {Reason.CHUNK_WRONG_JOINTS, Reason.CHUNK_NOT_FINITE, Reason.CHUNK_TOO_OLD}
    ros.until(lambda: {drop.reason for drop in status[-1].drops} == wanted)

    emulate_fault(ros, "nan")
    ros.until(in_state(status, State.HOLDING, Reason.FEEDBACK_INVALID))
    assert "hdas/feedback_arm_left" in ros.output(bridge)
    emulate_fault(ros, "none")
    ros.until(in_state(status, State.HOLDING, Reason.ARMED))
    emulate_fault(ros, "silent")
    ros.until(in_state(status, State.HOLDING, Reason.FEEDBACK_STALE))
    assert status[-1].reason_text.endswith("s")
    assert all(math.isfinite(value) for message in commands for value in message.position)


class Sender:
    """Heartbeats at 50 Hz, since a busy machine is late."""

    def __init__(self, ros, session):
        self.pressed, publisher = True, ros.node.create_publisher(Heartbeat, ROBOT.interfaces.heartbeat, 10)
        self.timer = ros.node.create_timer(
            0.02, lambda: publisher.publish(Heartbeat(session=session, pressed=self.pressed))
        )


def test_every_heartbeat_that_is_heard_must_go_on_and_be_pressed(ros, robot, chunks, status):
    """Of a bridge that requires none, too."""
    start(ros)
    arm_when_ready(ros, status)
    assert status[-1].heartbeat_age == -1.0
    first, _second = Sender(ros, 1), Sender(ros, 2)
    ros.until(lambda: status[-1].heartbeat_age >= 0.0)
    first.pressed = False
    ros.until(in_state(status, State.HOLDING, Reason.HEARTBEAT_RELEASED))
    first.pressed = True
    ros.until(in_state(status, State.HOLDING, Reason.ARMED))
    first.timer.cancel()
    ros.until(in_state(status, State.FAULT, Reason.HEARTBEAT_LOST))
    ros.until(lambda: arm(ros).success)  # the second one goes on
    before = status[-1].revocations
    assert trigger(ros, "stop").success
    ros.until(lambda: status[-1].revocations > before)


def test_estop_heartbeat_and_diagnostics(ros, robot, chunks, status):
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    estop = ros.node.create_publisher(Bool, ROBOT.interfaces.estop, 10)
    bridge = start(ros, require_heartbeat=True)
    ros.until(lambda: status and all(stream.received > 50 for stream in status[-1].feedback))
    assert "307" in arm(ros).message
    sender = Sender(ros, 1)
    arm_when_ready(ros, status)

    chunks.publish(chunk(near(0.4)))
    ros.until(has_been(status, State.TRACKING))
    estop.publish(Bool(data=True))
    ros.until(in_state(status, State.ESTOP, Reason.ESTOP_PRESSED))
    assert "309" in arm(ros).message
    estop.publish(Bool(data=False))
    ros.until(lambda: arm(ros).success)
    sender.timer.cancel()
    ros.until(in_state(status, State.FAULT, Reason.HEARTBEAT_LOST))
    assert "ESTOP, 309" in ros.output(bridge)

    ros.until(lambda: any("FAULT" in s.message for message in diagnostics for s in message.status))
    parts = {s.name: s for s in diagnostics[-1].status}
    assert {f"bridge_node: stream {name}" for name in ROBOT.actuated} < set(parts)
    assert parts["bridge_node: state"].level == b"\x02"
    rate = {v.key: v.value for v in parts["bridge_node: stream torso"].values}["rate [Hz]"]
    assert 50 < float(rate) < 400
    assert float({v.key: v.value for v in parts["bridge_node: control loop"].values}["rate [Hz]"]) > 30


def test_a_policy_machine_whose_clock_is_off_is_refused_by_name(ros, robot, chunks, status):
    ahead_ns = [5_000_000_000]
    answers = ros.node.create_publisher(PolicyStatus, ROBOT.interfaces.policy_status, 10)

    def answer(message):
        theirs = time_message(time.time_ns() + ahead_ns[0])
        reply = PolicyStatus(machine="gpu-box", session=1, bridge_stamp=message.header.stamp, bridge_received=theirs)
        reply.header.stamp = theirs
        answers.publish(reply)

    start(ros)
    arm_when_ready(ros, status)
    ros.node.create_subscription(BridgeStatus, ROBOT.interfaces.bridge_status, answer, 10)
    ros.until(lambda: status[-1].policy_clock_offset == pytest.approx(5, abs=1))
    chunks.publish(chunk(near()))
    ros.until(lambda: [drop.reason for drop in status[-1].drops] == [Reason.CHUNK_CLOCKS_DIFFER])
    arm(ros, on=False)
    ros.until(in_state(status, State.DISARMED))
    assert "114: the clocks of policy and bridge differ" in (message := arm(ros).message)
    assert "the clock of gpu-box" in message
    ahead_ns[0] = 0
    arm_when_ready(ros, status)
    assert 0 < status[-1].policy_round_trip < 5


@pytest.mark.slow  # builds a message package
def test_driver_errors_stop_the_arms_when_their_message_type_is_installed(ros, robot, status, tmp_path):
    """A message package as the vendor's, built here from the documented fields."""
    package = tmp_path / "src" / "hdas_msg"
    (package / "msg").mkdir(parents=True)
    (package / "msg" / "FeedbackStatusDetail.msg").write_text(
        "string name\nuint32 error_code\nstring[] error_description\n"
    )
    (package / "msg" / "FeedbackStatus.msg").write_text(
        "std_msgs/Header header\nstring name_id\nFeedbackStatusDetail[] errors\n"
    )
    (package / "package.xml").write_text(
        '<package format="3"><name>hdas_msg</name><version>0.0.0</version><description>test</description>'
        '<maintainer email="a@b.invalid">a</maintainer><license>MIT</license>'
        "<buildtool_depend>ament_cmake</buildtool_depend><depend>std_msgs</depend>"
        "<buildtool_depend>rosidl_default_generators</buildtool_depend>"
        "<member_of_group>rosidl_interface_packages</member_of_group>"
        "<export><build_type>ament_cmake</build_type></export></package>"
    )
    (package / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(hdas_msg)\nfind_package(ament_cmake REQUIRED)\n"
        "find_package(rosidl_default_generators REQUIRED)\nfind_package(std_msgs REQUIRED)\n"
        "rosidl_generate_interfaces(${PROJECT_NAME} msg/FeedbackStatus.msg msg/FeedbackStatusDetail.msg"
        " DEPENDENCIES std_msgs)\nament_package()\n"
    )
    environment = os.environ | {"CMAKE_PREFIX_PATH": os.environ["AMENT_PREFIX_PATH"]}
    build = subprocess.run(
        [sys.executable, "-m", "colcon", "--log-base", "log", "build", "--cmake-args",
         f"-DPython3_EXECUTABLE={sys.executable}"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert build.returncode == 0, build.stdout + build.stderr
    setup = f". {tmp_path}/install/local_setup.bash"
    publish = (
        "import rclpy, time; from hdas_msg.msg import FeedbackStatus, FeedbackStatusDetail as D\n"
        "rclpy.init(); n = rclpy.create_node('driver')\n"
        f"p = n.create_publisher(FeedbackStatus, '{ROBOT.driver_errors.topics[0]}', 1)\n"
        "end = time.time() + 60\n"
        "while time.time() < end:\n"
        "    p.publish(FeedbackStatus(errors=[D(name='motor3', error_code=12, error_description=['hot'])]))\n"
        "    time.sleep(0.1)\n"
    )
    ros.run("bash", "-c", f"{setup}; exec {ros.program('galaxea_r1lite_bridge', 'bridge_node')}")
    arm_when_ready(ros, status)
    ros.run("bash", "-c", f'{setup}; exec {sys.executable} -c "{publish}"')
    ros.until(in_state(status, State.FAULT, Reason.DRIVER_ERROR))
    assert "motor3 12 hot" in status[-1].reason_text


def test_without_that_type_the_bridge_says_so(ros, status):
    bridge = start(ros)
    ros.until(in_state(status, State.DISARMED))
    assert "hdas_msg/msg/FeedbackStatus is not installed" in ros.output(bridge)


@pytest.mark.slow  # 5 s of silence
def test_what_the_bridge_does_not_hear_it_says(ros):
    bridge = start(ros)
    silent = ", ".join(group.feedback for group in ROBOT.actuated.values())
    ros.until(lambda: f"nothing heard on {silent} for 5 s: is the robot's driver running" in ros.output(bridge))


def test_two_bridges_are_not_armed(ros, robot, status):
    """They would command the same arms in turn."""
    first = start(ros)
    ros.until(in_state(status, State.DISARMED))
    second = start(ros)
    ros.until(lambda: ros.node.count_publishers(ROBOT.interfaces.bridge_status) == 2)
    ros.until(lambda: "113" in arm(ros).message)
    second.send_signal(signal.SIGINT)
    ros.finish(second)
    arm_when_ready(ros, status)
    first.send_signal(signal.SIGINT)
    ros.finish(first)


def test_an_inactive_emulator_is_silent(ros, robot):
    feedback = ros.collect(JointState, ROBOT.groups["left_arm"].feedback, qos_profile(ROBOT.qos.sensor))
    ros.until(lambda: feedback)
    ros.change_state("emulator_node", Transition.TRANSITION_DEACTIVATE)
    time.sleep(0.5)
    feedback.clear()
    time.sleep(0.5)
    assert not feedback
    ros.change_state("emulator_node", Transition.TRANSITION_ACTIVATE)
    ros.until(lambda: feedback)


def test_the_emulator_never_runs_beside_a_robot(ros, monkeypatch):
    monkeypatch.delenv(PRIVATE_DOMAIN)
    feedback = ros.node.create_publisher(JointState, ROBOT.groups["left_arm"].feedback, 1)
    emulator = ros.start("galaxea_r1lite_bridge", "emulator_node")
    assert "another process publishes hdas/feedback_arm_left already" in ros.finish(emulator)
    assert emulator.returncode == 2
    feedback.destroy()


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"control_rate": 5000.0}, "control_rate must be 10.0 to 500.0 Hz"),
        ({"control_rate": "fast"}, "parameter control_rate must be of type float, such as 100.0"),
        ({"robot_config": "/nowhere.yaml"}, "/nowhere.yaml: no such file"),
        ({"blending": "melt"}, "parameter blending must be one of switch, ensemble, rtc"),
        (
            {"watchdog.overrun.reaction": "panic"},
            "parameter watchdog.overrun.reaction must be one of slow, hold, fault",
        ),
    ],
)
def test_wrong_parameters_are_named(ros, parameters, expected):
    node = ros.start("galaxea_r1lite_bridge", "bridge_node", **parameters)
    assert expected in ros.finish(node)
    assert node.returncode == 2
