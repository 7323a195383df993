"""Small recordings with one fault each, as rosbag2's mcap."""

from __future__ import annotations

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from fastwam_policy.data.recordings import COMPRESSED_IMAGE, JOINT_STATE, typestore

from .made import ROBOT, picture, positions

STORE = typestore()
BEGIN = 1_760_000_000_000_000_000
HZ = 50


def header(stamp_ns):
    sec, nanosec = divmod(stamp_ns, 10**9)
    time = STORE.types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    return STORE.types["std_msgs/msg/Header"](stamp=time, frame_id="")


def joint_state(stamp_ns, values, names=()):
    numbers, none = np.asarray(values, np.float64), np.zeros(0)
    return STORE.types[JOINT_STATE](
        header=header(stamp_ns), name=list(names), position=numbers, velocity=none, effort=none
    )


def image(stamp_ns, data):
    return STORE.types[COMPRESSED_IMAGE](header=header(stamp_ns), format="jpeg", data=np.frombuffer(data, np.uint8))


def recording(path, seconds=0.6, joints=lambda side, group, time: (positions(group, time), ROBOT.groups[group].joints)):
    """`joints` gives the numbers and the names of a message of a group, `side` is state or action."""
    topics = {f"/{camera.topic}": COMPRESSED_IMAGE for camera in ROBOT.cameras.values()}
    sides = {"state": {name: group.feedback for name, group in ROBOT.groups.items()}}
    sides["action"] = {name: group.target for name, group in ROBOT.commanded.items()}
    topics |= {f"/{topic}": JOINT_STATE for groups in sides.values() for topic in groups.values()}
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        outputs = {topic: writer.add_connection(topic, kind, typestore=STORE) for topic, kind in topics.items()}
        for step in range(round(seconds * HZ) + 1):
            stamp = BEGIN + step * 10**9 // HZ
            sent = {}
            if step % 2 == 0:
                jpeg = cv2.imencode(".jpg", picture(step % 40))[1].tobytes()
                sent |= {f"/{camera.topic}": image(stamp, jpeg) for camera in ROBOT.cameras.values()}
            for side, groups in sides.items():
                ahead = 0.2 if side == "action" else 0.0
                for group, topic in groups.items():
                    sent[f"/{topic}"] = joint_state(stamp, *joints(side, group, step / HZ + ahead))
            for topic, message in sent.items():
                writer.write(outputs[topic], stamp, STORE.serialize_cdr(message, topics[topic]))
    return path
