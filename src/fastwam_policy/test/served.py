"""A policy that is served in this process, on a thread with an event loop of its own, and what talks to it."""

import asyncio
import threading
from contextlib import contextmanager

import numpy as np
from websockets.sync.client import connect

from fastwam_policy.policies.base import ActionChunk, CameraInput, Channel, PolicyInfo
from fastwam_policy.policies.remote.arrays import pack, unpack
from fastwam_policy.policies.remote.server.serving import Place, serving
from galaxea_r1lite_bridge.robot.config import RobotConfig

ROBOT = RobotConfig.load()
VECTOR = tuple(Channel(name, unit) for name, unit in zip(ROBOT.joint_names, ROBOT.units, strict=True))
CAMERAS = tuple(CameraInput(name) for name in ROBOT.cameras)
TIMEOUT = 60.0  # s: generous, since two cores may be busy


class Counting:
    """A policy whose chunks say what it was asked: the number of inferences, of resets, and the first joint.

    Each inference waits until `go` is set, and says so by `asked`.
    """

    def __init__(self, **changed):
        known = {"name": "counting", "cameras": CAMERAS, "state": VECTOR, "action": VECTOR, "fps": 15.0, "horizon": 4}
        self.info = PolicyInfo(**(known | changed))
        self.inferences = self.resets = 0
        self.closed = False
        self.observations, self.prepared = [], []
        self.asked, self.go = threading.Semaphore(0), threading.Event()
        self.go.set()
        self.actions = self.names = None

    def prepare(self, instruction):
        self.prepared.append(instruction)

    def infer(self, observation):
        self.asked.release()
        assert self.go.wait(TIMEOUT)
        self.inferences += 1
        self.observations.append(observation)
        row = [self.inferences, self.resets, *[0.0] * (len(self.info.action) - 2)]
        actions = np.tile(row, (self.info.horizon, 1)) if self.actions is None else self.actions
        names = self.names or [channel.name for channel in self.info.action]
        return ActionChunk(observation.stamp_ns, self.info.step_ns, names, actions)

    def reset(self):
        self.resets += 1

    def close(self):
        self.closed = True


@contextmanager
def served(policy, **place):
    """Its address, while it is served."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    found, ending = [], asyncio.Event()

    async def run():
        try:
            async with serving(lambda: policy, Place(**place)) as (_, address):
                found.append(address)
                started.set()
                await ending.wait()
        except Exception as error:  # noqa: BLE001  raised where it is waited for
            found.append(error)
            started.set()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert started.wait(TIMEOUT)
        if isinstance(found[0], Exception):
            raise found[0]
        yield found[0]
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join(TIMEOUT)
        assert not thread.is_alive()
        loop.close()


class Client:
    """A client of openpi's wire that checks nothing."""

    def __init__(self, address, **options):
        self._connected = connect(address, compression=None, max_size=None, open_timeout=TIMEOUT, **options)
        self.socket = self._connected.__enter__()
        self.metadata = unpack(self.socket.recv(TIMEOUT), "openpi")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._connected.__exit__(*error)

    def send(self, request):
        self.socket.send(request if isinstance(request, bytes | str) else pack(request, "openpi"))

    def receive(self):
        reply = self.socket.recv(TIMEOUT)
        return reply if isinstance(reply, str) else unpack(reply, "openpi")

    def ask(self, request):
        self.send(request)
        return self.receive()


def pictures(size=(18, 32)):
    random = np.random.default_rng(0)
    return {camera: random.integers(0, 255, (*size, 3), np.uint8) for camera in ROBOT.cameras}


def request(**changed):
    """A request; entries that are None are left out."""
    given = {"images": pictures(), "state": np.arange(14) / 10, "prompt": "fold the towel", "stamp_ns": 5_000_000_000}
    return {key: value for key, value in (given | changed).items() if value is not None}
