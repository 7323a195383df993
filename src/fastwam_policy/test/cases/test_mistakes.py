"""A mistake gets one line with what, where and how to fix it; a traceback only with --debug."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from fastwam_policy.cli import convert
from fastwam_policy.cli.main import main
from fastwam_policy.common.failure import RunError
from fastwam_policy.data.lerobot_writer import claim
from fastwam_policy.training import output_folder, windows

from .made import dataset

CONFIG = Path(__file__).parents[4] / "config" / "training" / "towel.yaml"


def run(capsys, *arguments):
    """Exit status, and what was said, of which only errors are on standard error."""
    with pytest.raises(SystemExit) as status:
        main(list(map(str, arguments)))
    return status.value.code, capsys.readouterr().err


UNEXPECTED = [ZeroDivisionError("oh\nno"), KeyError("x"), MemoryError(), RecursionError("deep"), OSError("odd"),
              RuntimeError("CUDA error")]  # fmt: skip


@pytest.mark.parametrize("error", UNEXPECTED, ids=repr)
def test_an_error_that_nobody_expects_is_one_line(monkeypatch, capsys, tmp_path, error):
    def fail(_):
        raise error

    monkeypatch.setattr(convert, "run", fail)
    status, said = run(capsys, "convert", "x", "--output", tmp_path)
    assert status == 1
    assert said.startswith(f"fastwam: {type(error).__name__}: ")
    assert said.count("\n") == 1
    assert "--debug shows where it was" in said
    status, said = run(capsys, "convert", "x", "--output", tmp_path, "--debug")
    assert status == 1
    assert "Traceback" in said
    assert "in fail" in said


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM, errno.EEXIST, errno.ENOENT])
def test_a_place_that_cannot_be_written(monkeypatch, capsys, tmp_path, code):
    def fail(_):
        raise OSError(code, os.strerror(code), "/somewhere")

    monkeypatch.setattr(convert, "run", fail)
    status, said = run(capsys, "convert", "x", "--output", tmp_path)
    assert (status, said) == (2, f"fastwam: /somewhere: {os.strerror(code)}. Name another place\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "MISSING", "--output", "OUT"],
        ["convert", "FILE", "--output", "OUT"],
        ["convert", "FOLDER", "--output", "OUT"],
        ["convert", "FOLDER", "--output", "FILE"],
        ["train", "MISSING", "OUT"],
        ["train", "FILE", "OUT"],
        ["train", CONFIG, "OUT", "--set", "precision='no'", "--set", "datasets=[MISSING]"],
        ["train", CONFIG, "OUT", "--set", "precision='no'", "--set", "datasets=[FOLDER]"],
        ["train-autoencoder", CONFIG, "--set", "datasets=[FILE]"],
        ["train-autoencoder", CONFIG, "--set", "datasets"],
        ["check-policy", "FOLDER"],
        ["report", "FOLDER"],
        ["view", "MISSING"],
        ["export", "FOLDER", "OUT"],
        ["convert", "MISSING", "--output", "OUT", "--task", " "],
        ["convert", "MISSING", "--output", "OUT", "--height", "20000"],
        ["collect", "OUT", "--instruction", ""],
        ["collect", "OUT", "--height", "18000"],
        ["check-dataset", "MISSING", "--fix", "OUT"],
        ["check-dataset", "MISSING", "--fix", "FILE"],
        ["check-dataset", "MISSING", "--fix", "FILE/x"],
        ["check-dataset", "MISSING", "--fix", "OUT/.."],
    ],
    ids=lambda words: " ".join(map(str, words[:2])),
)
def test_a_wrong_path_is_one_line(tmp_path, capsys, arguments):
    (tmp_path / "file").write_text("\x00\x01 {")
    (tmp_path / "folder").mkdir()
    places = {"MISSING": tmp_path / "missing", "FILE": tmp_path / "file", "FOLDER": tmp_path / "folder",
              "OUT": tmp_path / "out"}  # fmt: skip
    words = []
    for word in map(str, arguments):
        for name, place in places.items():
            word = word.replace(name, str(place))
        words.append(word)
    status, said = run(capsys, *words)
    assert status in (1, 2)
    assert "Traceback" not in said
    assert "That is not expected" not in said
    assert said.strip()


def test_what_is_looked_at_is_counted_in_words(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["check-recording", str(tmp_path / "nope")])
    assert capsys.readouterr().out == (
        f"{tmp_path / 'nope'}: 1 thing wrong\n  unusable: {tmp_path / 'nope'}: no such recording\n"
    )
    folder = dataset(tmp_path / "data", (1,))
    with pytest.raises(SystemExit):
        main(["check-dataset", str(folder), "--quick"])
    assert capsys.readouterr().out == f"{folder}: 1 episode, nothing wrong\n"


def test_a_bundle_that_cannot_be_exported_there(tmp_path, capsys, random_bundle):
    status, said = run(capsys, "export", random_bundle, tmp_path / "no" / "x.pt")
    assert (status, said.count("\n")) == (2, 1)
    assert f"{tmp_path / 'no'} is no folder" in said


def test_latents_that_find_no_place(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(RunError, match=r"the latents of the episodes that are left need about 5\.00 GB"):
        windows._make_room(tmp_path / "latents", 5 * 10**9)


def test_episodes_that_find_no_place(tmp_path, monkeypatch):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    from fastwam_policy.simulation.collect import CollectSettings, collect

    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(RunError, match=r"500 episodes need about 0\.\d\d GB, the disk has 0\.00 GB free: make room"):
        collect(tmp_path / "out", 500, CollectSettings("fold"))
    assert not list((tmp_path / "out").rglob("*.mp4"))
    claim(tmp_path / "out", "collect", CollectSettings("fold"))  # it may be continued


def test_checkpoints_that_find_no_place(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(RunError, match=r"checkpoints and bundles of this size need about 0\.60 GB"):
        output_folder.require_space_for(tmp_path / "out", 10**7)
    (tmp_path / "out" / "checkpoints").mkdir(parents=True)
    output_folder.require_space_for(tmp_path / "out", 10**7)  # they are replaced one by one


def test_a_dataset_that_cannot_be_written(tmp_path, monkeypatch):
    folder = dataset(tmp_path / "data")

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        ValueError, match=r"latents are kept in the dataset's folder, which cannot be written \(Read-only"
    ):
        windows._make_room(folder / "latents", 1)
