"""`fastwam serve POLICY`: loads a policy and answers its clients until the process is told to end."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from fastwam_policy.policies.base import Policy
from fastwam_policy.policies.remote.server.access import Access
from fastwam_policy.policies.remote.server.turns import Turns
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.joint_gate import JointMapping
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

Protocol = Literal["openpi", "xpolicylab", "gr00t"]
PORTS: dict[Protocol, int] = {"openpi": 8000, "xpolicylab": 19000, "gr00t": 5555}
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Place:
    """Where and how to serve; port 0 chooses a free one."""

    protocol: Protocol = "openpi"
    host: str = "127.0.0.1"
    port: int = 0
    access: Access = field(default_factory=Access)


def serve(make_policy: Callable[[], Policy], place: Place, ready: Callable[[str, str], None]) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; `ready` is told the policy's name and the address.

    Raises:
        ConfigError: the policy does not load or cannot be served so, the host is no address of this machine, or the
            port is in use or not allowed.
    """

    async def run() -> None:
        async with serving(make_policy, place) as (name, address):
            loop, ending = asyncio.get_running_loop(), asyncio.Event()
            for number in _ENDING:
                loop.add_signal_handler(number, ending.set)
            ready(name, address)
            await ending.wait()

    asyncio.run(run())


@asynccontextmanager
async def serving(make_policy: Callable[[], Policy], place: Place) -> AsyncIterator[tuple[str, str]]:
    """A served policy while the context lasts; yields its name and the address that clients take. As :func:`serve`."""
    turns = Turns()
    try:
        await turns.open(make_policy)
        async with AsyncExitStack() as listening:
            try:
                port = await listening.enter_async_context(_listen(turns, place))
            except (OSError, UnicodeError) as error:
                raise ConfigError(_why_not(place, error)) from None
            yield turns.info.name, f"{_scheme(place)}://{_host(place.host)}:{port}"
    finally:
        await turns.close()


def _listen(turns: Turns, place: Place) -> AbstractAsyncContextManager[int]:
    if place.protocol == "openpi":
        from fastwam_policy.policies.remote.server.connections import Connections
        from fastwam_policy.policies.remote.server.openpi import Openpi

        return Connections(turns, lambda: Openpi(turns), place.access).listen(place.host, place.port)
    if turns.stateful or turns.info.history:
        raise ConfigError(f"{turns.info.name}: looks back, which only --protocol openpi has words for")
    from fastwam_policy.policies.remote.server.groups import Groups

    robot = RobotConfig.load()
    if place.protocol == "xpolicylab":
        from fastwam_policy.policies.remote.server.connections import Connections
        from fastwam_policy.policies.remote.server.xpolicylab import XPolicyLab, measured

        groups = Groups(turns.info, robot, measured)
        return Connections(turns, lambda: XPolicyLab(turns, groups), place.access).listen(place.host, place.port)
    from fastwam_policy.policies.remote.server.gr00t import Gr00t

    if place.access.tls is not None:
        raise ConfigError("--cert, --key: GR00T's protocol has no TLS; use a tunnel, or another --protocol")
    groups = Groups(turns.info, robot, lambda _: JointMapping())
    return Gr00t(turns, groups, place.access).listen(place.host, place.port)


def _why_not(place: Place, error: OSError | UnicodeError) -> str:
    """A line that says which option is wrong."""
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"--host {place.host}: no such address; 127.0.0.1 is this machine only, 0.0.0.0 all its networks"
    if error.errno == errno.EADDRINUSE:
        return f"--port {place.port}: another program listens there; end it, or choose another --port"
    if error.errno == errno.EACCES:
        return f"--port {place.port}: only root may listen there; choose another --port, from 1024 on"
    if error.errno in (errno.EADDRNOTAVAIL, None):  # asyncio's, where no address is left, has no number
        return f"--host {place.host}: not an address of this machine; 0.0.0.0 is all that it has"
    return f"--host {place.host}, --port {place.port}: {error}"


def _scheme(place: Place) -> str:
    if place.protocol == "gr00t":
        return "zmq"
    return "ws" if place.access.tls is None else "wss"


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
