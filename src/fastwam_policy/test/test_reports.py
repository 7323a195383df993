"""The report of a session: its video, from whatever cameras were recorded; and recordings of older versions."""

import hashlib
import json
import re
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from ament_index_python.packages import get_package_share_directory
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from fastwam_policy.data.message_types import typestore
from fastwam_policy.data.recordings import open_recording
from fastwam_policy.reports.page import uplot
from fastwam_policy.reports.report import report_session, write_report
from fastwam_policy.reports.session import RecordedChunk, Session, read_session
from fastwam_policy.reports.summary import headline, summarise
from fastwam_policy.reports.timeline import timeline
from fastwam_policy.reports.video import session_video
from galaxea_r1lite_bridge.execution.reasons import State
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
    stamps = session_video(recording(short_bag, tmp_path / "bag", cameras), ROBOT, tmp_path / "video.mp4")
    with av.open(str(tmp_path / "video.mp4")) as video:
        assert 30 < video.streams.video[0].frames == len(stamps) < 50
    assert (np.diff(stamps) > 0).all()


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


def made_up():
    """A session of 8 s: armed at 1 s, a chunk at 2 s, held by the table from 4 s to 6 s, folded at 7 s."""
    begin = 50 * 10**9

    def status(tenth, state, reason=0, limits=0):
        count = SimpleNamespace(reason=510, text="the </script> table", count=limits)
        stamp = SimpleNamespace(sec=50 + tenth // 10, nanosec=tenth % 10 * 10**8)
        return SimpleNamespace(
            header=SimpleNamespace(stamp=stamp), state=state, reason=reason, drops=[], interventions=[count],
            plan_age=float("nan"), plan_lag=0.0, seam=0.1, control_rate=100.0,
            control_period_p99=10.0, control_period_max=12.0,
        )  # fmt: skip

    bridge = [status(tenth, State.DISARMED, 100) for tenth in range(10)]
    bridge += [status(tenth, State.TRACKING) for tenth in range(10, 40)]
    bridge += [status(tenth, State.HOLDING, 510, 1) for tenth in range(40, 60)]
    bridge += [status(tenth, State.TRACKING, limits=1) for tenth in range(60, 80)]
    chunk = RecordedChunk(7, 2.0 + np.arange(30) / 15, np.full((30, len(ROBOT.joint_names)), 0.25), (1.0,) * 5)
    scene = {"task": "fold", "seed": 3, "distance": 0.01, "real_time_factor": 1.0}
    done = [SimpleNamespace(success=time == 7.0, time=time, **scene) for time in (6.0, 7.0)]
    return Session(8.0, chunks=[chunk], bridge_status=bridge, simulation=done, begin_ns=begin)


def test_the_headline_says_what_happened_and_why_it_was_held():
    said = headline(summarise(made_up(), ROBOT))
    assert said == (
        "Towel folded in 7.0 s. Held 25 % of the time: 510 an arm would come too close to the table plane (25 %)."
    )
    assert headline(summarise(Session(3.0), ROBOT)) == "3.0 s, 0 chunks."


def test_the_timeline_has_states_chunks_and_interventions():
    lanes = {lane.name: lane.marks for lane in timeline(made_up()).lanes}
    assert [(mark.kind, mark.begin, mark.end) for mark in lanes["state"]] == [
        ("disarmed", 0.0, 1.0), ("tracking", 1.0, 4.0), ("holding", 4.0, 6.0), ("tracking", 6.0, 8.0),
    ]  # fmt: skip
    assert [(mark.begin, mark.text) for mark in lanes["chunks"]] == [(2.0, "chunk 7, 1 ms")]
    assert [(mark.begin, mark.text) for mark in lanes["interventions"]] == [(4.0, "510 the </script> table")]
    assert timeline(Session(0.0)).lanes == []


def test_the_page_holds_all_that_it_shows(tmp_path):
    session = made_up()
    write_report(tmp_path / "report.html", session, summarise(session, ROBOT), ROBOT, None, "made up")
    page = (tmp_path / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)|url\((?!data:)|@import", page)
    assert page.count("</script>") == 2, "uPlot's, and the page's own"
    drawn = json.loads(re.search(r"const session = (\{.*\});\n", page)[1])
    assert drawn["chunks"][0]["begin"] == 2.0
    assert len(drawn["chunks"][0]["actions"]) == len(ROBOT.joint_names)
    (bridge,) = (section for section in drawn["sections"] if section["title"] == "Bridge")
    assert bridge["x"][10] == 1.0
    assert bridge["charts"][0]["lines"][0]["values"][10] is None, "NaN is no JSON"


def test_the_plots_library_is_unchanged():
    """What youplot carries is uPlot as its author publishes it on npm, 1.6.31."""
    digest = "2d27e8ad3d228164525ce213f9dc716f39b4e3aee0cc773fb3491c96cf4921a2"
    library = uplot()
    assert hashlib.sha256(library["uplot_js"].encode()).hexdigest() == digest
    assert library["uplot_version"] == "1.6.31"
