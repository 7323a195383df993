"""recorder_node as a process, over real ROS 2: what it writes, and what is left after SIGKILL or on a full disk."""

import os
import signal
import time
from contextlib import closing
from hashlib import sha256
from itertools import count
from threading import Event

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String

from fastwam_msgs.msg import BridgeStatus
from fastwam_policy.cli.main import main
from fastwam_policy.data import recording_writer
from fastwam_policy.data.message_types import typestore
from fastwam_policy.data.recording_writer import RecordingWriter
from fastwam_policy.data.recordings import open_recording
from fastwam_policy.reports.session import read_session
from galaxea_r1lite_bridge.execution.reasons import State
from galaxea_r1lite_bridge.nodes.conversions import time_message
from galaxea_r1lite_bridge.nodes.managed_node import LATCHED
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .waiting import until

ROBOT = RobotConfig.load()
ARM = ROBOT.groups["left_arm"]
POSE, CHASSIS = "motion_control/pose_ee_arm_left", "hdas/feedback_chassis"
SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
STRING = "std_msgs/msg/String"
LATE = 2.0  # s a killed recorder may lose on a busy machine; it flushes every second


class Robot:
    """Feedback at 50 Hz whose first joint counts the messages, the topics around it, and a camera."""

    def __init__(self, ros):
        self.number = count()
        self._feedback = ros.node.create_publisher(JointState, ARM.feedback, SENSOR)
        self._others = {
            topic: ros.node.create_publisher(kind, topic, qos)
            for topic, kind, qos in (
                (POSE, PoseStamped, SENSOR),
                (CHASSIS, JointState, SENSOR),
                (ROBOT.cameras["head"].topic, CompressedImage, SENSOR),
                (ROBOT.interfaces.bridge_status, BridgeStatus, 10),
            )
        }
        self.image = b"\xff\xd8" + bytes(100_000)
        ros.node.create_timer(0.02, self._publish)

    def _publish(self):
        number = next(self.number)
        message = JointState(position=[float(number)] * 6)
        message.header.stamp = time_message(time.time_ns())
        self._feedback.publish(message)
        for topic, publisher in self._others.items():
            message = publisher.msg_type()
            message.header.stamp = time_message(time.time_ns())
            if topic == ROBOT.cameras["head"].topic:
                message.data = self.image
            elif topic == ROBOT.interfaces.bridge_status:
                message.state = int(State.TRACKING)
            publisher.publish(message)


@pytest.fixture
def robot(ros):
    return Robot(ros)


@pytest.fixture
def diagnostics(ros):
    return ros.collect(DiagnosticArray, "/diagnostics")


def record(ros, folder, **parameters):
    return ros.start("fastwam_policy", "recorder_node", output=folder, **parameters)


def messages(recording, topic):
    with closing(open_recording(recording)) as reader:
        wanted = [c for c in reader.connections if c.topic == f"/{topic}"]
        return [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages(wanted)] if wanted else None


def counts(recording):
    with closing(open_recording(recording)) as reader:
        return {connection.topic.lstrip("/"): connection.msgcount for connection in reader.connections}


def holds(recording, **topics):
    """Whether an unfinished file holds so many messages of each topic."""
    try:
        written = counts(recording / f"{recording.name}.mcap")
    except ConfigError:  # nothing yet
        return False
    return all(written.get(topic, 0) >= count for topic, count in topics.items())


def test_everything_is_recorded_and_closed(ros, robot, diagnostics, random_bundle, tmp_path):
    """Bundle and parameters are told once, before the recorder is there."""
    told = ros.collect(String, ROBOT.interfaces.policy_identity, LATCHED)
    ros.start("fastwam_policy", "policy_node", policy=random_bundle, replan_interval=0.75)
    ros.until(lambda: told)
    session = tmp_path / "session"
    recorder, recording = record(ros, session), session / "recording"
    ros.until(lambda: any(s.name == "recorder_node: recording" for m in diagnostics for s in m.status))
    once = (ROBOT.interfaces.policy_identity, "policy_node/parameters", "recorder_node/parameters")
    always = (ARM.feedback, POSE, CHASSIS, ROBOT.interfaces.bridge_status)
    ros.until(lambda: holds(recording, **dict.fromkeys((*once, *always), 1)))
    recorder.send_signal(signal.SIGINT)
    output = ros.finish(recorder)
    assert recorder.returncode == 0, output
    assert "motion_control/control_arm_left (hdas_msg/msg/MotorControl)" in output
    assert (recording / "metadata.yaml").is_file()
    written = counts(recording)
    assert all(written[topic] for topic in (*once, *always))
    assert ROBOT.cameras["head"].topic not in written, "images are recorded on demand"
    assert "hdas/feedback_status_arm_left" not in written, "its type is not installed"
    (parameters,) = messages(recording, "policy_node/parameters")
    assert yaml.safe_load(parameters.data)["/policy_node"]["ros__parameters"]["replan_interval"] == 0.75
    own = messages(recording, "recorder_node/parameters")  # a latched message may come twice on a busy machine
    assert len({message.data for message in own}) == 1
    assert not messages(recording, "bridge_node/parameters")
    identity = read_session(recording, ROBOT).identity
    assert (identity["name"], identity["origin"]) == ("random_tiny", "random")
    assert identity["sha256"] == sha256((random_bundle / "model.safetensors").read_bytes()).hexdigest()
    again = record(ros, session)
    assert "recordings are never overwritten" in ros.finish(again)


def test_a_paused_recorder_goes_on_in_a_file_of_its_own(ros, robot, tmp_path):
    session = tmp_path / "session"
    recorder = record(ros, session)
    first, second = session / "recording", session / "recording_2"
    ros.until(lambda: holds(first, **{ARM.feedback: 20}))
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
        ros.change_state("recorder_node", transition)
    ros.until(lambda: holds(second, **{ARM.feedback: 20}))
    recorder.send_signal(signal.SIGINT)
    ros.finish(recorder)
    assert recorder.returncode == 0
    before, after = (read_session(folder, ROBOT).feedback["left_arm"].positions[:, 0] for folder in (first, second))
    assert len(before) > 10
    assert len(after) > 10
    assert before[-1] < after[0]


def test_a_killed_recorder_leaves_a_readable_file(ros, robot, tmp_path, capsys):
    session = tmp_path / "session"
    recorder = record(ros, session, images=True)
    file = session / "recording" / "recording.mcap"
    enough = {ARM.feedback: 100, ROBOT.interfaces.bridge_status: 101, ROBOT.cameras["head"].topic: 51}
    ros.until(lambda: holds(file.parent, **enough))
    recorder.send_signal(signal.SIGKILL)
    recorder.wait()
    end = next(robot.number)
    assert not (file.parent / "metadata.yaml").exists()
    before = file.read_bytes()
    for source in (file.parent, file):
        data = read_session(source, ROBOT)
        numbers = data.feedback["left_arm"].positions[:, 0]
        assert numbers[-1] > end - LATE * 50 - 10, "all but the last second"
        assert np.median(np.diff(numbers)) == 1
        assert (np.diff(numbers) > 0).all()
        assert len(data.bridge_status) > 100
    written = counts(file)
    assert written[ROBOT.cameras["head"].topic] > 50
    with closing(open_recording(file)) as reader:
        assert sum(1 for _ in reader.messages()) == reader.message_count == sum(written.values())
        middle = (reader.start_time + reader.end_time) // 2
        later = [stamp for _, stamp, _ in reader.messages(start=middle)]
        assert later == sorted(later)
        assert later[0] >= middle
        assert 0 < len(later) < reader.message_count
    with pytest.raises(SystemExit) as status:
        main(["report", str(session)])
    assert status.value.code == 0, capsys.readouterr().err
    page = (session / "report.html").read_text()
    assert "TRACKING 100 %" in page
    assert file.read_bytes() == before, "the recording is left as it was"


def test_a_full_disk_ends_the_recording_and_nothing_else(ros, robot, diagnostics, tmp_path):
    """A limit on the size of files stands for the disk: the error comes from the same call."""
    session = tmp_path / "session"
    program = ros.program("fastwam_policy", "recorder_node")
    kibibytes = 8192
    recorder = ros.run(
        "bash", "-c", f"ulimit -f {kibibytes}; exec {program} --ros-args -p images:=true -p output:={session}"
    )
    errors = ros.until(
        lambda: [s for m in diagnostics for s in m.status if s.level == DiagnosticStatus.ERROR and "ended" in s.message]
    )
    assert "File too large" in errors[0].message
    ros.until(lambda: "What is on the disk stays readable" in ros.output(recorder))
    ros.until(
        lambda: any(int(v.value) > 50 for m in diagnostics for s in m.status for v in s.values if v.key == "dropped")
    )
    assert recorder.poll() is None, "the others go on, and so does this node"
    recorder.send_signal(signal.SIGINT)
    ros.finish(recorder)
    assert recorder.returncode == 0
    file = session / "recording" / "recording.mcap"
    assert file.stat().st_size == kibibytes * 1024
    numbers = read_session(file.parent, ROBOT).feedback["left_arm"].positions[:, 0]
    assert len(numbers) > 50
    assert np.median(np.diff(numbers)) == 1


@pytest.fixture
def writer(tmp_path):
    return RecordingWriter(tmp_path / "recording", {"/a": STRING}, typestore())


def test_a_slow_disk_drops_and_counts_but_never_blocks(writer, tmp_path, monkeypatch):
    """The disk stands still from the first flush on."""
    stuck, go_on = Event(), Event()
    monkeypatch.setattr(recording_writer.os, "fsync", lambda _: stuck.set() or go_on.wait())
    monkeypatch.setattr(recording_writer, "QUEUE_BYTES", 10_000)
    data = bytes(typestore().serialize_cdr(typestore().types[STRING](data="x" * 84), STRING))
    for stamp in count(1):
        writer.put("/a", stamp, data)
        if stuck.wait(0.01):
            break
    begin = time.monotonic()
    for later in range(stamp + 1, stamp + 1001):
        writer.put("/a", later, data)
    assert time.monotonic() - begin < 1.0
    assert writer.waiting <= 10_000
    assert writer.dropped >= 1000 - 10_000 // len(data)
    assert not writer.error
    go_on.set()
    writer.close()
    assert writer.written == stamp + 1000 - writer.dropped
    assert len(messages(tmp_path / "recording", "a")) == writer.written


def test_a_disk_that_fails_while_closing(writer, tmp_path, monkeypatch):
    data = bytes(typestore().serialize_cdr(typestore().types[STRING](data="x"), STRING))
    monkeypatch.setattr(recording_writer.McapWriter, "close", lambda *_: (_ for _ in ()).throw(OSError(28, "no space")))
    writer.put("/a", 5, data)
    until(lambda: holds(tmp_path / "recording", a=1))
    writer.close()
    assert "no space" in writer.error
    writer.put("/a", 6, data)
    assert writer.dropped == 1
    assert [message.data for message in messages(tmp_path / "recording", "a")] == ["x"]


def test_the_folder_must_be_new(writer, tmp_path):
    with pytest.raises(ConfigError, match="cannot be written.* exists already"):
        RecordingWriter(tmp_path / "recording", {"/a": STRING}, typestore())
    writer.close()


def test_types_of_other_installed_packages_are_found(tmp_path, monkeypatch):
    share = tmp_path / "share"
    (share / "ament_index" / "resource_index" / "packages").mkdir(parents=True)
    (share / "ament_index" / "resource_index" / "packages" / "hdas_msg").touch()
    (share / "hdas_msg" / "msg").mkdir(parents=True)
    (share / "hdas_msg" / "msg" / "Detail.msg").write_text("uint32 error_code\n")
    (share / "hdas_msg" / "msg" / "Status.msg").write_text("std_msgs/Header header\nDetail[] errors\n")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path}:{os.environ['AMENT_PREFIX_PATH']}")
    topics = {"/a": "hdas_msg/msg/Status", "/b": STRING}
    store = typestore(topics.values())
    writer = RecordingWriter(tmp_path / "recording", topics, store)
    kinds = store.types
    header = kinds["std_msgs/msg/Header"](kinds["builtin_interfaces/msg/Time"](1, 2), "frame")
    status = kinds["hdas_msg/msg/Status"](header, [kinds["hdas_msg/msg/Detail"](7)])
    writer.put("/a", 5, bytes(store.serialize_cdr(status, "hdas_msg/msg/Status")))
    writer.close()
    monkeypatch.undo()
    (read,) = messages(tmp_path / "recording", "a")
    assert read.errors[0].error_code == 7, "the recording carries its types"


def test_cut_anywhere_the_rest_is_read(short_bag, tmp_path):
    """A finished recording, cut at many places: what is complete before the cut is read, and nothing else."""
    whole = next(short_bag.glob("*.mcap")).read_bytes()
    cut = tmp_path / "cut.mcap"
    read = []
    for size in np.linspace(0, len(whole) - 1, 40).astype(int):
        cut.write_bytes(whole[:size])
        try:
            with closing(open_recording(cut)) as reader:
                read.append(sum(1 for _ in reader.messages()))
                assert read[-1] == reader.message_count
        except ConfigError:
            read.append(0)
    with closing(open_recording(short_bag)) as reader:
        assert read[-1] == reader.message_count
    assert read == sorted(read)
    assert len(set(read)) >= 3
