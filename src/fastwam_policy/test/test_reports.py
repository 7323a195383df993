"""The report of a session: its video, from whatever cameras were recorded."""

from contextlib import closing

import av
import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from fastwam_policy.data.recordings import open_recording, typestore
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
