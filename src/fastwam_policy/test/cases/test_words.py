"""Instructions: whole sentences, as they were written, each at its rows."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .made import LENGTH, dataset, edit_column, edit_episodes, edit_info, edit_lines, read

pytestmark = pytest.mark.training
TOWEL, AWAY = "fold the towel", "put it away"


def each(**entries):
    return lambda rows: [row.update(entries) for row in rows] and None


def renamed(rows):
    for row in rows:
        row["task"] = row.pop("tasks")[0]


def as_text(change):
    return lambda rows: change("".join(json.dumps(row) + "\n" for row in rows))


WHOLE = {
    "a string": (each(tasks=TOWEL), TOWEL),
    "task": (renamed, TOWEL),
    "line separator": (each(tasks=["fold\u2028the\u0085towel\x0b"]), "fold\u2028the\u0085towel\x0b"),
    "Chinese": (each(tasks=["折叠毛巾 🧺"]), "折叠毛巾 🧺"),
    "right to left": (each(tasks=["قم بطي المنشفة"]), "قم بطي المنشفة"),
    "byte-order mark": (as_text(lambda text: "\ufeff" + text), TOWEL),
    "blank lines": (as_text(lambda text: "\n" + text.replace("\n", "\n \n\n")), TOWEL),
    "Windows' lines": (as_text(lambda text: text.replace("\n", "\r\n")), TOWEL),
    "NaN beside it": (each(quality=float("nan")), TOWEL),
    "length as a float": (lambda rows: each(length=float(LENGTH))(rows), TOWEL),
    "none: its rows say it": (each(tasks=[]), TOWEL),
    "an empty one: its rows say it": (each(tasks=["", " "]), TOWEL),
    "null: its rows say it": (each(tasks=None), TOWEL),
    "the same one twice": (each(tasks=[TOWEL, TOWEL]), TOWEL),
}


@pytest.mark.parametrize(("change", "sentence"), WHOLE.values(), ids=WHOLE)
def test_the_whole_sentence_is_the_instruction(tmp_path, change, sentence):
    reader, _ = read(edit_lines(dataset(tmp_path), change))
    assert [episode.task for episode in reader.episodes] == [sentence] * 2
    assert reader.instructions(reader.episodes[1]) == [sentence] * LENGTH


@pytest.mark.parametrize("tasks", [TOWEL, [TOWEL], [], None], ids=str)
def test_the_whole_sentence_of_version_3(tmp_path, tasks):
    reader, _ = read(edit_episodes(dataset(tmp_path, version="v3.0"), each(tasks=tasks)))
    assert [episode.task for episode in reader.episodes] == [TOWEL] * 2


def two_tasks(folder, tasks=(TOWEL, AWAY)):
    edit_lines(dataset(folder), lambda rows: rows[0].update(tasks=list(tasks)))
    edit_lines(folder, lambda rows: rows.append({"task_index": 1, "task": AWAY}), "tasks")
    return edit_column(folder, "task_index", lambda values: [0] * 4 + [1] * (len(values) - 4))


def test_each_row_chooses_where_an_episode_has_several(tmp_path):
    reader, _ = read(two_tasks(tmp_path))
    assert reader.instructions(reader.episodes[0]) == [TOWEL] * 4 + [AWAY] * (LENGTH - 4)
    assert reader.episodes[0].task == TOWEL
    assert reader.instructions(reader.episodes[1]) == [TOWEL] * LENGTH


def test_a_choice_that_means_nothing_is_refused_with_file_and_line(tmp_path):
    (two_tasks(tmp_path) / "meta" / "tasks.jsonl").write_text('{"task_index": 0, "task": "fold the towel"}\n')
    reader, _ = read(tmp_path)
    assert [episode.index for episode in reader.episodes] == [1]
    assert "episodes.jsonl line 1: episode 0 has 2 tasks" in reader.notes[0]
    assert "has task_index 1, which is not in meta/tasks" in reader.notes[0]


def test_a_choice_that_is_there_twice_is_refused(tmp_path):
    edit_lines(two_tasks(tmp_path), lambda rows: rows.append({"task_index": 1, "task": "wave"}), "tasks")
    reader, _ = read(tmp_path)
    assert re.search(r"tasks\.jsonl line 3: task_index 1 is 'wave', and 'put it away' before", reader.notes[0])


def test_rows_that_say_another_sentence_are_said(tmp_path):
    reader, _ = read(edit_lines(dataset(tmp_path), each(tasks=[AWAY])))
    reader.leave_out_unusable()
    assert [episode.task for episode in reader.episodes] == [AWAY] * 2
    assert re.search(
        r"episode 0: its rows say 'fold the towel', .*line 1 says 'put it away': that is used", reader.notes[0]
    )
    (tmp_path / "meta" / "tasks.jsonl").write_text("nothing\n")  # nobody needs it
    reader, _ = read(tmp_path)
    reader.leave_out_unusable()
    assert len(reader.episodes) == 2


def test_tasks_without_numbers_in_pandas_way(tmp_path):
    """lerobot 0.4 keeps the sentences in the index of its table."""
    edit_episodes(dataset(tmp_path, version="v3.0"), each(tasks=[]))
    pq.write_table(pa.table({"task_index": [0], "__index_level_0__": [AWAY]}), tmp_path / "meta" / "tasks.parquet")
    reader, _ = read(tmp_path)
    assert reader.episodes[0].task == AWAY


REFUSED = {
    "a number": (each(tasks=[7]), r"episodes\.jsonl line 1: tasks must be sentences, got '\[7\]'"),
    "an object": (each(tasks={"en": TOWEL}), r"line 1: tasks must be sentences"),
    "no JSON": (as_text(lambda text: text + "{"), r"episodes\.jsonl line 3: not JSON"),
    "a list": (as_text(lambda text: text + "[]\n"), r"episodes\.jsonl line 3: expected a JSON object, got list"),
    "no length": (lambda rows: rows[1].pop("length") and None, r"line 2: length: must be a whole number"),
    "half a frame": (each(length=11.5), r"line 1: length: must be a whole number from 0 on, got '11.5'"),
    "a number below 0": (each(episode_index=-1), r"line 1: episode_index: must be a whole number"),
    "true": (each(episode_index=True), r"line 1: episode_index: must be a whole number"),
    "deep": (as_text(lambda _: "[" * 100_000), r"line 1: not JSON"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_sentence_is_refused_with_file_and_line(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message) as refused:
        read(edit_lines(dataset(tmp_path), change))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["15", None, True, [15]], ids=str)
def test_a_rate_that_is_no_number_is_refused(tmp_path, value):
    with pytest.raises(ConfigError, match="fps must be a number"):
        read(edit_info(dataset(tmp_path), lambda info: info.update(fps=value)))


def test_a_rate_that_was_rounded_is_the_same(tmp_path):
    read(edit_info(dataset(tmp_path), lambda info: info.update(fps=15.000001)))
