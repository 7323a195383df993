"""Websocket clients of a served policy, and what keeps a silent, slow or malicious one from blocking the others."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any, Protocol

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from fastwam_policy.policies.remote.server.access import Access
from fastwam_policy.policies.remote.server.metrics import CONTENT_TYPE
from fastwam_policy.policies.remote.server.turns import PolicyFailedError, Turns, one_line

MAX_CLIENTS = 16
MAX_SOCKETS = 64  # clients, handshakes, and who asks for /healthz and /metrics
HANDSHAKE = 10.0  # s
IDLE = 600.0  # s without a whole request, before a client is disconnected
KEPT = 10.0  # s since its last request that a client keeps its place when there are too many
CLOSING = 2.0  # s for a client to agree that the connection ends
SENDING = 30.0  # s for a client to take a reply
PIPELINED = 8  # requests of a client that are read ahead
_KEY = "Api-Key "
_END, _FAILED, _TRY_LATER = 1001, 1011, 1013


class Conversation(Hashable, Protocol):
    """A protocol's part: what is said to one client."""

    ordered: bool
    """Whether replies come in the order of the requests."""

    def greeting(self) -> bytes | None:
        """What the server says first."""

    async def answer(self, message: bytes) -> bytes | None:
        """The reply to a message; None: the client wants to end.

        Raises:
            ValueError: the message is wrong: its line is sent as text, and the connection ends.
            PolicyFailedError: likewise.
        """


class Connections:
    """All clients of one policy."""

    def __init__(self, turns: Turns, converse: Callable[[], Conversation], access: Access) -> None:
        self._turns, self._converse, self._access = turns, converse, access
        self._clients: dict[ServerConnection, _Client] = {}
        self._sockets: set[_Socket] = set()
        self._most = 1 if turns.stateful else MAX_CLIENTS

    @asynccontextmanager
    async def listen(self, host: str, port: int) -> AsyncIterator[int]:
        """Listen while the context lasts; yields the port.

        Raises:
            OSError: the port is in use or not allowed.
        """
        create: Any = self._connection
        async with serve_websocket(
            self._handle, host, port, ssl=self._access.tls, compression=None, process_request=self._look_at,
            open_timeout=HANDSHAKE, ping_interval=None, close_timeout=CLOSING, max_size=self._turns.max_bytes,
            max_queue=2, create_connection=create, server_header="fastwam", logger=_quiet(),
        ) as server:  # fmt: skip
            yield server.sockets[0].getsockname()[1]

    def _connection(self, *arguments: Any, **options: Any) -> ServerConnection:
        return _Socket(self._sockets, *arguments, **options)

    def _look_at(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer what is no websocket, and refuse who may not connect."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n")
        given = request.headers.get_all("Authorization")
        if not self._access.allows(given[0].removeprefix(_KEY) if len(given) == 1 else None):
            self._turns.metrics.refuse("no key")
            return connection.respond(HTTPStatus.UNAUTHORIZED, "the header Authorization: Api-Key KEY is needed\n")
        if path == "/metrics":
            response = connection.respond(HTTPStatus.OK, "")
            response.body = self._turns.metrics.text()
            for header, value in (("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(response.body)))):
                del response.headers[header]
                response.headers[header] = value
            return response
        if len(self._clients) >= self._most and not self._make_room():
            self._turns.metrics.refuse("too many")
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{len(self._clients)} clients are connected\n")
        return None

    def _make_room(self) -> bool:
        """Let go of the client that has been silent longest, first of those that never sent a whole request."""
        connection, client = min(self._clients.items(), key=lambda item: (item[1].asked, item[1].last))
        if client.busy or time.monotonic() - client.last < KEPT:
            return False
        del self._clients[connection]
        self._turns.metrics.refuse("evicted")
        client.ending = asyncio.create_task(connection.close(_TRY_LATER, "others wait, and it was silent"))
        return True

    async def _handle(self, connection: ServerConnection) -> None:
        client = self._clients[connection] = _Client()
        self._turns.metrics.clients.inc()
        conversation = self._converse()
        try:
            with suppress(ConnectionClosed):
                if (greeting := conversation.greeting()) is not None:
                    await _send(connection, greeting)
                await self._read(connection, client, conversation)
        finally:
            for task in client.busy:
                task.cancel()
            self._clients.pop(connection, None)
            self._turns.metrics.clients.dec()
            self._turns.forget(conversation)

    async def _read(self, connection: ServerConnection, client: _Client, conversation: Conversation) -> None:
        room, last = asyncio.Semaphore(PIPELINED), None
        while True:
            await room.acquire()
            message = await self._next(connection, client)
            if message is None:
                return
            client.asked, client.last = True, time.monotonic()
            last = asyncio.create_task(
                self._respond(connection, conversation, message, last if conversation.ordered else None)
            )
            client.busy.add(last)
            last.add_done_callback(client.busy.discard)
            last.add_done_callback(lambda _: room.release())

    async def _next(self, connection: ServerConnection, client: _Client) -> bytes | None:
        while True:
            try:
                message = await asyncio.wait_for(connection.recv(), IDLE)
            except asyncio.TimeoutError:
                if client.busy:
                    continue
                self._turns.metrics.refuse("idle")
                await connection.close(_END, f"no request for {IDLE:g} s")
                return None
            if isinstance(message, bytes):
                return message
            self._turns.metrics.count("refused")
            await self._refuse(connection, "a text frame: requests are binary")
            return None

    async def _respond(
        self,
        connection: ServerConnection,
        conversation: Conversation,
        message: bytes,
        before: asyncio.Task[None] | None,
    ) -> None:
        try:
            try:
                reply = await conversation.answer(message)
            finally:
                if before is not None:
                    await asyncio.wait({before})
            if reply is None:
                await connection.close()
            else:
                await _send(connection, reply)
        except ValueError as error:
            self._turns.metrics.count("refused")
            await self._refuse(connection, one_line(error))
        except PolicyFailedError as error:
            self._turns.metrics.count("failed")
            await self._refuse(connection, one_line(error))
        except ConnectionClosed:
            pass

    async def _refuse(self, connection: ServerConnection, line: str) -> None:
        with suppress(ConnectionClosed):
            await _send(connection, line)
            await connection.close(_FAILED, "see the text")


class _Client:
    """What is known of one connection."""

    def __init__(self) -> None:
        self.asked = False
        self.last = time.monotonic()
        self.busy: set[asyncio.Task[None]] = set()
        self.ending: asyncio.Task[None] | None = None


class _Socket(ServerConnection):
    """Counted from its first byte on, since a handshake may never come."""

    def __init__(self, sockets: set[_Socket], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._others = sockets

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._others.add(self)
        if len(self._others) > MAX_SOCKETS:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._others.discard(self)
        super().connection_lost(exc)


async def _send(connection: ServerConnection, message: bytes | str) -> None:
    """Send, and cut the connection of a client that does not read."""
    try:
        await asyncio.wait_for(connection.send(message), SENDING)
    except asyncio.TimeoutError:
        connection.transport.abort()


def _quiet() -> logging.Logger:
    """A line for each client that goes away, or is none, would be too much."""
    logger = logging.getLogger("fastwam_policy.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger
