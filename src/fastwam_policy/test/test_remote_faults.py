"""Faults on the wire, over real sockets: they are named, nothing late or foreign is taken, and it goes on after."""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import yaml

from fastwam_policy.policies.base import Observation, PolicyUnavailableError
from fastwam_policy.policies.loading import load_policy
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from . import policy_peers as peers
from .waiting import until

pytestmark = pytest.mark.integration
ROBOT = RobotConfig.load()
IMAGES = {camera: np.ones((18, 32, 3), np.uint8) for camera in ROBOT.cameras}
JOINTS = dict(zip(ROBOT.joint_names, ROBOT.home.tolist(), strict=True))
TIMEOUT, PATIENCE = 0.3, 5.0  # s: of the client, and of this test
ABOUT = {
    "protocol": "openpi",
    "images": {"image": {"camera": "head"}},
    "state": {"parts": list(ROBOT.commanded)},
    "action": {"fps": 15, "horizon": 4},
    "timeout_s": TIMEOUT,
    "first_timeout_s": TIMEOUT,
}
NAN = json.dumps([[float("nan")] * 14] * 4).encode()
GOOD = peers.openpi_pack({"actions": np.full((4, 14), 0.5)})


def observation(stamp=1):
    return Observation(stamp, IMAGES, JOINTS, "fold the towel")


def greeted(talk):
    """A peer that says what it is, and then talks about each request."""

    def handle(connection):
        connection.send(peers.openpi_pack({}))
        for message in connection:
            talk(connection, peers.openpi_unpack(message))

    return handle


def good(connection, _):
    connection.send(GOOD)


@pytest.fixture
def policy_at(tmp_path):
    """A policy at an address, closed in the end."""
    made = []

    def make(address, **changed):
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(ABOUT | changed))
        made.append(load_policy(f"{address}#{file}"))
        return made[-1]

    yield make
    for policy in made:
        policy.close()


def recovered(policy, seen=None):
    """The next chunk that it gives; a policy that is asked too soon says when to ask again."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        try:
            return policy.infer(seen or observation())
        except PolicyUnavailableError as error:
            time.sleep(error.retry_after)
    return policy.infer(seen or observation())


def first_then(*replies):
    """A peer whose connections talk differently: the k-th as the k-th of these, and well after the last."""
    left = list(replies)

    def handle(connection):
        greeted(left.pop(0) if left else good)(connection)

    return handle


def raw(data, *, end=False, reset=False):
    """Bytes instead of a message."""

    def talk(connection, _):
        if reset:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.socket.sendall(data)
        if reset:
            connection.socket.shutdown(socket.SHUT_RD)  # a thread that reads it would keep it open
            connection.socket.close()
        elif end:
            connection.socket.shutdown(socket.SHUT_RDWR)

    return talk


def drip(connection, _):
    """A good reply, a byte at a time."""
    with suppress(OSError):
        for byte in b"\x82\x7e" + len(GOOD).to_bytes(2, "big") + GOOD:
            connection.socket.sendall(bytes([byte]))
            time.sleep(0.02)


def endless(connection, _):
    """A message that never ends, in many small frames."""
    with suppress(OSError):
        connection.socket.sendall(b"\x02\x01x")
        while True:
            connection.socket.sendall(b"\x00\x01x" * 50)
            time.sleep(0.01)


def says(text):
    return lambda connection, _: (connection.send(text), connection.close(1011))


def replies(value):
    return lambda connection, _: connection.send(peers.openpi_pack(value))


FAULTS = {
    "silence": (lambda *_: None, "no answer within 0.3 s"),
    "slow loris": (drip, "no answer within 0.3 s"),
    "endless frames": (endless, "no answer within 0.3 s"),
    "a text": (says("Traceback (most recent call last):\n  ...\nCUDA out of memory"), "the server says: .*CUDA out of"),
    "a long text": (says("x" * 10**6 + "the end"), r"the server says: \.\.\. x+the end$"),
    "half a frame": (raw(b"\x82\x7e\x10\x00" + bytes(100), end=True), "the connection broke"),
    "a reset": (raw(b"\x82", reset=True), "the connection broke"),
    "3 GB announced": (raw(b"\x82\x7f" + (3 * 2**30).to_bytes(8, "big")), "the connection broke: .*too big"),
    "3 GB in msgpack": (lambda c, _: c.send(b"\xc6\xc0\x00\x00\x00"), "not msgpack"),
    "no frame": (raw(b"HTTP/1.1 500 Oh no\r\n\r\n"), "the connection broke|no answer"),
    "no msgpack": (lambda c, _: c.send(b"\xc1"), "not msgpack: byte 0xc1"),
    "an object": (replies({"actions": {"__ndarray__": True, "data": b"", "dtype": "|O", "shape": [0]}}), "not taken"),
    "NaN": (replies({"actions": np.full((4, 14), np.nan)}), "not finite"),
    "infinity": (replies({"actions": np.full((4, 14), -np.inf)}), "not finite"),
}


@pytest.mark.parametrize(("fault", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_and_over_with_the_next_connection(fault, message, policy_at):
    with peers.websocket_peer(first_then(fault)) as address:
        policy = policy_at(address)
        begin = time.monotonic()
        with pytest.raises(PolicyUnavailableError, match=message) as named:
            policy.infer(observation())
        assert time.monotonic() - begin < 2 * TIMEOUT + 1
        assert str(named.value).startswith(f"{address}: ")
        assert len(str(named.value).splitlines()) == 1
        chunk = recovered(policy, observation(7))
    assert chunk.stamp_ns == 7
    assert (chunk.actions == 0.5).all()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"actions": np.zeros((5, 14))}, r"expected actions \[4, 14\], the reply has \[5, 14\]"),
        ({"actions": np.zeros((4, 7))}, r"the reply has \[4, 7\]"),
        ({"action": np.zeros((4, 14))}, "the reply has action"),
        ([], r"the reply has \[0\]"),
        (None, "the reply has NoneType"),
    ],
)
def test_a_reply_of_another_form_is_wrong_for_good(value, message, policy_at):
    """Asking again would not help: the node gives up, and the operator corrects the mapping."""
    with peers.websocket_peer(greeted(replies(value))) as address:
        with pytest.raises(ConfigError, match=message) as refused:
            policy_at(address).infer(observation())
        assert not isinstance(refused.value, PolicyUnavailableError)


def test_a_late_reply_is_never_taken_for_the_next(policy_at):
    """Replies carry the state they were asked about, and the first comes when the second is waited for."""
    asked = threading.Semaphore(0)

    def talk(connection, request):
        asked.release()
        if request["prompt"] == "slow":
            time.sleep(1.5 * TIMEOUT)
        connection.send(peers.openpi_pack({"actions": np.tile(request["state"], (4, 1))}))

    def at(value, task):
        return Observation(1, IMAGES, JOINTS | {"left_arm_joint1": value}, task)

    with peers.websocket_peer(greeted(talk)) as address:
        policy = policy_at(address)
        with pytest.raises(PolicyUnavailableError, match="no answer within"):
            policy.infer(at(0.1, "slow"))
        chunk = recovered(policy, at(0.2, "quick"))
        np.testing.assert_allclose(chunk.actions[:, 0], 0.2, atol=1e-6)
        time.sleep(TIMEOUT)  # the late reply has been sent by now
        np.testing.assert_allclose(policy.infer(at(0.3, "quick")).actions[:, 0], 0.3, atol=1e-6)


def test_a_second_reply_to_one_request_is_not_the_next_ones(policy_at):
    sent = threading.Event()

    def twice(connection, _):
        connection.send(GOOD)
        connection.send(peers.openpi_pack({"actions": np.zeros((4, 14))}))
        sent.set()

    with peers.websocket_peer(first_then(twice)) as address:
        policy = policy_at(address)
        policy.infer(observation())
        assert sent.wait(PATIENCE)
        time.sleep(0.1)
        with pytest.raises(PolicyUnavailableError, match="sent a message that was not asked for"):
            policy.infer(observation())
        assert (recovered(policy).actions == 0.5).all()


def test_a_server_that_is_killed_and_started_again(policy_at):
    with peers.websocket_peer(greeted(good)) as address:
        policy = policy_at(address)
        policy.infer(observation())
    pauses = []
    for _ in range(4):
        with pytest.raises(PolicyUnavailableError, match="refused|broke|closed") as gone:
            policy.infer(observation())
        pauses.append(gone.value.retry_after)
        with pytest.raises(PolicyUnavailableError, match="refused|broke|closed") as asked_too_soon:
            policy.infer(observation())
        assert asked_too_soon.value.retry_after <= pauses[-1]
        time.sleep(asked_too_soon.value.retry_after)
    assert pauses[1:] == [2 * pause for pause in pauses[:-1]]
    with peers.websocket_peer(greeted(good), int(address.rsplit(":", 1)[1])) as again:
        assert again == address
        assert recovered(policy, observation(8)).stamp_ns == 8


def test_a_server_that_ended_an_idle_connection_is_connected_again_at_once(policy_at):
    """As vLLM-Omni does after 30 s: nothing was asked, so nothing is lost."""

    def once(connection):
        connection.send(peers.openpi_pack({}))
        connection.recv()
        connection.send(GOOD)

    with peers.websocket_peer(once) as address:
        policy = policy_at(address)
        for stamp in range(3):
            assert policy.infer(observation(stamp)).stamp_ns == stamp
            until(lambda: not policy._wire.line.is_open)


@contextmanager
def frozen_peer():
    """A port where connections are accepted by the system, and by nobody else, as of a stopped process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_is_frozen_from_the_start(policy_at, monkeypatch):
    monkeypatch.setattr("fastwam_policy.policies.remote.client._CONNECTING", TIMEOUT)
    with frozen_peer() as place:
        with pytest.raises(ConfigError, match="no policy answers: no connection within 0.3 s"):
            policy_at(f"ws://{place}")
        with pytest.raises(ConfigError, match="no policy answers: no answer within 0.3 s"):
            policy_at(f"zmq://{place}", protocol="gr00t")
        policy = policy_at(f"http://{place}", protocol="openvla-oft")
        with pytest.raises(PolicyUnavailableError, match="no answer within 0.3 s"):
            policy.infer(observation())


def test_a_server_that_reads_no_more(policy_at):
    """A frozen process whose buffers are full: a picture of 12 MB does not go out."""
    ending = threading.Event()

    def greet_and_freeze():
        connection, _ = server.accept()
        with connection:
            key = re.search(rb"Sec-WebSocket-Key: (\S+)", connection.recv(2**16))[1]
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            connection.sendall(head + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + b"\x82\x01\x80")
            ending.wait(PATIENCE)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=greet_and_freeze)
        thread.start()
        policy = policy_at(f"ws://127.0.0.1:{server.getsockname()[1]}")
        large = Observation(1, IMAGES | {"head": np.ones((2000, 2000, 3), np.uint8)}, JOINTS, "fold the towel")
        begin = time.monotonic()
        with pytest.raises(PolicyUnavailableError, match="the connection broke"):
            policy.infer(large)
        assert time.monotonic() - begin < PATIENCE / 2
        ending.set()
        thread.join()


def test_a_name_that_is_no_host(policy_at):
    for address, protocol in (("ws", "openpi"), ("zmq", "gr00t"), ("http", "openvla-oft")):
        with pytest.raises(ConfigError, match="no policy answers: no connection: .*[Nn]ame"):
            policy_at(f"{address}://no-such-host.invalid:8000", protocol=protocol)


def test_a_first_inference_may_take_longer_than_the_others(policy_at):
    """The first one compiles; no ping ends the connection meanwhile."""
    waits = [2 * TIMEOUT, 0.0, 2 * TIMEOUT]

    def talk(connection, _):
        time.sleep(waits.pop(0) if waits else 0.0)
        connection.send(GOOD)

    with peers.websocket_peer(greeted(talk)) as address:
        policy = policy_at(address, first_timeout_s=PATIENCE)
        policy.infer(observation())
        policy.infer(observation())
        with pytest.raises(PolicyUnavailableError, match="no answer within 0.3 s"):
            policy.infer(observation())
        recovered(policy)


def test_a_late_reply_over_zeromq_and_http(policy_at):
    def slow_then_quick(reply):
        asked = []

        def answer(request):
            if b"ping" in request or b"reset" in request:
                return peers.gr00t_pack({})
            asked.append(1)
            if len(asked) == 1:
                time.sleep(2 * TIMEOUT)
            return reply(0.1 * len(asked))

        return answer

    rows = {name: np.ones((1, 4, len(group.joints))) for name, group in ROBOT.commanded.items()}
    gr00t = slow_then_quick(lambda value: peers.gr00t_pack([{n: value * row for n, row in rows.items()}, {}]))
    parts = {"parts": [{"group": name, "key": name} for name in rows]}
    about = {"state": {"key": "", **parts}, "action": {"key": "", "fps": 15, "horizon": 4}}
    oft = slow_then_quick(lambda value: peers.json_numpy_dumps(list(np.full((4, 14), value))))
    with peers.zmq_peer(gr00t) as first, peers.http_peer(oft) as second:
        for policy in (
            policy_at(first, protocol="gr00t", **about),
            policy_at(second, protocol="openvla-oft"),
        ):
            with pytest.raises(PolicyUnavailableError, match="no answer within 0.3 s"):
                policy.infer(observation())
            np.testing.assert_allclose(recovered(policy).actions, 0.2)
            np.testing.assert_allclose(policy.infer(observation()).actions, 0.3)


def test_an_answer_over_http_that_drips_or_floods_or_is_an_error(policy_at, monkeypatch):
    monkeypatch.setattr("fastwam_policy.policies.remote.lines.MAX_REPLY", 10_000)
    ways = {
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n": "no answer within 0.3 s",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\nfull": "the server says: 500 full",
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(20_000): "more than 10000 bytes",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3221225472\r\n\r\n" + bytes(20_000): "more than 10000 bytes",
        b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nhalf": "the connection broke",
        b"HTTP/1.1 401 No\r\nContent-Length: 3\r\n\r\nkey": "the server says: 401 key",
        b"HTTP/1.1 429 No\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n": "the server says: 429",
        b"HTTP/1.1 307 No\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n": "the server says: 307",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(NAN), NAN): "not finite",
        b"nonsense\r\n\r\n": "the connection broke",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[1,x": "not JSON",
    }
    with socket.create_server(("127.0.0.1", 0)) as server:
        policy = policy_at(f"http://127.0.0.1:{server.getsockname()[1]}", protocol="openvla-oft")
        server.accept()[0].close()  # whether somebody is there

        def answer(data):
            policy_at_work, _ = server.accept()
            if not policy_at_work.recv(1):
                policy_at_work, _ = server.accept()
            with policy_at_work, suppress(OSError):
                policy_at_work.recv(2**20)
                for part in (data[:10], data[10:]) if b"1000" not in data else (bytes([byte]) for byte in data * 9):
                    policy_at_work.sendall(part)
                    time.sleep(0.02)

        for data, message in ways.items():
            thread = threading.Thread(target=answer, args=[data])
            thread.start()
            with pytest.raises(PolicyUnavailableError, match=message):
                policy.infer(observation())
            thread.join()
            policy._not_before = 0.0
