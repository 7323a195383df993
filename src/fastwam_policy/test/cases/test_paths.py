"""What a dataset names stays inside its folder, and what it holds is bounded."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastwam_policy.common import json_files
from fastwam_policy.data import lerobot_index
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .made import KEYS, as_written, dataset, edit_episodes, edit_info, read, table, video

pytestmark = pytest.mark.training

OUTSIDE = [
    "/etc/{episode_index}",
    "../other/episode_{episode_index:06d}.parquet",
    "data/../../x_{episode_index}",
    "C:\\data\\{episode_index}",
    "..\\other\\{episode_index}",
    "data/\0{episode_index}",
    "",
    None,
    ["data"],
]
NO_PATTERN = [
    "data/{0}", "data/{episode_index.__class__}", "data/{episode_index[0]}", "data/{home}", "data/{episode_index!r}",
    "data/{episode_index:0999999999d}", "data/{episode_index:{episode_chunk}}", "data/{episode_index", "data/}",
]  # fmt: skip


@pytest.mark.parametrize("key", ["data_path", "video_path"])
@pytest.mark.parametrize("pattern", [*OUTSIDE, *NO_PATTERN], ids=repr)
def test_a_path_that_leads_out_or_is_none_is_refused(tmp_path, key, pattern):
    with pytest.raises(ConfigError, match=rf"info\.json: {key}") as refused:
        read(edit_info(dataset(tmp_path / "data", (2, 2)), lambda info: info.update({key: pattern})))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["../../x", -1, 1.5, None])
def test_a_place_that_is_no_number_is_refused(tmp_path, value):
    folder = dataset(tmp_path, (2,), version="v3.0")
    with pytest.raises(ConfigError, match="row 0: data/chunk_index: must be a whole number"):
        read(edit_episodes(folder, lambda rows: rows[0].update({"data/chunk_index": value})))


def test_a_time_that_is_no_number_is_refused(tmp_path):
    folder = dataset(tmp_path, (2,), version="v3.0")
    key = f"videos/{KEYS[0]}/from_timestamp"
    with pytest.raises(ConfigError, match="from_timestamp must be a number of seconds, got nan"):
        read(edit_episodes(folder, lambda rows: rows[0].update({key: float("nan")})))


def test_links_may_lead_out(tmp_path):
    """Hub caches consist of them."""
    folder = dataset(tmp_path / "data", (4,))
    for path in (table(folder), *(video(folder, 0, key) for key in KEYS), folder / "meta" / "info.json"):
        blob = tmp_path / f"blob_{abs(hash(path))}"
        path.rename(blob)
        os.symlink(blob, path)
    _, found = read(folder)
    assert found == {0: as_written(4)}


@pytest.mark.parametrize("what", ["*.mp4", "*.parquet", "info.json", "episodes.jsonl"])
def test_a_pointer_of_git_lfs_is_named(tmp_path, what):
    folder = dataset(tmp_path, (4, 4))
    path = sorted(folder.rglob(what))[0]
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    message = f"{path}: is a git-lfs pointer, not the file itself; run git lfs pull"
    if path.parent.name == "meta":
        with pytest.raises(ConfigError) as refused:
            read(folder)
        assert str(refused.value) == message
    else:
        assert read(folder)[1] == {0: message, 1: as_written(4)}


def test_files_that_are_too_long_are_refused(tmp_path, monkeypatch):
    folder = dataset(tmp_path, (4,))
    monkeypatch.setattr(lerobot_index, "MAX_ROWS", 3)
    assert "has 4 rows, more than 3" in str(_refusal(folder))
    monkeypatch.setattr(json_files, "MAX_LINES", 0)
    assert "line 1: too long" in str(_refusal(folder))
    monkeypatch.setattr(json_files, "MAX_JSON", 100)
    assert "info.json: longer than 100 bytes" in str(_refusal(folder))


def _refusal(folder):
    try:
        return read(folder)[1][0]
    except ConfigError as error:
        return error


def test_a_table_with_other_rows_than_its_meta_is_refused(tmp_path):
    folder = dataset(tmp_path, (4,))
    pq.write_table(pa.concat_tables([pq.read_table(table(folder))] * 2), table(folder))
    assert "episode 0 has 8 rows, meta says 4" in read(folder)[1][0]


@pytest.mark.parametrize("features", [None, [], {"action": 7}], ids=str)
def test_features_that_are_none_are_refused(tmp_path, features):
    with pytest.raises(ConfigError, match="features must be"):
        read(edit_info(dataset(tmp_path, (2,)), lambda info: info.update(features=features)))


def test_an_info_that_is_no_json_is_refused(tmp_path):
    path = dataset(tmp_path, (2,)) / "meta" / "info.json"
    for text in ("", "[]", "{", json.dumps({"fps": 15}), "[" * 10**6, "\ufffe"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=r"info\.json: "):
            read(tmp_path)
