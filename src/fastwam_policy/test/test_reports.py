"""The report of a session: its video, from whatever cameras were recorded; and recordings of older versions."""

import re
from contextlib import closing
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from ament_index_python.packages import get_package_share_directory
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from fastwam_policy.data.message_types import typestore
from fastwam_policy.data.recordings import open_recording
from fastwam_policy.reports.report import report_session
from fastwam_policy.reports.session import read_session
from fastwam_policy.reports.video import session_video
from galaxea_r1lite_bridge.robot.config import RobotConfig

ROBOT = RobotConfig.load()


def recording(source, target, cameras):
    """Copy of a recording with some of its cameras; the wrists' images are square."""
    store = typestore()
    topics = {f"/{ROBOT.cameras[name].topic}": name for name in cameras}
    square = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1]
    with (
        closing(open_recording(source)) as reader,
        Writer(target, version=8, storage_plugin=StoragePlugin.MCAP) as writer,
    ):
        connections = [c for c in reader.connections if c.topic in topics]
        outputs = {c.topic: writer.add_connection(c.topic, c.msgtype, typestore=store) for c in connections}
        for connection, stamp, data in reader.messages(connections):
            message = store.deserialize_cdr(data, connection.msgtype)
            if topics[connection.topic] == "wrist_right":
                message.data = square
            writer.write(outputs[connection.topic], stamp, store.serialize_cdr(message, connection.msgtype))
    return target


@pytest.mark.parametrize("cameras", [["head"], ["wrist_left"], ["head", "wrist_left", "wrist_right"]])
def test_a_camera_that_was_not_recorded_or_has_another_shape_stops_nothing(short_bag, tmp_path, cameras):
    assert session_video(recording(short_bag, tmp_path / "bag", cameras), ROBOT, tmp_path / "video.mp4")
    with av.open(str(tmp_path / "video.mp4")) as video:
        assert 30 < video.streams.video[0].frames < 50


def former_messages():
    """The messages as they were before chunks had a session."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for path in sorted((Path(get_package_share_directory("fastwam_msgs")) / "msg").glob("*.msg")):
        text = re.sub(r"(?m)^(uint64 session|bool arm_again) .*\n", "", path.read_text())
        store.register(get_types_from_msg(text, f"fastwam_msgs/msg/{path.stem}"))
    return store


def test_a_recording_from_before_chunks_had_a_session_is_reported(tmp_path):
    store, topic, kind = former_messages(), f"/{ROBOT.interfaces.action_chunk}", "fastwam_msgs/msg/ActionChunk"
    types = store.types
    header = types["std_msgs/msg/Header"]
    duration, time = types["builtin_interfaces/msg/Duration"], types["builtin_interfaces/msg/Time"]
    point, trajectory = types["trajectory_msgs/msg/JointTrajectoryPoint"], types["trajectory_msgs/msg/JointTrajectory"]
    assert "session" not in types[kind].__dataclass_fields__
    with Writer(tmp_path / "recording", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(topic, kind, typestore=store)
        for number in range(1, 4):
            rows = [point(np.full(14, 0.1 * k), *[np.empty(0)] * 3, duration(0, 0)) for k in range(4)]
            stamp = header(time(number, 0), "")
            chunk = types[kind](
                stamp, number, 1, "old", "fold", duration(0, 66_666_667), trajectory(stamp, ROBOT.joint_names, rows),
                2, time(number, 0), 1.0, 2.0, 3.0, 4.0, 10.0,
            )  # fmt: skip
            writer.write(connection, number * 10**9, store.serialize_cdr(chunk, kind))
    session = read_session(tmp_path / "recording", ROBOT)
    assert [chunk.chunk_id for chunk in session.chunks] == [1, 2, 3]
    assert session.chunks[0].actions[3, 0] == pytest.approx(0.3)
    assert session.chunks[0].latency_ms[-1] == 10.0
    report_session(tmp_path, ROBOT, "of an older version")
    assert (tmp_path / "report.html").exists()
