"""Small recordings: 15 Hz cameras whose pictures hold their number, 50 Hz joints; each case changes some messages."""

from __future__ import annotations

import struct
import zlib
from contextlib import closing

import cv2
import numpy as np
import pytest
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import StoragePlugin, Writer

from fastwam_policy.cli.main import main
from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.data.message_types import COMPRESSED_IMAGE, JOINT_STATE, typestore
from fastwam_policy.data.recordings import open_recording

from .made import FPS, ROBOT, number, picture, positions

STORE = typestore()
BEGIN, SECOND = 1_760_000_000_000_000_000, 10**9
CAMERAS = {name: f"/{camera.topic}" for name, camera in ROBOT.cameras.items()}
LEFT_ARM, LEFT_TARGET = f"/{ROBOT.groups['left_arm'].feedback}", f"/{ROBOT.groups['left_arm'].target}"
TORSO = f"/{ROBOT.groups['torso'].feedback}"
STATUS, BRIDGE_STATUS = f"/{ROBOT.interfaces.bridge_status}", "fastwam_msgs/msg/BridgeStatus"


def message(kind, stamp, **fields):
    time = STORE.types["builtin_interfaces/msg/Time"](*divmod(stamp, SECOND))
    return STORE.types[kind](STORE.types["std_msgs/msg/Header"](time, ""), **fields)


def blank(kind):
    """A message with zeros and empty texts."""
    fields = {}
    for name, (node, detail) in STORE.fielddefs[kind][1]:
        if int(node) == 1:  # rosbags: base, name, array, sequence
            fields[name] = {"string": "", "bool": False}.get(detail[0], 0)
        elif int(node) == 2:
            fields[name] = blank(detail)
        else:
            base = detail[0][1][0] if int(detail[0][0]) == 1 else "object"
            fields[name] = [] if base in ("string", "object") else np.zeros(detail[1] if int(node) == 3 else 0, base)
    return STORE.types[kind](**fields)


def status(stamp, state):
    found = blank(BRIDGE_STATUS)
    found.state = state
    found.header.stamp.sec, found.header.stamp.nanosec = divmod(stamp, SECOND)
    return found


def image(stamp, number, size=(32, 24)):
    data = cv2.imencode(".jpg", picture(number % 70, size), [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    return message(COMPRESSED_IMAGE, stamp, format="jpeg", data=data)


def joints(stamp, group, time):
    names, none = ROBOT.groups[group].joints, np.zeros(0)
    values = np.asarray(positions(group, time), np.float64)
    return message(JOINT_STATE, stamp, name=list(names), position=values, velocity=none, effort=none)


def messages(seconds=0.6, hz=50, size=(32, 24)):
    """(log time, topic, message) by time; the torso is recorded more often, so that few messages are one of many."""
    found = []
    for shot in range(round(seconds * 15) + 1):
        stamp = BEGIN + shot * SECOND // 15
        found += [(stamp, topic, image(stamp, shot, size)) for topic in CAMERAS.values()]
    for step in range(round(seconds * hz) + 1):
        time, stamp = step / hz, BEGIN + step * SECOND // hz
        found += [(stamp, f"/{group.feedback}", joints(stamp, name, time)) for name, group in ROBOT.groups.items()]
        found += [
            (stamp, f"/{group.target}", joints(stamp, name, time + 0.2)) for name, group in ROBOT.commanded.items()
        ]
    return sorted(found, key=lambda entry: entry[0])


def write(folder, sent, storage=StoragePlugin.MCAP, foreign=(), qos=()):
    """A rosbag2 folder. `foreign`: topic, type and text of definitions that nobody knows."""
    known = {STATUS: BRIDGE_STATUS} | dict.fromkeys(CAMERAS.values(), COMPRESSED_IMAGE)
    kinds = {topic: known.get(topic, JOINT_STATE) for _, topic, _ in sent}
    with Writer(folder, version=8, storage_plugin=storage) as writer:
        outputs = {t: writer.add_connection(t, k, typestore=STORE, offered_qos_profiles=qos) for t, k in kinds.items()}
        for topic, kind, text in foreign:
            definition = MessageDefinition(MessageDefinitionFormat.MSG, text)
            output = writer.add_connection(topic, kind, msgdef=definition.data, rihs01="RIHS01_" + "0" * 64)
            writer.write(output, BEGIN, b"\x00\x01\x00\x00")
        for log, topic, content in sent:
            data = content if isinstance(content, bytes) else bytes(STORE.serialize_cdr(content, kinds[topic]))
            writer.write(outputs[topic], log, data)
    return folder


def changed(change, topic, sent=None):
    """`change(number, log, message)` for those of a topic; None leaves one out."""
    found, number = [], 0
    for log, name, content in messages() if sent is None else sent:
        new = content
        if name == topic:
            new, number = change(number, log, content), number + 1
        if new is not None:
            found.append((log, name, new))
    return found


def the_file(folder):
    (path,) = [*folder.glob("*.mcap"), *folder.glob("*.db3")]
    return path


def with_checksums(path):
    """As rosbag2 writes it: rosbags leaves the checksums of chunks out, and does not compress them."""
    data, at = bytearray(path.read_bytes()), 8
    while at + 9 < len(data):
        opcode, length = struct.unpack_from("<BQ", data, at)
        if opcode == 0x06:
            struct.pack_into("<I", data, at + 9 + 24, zlib.crc32(data[at + 9 + 40 : at + 9 + length]))
        at += 9 + length
    path.write_bytes(data)
    return path


def count(path):
    """Messages that can be read, and those that are lost."""
    with closing(open_recording(path)) as reader:
        return sum(1 for _ in reader.messages()), reader.lost


def convert(*arguments):
    with pytest.raises(SystemExit) as status:
        main(["convert", "--workers", "1", *map(str, arguments)])
    return status.value.code


def converted(folder):
    """By episode the numbers of the head's pictures, and the rows of the state."""
    reader = Reader(folder, ROBOT, FPS, list(ROBOT.cameras))
    reader.leave_out_unusable()
    found = {}
    for episode in reader.episodes:
        pictures = [number(image) for image in reader.images(episode, "head", range(episode.length))]
        found[episode.index] = pictures, reader.vectors(episode)[0]
    return found


def pictures(folder):
    return [pictures for pictures, _ in converted(folder).values()]
