"""Recordings of broken and hostile publishers: a report is made of what is good, and nothing in them is run."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress
from rosbags.rosbag2 import StoragePlugin, Writer

import fastwam_policy
from fastwam_policy.cli.main import main
from fastwam_policy.common.console import PlainConsole
from fastwam_policy.common.progress import counted
from fastwam_policy.data.message_types import COMPRESSED_IMAGE, JOINT_STATE
from fastwam_policy.reports.report import report_session
from fastwam_policy.reports.session import read_session
from fastwam_policy.reports.summary import summarise, table
from galaxea_r1lite_bridge.robot.config import RobotConfig

from .cases.bags import STORE, blank

ROBOT = RobotConfig.load()
PACKAGE = Path(fastwam_policy.__file__).parent
NAMES = ROBOT.interfaces
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>[/red][bold]{{7*7}}$x_{$ \x1b[2J :skull:"
SERIES, CAMERA = ROBOT.groups["left_arm"], ROBOT.cameras["head"].topic
KINDS = {
    NAMES.action_chunk: "fastwam_msgs/msg/ActionChunk", NAMES.policy_status: "fastwam_msgs/msg/PolicyStatus",
    NAMES.bridge_status: "fastwam_msgs/msg/BridgeStatus", NAMES.policy_identity: "std_msgs/msg/String",
    SERIES.feedback: JOINT_STATE, f"{ROBOT.recorded_prefix}/{SERIES.target}": JOINT_STATE,
    CAMERA: COMPRESSED_IMAGE,
}  # fmt: skip
GOOD = 5
"""Messages of each topic before the odd ones."""


def messages(number, stamp_ns):
    """Of each topic one that a healthy session has."""
    result = {topic: blank(kind) for topic, kind in KINDS.items()}
    for message in result.values():
        if hasattr(message, "header"):
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    chunk = result[NAMES.action_chunk]
    chunk.chunk_id, chunk.step.nanosec, chunk.trajectory.joint_names = number, 66_666_667, list(ROBOT.joint_names)
    chunk.trajectory.points = [blank("trajectory_msgs/msg/JointTrajectoryPoint") for _ in range(4)]
    for point in chunk.trajectory.points:
        point.positions = np.zeros(14)
    for topic in (SERIES.feedback, f"{ROBOT.recorded_prefix}/{SERIES.target}"):
        result[topic].position = np.full(6, 0.01 * number)
    result[NAMES.policy_status].chunks = number
    result[NAMES.policy_status].streams = [blank("fastwam_msgs/msg/StreamStatus")] * 3
    result[NAMES.bridge_status].state = 3
    result[NAMES.policy_identity].data = "name: x\norigin: trained\nsource: /x\nsha256: abc\n"
    return result


def session(folder, *spoils, raw=None, kinds=None):
    """A session's folder. Each of `spoils` changes the messages of one time, `raw` replaces bytes by topic."""
    kinds = KINDS | (kinds or {})
    folder.mkdir()
    with Writer(folder / "recording", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        outputs = {topic: writer.add_connection(f"/{topic}", kind, typestore=STORE) for topic, kind in kinds.items()}
        for number, spoil in enumerate([*[None] * GOOD, *spoils]):
            stamp = 1_700_000_000_000_000_000 + number * 100_000_000
            sent = messages(number, stamp)
            if spoil:
                spoil(sent)
            for topic, kind in kinds.items():
                data = STORE.serialize_cdr(sent[topic] if KINDS[topic] == kind else blank(kind), kind)
                if number == 1 and raw and topic in raw:
                    data = raw[topic]
                writer.write(outputs[topic], stamp, data)
    return folder


def summary_of(folder):
    return summarise(read_session(folder / "recording", ROBOT), ROBOT)


def points(change):
    """Change the points of a chunk."""
    return lambda sent: change(sent[NAMES.action_chunk].trajectory.points)


def put(topic, name, value):
    """Set a field of a message, with dots."""
    *path, last = name.split(".")

    def spoil(sent):
        place = sent[topic]
        for part in path:
            place = getattr(place, part)
        setattr(place, last, value)

    return spoil


CHUNK, FEEDBACK, IDENTITY = NAMES.action_chunk, SERIES.feedback, NAMES.policy_identity
LEFT_OUT = {
    "other joints": (CHUNK, put(CHUNK, "trajectory.joint_names", ["x"] * 14)),
    "no points": (CHUNK, put(CHUNK, "trajectory.points", [])),
    "ragged points": (CHUNK, points(lambda p: setattr(p[1], "positions", np.zeros(3)))),
    "chunk of NaN": (CHUNK, points(lambda p: setattr(p[1], "positions", np.full(14, np.nan)))),
    "huge chunk": (CHUNK, points(lambda p: setattr(p[1], "positions", np.full(14, 1e308)))),
    "long chunk": (CHUNK, points(lambda p: p.extend(p[:1] * 50_000))),
    "no step": (CHUNK, put(CHUNK, "step.nanosec", 0)),
    "step back": (CHUNK, put(CHUNK, "step.sec", -5)),
    "latency NaN": (CHUNK, put(CHUNK, "total_ms", float("nan"))),
    "chunk far": (CHUNK, put(CHUNK, "header.stamp.sec", 2**31 - 1)),
    "feedback NaN": (FEEDBACK, put(FEEDBACK, "position", np.full(6, np.nan))),
    "feedback huge": (FEEDBACK, put(FEEDBACK, "position", np.full(6, 1e300))),
    "feedback short": (FEEDBACK, put(FEEDBACK, "position", np.zeros(2))),
    "feedback far": (FEEDBACK, put(FEEDBACK, "header.stamp.sec", 2**31 - 1)),
    "identity a list": (IDENTITY, put(IDENTITY, "data", "- a")),
    "identity no YAML": (IDENTITY, put(IDENTITY, "data", "a: [b")),
    "identity with aliases": (IDENTITY, put(IDENTITY, "data", "a: &a [x]\nb: *a")),
    "identity long": (IDENTITY, put(IDENTITY, "data", "x: " + "x" * 2**21)),
}


@pytest.mark.parametrize(("topic", "spoil"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_cannot_be_used_is_left_out_and_counted(tmp_path, topic, spoil):
    summary = summary_of(session(tmp_path / "session", spoil))
    assert summary["unusable"] == {f"/{topic}": 1}
    assert summary["chunks"] == GOOD + 1 - (topic == CHUNK)


STILL_USED = {
    "a chunk of another length": points(lambda p: p.pop()),
    "unknown state and reason": lambda sent: [put(NAMES.bridge_status, n, 250)(sent) for n in ("state", "reason")],
    "no streams": put(NAMES.policy_status, "streams", []),
    "other streams": put(NAMES.policy_status, "streams", [blank("fastwam_msgs/msg/StreamStatus")]),
    "identity without keys": put(IDENTITY, "data", "a: 1"),
    "empty image": put(CAMERA, "data", np.zeros(0, np.uint8)),
    "status far": put(NAMES.bridge_status, "header.stamp.sec", 2**31 - 1),
    "status NaN": put(NAMES.bridge_status, "control_rate", float("nan")),
}


@pytest.mark.parametrize("spoil", STILL_USED.values(), ids=STILL_USED)
def test_what_is_only_strange_stays(tmp_path, spoil):
    summary = summary_of(session(tmp_path / "session", spoil))
    assert summary["chunks"] == GOOD + 1
    assert not summary["unusable"]


def test_a_report_of_all_of_them(tmp_path):
    folder = session(tmp_path / "session", *(spoil for _, spoil in LEFT_OUT.values()), *STILL_USED.values())
    summary = report_session(folder, ROBOT, "odd")
    assert sum(summary["unusable"].values()) == len(LEFT_OUT)
    page = (folder / "report.html").read_text()
    assert "unusable, left out" in page
    assert "unknown state 250" in page


@pytest.mark.parametrize("topic", KINDS)
def test_bytes_that_are_no_message_and_topics_of_another_type(tmp_path, topic):
    odd = session(tmp_path / "bytes", raw={topic: b"\x00\x01\x00\x00\xff\xff\xff\xff"})
    other = session(tmp_path / "type", kinds={topic: "std_msgs/msg/Empty"})
    for folder, unusable in ((odd, 1), (other, GOOD)):
        summary = report_session(folder, ROBOT, "odd") if topic == CAMERA else summary_of(folder)
        assert sum(summary["unusable"].values()) == (0 if topic == CAMERA else unusable)


def evil(sent):
    for topic in (NAMES.policy_status, CHUNK):
        sent[topic].instruction = sent[topic].policy_id = EVIL
    sent[NAMES.policy_status].reason_text = EVIL
    sent[IDENTITY].data = json.dumps(dict.fromkeys(["name", "origin", "source", "sha256"], EVIL))
    for topic in (NAMES.policy_status, NAMES.bridge_status):
        drop = blank("fastwam_msgs/msg/DropCount")
        drop.text, drop.count = EVIL, 7
        sent[topic].drops = [drop]


def test_texts_of_others_are_only_texts(tmp_path, capsys, monkeypatch):
    """In the page and in the terminal, also as the name of a folder."""
    monkeypatch.setenv("COLUMNS", "1000")
    everywhere = session(tmp_path / "[bold]<b>x[")
    folder = session(tmp_path / "evil", *[evil] * 5)
    for path in (everywhere, folder):
        with pytest.raises(SystemExit) as ended:
            main(["report", str(path)])
        assert not ended.value.code
    page = (folder / "report.html").read_text()
    assert "&lt;script&gt;alert(2)" in page
    assert not any(code in page for code in ("<script>alert", "<img src=x", "x 49"))
    shown = capsys.readouterr().out
    assert "[/red][bold]{{7*7}}" in shown
    assert "\x1b[2J" not in shown
    assert ":skull:" in shown


def test_no_text_is_taken_for_markup():
    file = io.StringIO()
    console = PlainConsole(file=file, width=200)
    console.print(table(SUMMARY | {"instruction": EVIL}))
    with counted() as progress:
        assert isinstance(progress, Progress)
        progress.add_task("[/red]", total=1)
    assert "[/red][bold]" in file.getvalue()


SUMMARY = {
    "policy_id": "x", "random_weights": False, "duration_s": 1.0, "chunks": 0, "identity": {}, "simulation": {},
    "contacts": {},
    "latency": {}, "skew": {}, "drops": {}, "unusable": {}, "states": {}, "interventions": {}, "watchdogs": {},
    "command": {}, "open_loop_error": {},
}  # fmt: skip


def test_all_is_printed_through_it():
    """A Console or a Progress of rich's own would take markup from texts."""
    for path in PACKAGE.rglob("*.py"):
        lines = [line for line in path.read_text().splitlines() if "rich" in line and "import" in line]
        assert path.name == "console.py" or not any("Console" in line for line in lines), path
