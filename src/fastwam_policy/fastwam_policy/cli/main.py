"""The command line: `./fastwam COMMAND`, on ROS 2 also `ros2 run fastwam_policy fastwam COMMAND`.

Every other module of this folder is a command: see :class:`Command`. All of them are imported to list them: at their
top they import only what is cheap, and the rest in `run`.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import os
import pkgutil
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, redirect_stdout
from typing import NoReturn, Protocol, cast

from fastwam_policy import cli
from fastwam_policy.common.arguments import STDOUT
from fastwam_policy.common.failure import RunError
from fastwam_policy.common.middleware import leave_alone, missing
from galaxea_r1lite_bridge.nodes.ending import ENDING

GROUPS = ("run", "data", "train", "evaluate", "check", "bundles")
DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
_STATUS = (
    "Exit status: 0 done; 1 the work failed (a check found a fault, a node ended, the disk is full); "
    "2 wrong use (an option or an input); 130 interrupted by Ctrl-C."
)
_JOINING = ("operate", "view")  # commands that join the ROS domain that a shell names; the others have their own
_ROS = ("rclpy", "ament_index_python", "domain_coordinator", "fastwam_msgs")
_SHOWN = 500  # letters of an error that nobody expected
_FULL = (errno.ENOSPC, errno.EDQUOT)
_WRONG_PLACE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EEXIST,
    errno.ENOENT,
)


class Command(Protocol):
    """What a command's module has."""

    NAME: str
    GROUP: str
    HELP: str
    EXAMPLE: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""

    def run(self, given: argparse.Namespace) -> int:
        """Do it, and return the exit status. ConfigError, RunError: one sentence for the user."""


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"{self.prog}: {message}; see: {self.prog} --help\n")


def commands() -> dict[str, Command]:
    """Every command by its name."""
    names = [module.name for module in pkgutil.iter_modules(cli.__path__) if module.name not in ("main", "__main__")]
    found = [cast("Command", importlib.import_module(f"{cli.__name__}.{name}")) for name in names]
    return {command.NAME: command for command in found}


def parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of `fastwam`, and that of each command."""
    known, raw = commands(), argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="fastwam", usage="fastwam COMMAND ...", description="Fast-WAM on the Galaxea R1 Lite",
        epilog=_overview(known), formatter_class=raw,
    )  # fmt: skip
    adding = parser.add_subparsers(
        prog="fastwam", dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS
    )
    each: dict[str, argparse.ArgumentParser] = {}
    for name, command in known.items():
        example = f"example:\n{textwrap.indent(command.EXAMPLE, '  ')}"
        each[name] = adding.add_parser(name, description=command.HELP, epilog=example, formatter_class=raw)
        command.configure(each[name])
        each[name].add_argument("--debug", action="store_true", help="show where an error was (traceback)")
        each[name].set_defaults(run=command.run)
    return parser, each


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point: exits with the status that `./fastwam --help` explains, and one clear message where it is not 0."""
    parser, each = parsers()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and not words[0].startswith("-") and words[0] not in each:
        parser.error(f"there is no command {words[0]!r}{_nearest(words[0], each)}")
    try:
        given, rest = parser.parse_known_args(words)
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        parser.error(f"{_shortened(str(error.filename))}: {error.strerror}. Name another place")
    if rest:
        options = [option for action in each[given.command]._actions for option in action.option_strings]  # noqa: SLF001
        each[given.command].error(f"unknown argument {rest[0]}{_nearest(rest[0], options)}")
    if arguments is None:  # a process of its own, which ends what it has started
        keep_output()
        for number in ENDING:
            if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP, and SIGINT raises KeyboardInterrupt
                signal.signal(number, lambda received, _: sys.exit(128 + received))
    sys.exit(_run(given))


def keep_output() -> None:
    """What libraries print, such as the complaints of a middleware, goes to standard error from now on.

    Standard output is the command's own: others may read it.
    """
    theirs = sys.stdout
    if theirs is None or sys.stderr is None:  # it is closed
        return
    theirs.flush()
    at_once = theirs.line_buffering or getattr(theirs, "write_through", False)  # PYTHONUNBUFFERED
    ours = open(os.dup(1), "w", 1 if at_once else -1, theirs.encoding, theirs.errors)  # noqa: SIM115
    os.dup2(2, 1)
    sys.stdout = sys.__stdout__ = ours  # type: ignore[misc]


def _run(given: argparse.Namespace) -> int:
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError  # it costs a tenth of a second

    apart = redirect_stdout(sys.stderr) if getattr(given, "json", None) == STDOUT else nullcontext()
    try:
        with apart:
            _require_middleware(given)
            return int(given.run(given))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  what it is goes to people in one line
        if given.debug:
            traceback.print_exc()
        return _ended(*_explained(error, ConfigError))


def _require_middleware(given: argparse.Namespace) -> None:
    """ConfigError where the one that a shell names is missing; ignored where a command's nodes are on their own.

    Importing rclpy would end this process.
    """
    from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

    if not (name := missing()):
        return
    if given.command in _JOINING or getattr(given, "mode", None) == "real":
        raise ConfigError(f"RMW_IMPLEMENTATION={name}: it is not installed here. Install it, or unset that")
    leave_alone()


def _explained(error: Exception, wrong_input: type[Exception]) -> tuple[str, int]:
    """What to say of an error, and the exit status."""
    if isinstance(error, wrong_input):
        return str(error), WRONG_USE
    if isinstance(error, RunError):
        return str(error), FAILED
    if isinstance(error, OSError):
        if error.errno in _FULL:
            return f"the disk is full: {error}. What is finished is kept: make room and start again", FAILED
        if error.errno in _WRONG_PLACE and error.filename is not None:
            return f"{_shortened(str(error.filename))}: {error.strerror}. Name another place", WRONG_USE
    if isinstance(error, ModuleNotFoundError) and error.name in _ROS:
        return f"this command needs ROS 2, and {error.name} is not here: source scripts/env.sh, or ROS 2 itself", FAILED
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_SHOWN]}. That is not expected: --debug shows where it was", FAILED


def _shortened(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"


def _ended(message: str, status: int) -> int:
    print(f"fastwam: {message}", file=sys.stderr)
    return status


def _nearest(word: str, known: Iterable[str]) -> str:
    """What was perhaps meant."""
    near = difflib.get_close_matches(word.split("=")[0], list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _overview(known: dict[str, Command]) -> str:
    """All commands in their groups, and what the exit status means."""
    width = min(120, shutil.get_terminal_size().columns - 2)
    lines = []
    for group in GROUPS:
        lines.append(f"{group}:")
        for name, command in known.items():
            if group == command.GROUP:
                first = f"  {name:19}"
                lines += textwrap.wrap(command.HELP, width, initial_indent=first, subsequent_indent=" " * len(first))
        lines.append("")
    lines += textwrap.wrap(_STATUS, width)
    return "\n".join([*lines, "`fastwam COMMAND --help` lists a command's options and shows an example."])
