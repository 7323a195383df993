"""A simulator in an environment of its own, behind a pipe.

Other simulators need other versions of Python's packages than this project. Each has an environment whose Python runs
a class of the folder `apart`, isolated (`-I`) from this one's paths; the two talk as `apart/pipe.py` says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from select import select
from tempfile import mkdtemp
from typing import Any

from fastwam_policy.benchmarks.apart.pipe import receive, send
from fastwam_policy.benchmarks.base import SimulatorDiedError
from fastwam_policy.common.failure import RunError
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

PATIENCE = 600.0  # s for one answer: a scene takes some to load, and a chunk on a busy machine many
_ENDING = 5.0  # s
_SHOWN = 3  # lines of the log that an error shows
_START = "import sys; sys.path += sys.argv[1].split(':'); from apart.serving import run; run(sys.argv[2])"
_HERE = Path(__file__).resolve().parent


def environment_python(name: str) -> Path:
    """Python of the environment `.venv-benchmark/NAME` of this source tree, or what FASTWAM_NAME_PYTHON says.

    Raises:
        ConfigError: there is none.
    """
    variable = f"FASTWAM_{name.upper()}_PYTHON"
    chosen = os.environ.get(variable)
    if chosen and not os.access(chosen, os.X_OK):
        raise ConfigError(f"{variable}: {chosen}: no such program")
    roots = [place / ".venv-benchmark" / name for place in (Path.cwd(), *_HERE.parents)]
    found = [Path(chosen)] if chosen else [python for root in roots if (python := root / "bin" / "python").is_file()]
    if not found:
        raise ConfigError(
            f"the simulator of {name} has an environment of its own, and there is none: make benchmark-{name}, or "
            f"name its Python in {variable}"
        )
    return found[0]


def started(
    name: str, title: str, place: str, log: Path, environment: Mapping[str, str], question: str, **about: Any
) -> tuple[SimulatorProcess, dict[str, Any]]:
    """A simulator with its answer to the first question; one that dies there is started again, once.

    Raises:
        ConfigError: there is no environment of that `name`.
        RunError: it does not start.
    """
    python, again = environment_python(name), False
    while True:
        process = SimulatorProcess(python, place, log, environment)
        try:
            return process, process.ask(question, **about)
        except SimulatorDiedError as error:
            if again:
                raise RunError(f"{title} does not start with {python}: {error}") from None
            again = True
        except RunError:
            process.close()
            raise


def about_tasks(name: str, title: str, place: str, environment: Mapping[str, str], **about: Any) -> dict[str, Any]:
    """The tasks that a simulator has; errors as of :func:`started`."""
    folder = Path(mkdtemp(prefix=f"fastwam_{name}_"))  # it stays where its log says why
    process, found = started(name, title, place, folder / "log", environment, "tasks", **about)
    process.close()
    shutil.rmtree(folder)
    return found


class SimulatorProcess:
    """A running simulator: questions go in, answers come out. It ends with this process, however that ends.

    Args:
        python: of its environment.
        place: its class, `package.module:Class`.
        log: file that takes what it prints, at the end.
        environment: variables for it.
        folders: further ones to import from.
    """

    def __init__(
        self, python: Path, place: str, log: Path, environment: Mapping[str, str] | None = None,
        folders: Sequence[Path] = (),
    ) -> None:  # fmt: skip
        paths = ":".join(str(folder) for folder in (_HERE, *folders))
        self._log = log
        with log.open("ab") as stream:
            self._begin = stream.tell()
            self._process = subprocess.Popen(
                [python, "-I", "-c", _START, paths, place], bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=stream, env={**os.environ, **(environment or {})},
            )  # fmt: skip

    def ask(self, question: str, /, patience: float = PATIENCE, **about: Any) -> dict[str, Any]:
        """The answer to a question.

        Raises:
            SimulatorDiedError: it ended, or did not answer in time; then it was ended.
            RunError: it cannot do that, and says why.
        """
        process, deadline = self._process, time.monotonic() + patience
        assert process.stdin is not None
        assert process.stdout is not None
        output = process.stdout.fileno()

        def read(size: int) -> bytes:
            parts, missing = [], size
            while missing:
                if not select([output], [], [], max(0.0, deadline - time.monotonic()))[0]:
                    raise TimeoutError
                part = os.read(output, min(missing, 2**20))
                if not part:
                    break
                parts.append(part)
                missing -= len(part)
            return b"".join(parts)

        try:
            with os.fdopen(os.dup(process.stdin.fileno()), "wb") as stream:
                send(stream, {"ask": question, **about})
            answer = receive(read)
        except TimeoutError:
            self.close()
            raise SimulatorDiedError(f"the simulator did not answer within {patience:g} s") from None
        except (EOFError, BrokenPipeError):
            self.close()
            raise SimulatorDiedError(f"the simulator ended ({self._ended()})") from None
        if "error" in answer:
            raise RunError(f"the simulator refused: {answer['error']}")
        return answer

    def close(self) -> None:
        """End it; more often than once does nothing."""
        process = self._process
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        try:
            process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _ended(self) -> str:
        """With which status, and its last words."""
        status = self._process.returncode
        how = f"signal {-status}" if status < 0 else f"status {status}"
        with self._log.open("rb") as stream:
            stream.seek(self._begin)
            lines = stream.read().decode(errors="replace").split("\n")
        said = " | ".join([line.strip() for line in lines if line.strip()][-_SHOWN:])
        return f"{how}: {said}; all of it is in {self._log}" if said else how
