"""A process whose output nobody takes goes on, and what it printed last comes out."""

import fcntl
import os
import select
import subprocess
import sys

import pytest

LIMIT = 60  # s
PROGRAM = """
import os, signal, sys
from galaxea_r1lite_bridge.nodes.output import never_wait_for_output
never_wait_for_output()
for _ in range({lines}):
    print("x" * 999)
sys.stdout.flush()
open({mark!r}, "w").close()
sys.stdin.read()
os.write(2, b"the last words")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(lines, **streams):
        program = PROGRAM.format(lines=lines, mark=str(tmp_path / "mark"))
        process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, **streams)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait(timeout=LIMIT)


def wait_for(path):
    while not path.exists():
        select.select([], [], [], 0.01)


def test_what_is_printed_comes_out_after_a_crash_as_well(start):
    process = start(2000, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    output = process.communicate(timeout=LIMIT)[1]
    assert output == b"x" * 999 + b"\n" + 1999 * (b"x" * 999 + b"\n") + b"the last words"


def test_a_pipe_that_nobody_reads_holds_nothing_up(start, tmp_path):
    read_end, write_end = os.pipe()
    process = start(5000, stdout=write_end, stderr=write_end)
    os.close(write_end)
    wait_for(tmp_path / "mark")
    fcntl.fcntl(read_end, fcntl.F_SETPIPE_SZ, 2**20)
    process.stdin.close()
    with os.fdopen(read_end, "rb") as stream:
        output = stream.read()
    assert b"bytes were not printed" in output
    assert output.endswith(b"the last words")
    assert 1_000_000 < len(output) < 3_000_000


def test_a_stopped_terminal_holds_nothing_up(start, tmp_path):
    ours, theirs = os.openpty()
    process = start(5000, stdout=theirs, stderr=theirs)
    os.close(theirs)
    wait_for(tmp_path / "mark")
    process.stdin.close()
    process.wait(timeout=LIMIT)
    assert os.read(ours, 10) == b"x" * 10
    os.close(ours)
