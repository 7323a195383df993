"""replay_node as a process, over real ROS 2."""

import shutil
import time
from contextlib import closing

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState

from fastwam_policy.data.recordings import check_topics, open_recording
from galaxea_r1lite_bridge.nodes.conversions import nanoseconds
from galaxea_r1lite_bridge.nodes.managed_node import PRIVATE_DOMAIN
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

ROBOT = RobotConfig.load()
IMAGE = "sensor_msgs/msg/CompressedImage"
STORE = get_typestore(Stores.ROS2_JAZZY)


def rewrite(source, target, storage, keep=lambda topic: True, kind=lambda topic, name: name):
    """Copy a recording, dropping topics or lying about their type."""
    reader = open_recording(source)
    with Writer(target, version=8, storage_plugin=storage) as writer:
        connections = [c for c in reader.connections if keep(c.topic)]
        outputs = {
            c.topic: writer.add_connection(c.topic, kind(c.topic, c.msgtype), typestore=STORE) for c in connections
        }
        for connection, stamp, data in reader.messages(connections):
            writer.write(outputs[connection.topic], stamp, bytes(data))
    reader.close()
    return target


def arrival(ros, kind, topic):
    """Messages of a topic with the time they came."""
    messages = []
    ros.node.create_subscription(kind, topic, lambda m: messages.append((time.monotonic(), m)), 500)
    return messages


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_plays_with_the_recorded_spacing_and_ends(ros, short_bag, tmp_path, storage):
    bag = rewrite(short_bag, tmp_path / "bag", storage)
    images = arrival(ros, CompressedImage, ROBOT.cameras["head"].topic)
    joints = arrival(ros, JointState, ROBOT.groups["left_arm"].feedback)
    targets = arrival(ros, JointState, f"recorded/{ROBOT.groups['left_arm'].target}")
    commands = arrival(ros, JointState, ROBOT.groups["left_arm"].target)
    clock = arrival(ros, Clock, "/clock")
    node = ros.start("fastwam_policy", "replay_node", bag=bag, rate=2.0, duration=2.0, clock=True)
    output = ros.finish(node)
    assert node.returncode == 0, output
    assert not commands, "recorded targets never go where a robot listens"
    for messages, rate in ((images, 15), (targets, 15), (joints, 240)):
        assert rate < len(messages) <= 2.1 * rate  # a busy machine loses some of the first: discovery takes a while
        periods = np.diff([nanoseconds(m.header.stamp) / 1e9 for _, m in messages])
        assert periods.min() > 0
        assert np.median(periods) == pytest.approx(1 / rate, rel=0.1)
        assert periods.max() < 3 / rate, "none is left out"
    times, stamps = np.array([(at, nanoseconds(m.header.stamp) / 1e9) for at, m in joints]).T
    late, half = times - (stamps - stamps[0]) / 2.0, len(times) // 2
    assert late[:half].min() == pytest.approx(late[half:].min(), abs=0.1), "at twice the speed"
    ticks = [nanoseconds(m.clock) for _, m in clock]
    assert ticks == sorted(ticks)
    assert ticks[0] / 1e9 == pytest.approx(stamps[0], abs=0.05), "the recording's own time"
    assert "90 %" in output


def test_the_first_messages_wait_for_a_subscriber(ros, short_bag):
    node = ros.start("fastwam_policy", "replay_node", bag=short_bag, duration=0.5)
    topic = ROBOT.cameras["head"].topic
    ros.until(lambda: ros.node.count_publishers(topic))
    time.sleep(3.0)  # a busy machine may take as long to find it
    images = ros.collect(CompressedImage, topic)
    ros.finish(node)
    with closing(open_recording(short_bag)) as reader:
        _, _, first = next(reader.messages([c for c in reader.connections if c.topic == f"/{topic}"]))
        assert nanoseconds(images[0].header.stamp) == nanoseconds(reader.deserialize(first, IMAGE).header.stamp)


def test_two_replays_in_one_domain_are_refused(ros, short_bag, monkeypatch):
    images = ros.collect(CompressedImage, ROBOT.cameras["head"].topic)
    first = ros.start("fastwam_policy", "replay_node", bag=short_bag, loop=True)
    ros.until(lambda: images)
    monkeypatch.delenv(PRIVATE_DOMAIN)
    second = ros.start("fastwam_policy", "replay_node", bag=short_bag)
    assert "a robot, a simulator or a replay is in this ROS domain" in ros.finish(second)
    assert second.returncode == 2
    assert first.poll() is None


@pytest.mark.slow  # it waits 10 s
def test_a_replay_that_nobody_receives_fails(ros, short_bag):
    node = ros.start("fastwam_policy", "replay_node", bag=short_bag, duration=0.2)
    output = ros.finish(node)
    assert f"no subscriber of {ROBOT.cameras['head'].topic}" in output
    assert "nothing was received" in output
    assert node.returncode == 1


def test_wrong_recordings_are_named(ros, tmp_path):
    for parameters, expected in (
        ({}, "parameter bag is empty"),
        ({"bag": tmp_path / "nothing"}, "no such recording"),
    ):
        node = ros.start("fastwam_policy", "replay_node", **parameters)
        assert expected in ros.finish(node)
        assert node.returncode == 2


def test_unreadable_recordings(short_bag, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(ConfigError, match="expected a rosbag2 folder, or a .mcap or .db3 file"):
        open_recording(text)
    with pytest.raises(ConfigError, match="metadata.yaml is missing"):
        open_recording(tmp_path)
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(next(short_bag.glob("*.mcap")).read_bytes()[:100_000])
    with pytest.raises(ConfigError, match="truncated or not a rosbag2 recording"):
        open_recording(cut)
    empty = tmp_path / "empty.db3"
    empty.write_bytes(b"")
    with pytest.raises(ConfigError, match="truncated or not a rosbag2 recording"):
        open_recording(empty)


def test_a_single_file_is_a_recording_too(short_bag, tmp_path):
    path = shutil.copy(next(short_bag.glob("*.mcap")), tmp_path / "alone.mcap")
    reader = open_recording(path)
    assert check_topics(reader, ROBOT, path) == []
    reader.close()


def test_missing_topics_and_other_types_are_all_listed(short_bag, tmp_path):
    head, arm = f"/{ROBOT.cameras['head'].topic}", f"/{ROBOT.groups['left_arm'].feedback}"
    bag = rewrite(
        short_bag, tmp_path / "bag", StoragePlugin.MCAP,
        keep=lambda topic: topic != head,
        kind=lambda topic, name: IMAGE if topic == arm else name,
    )  # fmt: skip
    reader = open_recording(bag)
    with pytest.raises(ConfigError) as error:
        check_topics(reader, ROBOT, bag)
    assert f"{head} is missing" in str(error.value)
    assert f"{arm} has type sensor_msgs/msg/CompressedImage, expected sensor_msgs/msg/JointState" in str(error.value)
    with pytest.raises(ConfigError, match="has type"):
        check_topics(reader, ROBOT, bag, allow_missing=True)
    reader.close()


def test_only_the_cameras_that_are_needed_must_be_there(short_bag, tmp_path):
    head = f"/{ROBOT.cameras['head'].topic}"
    bag = rewrite(short_bag, tmp_path / "bag", StoragePlugin.MCAP, keep=lambda topic: topic != head)
    with closing(open_recording(bag)) as reader:
        assert check_topics(reader, ROBOT, bag, cameras=["wrist_left"]) == [head]
        with pytest.raises(ConfigError, match=f"{head} is missing"):
            check_topics(reader, ROBOT, bag, cameras=["head"])
