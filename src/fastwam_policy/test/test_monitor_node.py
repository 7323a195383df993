"""What RViz gets: markers and paths of chunks and of the executed motion, over real ROS 2."""

import re
import time

import numpy as np
from nav_msgs.msg import Path
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint
from visualization_msgs.msg import Marker, MarkerArray

from fastwam_msgs.msg import ActionChunk, BridgeStatus, PolicyStatus
from fastwam_policy.visualization.scene import ArmGeometry
from galaxea_r1lite_bridge.nodes.conversions import duration_message, time_message
from galaxea_r1lite_bridge.nodes.managed_node import qos_profile
from galaxea_r1lite_bridge.robot.config import RobotConfig

ROBOT = RobotConfig.load()
HOME = np.array([value for group in ROBOT.commanded.values() for value in group.home])
BEGIN_NS, STEP_NS = 1_800_000_000_000_000_000, 66_666_667
H = 32
BARS = 2 * 10  # link 1 to 6, gripper, two fingers and camera of each arm


def tool(arm, joints):
    """Tool point of an arm, from the kinematics of single poses."""
    positions = dict(zip(ROBOT.groups["torso"].joints, ROBOT.groups["torso"].home, strict=True))
    for name, place in ROBOT.slices.items():
        positions |= ROBOT.urdf_positions(name, joints[place])
    shape = ROBOT.workspace.arms[arm].tool
    pose = ROBOT.kinematics().pose(shape.link, positions)
    return pose[:3, :3] @ np.array(shape.point) + pose[:3, 3]


def chunk(number, begin_ns, actions, committed=0):
    points = [JointTrajectoryPoint(positions=row.tolist()) for row in actions]
    message = ActionChunk(chunk_id=number, epoch=1, step=duration_message(STEP_NS), committed_steps=committed)
    message.header.stamp = time_message(begin_ns)
    message.trajectory = JointTrajectory(joint_names=ROBOT.joint_names, points=points)
    return message


def swing(amplitude):
    rows = np.repeat(HOME[None], H, axis=0)
    rows[:, ROBOT.slices["left_arm"].start] += amplitude * np.linspace(0, 1, H)
    return rows


def test_paths_are_where_the_kinematics_say():
    geometry = ArmGeometry(ROBOT)
    rows = swing(0.4)
    torso = np.array(ROBOT.groups["torso"].home)
    for arm, points in geometry.tool_paths(rows, torso).items():
        np.testing.assert_allclose(points[0], tool(arm, rows[0]), atol=1e-9)
        np.testing.assert_allclose(points[-1], tool(arm, rows[-1]), atol=1e-9)
    bars = geometry.bars(rows[-1], torso)
    assert len(bars) == BARS
    inside = [np.linalg.norm((bar.begin + bar.end) / 2 - tool("left_arm", rows[-1])) < 0.06 for bar in bars]
    assert sum(inside) == 2, "the tool is between its two fingers"
    assert geometry.nearest(rows[-1], torso).text.endswith(" mm")


def test_markers_show_chunk_replaced_rest_and_executed_path(ros):
    ros.start("fastwam_policy", "monitor_node")
    markers = ros.collect(MarkerArray, ROBOT.interfaces.markers)
    paths = ros.collect(Path, f"{ROBOT.interfaces.predicted_path}/left_arm")
    joint_states = ros.collect(JointState, "joint_states")
    sensor = qos_profile(ROBOT.qos.sensor)
    feedback = {name: ros.node.create_publisher(JointState, g.feedback, sensor) for name, g in ROBOT.groups.items()}
    chunks = ros.node.create_publisher(ActionChunk, ROBOT.interfaces.action_chunk, 5)
    bridge = ros.node.create_publisher(BridgeStatus, ROBOT.interfaces.bridge_status, 10)
    policy = ros.node.create_publisher(PolicyStatus, ROBOT.interfaces.policy_status, 10)
    now = [BEGIN_NS]

    def seen(namespace):
        return [m for message in markers for m in message.markers if m.ns == namespace and m.action == Marker.ADD]

    def feed(silent=()):
        now[0] += 100_000_000
        for name, publisher in feedback.items():
            if name in silent:
                continue
            group = ROBOT.groups[name]
            message = JointState(position=[float(value) for value in group.home])
            message.header.stamp = time_message(now[0])
            publisher.publish(message)
        return len(seen("executed")) > 1

    def fed(condition, silent=()):
        """Wait for it, with feedback all the time."""

        def both():
            feed(silent)
            return condition()

        ros.until(both)

    ros.until(feed)
    fed(lambda: chunks.get_subscription_count() > 0)
    first, second = swing(0.4), swing(-0.2)
    chunks.publish(chunk(1, BEGIN_NS, first))
    fed(lambda: len(paths) == 1)
    chunks.publish(chunk(2, BEGIN_NS + 8 * STEP_NS, second, committed=5))
    fed(lambda: len(paths) == 2)
    fed(lambda: seen("replaced"))

    predicted = [m for m in seen("predicted") if m.id == 0]
    last = predicted[-1]
    assert last.header.frame_id == ROBOT.workspace.frame
    assert last.header.stamp == time_message(BEGIN_NS + 8 * STEP_NS)
    assert len(last.points) == len(last.colors) == H
    assert last.colors[0] != last.colors[-1]
    end = last.points[-1]
    np.testing.assert_allclose([end.x, end.y, end.z], tool("left_arm", second[-1]), atol=1e-6)
    assert all(m.lifetime.sec + m.lifetime.nanosec > 0 for m in seen("predicted") + seen("ghost") + seen("status"))
    assert len(next(m for m in seen("committed") if m.id == 0).points) == 5
    rest = next(m for m in seen("replaced") if m.id == 0).points  # of the first chunk, after the second's observation
    assert len(rest) == H - 8
    np.testing.assert_allclose([rest[0].x, rest[0].y, rest[0].z], tool("left_arm", first[8]), atol=1e-6)
    assert len(seen("ghost")) % BARS == 0
    line, words = (next(m for m in reversed(seen("nearest")) if m.id == number) for number in (0, 1))
    assert len(line.points) == 2
    assert re.fullmatch(r"\w+ and [\w ]+, \d+ mm", words.text)
    assert paths[-1].poses[3].header.stamp == time_message(BEGIN_NS + 11 * STEP_NS)
    assert "no status from the bridge" in seen("status")[-1].text
    bridge.publish(BridgeStatus(state=99))
    policy.publish(PolicyStatus(state=77))
    fed(lambda: "bridge UNKNOWN_99" in seen("status")[-1].text and "policy UNKNOWN_77" in seen("status")[-1].text)
    plane, edges = (next(m for m in seen("workspace") if m.id == number) for number in (0, 1))
    assert plane.pose.position.z == ROBOT.workspace.table_height
    assert len(edges.points) == 2 * 12
    dots = [m for m in seen("gripper") if m.header.stamp == last.header.stamp]
    assert sum(len(m.points) for m in dots) == 2 * H
    ros.until(lambda: any(m.action == Marker.DELETEALL for message in markers for m in message.markers))
    assert set(ROBOT.groups["left_arm"].joints) <= set(joint_states[-1].name)


def test_what_is_silent_or_of_another_run_is_not_shown(ros):
    ros.start("fastwam_policy", "monitor_node")
    joint_states, markers = ros.collect(JointState, "joint_states"), ros.collect(MarkerArray, ROBOT.interfaces.markers)
    sensor = qos_profile(ROBOT.qos.sensor)
    feedback = {name: ros.node.create_publisher(JointState, g.feedback, sensor) for name, g in ROBOT.groups.items()}
    stamp = [BEGIN_NS]

    def feed(condition, step_ns=20_000_000, silent=(), unstamped=()):
        def both():
            stamp[0] += step_ns
            for name, publisher in feedback.items():
                message = JointState(position=[float(value) for value in ROBOT.groups[name].home])
                message.header.stamp = time_message(0 if name in unstamped else stamp[0])
                if name not in silent:
                    publisher.publish(message)
            return condition()

        ros.until(both)

    def executed():
        found = [m for message in markers for m in message.markers if m.ns == "executed" and m.action == Marker.ADD]
        return len(found[-1].points) if found else 0

    feed(lambda: executed() >= 10)
    stamp[0] -= 1_000_000_000  # less than executed_time: as a short loop of a recording
    feed(lambda: executed() < 5)
    arm = set(ROBOT.groups["left_arm"].joints)
    assert arm <= set(joint_states[-1].name)
    feed(lambda: not arm & set(joint_states[-1].name), silent=["left_arm"])
    assert set(ROBOT.groups["right_arm"].joints) <= set(joint_states[-1].name)
    stamp[0] = time.time_ns()
    before = executed()
    feed(lambda: executed() > before + 5, unstamped=["torso"])
