"""Real-time priority where it is allowed, and one line that says how to allow it where it is not."""

import os
import subprocess
import sys

import pytest

from galaxea_r1lite_bridge.nodes.real_time import HOW_TO_ALLOW, go_before_others

ALL_THREADS = """
import os, threading
from pathlib import Path
from galaxea_r1lite_bridge.nodes.real_time import go_before_others

ended = threading.Event()
threads = [threading.Thread(target=ended.wait) for _ in range(2)]
threads[0].start()
refused = go_before_others(7)
threads[1].start()
tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
found = {(os.sched_getscheduler(task), os.sched_getparam(task).sched_priority) for task in tasks}
locked = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmLck")]
ended.set()
print(refused or (len(tasks), found == {(os.SCHED_FIFO, 7)}, locked != ["0"]))
"""


def test_all_threads_of_the_process_go_before_others():
    said = subprocess.run([sys.executable, "-c", ALL_THREADS], capture_output=True, text=True, check=True).stdout
    if "no real-time priority" in said:
        pytest.skip("not allowed here")
    assert said == "(3, True, True)\n"


def test_what_is_not_allowed_is_said_with_the_command_that_allows_it(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert HOW_TO_ALLOW in go_before_others(40)
    assert go_before_others(0) == ""
