"""Pieces of work give the same wherever they run, and a killed process loses and doubles nothing."""

import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fastwam_policy.common.failure import RunError
from fastwam_policy.common.parallel import THIS_PROCESS, Where, blocks, map_tasks
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

TWO = Where(workers=2)


@pytest.fixture
def pieces(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)  # the other processes must find it
    return importlib.import_module("pieces")


def test_a_piece_whose_process_was_killed_is_done_again_and_nothing_comes_twice(pieces, tmp_path, caplog):
    given = [(number, tmp_path) for number in range(6)]
    found = list(map_tasks(pieces.countdown, given, TWO))
    assert len(list(tmp_path.iterdir())) == 1, "nothing was killed"
    assert sorted(found) == sorted(map_tasks(pieces.countdown, given, THIS_PROCESS))
    assert caplog.messages == ["a worker process was killed; its work is begun again"]


def test_one_piece_alone_has_a_process_too(pieces):
    """In this one it could have another number of threads, and so other sums."""
    assert list(map_tasks(pieces.process, [()], Where())) != [os.getpid()]
    assert list(map_tasks(pieces.process, [()], THIS_PROCESS)) == [os.getpid()]


def test_a_piece_that_always_kills_its_process_is_an_error(pieces, tmp_path):
    with pytest.raises(RunError, match="one of 2 worker processes was killed 3 times"):
        list(map_tasks(pieces.countdown, [(3, tmp_path, 99), (1, tmp_path)], TWO))


@pytest.mark.parametrize(
    ("error", "comes"),
    [
        (ConfigError("a.yaml: no"), ConfigError("a.yaml: no")),
        (FileNotFoundError(2, "gone", "a"), FileNotFoundError(2, "gone", "a")),
        (LookupError("x"), RunError("LookupError: x. With --workers 1 --debug it shows where it was")),
    ],
)
def test_an_error_comes_as_the_command_line_can_explain_it(pieces, error, comes):
    with pytest.raises(type(comes)) as caught:
        list(map_tasks(pieces.refuse, [(error,)] * 2, TWO))
    assert str(caught.value) == str(comes)


def test_blocks_are_whole_where_one_process_works():
    items = list(range(5))
    assert blocks(items, THIS_PROCESS, 2) == [items]
    assert blocks(items, TWO, 2) == [[0, 1], [2, 3], [4]]
    assert blocks([], TWO, 2) == blocks([], THIS_PROCESS, 2) == []


def test_a_laptop_needs_no_ray(monkeypatch):
    code = "import sys, fastwam_policy.cli.main as m; m.parsers(); print(sorted({'ray', 'torch'} & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match="pip install -r requirements-ray.txt"):
        list(map_tasks(len, [("a",)], Where(ray="local")))


def test_a_cluster_that_is_not_there_is_said_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"  # nothing listens there
        with pytest.raises(RunError, match=f"--ray {address}: .*refused. Is it the address of a cluster's head?"):
            list(map_tasks(len, [("a",)], Where(ray=address)))
