"""Datasets at an address, whose videos do not all fit into what may be kept of them."""

import fsspec
import numpy as np
import pytest
from pydantic import TypeAdapter

from fastwam_policy.cli.main import main
from fastwam_policy.common.failure import RunError
from fastwam_policy.data import streamed
from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.data.lerobot_writer import Dataset
from fastwam_policy.training.config import TrainingConfig
from fastwam_policy.training.latent_files import are_current, note_contents
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .test_lerobot import ROBOT, episode

pytestmark = pytest.mark.training
ADDRESS = "memory://bucket/towel"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "towel"
    dataset = Dataset(folder, ROBOT, 15)
    for index in range(3):
        dataset.write(index, episode(6, seed=index))
    dataset.finish()
    return folder


@pytest.fixture
def fetched(source, tmp_path, monkeypatch):
    """The dataset at an address, room for four of its nine videos, and the names of what is fetched."""
    memory = fsspec.filesystem("memory")
    memory.put(f"{source}/", "/bucket/towel", recursive=True)
    largest = max(path.stat().st_size for path in source.rglob("*.mp4"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(streamed.LIMIT, str(4.5 * largest / 1e9))
    names, fetch = [], streamed._fetch

    def noted(address, name, path):
        names.append(name)
        fetch(address, name, path)

    monkeypatch.setattr(streamed, "_fetch", noted)
    yield names
    memory.rm("/bucket", recursive=True)


def reader(place):
    return Reader(streamed.local_folder(place), ROBOT, 15, list(ROBOT.cameras))


def videos(folder):
    return list(folder.rglob("*.mp4"))


def test_what_is_read_is_what_lies_there_and_no_more_is_kept_than_told(source, fetched):
    local, remote = reader(source), reader(ADDRESS)
    assert fetched
    assert all(name.startswith(("meta/", "data/")) for name in fetched)
    for _ in range(2):
        for here, there in zip(local.episodes, remote.episodes, strict=True):
            np.testing.assert_array_equal(local.vectors(here)[1], remote.vectors(there)[1])
            for camera in ROBOT.cameras:
                one, other = (r.images(e, camera, range(6)) for r, e in ((local, here), (remote, there)))
                np.testing.assert_array_equal(one, other)
                assert 1 <= len(videos(remote.folder)) <= 4
    assert len([name for name in fetched if name.endswith(".mp4")]) == 18, "the oldest goes: each is fetched again"


def test_what_is_known_of_a_video_is_known_without_it(fetched, tmp_path):
    remote = reader(ADDRESS)
    remote.leave_out_unusable()
    latents = tmp_path / "episode.npy"
    latents.write_bytes(b"made of them")
    note_contents(latents, remote, remote.episodes[0])
    fetched.clear()
    again = reader(ADDRESS)
    again.leave_out_unusable()
    assert len(again.episodes) == 3
    assert are_current(latents, again, again.episodes[0])
    assert not fetched


def test_what_changed_at_the_address_is_fetched_again(source, fetched):
    remote = reader(ADDRESS)
    remote.leave_out_unusable()
    path = remote.episodes[2].videos["head"][0]
    name = path.relative_to(remote.folder).as_posix()
    fsspec.filesystem("memory").pipe(f"/bucket/towel/{name}", b"broken")
    fetched.clear()
    again = reader(ADDRESS)
    again.leave_out_unusable()
    assert fetched == [name]
    assert [e.index for e in again.episodes] == [0, 1]
    assert "cannot be decoded" in "".join(again.notes)


def test_what_cannot_be_read_is_said(fetched, monkeypatch, capsys):
    with pytest.raises(ConfigError, match="memory://bucket/none: not a LeRobot dataset"):
        reader("memory://bucket/none")
    with pytest.raises(ConfigError, match="nowhere://x: cannot be read: Protocol not known: nowhere"):
        reader("nowhere://x")
    with pytest.raises(SystemExit):
        main(["check-dataset", "--quick", "memory://bucket/none"])
    assert "memory://bucket/none: not a LeRobot dataset" in capsys.readouterr().err
    remote = reader(ADDRESS)
    monkeypatch.setenv(streamed.LIMIT, "1e-9")
    with pytest.raises(RunError, match="FASTWAM_VIDEO_CACHE_GB"):
        remote.images(remote.episodes[0], "head", [0])


def test_a_dataset_at_an_address_is_checked_and_mended(fetched, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["check-dataset", ADDRESS, "--fix", str(tmp_path / "mended"), "--workers", "1"])
    said = capsys.readouterr().out
    assert f"{ADDRESS}: 3 episodes, " in said
    assert "3 episodes are in" in said
    assert len(reader(tmp_path / "mended").episodes) == 3


def test_a_training_takes_folders_and_addresses():
    field = TypeAdapter(TrainingConfig.model_fields["datasets"].annotation)
    places = field.validate_python(["data/towel", ADDRESS])
    assert [type(place).__name__ for place in places] == ["PosixPath", "str"]
