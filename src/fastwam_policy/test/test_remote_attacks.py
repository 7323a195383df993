"""Servers that mean no good: what they send is refused in one line, in time, and never becomes a motion."""

import random
import socket
import ssl
import threading
import time
from contextlib import closing, contextmanager, suppress

import numpy as np
import pytest
import trustme

from fastwam_policy.policies.base import PolicyUnavailableError
from fastwam_policy.policies.loading import load_policy
from fastwam_policy.policies.remote.arrays import pack, unpack
from fastwam_policy.policies.remote.client import RemotePolicy
from fastwam_policy.policies.remote.layout import Layout
from fastwam_policy.policies.remote.mapping import Mapping
from fastwam_policy.policies.remote.protocols import PROTOCOLS
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from . import policy_peers as peers
from .served import Counting, served
from .test_remote_faults import ABOUT, PATIENCE, ROBOT, TIMEOUT, good, greeted, observation, policy_at, raw, recovered

__all__ = ["policy_at"]  # a fixture

ROWS = np.full((4, 14), 0.5)
KEYED = {name: {"group": name, "key": name} for name in ROBOT.commanded}
BY_GROUP = {"state": {"key": "", "parts": [*KEYED.values()]}, "action": {"key": "", "fps": 15, "horizon": 4}}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("fastwam_policy.policies.remote.client._CONNECTING", TIMEOUT)


def replies(value):
    return lambda connection, _: connection.send(peers.openpi_pack(value))


def array(**changed):
    return {"actions": {"__ndarray__": True, "data": bytes(448), "dtype": "<f8", "shape": [4, 14]} | changed}


WRONG = {
    "closed, 1011": (lambda c, _: c.close(1011, "oh"), "the connection broke: received 1011 .* oh"),
    "closed, 1013": (lambda c, _: c.close(1013, "later"), "the connection broke: received 1013 .* later"),
    "compressed, and not agreed": (raw(b"\xc2\x01x"), "the connection broke"),
    "masked": (raw(b"\x82\x81\x00\x00\x00\x00x"), "the connection broke"),
    "an unknown kind of frame": (raw(b"\x83\x00"), "the connection broke"),
    "the rest of nothing": (raw(b"\x80\x00"), "the connection broke"),
    "a ping that is too long": (raw(b"\x89\x7e\x00\x7e" + bytes(126)), "the connection broke"),
    "text that is none": (raw(b"\x81\x02\xff\xff"), "the connection broke"),
    "letters that control a terminal": (
        lambda c, _: (c.send("\x1b[2J\x07all is well\x1b[0m"), c.close(1011)), "the server says: .*all is well"
    ),
    "lists in lists": (lambda c, _: c.send(b"\x91" * 10**5), "nested more than 16 deep"),
    "a list of 4 billion": (lambda c, _: c.send(b"\xdd\xff\xff\xff\xff"), "more than 65536 values"),
    "a map of lists of maps": (lambda c, _: c.send(b"\xdf\x00\x00\xff\xff" * 20), "more than 65536 values"),
    "an extension": (lambda c, _: c.send(b"\xc7\x01\x05x"), "byte 0xc7 begins nothing"),
    "an empty message": (lambda c, _: c.send(b""), "not msgpack"),
    "records": (replies(array(dtype="|V8")), "not taken"),
    "complex numbers": (replies(array(dtype="<c16")), "not taken"),
    "times": (replies(array(dtype="<M8[ns]")), "not taken"),
    "a negative length": (replies(array(shape=[-4, -14])), "a length that is none"),
    "a huge length": (replies(array(shape=[2**40, 0])), "a length that is none"),
    "too few bytes": (replies(array(data=b"x")), "is 448 bytes, got 1 bytes"),
    "no bytes": (replies(array(data=[0.0] * 56)), "is 448 bytes, got a list"),
    "larger than any float64": (replies({"actions": np.full((4, 14), np.longdouble("1e4000"))}), "not finite"),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "message"), WRONG.values(), ids=WRONG)
def test_a_reply_that_is_no_message_is_named_and_asked_for_again(fault, message, policy_at):
    connections = [fault]
    with peers.websocket_peer(lambda c: greeted(connections.pop() if connections else good)(c)) as address:
        policy = policy_at(address)
        with pytest.raises(PolicyUnavailableError, match=message) as named:
            policy.infer(observation())
        assert str(named.value).isprintable()
        assert (recovered(policy).actions == 0.5).all()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((0, 14)), r"the reply has \[0, 14\]"),
        (np.zeros((4, 0)), r"the reply has \[4, 0\]"),
        (np.zeros((2, 4, 14)), r"the reply has \[2, 4, 14\]"),
        (np.zeros((4, 15)), r"the reply has \[4, 15\]"),
        (0.5, r"the reply has \[\]"),
        ([["0.5"] * 14] * 4, "no array of numbers"),
        (np.full((4, 14), "0.5"), "no array of numbers"),
        (np.ones((4, 14), bool), "no array of numbers"),
        ([[0.5] * 14, [0.5] * 13, [0.5] * 14, [0.5] * 14], "no array of numbers"),
        ([[{"x": 1}] * 14] * 4, "no array of numbers"),
        ({"left_arm": np.zeros((4, 6))}, "no array of numbers"),
    ],
)
def test_what_is_no_chunk_of_that_size_is_refused_for_good(value, message, policy_at):
    with peers.websocket_peer(greeted(replies({"actions": value}))) as address:
        with pytest.raises(ConfigError, match=message) as refused:
            policy_at(address).infer(observation())
        assert not isinstance(refused.value, PolicyUnavailableError)
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("dtype", ["<f2", ">f4", ">f8", "<f8", "|i1", ">i4", "<u8"])
def test_numbers_of_other_types_and_byte_orders_are_what_they_are(dtype, policy_at):
    rows = (np.arange(56).reshape(4, 14) % 2).astype(dtype)
    with peers.websocket_peer(greeted(replies({"actions": rows}))) as address:
        found = policy_at(address).infer(observation()).actions
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, np.arange(56).reshape(4, 14) % 2)


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (401, {}, r"HTTP 401 a key \[1m is needed"),
        (403, {}, r"HTTP 403 a key \[1m is needed"),
        (404, {}, "HTTP 404"),
        (429, {"Retry-After": "9"}, "HTTP 429"),
        (503, {}, "HTTP 503"),
        (307, {"Location": "{elsewhere}"}, "HTTP 307|redirect"),
        (301, {"Location": "http://[nonsense"}, "HTTP 301|redirect|Invalid"),
    ],
)
def test_a_handshake_that_is_refused_is_named_and_no_redirect_followed(status, headers, message, policy_at):
    came = []

    def refuse(connection, _):
        response = connection.respond(status, "a key\x1b[1m is\nneeded")
        for name, value in headers.items():
            response.headers[name] = value.replace("{elsewhere}", elsewhere)
        return response

    with (
        peers.websocket_peer(came.append) as elsewhere,
        peers.websocket_peer(good, process_request=refuse) as address,
        pytest.raises(
            PolicyUnavailableError, match=f"{address}: no policy answers: no connection: .*({message})"
        ) as named,
    ):
        policy_at(address)
    assert str(named.value).isprintable()
    assert not came


@contextmanager
def bytes_peer(talk):
    """A server of plain bytes: `talk(socket)` for its first connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def work():
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.recv(2**16)
                talk(connection)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.getsockname()[1]}"
        finally:
            thread.join()


def drip(connection):
    for byte in b"HTTP/1.1 101 Switching Protocols\r\n":
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def headers_without_end(connection):
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n")
    for _ in range(1000):
        connection.sendall(b"X: " + b"x" * 4000 + b"\r\n")


@pytest.mark.parametrize(
    ("talk", "message"),
    [
        (lambda c: None, "no connection: "),
        (lambda c: c.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"), "no connection: "),
        (lambda c: c.sendall(b"\x00" * 10**5), "no connection: "),
        (lambda c: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "no connection: HTTP 200"),
        (
            lambda c: c.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: wrong\r\n\r\n"
            ),
            "no connection: ",
        ),
        (drip, "no connection within 0.3 s"),
        (headers_without_end, "no connection: "),
    ],
)
def test_a_handshake_that_is_none_ends_in_time(talk, message, policy_at):
    begin = time.monotonic()
    with bytes_peer(talk) as address, pytest.raises(PolicyUnavailableError, match=message) as named:
        policy_at(address)
    assert str(named.value).isprintable()
    assert time.monotonic() - begin < PATIENCE


@pytest.mark.parametrize(
    ("greet", "message"),
    [
        (lambda c: c.recv(), "no answer within 0.3 s"),
        (lambda c: c.close(1013, "others wait"), "the connection broke: received 1013 .* others wait"),
        (lambda c: c.send(peers.openpi_pack({"x": bytes(2**20)})), "at most 1048576 are taken"),
        (lambda c: c.send("warming up"), "the server says: warming up"),
    ],
)
def test_a_greeting_that_is_none_is_named(greet, message, policy_at):
    with (
        peers.websocket_peer(greet) as address,
        pytest.raises(PolicyUnavailableError, match=f"no policy answers: .*{message}"),
    ):
        policy_at(address)


def test_a_servers_pings_are_answered_while_its_first_inference_compiles(policy_at):
    def slow(connection, _):
        time.sleep(2 * TIMEOUT)
        connection.send(peers.openpi_pack({"actions": ROWS}))

    with peers.websocket_peer(greeted(slow), ping_interval=0.05, ping_timeout=0.2) as address:
        assert (policy_at(address, first_timeout_s=PATIENCE).infer(observation()).actions == 0.5).all()


def test_a_proxy_of_the_environment_is_not_used(policy_at, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    with peers.websocket_peer(greeted(good)) as address:
        policy_at(address).infer(observation())
    with peers.http_peer(lambda _: peers.json_numpy_dumps(ROWS)) as address:
        policy_at(address, protocol="openvla-oft").infer(observation())


def test_ipv6(policy_at):
    with served(Counting(cameras=()), host="::1", protocol="gr00t") as address:
        parts = [part | {"key": f"state.{name}"} for name, part in KEYED.items()]
        moved = [part | {"key": f"action.{name}"} for name, part in KEYED.items()]
        about = {"state": {"key": "", "parts": parts}, "action": {"key": "", "fps": 15, "horizon": 4, "parts": moved}}
        policy = policy_at(address, protocol="gr00t", images={}, **about)
        assert policy.infer(observation()).actions[0, 0] == 1
    with served(Counting(cameras=()), host="::1") as address, closing(load_policy(address)) as policy:
        assert policy.infer(observation()).actions[0, 0] == 1


def test_over_https_with_a_certificate_of_ones_own(policy_at, tmp_path, monkeypatch):
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with peers.http_peer(lambda _: peers.json_numpy_dumps(ROWS), context) as address:
        assert address.startswith("https://")
        policy = policy_at(address, protocol="openvla-oft")
        with pytest.raises(PolicyUnavailableError, match="the connection broke: .*certificate"):
            policy.infer(observation())
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert (recovered(policy).actions == 0.5).all()


@pytest.mark.parametrize("protocol", ["gr00t", "openvla-oft"])
def test_a_server_of_another_wire_is_killed_and_started_again(protocol, policy_at):
    def answer(_):
        if protocol == "openvla-oft":
            return peers.json_numpy_dumps(ROWS)
        return peers.gr00t_pack([{n: ROWS[None, :, : len(group.joints)] for n, group in ROBOT.commanded.items()}, {}])

    peer = peers.zmq_peer if protocol == "gr00t" else peers.http_peer
    with peer(answer) as address:
        policy = policy_at(address, protocol=protocol, **(BY_GROUP if protocol == "gr00t" else {}))
        policy.infer(observation())
    with pytest.raises(PolicyUnavailableError, match=f"^{address}: (no answer|the connection broke)"):
        policy.infer(observation())
    policy._not_before = 0.0
    with pytest.raises(PolicyUnavailableError, match=f"^{address}: (no connection|the connection broke): .*"):
        policy.infer(observation())
    with peer(answer, port=int(address.rsplit(":", 1)[1])):
        assert recovered(policy, observation(8)).stamp_ns == 8


def test_zeromq_with_an_answer_that_is_too_long_or_in_parts(policy_at, monkeypatch):
    monkeypatch.setattr("fastwam_policy.policies.remote.lines.MAX_REPLY", 10_000)
    rows = [{name: ROWS[None, :, : len(group.joints)] for name, group in ROBOT.commanded.items()}, {}]
    answers = [bytes(20_000), [b"a", b"b"], peers.gr00t_pack(rows)]

    def answer(request):
        return answers.pop(0) if b"get_action" in request else peers.gr00t_pack({})

    with peers.zmq_peer(answer) as address:
        policy = policy_at(address, protocol="gr00t", **BY_GROUP)
        for message in ("no answer within 0.3 s", "an answer of 2 parts, 1 is expected"):
            with pytest.raises(PolicyUnavailableError, match=message):
                policy.infer(observation())
            policy._not_before = 0.0
        assert (recovered(policy).actions == 0.5).all()


class Canned:
    """A line whose server answers with what `answer(request)` returns."""

    def __init__(self, dialect, answer):
        self._dialect, self._answer = dialect, answer
        self.is_open = False

    def open(self, timeout):
        self.is_open = True

    def hear(self, timeout):
        return pack({}, self._dialect)

    def ask(self, data, timeout):
        return pack(self._answer(unpack(data, self._dialect)), self._dialect)

    def drop(self):
        self.is_open = False

    close = drop


def good_answers(protocol, request):
    """What a server in order says to a request, so that it gets a chunk."""
    parts = {name: ROWS[:, : len(group.joints)] for name, group in ROBOT.commanded.items()}
    if protocol == "lingbot-va":
        return {} if "reset" in request else {"action": np.full((14, 2, 2), 0.5)}
    if protocol == "galaxea":
        return request if "__reset__" in request else {"action": {n: p[0] for n, p in parts.items()}, "need_obs": True}
    if protocol == "gr00t":
        return [{name: part[None] for name, part in parts.items()}, {}] if request["endpoint"] == "get_action" else {}
    if protocol == "xpolicylab":
        kind = {"hello": "hello_ack", "reset": "reset_result", "infer": "infer_result"}[request["message_type"]]
        steps = [{name: part[k] for name, part in parts.items()} for k in range(4)]
        return request | {"message_type": kind, "payload": {"actions": steps, "latency_ms": 1.0, "ok": True}}
    if protocol == "vllm-omni":
        return {"status": "ok"} if request["endpoint"] == "reset" else {"actions": ROWS}
    return {"actions": ROWS}


ODD = [
    None, True, 0, -1, 1e300, "x", "", b"x", [], {}, [[]], [None], {"": {}}, {"error": []}, {"message": None}, [[], {}],
    np.float32(3), np.zeros(0), np.zeros((1, 4)), np.full((4, 14), np.inf),
    np.full((4, 14), "x"), np.zeros((4, 14), bool), np.zeros((2, 2, 2, 2)), np.full((4, 1), 1e308), "0.5", 10**18,
]  # fmt: skip


def spoiled(value):
    """The value with each of its parts in turn left out, or replaced by each odd one."""
    yield from ODD
    if isinstance(value, dict):
        for key, item in value.items():
            yield {other: kept for other, kept in value.items() if other != key}
            yield from (value | {key: odd} for odd in spoiled(item))
    elif isinstance(value, list) and value:
        yield value[1:]
        yield value * 2
        yield from ([*value[:-1], odd] for odd in spoiled(value[-1]))


def stage(request):
    kind = request.get("message_type") or request.get("endpoint")
    if kind in ("hello", "ping"):
        return "greet"
    return "reset" if kind == "reset" or "reset" in request or "__reset__" in request else "infer"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_reply_whatever_is_in_it_becomes_a_motion(protocol):
    """Each part of a good answer in turn is spoiled: to a reset, and to an observation."""
    horizon = {"galaxea": 1}.get(protocol, 4)
    about = ABOUT | {"protocol": protocol, "action": {"key": "actions", "fps": 15, "horizon": horizon}}
    if protocol in ("galaxea", "gr00t", "xpolicylab"):
        about |= {"state": {"key": "", "parts": [*KEYED.values()]}}
        about["action"]["key"] = ""
    if protocol in ("galaxea", "lingbot-va"):
        about["action"]["key"] = "action"
    mapping, now, chunks, lines = Mapping(**about), (None, 0), 0, []

    def answer(request):
        found = good_answers(protocol, request)
        if stage(request) != now[0]:
            return found
        cases = list(spoiled(found))
        return cases[now[1] % len(cases)]

    wire = PROTOCOLS[protocol](Canned(PROTOCOLS[protocol].dialect, answer), mapping)
    policy = RemotePolicy("ws://there", wire, Layout(mapping, ROBOT, "odd", ""), {}, (1.0, 1.0))
    assert (policy.infer(observation()).actions == 0.5).all(), "nothing is spoiled yet"
    for spoils in ("reset", "infer"):
        for case in random.Random(0).sample(range(2000), 200):
            now = spoils, case
            policy.reset()
            policy._not_before = 0.0
            try:
                chunk = policy.infer(observation())
            except ConfigError as error:
                lines.append(str(error))
            else:
                chunks += 1
                assert chunk.actions.shape == (horizon, 14)
                assert np.isfinite(chunk.actions).all()
    assert all(line.isprintable() for line in lines)
    assert chunks, "some of what is spoiled is of no importance"
