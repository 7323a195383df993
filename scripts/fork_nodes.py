"""Starts the tests' nodes as forks of a process that has imported what nodes import, and reports how each one ended.

A line of standard input starts one: {"program", "arguments", "environment", "folder", "log"}. Lines of standard output
say {"started": pid}, in the same order, and {"ended": pid, "status": as subprocess has it}.
"""

import gc
import importlib
import json
import os
import signal
import sys
from contextlib import suppress
from importlib.metadata import distributions

from fastwam_policy.common.lifetime import end_with_parent

_PACKAGES = ("galaxea_r1lite_bridge", "galaxea_r1lite_sim", "fastwam_policy")


def main() -> None:
    """Until standard input ends."""
    nodes = {
        entry.name: entry.value
        for one in distributions()
        if (one.metadata["Name"] or "").replace("-", "_") in _PACKAGES
        for entry in one.entry_points
        if entry.group == "console_scripts" and entry.name.endswith("_node")
    }
    for name in (*(value.partition(":")[0] for value in nodes.values()), "torch"):
        with suppress(ImportError):  # MuJoCo has no wheel for Python 3.10
            importlib.import_module(name)
    gc.freeze()  # a collection in a fork copies no pages
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    parent = os.getpid()
    for line in sys.stdin:
        wanted = json.loads(line)
        if (pid := os.fork()) == 0:
            end_with_parent(parent)
            _become(nodes[os.path.basename(wanted["program"])], wanted)
        _say({"started": pid})


def _become(node: str, wanted: dict) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.close(log)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    sys.argv = [wanted["program"], *wanted["arguments"]]
    module, _, name = node.partition(":")
    sys.exit(getattr(importlib.import_module(module), name)())


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _say(what: dict) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")  # at once: a signal may come between two writes


if __name__ == "__main__":
    main()
