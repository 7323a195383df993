"""`fastwam serve POLICY`: a policy for other machines, over HTTP; its address takes the place of a folder there.

One request is one inference.

    GET  /policy    PolicyInfo as JSON
    POST /infer     an observation; the answer is a chunk
    POST /reset     a new episode begins

Where a request is wrong the answer is a line that says what, with status 400; with 500 where the policy failed.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from fastwam_policy.policies.base import Policy, StatefulPolicy
from fastwam_policy.policies.remote.bounds import body_length, body_limit
from fastwam_policy.policies.remote.wire import INFO, decode_observation, encode_chunk, observation_bounds
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_BAD_REQUEST, _NOT_FOUND, _FAILED = 400, 404, 500
_ARRIVAL = 10.0  # s for a request to arrive: others wait meanwhile
_BLOCK = 2**16  # bytes
_REFUSED = 1.0  # s that a request which was refused is still listened to, so that its sender reads the answer
_LINE = 2000  # letters of an answer


def serve(policy: Policy, host: str, port: int, ready: Callable[[int], None]) -> None:
    """Answer requests one after the other until the process ends; `ready` is told the port (0 chooses a free one).

    Raises:
        ConfigError: the port is in use or not allowed, or the policy needs earlier frames, which are not sent.
    """
    info = policy.info
    if info.history or isinstance(policy, StatefulPolicy):
        raise ConfigError(f"{info.name}: a policy that looks back cannot be served: earlier frames are not sent")
    prepared, limit = [""], body_limit(observation_bounds(info))

    def answer(path: str, body: bytes) -> bytes:
        if path == "/reset":
            policy.reset()
            return b""
        observation = decode_observation(body, info)
        if observation.instruction != prepared[0]:
            policy.prepare(observation.instruction)
            prepared[0] = observation.instruction
        return encode_chunk(policy.infer(observation))

    class Handler(BaseHTTPRequestHandler):
        timeout = _ARRIVAL
        error_message_format, error_content_type = "%(code)d %(message)s\n", "text/plain"

        def do_GET(self) -> None:
            if self.path == "/policy":
                self._answer(200, INFO.dump_json(info))
            else:
                self._not_found()

        def do_POST(self) -> None:
            if self.path not in ("/infer", "/reset"):
                self._not_found()
                return
            try:
                body = self._body(body_length(self.headers.get("Content-Length"), limit))
                result = answer(self.path, body)
            except (ConfigError, ValueError, OSError) as error:
                self._refuse(_BAD_REQUEST, str(error))
            except Exception as error:
                logging.getLogger(__name__).exception("%s failed", info.name)
                self._refuse(_FAILED, f"{info.name} failed: {type(error).__name__}: {error}")
            else:
                self._answer(200, result)

        def _body(self, length: int) -> bytes:
            parts, missing, deadline = [], length, time.monotonic() + _ARRIVAL
            while missing:
                part = self.rfile.read1(min(missing, _BLOCK))
                if not part or time.monotonic() > deadline:
                    raise ValueError(f"a body of {length} bytes was promised, {length - missing} came")
                parts.append(part)
                missing -= len(part)
            return b"".join(parts)

        def _not_found(self) -> None:
            self._refuse(_NOT_FOUND, "GET /policy, POST /infer or POST /reset")

        def _refuse(self, status: int, text: str) -> None:
            self._answer(status, " ".join(text.split())[:_LINE].encode(errors="replace"))
            deadline = time.monotonic() + _REFUSED
            self.connection.settimeout(_REFUSED)
            while time.monotonic() < deadline and self.rfile.read1(_BLOCK):
                pass

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Log nothing: a line for each inference would be too much."""

    try:
        server = _Server((host, port), Handler)
    except OSError as error:
        raise ConfigError(f"{host}:{port}: {error.strerror}; choose another --port") from None
    with server:
        ready(server.server_address[1])
        server.serve_forever()


class _Server(HTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away or were too slow."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)
