"""`fastwam view`: the running nodes, or a recorded session, in the Rerun viewer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import rerun as rr
from rich.progress import track

from fastwam_policy.common.failure import RunError
from fastwam_policy.data.recordings import open_recording, usable
from fastwam_policy.visualization.rerun_view import SessionView
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_START = 20.0  # s for the web viewer to come up
_LOOPBACK = "127.0.0.1"


@contextmanager
def shown(save: Path | None, *, web: bool) -> Iterator[rr.RecordingStream]:
    """A Rerun recording that goes to a file, to a web viewer on this machine, or to the native viewer.

    Raises:
        ConfigError: no screen for the native viewer.
        RunError: the web viewer does not start.
    """
    recording = rr.RecordingStream("fastwam")
    server: subprocess.Popen[bytes] | None = None
    try:
        if save is not None:
            recording.save(save)
        elif web:
            data, page = _free_port(), _free_port()
            options = ["--bind", _LOOPBACK, "--port", str(data), "--web-viewer-port", str(page)]
            server = subprocess.Popen(
                [sys.executable, "-m", "rerun", "--serve-web", *options],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            _wait_for(data)
            recording.connect_grpc(f"rerun+http://{_LOOPBACK}:{data}/proxy")
            print(f"view: http://{_LOOPBACK}:{page}/?url=rerun%2Bhttp://{_LOOPBACK}:{data}/proxy", flush=True)
        elif not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) and sys.platform == "linux":
            raise ConfigError("there is no screen for the native viewer: use --web, or --save FILE.rrd")
        else:
            recording.spawn()
        yield recording
        recording.flush()
    finally:
        recording.disconnect()
        if server is not None:
            os.killpg(server.pid, signal.SIGTERM)  # it runs a program of its own, which would stay
            server.wait()


def view_session(session: Path, robot: RobotConfig, recording: rr.RecordingStream, begin: float = 0.0) -> int:
    """Show a recorded session: a folder of the demo or a recording itself; returns the number of messages.

    Its first `begin` s are left out.

    Raises:
        ConfigError: it cannot be opened, or nothing in it is known.
    """
    path = session / "recording" if (session / "recording").is_dir() else session
    view = SessionView(robot, recording)
    handlers = view.handlers()
    count = 0
    with closing(open_recording(path)) as reader:
        messages = reader.messages(start=reader.start_time + round(begin * 1e9))
        for connection, _, data in track(
            messages, total=None if begin else reader.message_count, description="messages"
        ):
            known = handlers.get(connection.topic.lstrip("/"))
            if known is not None and connection.msgtype == known[0]:
                message = usable(reader, connection, data)
                if message is not None:
                    known[1](message)
                    count += 1
    if not count:
        after = f" after {begin:g} s" if begin else ""
        raise ConfigError(f"{path}: none of its topics{after} is known; they are those of docs/reference/nodes.md")
    return count


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + _START
    while True:
        try:
            socket.create_connection((_LOOPBACK, port), 1.0).close()
        except OSError:
            if time.monotonic() > deadline:
                raise RunError(f"the web viewer did not start within {_START:g} s") from None
            time.sleep(0.1)
        else:
            return
