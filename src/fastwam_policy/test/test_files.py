"""Folders for one command at a time, a full disk that is called so, and workers that end with their parent."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from fastwam_policy.common.files import alone_in, naming_a_full_disk, write_text
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .waiting import PATIENCE, until


def python(code):
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_a_folder_is_free_again_when_its_holder_is_killed(tmp_path):
    holder = python(
        "import pathlib, time; from fastwam_policy.common.files import alone_in\n"
        f"with alone_in(pathlib.Path({str(tmp_path)!r})): print('held', flush=True); time.sleep(600)"
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match="another command writes into it"), alone_in(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with alone_in(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_written_is_not_in_the_way(tmp_path, monkeypatch):
    write_text(tmp_path / "a.json", "old")
    (tmp_path / "a.tmp").write_text("somebody's")

    def full(_):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_text(tmp_path / "a.json", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.json": "old", "a.tmp": "somebody's"}


def test_an_error_on_a_full_disk_is_called_so(tmp_path, monkeypatch):
    def fail():
        with naming_a_full_disk(tmp_path):
            raise RuntimeError("PytorchStreamWriter failed writing file")

    with pytest.raises(RuntimeError, match="PytorchStreamWriter"):
        fail()
    usage = namedtuple("usage", "total used free")(10, 10, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="No space left") as error:
        fail()
    assert error.value.errno == errno.ENOSPC


def children_of(process):
    """Worker processes of a pool."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(number):
    parent = python(
        "import signal, sys, time; from fastwam_policy.common.parallel import Where, map_tasks\n"
        "signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background begins without it
        "for done in map_tasks(time.sleep, [(0.1,), (600,), (600,), (600,)], Where(2)): print('begun', flush=True)"
    )
    assert parent.stdout.readline() == "begun\n"
    workers = children_of(parent)
    assert len(workers) == 2
    parent.send_signal(number)
    parent.wait(PATIENCE)
    until(lambda: not any(alive(pid) for pid in workers))
