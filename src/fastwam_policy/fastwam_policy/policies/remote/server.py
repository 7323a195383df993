"""`fastwam serve POLICY`: a policy for other machines, over HTTP; its address takes the place of a folder there.

One request is one inference.

    GET  /policy    PolicyInfo as JSON
    POST /infer     an observation; the answer is a chunk, or with status 400 a sentence that says what is wrong
    POST /reset     a new episode begins
"""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from fastwam_policy.policies.base import Policy, StatefulPolicy
from fastwam_policy.policies.remote.wire import INFO, decode_observation, encode_chunk
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_BAD_REQUEST, _NOT_FOUND = 400, 404


def serve(policy: Policy, host: str, port: int, ready: Callable[[int], None]) -> None:
    """Answer requests one after the other until the process ends; `ready` is told the port (0 chooses a free one).

    Raises:
        ConfigError: the port is in use or not allowed, or the policy needs earlier frames, which are not sent.
    """
    if policy.info.history or isinstance(policy, StatefulPolicy):
        raise ConfigError(f"{policy.info.name}: a policy that looks back cannot be served: earlier frames are not sent")
    prepared = [""]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/policy":
                self._answer(200, INFO.dump_json(policy.info))
            else:
                self._answer(_NOT_FOUND, b"GET /policy, POST /infer or POST /reset")

        def do_POST(self) -> None:
            try:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path == "/reset":
                    policy.reset()
                    self._answer(200, b"")
                    return
                observation = decode_observation(body)
                if observation.instruction != prepared[0]:
                    policy.prepare(observation.instruction)
                    prepared[0] = observation.instruction
                answer = encode_chunk(policy.infer(observation))
            except (ConfigError, ValueError, KeyError, OSError) as error:
                self._answer(_BAD_REQUEST, str(error).encode())
            else:
                self._answer(200, answer)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Log nothing: a line for each inference would be too much."""

    try:
        server = HTTPServer((host, port), Handler)
    except OSError as error:
        raise ConfigError(f"{host}:{port}: {error.strerror}; choose another --port") from None
    with server:
        ready(server.server_address[1])
        server.serve_forever()
