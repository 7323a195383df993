"""Who commanded each row: from recordings and the simulator into datasets, and out of them again."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from fastwam_policy.data.lerobot_layout import INTERVENTION
from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.data.lerobot_writer import Dataset
from fastwam_policy.reports.session import Session
from fastwam_policy.reports.summary import rows, summarise
from galaxea_r1lite_bridge.execution.reasons import State
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from . import made
from .bags import BEGIN, SECOND, STATUS, changed, convert, messages, status, write
from .made import CAMERAS, FPS, ROBOT
from .test_doctor import check
from .test_statistics import status as told

pytestmark = pytest.mark.training
FROM, UNTIL = 0.21, 0.47  # s in which a person commands: rows 4 to 7 of ten


def recorded(shift=0, size=(32, 24)):
    """A takeover, told at 10 Hz and on every change; `shift` s are added to the bridge's stamps."""
    times = sorted([*(k / 10 for k in range(7)), FROM, UNTIL])
    states = [(time, State.TAKEOVER if FROM <= time < UNTIL else State.TRACKING) for time in times]
    stamps = [(BEGIN + round(time * SECOND), state) for time, state in states]
    sent = [(stamp, STATUS, status(stamp + shift * SECOND, state)) for stamp, state in stamps]
    return sorted([*messages(size=size), *sent], key=lambda entry: entry[0])


def taken_over(folder):
    reader = Reader(folder, ROBOT, FPS, CAMERAS)
    return {episode.index: np.flatnonzero(reader.interventions(episode)).tolist() for episode in reader.episodes}


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_recording_says_who_commanded_each_row(tmp_path, version):
    """Its rows keep the commanded action, like all others."""
    folder = tmp_path / "data"
    bag = write(tmp_path / "bag", recorded())
    assert convert(bag, "--output", folder, "--format", version) == 0
    assert taken_over(folder) == {0: [4, 5, 6, 7]}
    feature = json.loads((folder / "meta" / "info.json").read_text())["features"][INTERVENTION]
    assert (feature["dtype"], feature["shape"], feature["names"]) == ("float32", [1], ["is_intervention"])
    table = pq.read_table(next((folder / "data").rglob("*.parquet")))
    assert str(table.schema.field(INTERVENTION).type) == "float"
    assert convert(write(tmp_path / "plain", messages()), "--output", tmp_path / "alone", "--format", version) == 0
    vectors = [
        reader.vectors(reader.episodes[0])
        for reader in (Reader(path, ROBOT, FPS, CAMERAS) for path in (folder, tmp_path / "alone"))
    ]
    np.testing.assert_array_equal(*vectors)


def test_without_a_bridge_nobody_has_taken_over(tmp_path):
    assert convert(write(tmp_path / "bag", messages()), "--output", tmp_path / "data") == 0
    assert taken_over(tmp_path / "data") == {0: []}


def test_what_is_not_known_yet_is_not_a_takeover(tmp_path):
    """The recorder was started in the middle of one: the rows before the first status are nobody's."""
    late = [entry for entry in recorded() if entry[1] != STATUS or entry[0] >= BEGIN + 0.4 * SECOND]
    assert convert(write(tmp_path / "bag", late), "--output", tmp_path / "data") == 0
    assert taken_over(tmp_path / "data") == {0: [6, 7]}


def test_a_bridge_on_another_clock(tmp_path, capsys):
    """Targets and states have the bridge's stamps, everything else the robot's."""
    targets = {f"/{group.target}" for group in ROBOT.commanded.values()}
    sent = recorded(shift=-7)
    for topic in targets:
        sent = changed(lambda _, log, message: later(message, -7), topic, sent)
    assert convert(write(tmp_path / "bag", sent), "--output", tmp_path / "data") == 0
    assert "the clock of action left_arm is 7.00 s behind" in capsys.readouterr().err
    assert taken_over(tmp_path / "data") == {0: [4, 5, 6, 7]}


def later(message, seconds):
    message.header.stamp.sec += seconds
    return message


def test_states_that_cannot_be_read_are_as_none(tmp_path, capsys):
    sent = changed(lambda *_: b"\x00\x01\x00\x00", STATUS, recorded())
    assert convert(write(tmp_path / "bag", sent), "--output", tmp_path / "data") == 0
    assert taken_over(tmp_path / "data") == {0: []}
    assert "bridge" not in capsys.readouterr().err


def older(folder, lengths=(12,)):
    """A dataset of a version that did not know the column."""
    made.dataset(folder, lengths)
    for part in (folder / "meta" / "parts").iterdir():
        about = json.loads(part.read_text())
        del about["stats"][INTERVENTION]
        part.write_text(json.dumps(about))
    for path in (folder / "data").rglob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns([INTERVENTION]), path)
    (folder / "meta" / "convert.txt").write_text("fps: 15\n")
    Dataset(folder, ROBOT, FPS).finish()
    return folder


def test_an_older_dataset_goes_on_without_the_column(tmp_path, capsys):
    folder, plain = older(tmp_path / "data"), write(tmp_path / "plain", messages(size=(64, 48)))
    assert taken_over(folder) == {0: []}
    assert convert(plain, "--output", folder) == 0
    assert taken_over(folder) == {0: [], 1: []}
    assert INTERVENTION not in json.loads((folder / "meta" / "info.json").read_text())["features"]
    capsys.readouterr()
    assert convert(write(tmp_path / "bag", recorded(size=(64, 48))), "--output", folder) == 2
    said = capsys.readouterr().err
    assert f"has rows of a takeover, and {folder} was begun without the column {INTERVENTION}" in said
    assert "write it into another folder" in said
    assert taken_over(folder) == {0: [], 1: []}


@pytest.mark.parametrize(("value", "shown"), [(0.5, "0.5"), (None, "nan")])
def test_another_value_is_named(tmp_path, value, shown):
    said = f"{INTERVENTION} must be 0 or 1 in each row, got {shown}"
    made.edit_column(made.dataset(tmp_path), INTERVENTION, lambda values: [*values[:5], value, *values[6:]])
    with pytest.raises(ConfigError, match=said):
        taken_over(tmp_path)
    assert said in made.read(tmp_path)[1][0]


def test_an_episode_says_it_for_each_row(tmp_path):
    with pytest.raises(ConfigError, match=r"intervention: shape \(3,\), but the episode has 12 frames"):
        Dataset(tmp_path, ROBOT, FPS).write(0, replace(made.episode(), intervention=np.ones(3, bool)))


def test_checks_say_how_much_was_taken_over(tmp_path, capsys):
    bag, folder = write(tmp_path / "bag", recorded()), tmp_path / "data"
    check(tmp_path, "check-recording", bag, "--quick")
    assert "bag: taken over in 40.0% of the rows, nothing wrong" in capsys.readouterr().out
    assert json.loads((tmp_path / "figures.json").read_text())[0]["intervention"] == 0.4
    assert convert(bag, "--output", folder) == 0
    check(tmp_path, "check-dataset", folder, "--quick", "--fix", tmp_path / "fixed")
    assert "data: 1 episode, taken over in 40.0% of the rows, nothing wrong" in capsys.readouterr().out
    assert taken_over(tmp_path / "fixed") == {0: [4, 5, 6, 7]}


def test_the_report_says_how_often_and_how_long():
    counts = {"drops": [], "interventions": [], "reason": 0, "control_rate": 100.0, "control_period_p99": 10.0}
    states = [State.TRACKING, State.TAKEOVER, State.TAKEOVER, State.TRACKING, State.TAKEOVER]
    bridge = [told(k, state=state, control_period_max=10.0, **counts) for k, state in enumerate(states)]
    summary = summarise(Session(5.0, bridge_status=bridge), ROBOT)
    assert ("taken over", "2 x, 60 % of the time") in rows(summary)
    summary = summarise(Session(5.0, bridge_status=bridge[:1]), ROBOT)
    assert "taken over" not in dict(rows(summary))
