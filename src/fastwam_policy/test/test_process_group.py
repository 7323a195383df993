"""Processes end together: with the first failure, with the group, and with its owner, however that ends."""

import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time

import pytest

from fastwam_policy.common.lifetime import with_parent
from fastwam_policy.launching.process_group import ProcessGroup

SOON = 20.0  # s
FOREVER = "while :; do sleep 0.05; done"


def sh(script):
    return ["sh", "-c", script]


def has_ended(pid, timeout=SOON):
    """Whether a process, not of ours, ends within so many s."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout)[0])
    finally:
        os.close(descriptor)


def first_line(path):
    """The first line of a file, once it is there."""
    deadline = time.monotonic() + SOON
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, path
        time.sleep(0.01)
    return path.read_text().splitlines()[0]


@pytest.fixture
def group(tmp_path):
    with ProcessGroup(tmp_path / "log") as group:
        yield group


OWNER = """
import sys
from fastwam_policy.launching.process_group import ProcessGroup
with ProcessGroup() as group:
    for name in ("bridge", "recorder"):
        group.start(name, ["sh", "-c", sys.argv[1], name])
    group.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_orphan_is_left_whatever_ends_the_owner(number, tmp_path):
    """Each process still has the time to close what it has open."""
    folder = shlex.quote(str(tmp_path))
    child = f"trap 'echo closed > {folder}/$0; exit' TERM; echo pid $$; {FOREVER}"
    with subprocess.Popen([sys.executable, "-c", OWNER, child], stdout=subprocess.PIPE, text=True) as owner:
        pids = [int(owner.stdout.readline().split()[-1]) for _ in range(2)]
        owner.send_signal(number)
        owner.wait(SOON)
        assert all(has_ended(pid) for pid in pids)
    assert {path.name for path in tmp_path.iterdir()} == {"bridge", "recorder"}


def test_a_process_outlives_the_thread_that_asked_for_it(group, tmp_path):
    def start():
        group.start("node", sh(f"echo $$; {FOREVER}"))
        first_line(tmp_path / "log")

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert not has_ended(int(first_line(tmp_path / "log")), 0.3)


def test_a_process_does_not_begin_when_its_parent_has_ended_already(tmp_path, monkeypatch):
    subprocess.run(with_parent(["touch", str(tmp_path / "mine")]), check=True)
    monkeypatch.setattr(os, "getpid", lambda: 1)  # the parent when the command was made
    assert subprocess.run(with_parent(["touch", str(tmp_path / "orphan")]), check=False).returncode != 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_a_launch_file_has_started_ends_with_it(tmp_path):
    """As launch does: it splits the prefix and puts it before the command."""
    code = f"""
import shlex, subprocess, time
from fastwam_policy.common.lifetime import launch_prefix
subprocess.Popen([*shlex.split(launch_prefix()), *{sh(f"trap 'exit' TERM; echo $$; {FOREVER}")}])
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as launch:
        pid = int(launch.stdout.readline())
        launch.kill()
        assert has_ended(pid)


def test_the_first_failure_ends_all(tmp_path):
    with ProcessGroup(tmp_path / "log") as group:
        group.start("good", sh(f"echo $$; {FOREVER}"))
        pid = int(first_line(tmp_path / "log"))
        group.start("bad", sh("exit 3"))
        assert group.wait() == ("bad", 3)
        assert not has_ended(pid, 0.0)
    assert has_ended(pid, 0.0)


def test_a_process_that_ignores_sigterm_is_killed(group, tmp_path):
    group.start("deaf", sh(f"trap '' TERM; echo $$; {FOREVER}"))
    pid = int(first_line(tmp_path / "log"))
    group.end("deaf", patience=0.2)
    assert has_ended(pid, 0.0)
    assert "deaf" not in group


def test_a_stopped_process_ends_in_its_own_way(group, tmp_path):
    group.start("frozen", sh(f"trap 'echo closed; exit' TERM; echo $$; {FOREVER}"))
    first_line(tmp_path / "log")
    group.signal("frozen", signal.SIGSTOP)
    group.end("frozen")
    assert (tmp_path / "log").read_text().endswith("closed\n")


@pytest.mark.parametrize("ends", ["by itself", "when told", "never"])
def test_what_a_process_has_started_ends_with_it(ends, group, tmp_path):
    """Those that ignore SIGTERM as well."""
    rest = {"by itself": "exit 0", "when told": f"trap - TERM; {FOREVER}", "never": FOREVER}[ends]
    group.start("node", sh(f"trap '' TERM; sleep 1000 & echo $!; {rest}"))
    grandchild = int(first_line(tmp_path / "log"))
    if ends == "by itself":
        assert group.wait() == ("node", 0)
    else:
        group.end(patience=0.2 if ends == "never" else SOON)
    assert has_ended(grandchild)


def test_each_has_a_session_of_its_own(group, tmp_path):
    group.start("node", sh(f"echo $$; {FOREVER}"))
    pid = int(first_line(tmp_path / "log"))
    assert os.getsid(pid) == os.getpgid(pid) == pid


def test_each_line_is_behind_the_name_of_its_process(capfd):
    with ProcessGroup() as group:
        group.start("policy_node", sh("echo one; echo two >&2"))
        group.start("sim", sh(FOREVER))
        assert group.wait() == ("policy_node", 0)
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["policy_node | one", "policy_node | two"]
    assert "\033" not in "".join(lines), "no colours where it is no terminal"


def test_a_program_that_is_not_there_is_a_failure(group, tmp_path):
    group.start("nothing", ["/nowhere/node"])
    assert group.wait() == ("nothing", 127)
    assert "/nowhere/node" in (tmp_path / "log").read_text()


def test_a_closed_output_holds_up_no_process():
    """As after `make demo | head`."""
    code = OWNER.replace("group.wait()", "print('all', group.wait(), file=sys.stderr)")
    with subprocess.Popen(
        [sys.executable, "-c", code, "[ $0 = bridge ] && exec sleep 1000; seq 100000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as owner:  # fmt: skip
        owner.stdout.close()
        try:
            assert "all ('recorder', 0)" in owner.communicate(timeout=SOON)[1]
        finally:
            owner.kill()
