"""Connections to a policy server: one request, one answer, each with a time limit and a size limit.

After an error or a timeout a line is dropped and opened again, so that no late answer is taken for the next.
The library of each kind is imported when such a line is opened.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    import zmq
    from websockets.sync.client import ClientConnection

MAX_REPLY = 2**26
"""Bytes of an answer: 64 MiB. A chunk has a few thousand; only imagined pictures take more."""
_TEXT = 600  # letters of a server's text that are shown
_CLOSING = 0.5  # s for the end of a connection that was in order
_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443, "zmq": 5555, "tcp": 5555}


class LineError(Exception):
    """There is no connection, or it broke; the text says why."""


class TimedOutError(LineError):
    """The server is silent or too slow."""


class ServerError(LineError):
    """The server answered with an error; the text is its own."""

    def __init__(self, text: str) -> None:
        super().__init__(f"the server says: {short(text)}")


class Line(Protocol):
    """See the module."""

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent without :meth:`open`."""

    def open(self, timeout: float) -> None:
        """Connect within so many s."""

    def ask(self, data: bytes, timeout: float) -> bytes:
        """The answer to a request, all of it within so many s."""

    def hear(self, timeout: float) -> bytes:
        """A message that was not asked for: a server that speaks first."""

    def drop(self) -> None:
        """End it at once."""

    def close(self) -> None:
        """End it in order."""


class WebsocketLine:
    """Binary messages; a text is an error of the server's. No keep-alive pings: a first inference may compile."""

    def __init__(self, address: str, key: str = "") -> None:
        self._address, self._url = address, urlsplit(address)
        self._headers = {"Authorization": f"Api-Key {key}"} if key else {}
        self._stack = ExitStack()
        self._connection: ClientConnection | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is connected, as far as is known."""
        return self._connection is not None and self._connection.state.name == "OPEN"

    def open(self, timeout: float) -> None:
        """See :class:`Line`."""
        from websockets.exceptions import InvalidStatus, WebSocketException
        from websockets.sync.client import connect

        self.drop()
        plain = _dialled(self._url, timeout)  # by ourselves: a redirect to elsewhere cannot be followed then
        plain.settimeout(None)
        try:
            connection = connect(
                self._address, sock=plain, compression=None, max_size=MAX_REPLY, additional_headers=self._headers,
                proxy=None, open_timeout=timeout, close_timeout=_CLOSING, ping_interval=None,
            )  # fmt: skip
            self._stack.enter_context(connection)
            self._connection = connection
        except TimeoutError:
            raise TimedOutError(f"no connection within {timeout:g} s") from None
        except InvalidStatus as error:
            said = (error.response.body or b"")[:_TEXT].decode(errors="replace")
            raise LineError(short(f"no connection: HTTP {error.response.status_code} {said}")) from None
        except (OSError, ValueError, WebSocketException) as error:
            raise LineError(f"no connection: {short(error)}") from None
        finally:
            if self._connection is None:
                plain.close()

    def ask(self, data: bytes, timeout: float) -> bytes:
        """See :class:`Line`."""
        connection = self._connected()
        with suppress(TimedOutError):
            self.hear(0.0)
            raise LineError("the server sent a message that was not asked for")
        guard = threading.Timer(timeout, _shut, [connection.socket])  # who does not read blocks who sends
        guard.start()
        try:
            connection.send(data)
        except Exception as error:  # noqa: BLE001  OSError, ConnectionClosed, and what TLS has
            raise self._broken(error) from None
        finally:
            guard.cancel()
        return self.hear(timeout)

    def hear(self, timeout: float) -> bytes:
        """See :class:`Line`."""
        from websockets.exceptions import WebSocketException

        try:
            message = self._connected().recv(timeout)
        except TimeoutError:
            raise TimedOutError(f"no answer within {timeout:g} s") from None
        except (OSError, WebSocketException) as error:
            raise self._broken(error) from None
        if isinstance(message, str):
            raise ServerError(message)
        return message

    def drop(self) -> None:
        """See :class:`Line`."""
        if self._connection is not None:
            _shut(self._connection.socket)
        self.close()

    def close(self) -> None:
        """See :class:`Line`."""
        self._connection = None
        with suppress(Exception):
            self._stack.close()

    def _connected(self) -> ClientConnection:
        if self._connection is None:
            raise LineError("not connected")
        return self._connection

    def _broken(self, error: Exception) -> LineError:
        return LineError(f"the connection broke: {short(error)}")


class ZmqLine:
    """ZeroMQ's REQ: a socket that has lost an answer can never be used again, and is made anew."""

    def __init__(self, address: str) -> None:
        self._url = urlsplit(address)
        self._socket: zmq.Socket[bytes] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a socket; whether there is a server shows when it is asked."""
        return self._socket is not None

    def open(self, timeout: float) -> None:
        """See :class:`Line`."""
        import zmq

        self.drop()
        with _dialled(self._url, timeout) as reached:  # ZeroMQ would try for ever, and say nothing
            host, port = reached.getpeername()[:2]
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        for option, value in ((zmq.LINGER, 0), (zmq.MAXMSGSIZE, MAX_REPLY), (zmq.IPV6, int(":" in host))):
            self._socket.set(option, value)
        self._socket.connect(f"tcp://{f'[{host}]' if ':' in host else host}:{port}")

    def ask(self, data: bytes, timeout: float) -> bytes:
        """See :class:`Line`."""
        import zmq

        if self._socket is None:
            raise LineError("not connected")
        try:
            self._socket.set(zmq.SNDTIMEO, round(1e3 * timeout))
            self._socket.send(data)
            if not self._socket.poll(round(1e3 * timeout)):
                raise TimedOutError(f"no answer within {timeout:g} s")
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            raise TimedOutError(f"no connection within {timeout:g} s") from None
        except zmq.ZMQError as error:
            raise LineError(f"the connection broke: {short(error)}") from None
        if len(frames) != 1:
            raise LineError(f"an answer of {len(frames)} parts, 1 is expected")
        return frames[0]

    def hear(self, timeout: float) -> bytes:
        """Nothing comes that was not asked for."""
        raise LineError("this server does not speak first")

    def drop(self) -> None:
        """See :class:`Line`."""
        if self._socket is not None:
            self._socket.close(0)
            self._context.destroy(0)
            self._socket = None

    close = drop


class HttpLine:
    """`POST` of JSON; a request has a connection of its own."""

    def __init__(self, address: str) -> None:
        self._url, self._address = urlsplit(address), address
        self.is_open = False

    def open(self, timeout: float) -> None:
        """See :class:`Line`."""
        _dialled(self._url, timeout).close()
        self.is_open = True

    def ask(self, data: bytes, timeout: float) -> bytes:
        """See :class:`Line`."""
        import httpx

        try:
            return asyncio.run(asyncio.wait_for(self._post(data), timeout))
        except (TimeoutError, asyncio.TimeoutError, httpx.TimeoutException):
            raise TimedOutError(f"no answer within {timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise LineError(f"the connection broke: {short(error)}") from None

    async def _post(self, data: bytes) -> bytes:
        import httpx

        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        known = ssl.create_default_context() if self._url.scheme == "https" else False  # with SSL_CERT_FILE
        async with (
            httpx.AsyncClient(trust_env=False, timeout=None, verify=known) as client,
            client.stream("POST", self._address, content=data, headers=headers) as answer,
        ):
            found = bytearray()
            async for part in answer.aiter_raw():  # as it is sent: nothing is unpacked
                found += part
                if len(found) > MAX_REPLY:
                    raise LineError(f"an answer of more than {MAX_REPLY} bytes")
        if answer.status_code != httpx.codes.OK:
            raise ServerError(f"{answer.status_code} {found[:_TEXT].decode(errors='replace')}")
        return bytes(found)

    def hear(self, timeout: float) -> bytes:
        """Nothing comes that was not asked for."""
        raise LineError("this server does not speak first")

    def drop(self) -> None:
        """See :class:`Line`."""
        self.is_open = False

    close = drop


def _dialled(url: SplitResult, timeout: float) -> socket.socket:
    """A connection to where the address leads; LineError where nothing listens there."""
    try:
        return socket.create_connection((url.hostname or "", url.port or _PORTS[url.scheme]), timeout)
    except TimeoutError:
        raise TimedOutError(f"no connection within {timeout:g} s") from None
    except (OSError, UnicodeError) as error:
        raise LineError(f"no connection: {short(error)}") from None


def _shut(connection: Any) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def one_line(text: object) -> str:
    """It without ends of lines and other letters that control a terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def short(text: object) -> str:
    """One line of it; of a long one the end, where a traceback says what is wrong."""
    line = one_line(text) or type(text).__name__
    return line if len(line) <= _TEXT else f"... {line[-_TEXT:]}"
