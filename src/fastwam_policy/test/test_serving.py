"""`fastwam serve` over real sockets: what it answers, what it refuses, and whom nobody can block."""

import errno
import signal
import socket
import ssl
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
import trustme
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fastwam_policy.policies.base import Observation, RunningPlan
from fastwam_policy.policies.fastwam.policy import FastWamPolicy
from fastwam_policy.policies.loading import load_policy
from fastwam_policy.policies.remote.arrays import pack
from fastwam_policy.policies.remote.metadata import read_metadata
from fastwam_policy.policies.remote.server import connections, serving
from fastwam_policy.policies.remote.server.access import Access, read_access
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .served import CAMERAS, ROBOT, TIMEOUT, Client, Counting, pictures, request, served
from .waiting import until

pytestmark = pytest.mark.integration
HOLD = Path(__file__).resolve().parents[3] / "examples" / "custom_policy" / "policy.py"
HEAD = CAMERAS[0].name


def get(address, path, **headers):
    """Status and text of an HTTP GET."""
    asked = urllib.request.Request(address.replace("ws://", "http://") + path, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=TIMEOUT) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_for(address, line):
    """Until /metrics has it."""
    until(lambda: line in get(address, "/metrics")[1])


def endpoint(address):
    host, port = address.rsplit("/", 1)[1].rsplit(":", 1)
    return host, int(port)


def test_the_same_chunk_bit_for_bit_as_in_process(random_bundle):
    own, policy = FastWamPolicy.load(random_bundle), FastWamPolicy.load(random_bundle)
    own.prepare("fold the towel")
    joints = dict(zip(ROBOT.joint_names, np.random.default_rng(1).random(14).tolist(), strict=True))
    running = RunningPlan(np.random.default_rng(2).random((9, 14)), 3)
    images = pictures((36, 64))
    with served(policy) as address, Client(address) as client:
        assert read_metadata(client.metadata).policy == own.info
        for plan in (None, running):
            observation = Observation(5_000_000_000, images, joints, "fold the towel", plan)
            extra = {} if plan is None else {"running_plan": plan.actions, "committed": plan.committed}
            expected, found = own.infer(observation), client.ask(request(images=images, state=joints, **extra))
            np.testing.assert_array_equal(found["actions"], expected.actions)
            assert (found["stamp_ns"], found["committed"]) == (expected.stamp_ns, expected.committed)
            assert {f"{stage}_ms" for stage in vars(expected.timing)} < {*found["policy_timing"]}
        video = client.ask(request(images=images, state=joints, imagine=True))["imagination"]
        np.testing.assert_array_equal(video, own.imagine(observation))
        assert "no text embedding for the prompt" in client.ask(request(images=images, prompt="wash the car"))


def test_an_episode_is_the_same_as_in_process(random_bundle):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    from fastwam_policy.simulation.episode import EpisodeSettings, drive
    from galaxea_r1lite_sim.camera import Cameras
    from galaxea_r1lite_sim.randomization import draw
    from galaxea_r1lite_sim.simulation import Simulation

    def end(source):
        with closing(load_policy(source)) as policy:
            policy.prepare("fold the towel")
            simulation = Simulation(ROBOT, draw(0, "objects"))
            settings = EpisodeSettings("objects", 0.15, 0.3, "rtc", height=90)
            drive(policy, ROBOT, simulation, Cameras(simulation, 90, 160), settings, 1.0)
            return simulation.data.qpos

    with served(FastWamPolicy.load(random_bundle)) as address:
        np.testing.assert_array_equal(end(address), end(random_bundle))


def test_pictures_may_come_in_any_usual_form():
    policy, images = Counting(), pictures()
    jpeg = cv2.imencode(".jpg", np.full((20, 30, 3), 90, np.uint8))[1].tobytes()
    forms = [images, {name: value.transpose(2, 0, 1) for name, value in images.items()}, dict.fromkeys(images, jpeg)]
    with served(policy) as address, Client(address) as client:
        for form in forms:
            client.ask(request(images=form | {"another": b""}))
    asked = [observation.images for observation in policy.observations]
    for found in asked[:2]:
        for name, expected in images.items():
            np.testing.assert_array_equal(found[name], expected)
    assert asked[2][HEAD].shape == (20, 30, 3)
    asked[1][HEAD][0, 0, 0] = 0  # a policy may change them


def test_what_is_left_out_is_the_default():
    policy = Counting(default_instruction="fold the towel")
    with served(policy) as address, Client(address) as client:
        first = client.ask(request(prompt=None, stamp_ns=None, state=dict.fromkeys(ROBOT.joint_names, 1) | {"x": 2.0}))
        second = client.ask(request())
    observation = policy.observations[0]
    assert policy.prepared == ["fold the towel"]
    assert (observation.instruction, observation.joints["x"], observation.running) == ("fold the towel", 2.0, None)
    assert first["stamp_ns"] == observation.stamp_ns > 1e18
    assert "prev_total_ms" not in first["server_timing"]
    assert second["server_timing"]["prev_total_ms"] > 0


def changed(**images):
    return request(images={**pictures(), **images})


ODD = {
    "no msgpack": b"x" * 100,
    "empty": b"",
    "a list": pack([1], "openpi"),
    "text": "hello",
    "cut off": pack(request(), "openpi")[:-30],
    "many values": pack({"images": {str(k): k for k in range(70_000)}}, "openpi"),
    "unknown key": request(x=1),
    "nothing": {},
    "no images": request(images=None),
    "an image missing": request(images={}),
    "image of 0 pixels": changed(**{HEAD: np.zeros((0, 0, 3), np.uint8)}),
    "grey image": changed(**{HEAD: np.zeros((48, 64), np.uint8)}),
    "four channels": changed(**{HEAD: np.zeros((48, 64, 4), np.uint8)}),
    "image of numbers": changed(**{HEAD: np.full((48, 64, 3), np.nan)}),
    "image is text": changed(**{HEAD: "x"}),
    "huge image": changed(**{HEAD: np.zeros((2200, 1100, 3), np.uint8)}),
    "damaged JPEG": changed(**{HEAD: b"\xff\xd8\xff\xe0 nothing"}),
    "state NaN": request(state=np.full(14, np.nan)),
    "state too short": request(state=np.zeros(13)),
    "state of texts": request(state=["a"] * 14),
    "state in a list of maps": request(state=[{}] * 14),
    "ragged state": request(state=[[1], [1, 2]]),
    "state lacks a joint": request(state={"x": 1.0}),
    "joint infinite": request(state=dict.fromkeys(ROBOT.joint_names, float("inf"))),
    "joint true": request(state=dict.fromkeys(ROBOT.joint_names, True)),
    "prompt a number": request(prompt=3),
    "long prompt": request(prompt="x" * 5000),
    "stamp a text": request(stamp_ns="x"),
    "stamp below 0": request(stamp_ns=-1),
    "plan of other joints": request(running_plan=np.zeros((3, 2)), committed=1),
    "plan too long": request(running_plan=np.zeros((99, 14)), committed=1),
    "plan NaN": request(running_plan=np.full((3, 14), np.nan), committed=1),
    "committed beyond": request(running_plan=np.zeros((3, 14)), committed=4),
    "no committed": request(running_plan=np.zeros((3, 14))),
    "committed alone": request(committed=1),
    "earlier, unasked": request(earlier=[{}]),
    "executed of other joints": request(executed={"actions": np.zeros((1, 2))}),
    "reset a number": request(reset=1),
    "imagine, unable": request(imagine=True),
}


def test_what_is_wrong_is_answered_in_a_line_and_ends_that_connection_only():
    policy = Counting()
    with served(policy) as address, Client(address) as good:
        for name, odd in ODD.items():
            with Client(address) as client:
                reply = client.ask(odd)
                assert isinstance(reply, str), name
                assert 5 < len(reply) < 400, name
                assert "\n" not in reply, name
                with pytest.raises(ConnectionClosed):
                    client.receive()
                assert client.socket.close_code == 1011, name
        assert policy.inferences == 0
        assert len(good.ask(request())["actions"]) == 4
        assert f'outcome="refused"}} {len(ODD)}.0' in get(address, "/metrics")[1]


def test_a_policy_that_fails_is_named_and_asked_again():
    policy = Counting()
    with served(policy) as address:
        for actions, expected in (
            (np.full((4, 14), np.nan), "counting failed: ValueError: a chunk has numbers that are not finite"),
            (np.zeros((3, 14)), "counting failed: ValueError: a chunk has 3 steps"),
        ):
            policy.actions = actions
            with Client(address) as client:
                assert client.ask(request()).startswith(expected)
        policy.actions = None
        with Client(address) as client:
            assert client.ask(request())["actions"][0, 0] == 3


def test_the_newest_request_of_a_client_wins_and_replies_keep_their_order():
    policy = Counting()
    policy.go.clear()
    with served(policy) as address, Client(address) as client, Client(address) as other:
        client.send(request(stamp_ns=1))
        assert policy.asked.acquire(timeout=TIMEOUT)
        client.send(request(stamp_ns=2))
        client.send(request(stamp_ns=3))
        other.send(request(stamp_ns=9))
        wait_for(address, 'fastwam_requests_total{outcome="superseded"} 1.0')
        policy.go.set()
        assert client.receive()["stamp_ns"] == 1
        assert client.receive() == {"superseded": True}
        assert client.receive()["stamp_ns"] == 3
        assert other.receive()["stamp_ns"] == 9
    assert sorted(observation.stamp_ns for observation in policy.observations) == [1, 3, 9]


def test_a_policy_forgets_where_another_client_or_an_episode_begins():
    policy = Counting()
    with served(policy) as address, Client(address) as a, Client(address) as b:
        resets = [client.ask(request())["actions"][0, 1] for client in (a, a, b, a)]
        assert resets == [1, 1, 2, 3]
        assert a.ask({"reset": True}) == {}
        assert a.ask(request())["actions"][0, 1] == 4
        assert a.ask(request(reset=True))["actions"][0, 1] == 5
        assert a.ask(request(reset=False))["actions"][0, 1] == 5


def test_a_client_that_goes_away_is_not_computed_for():
    policy = Counting()
    policy.go.clear()
    with served(policy) as address, Client(address) as client:
        client.send(request())
        assert policy.asked.acquire(timeout=TIMEOUT)
        with Client(address) as other:
            other.send(request())
        wait_for(address, "fastwam_clients 1.0")
        policy.go.set()
        client.receive()
    assert policy.inferences == 1
    assert policy.closed


class Looking(Counting):
    """Remembers what it is told was executed."""

    def __init__(self):
        super().__init__(history=(0.5, 0.2), cameras=())
        self.told = []

    def executed(self, actions, key_frames):
        self.told.append((actions, key_frames))


def test_a_policy_that_looks_back_is_told_what_was_executed(monkeypatch):
    policy = Looking()
    frame = {"stamp_ns": 5, "state": np.zeros(14)}
    asked = request(images=None, earlier=[frame, {**frame, "stamp_ns": 6}])
    done = {"actions": np.ones((2, 14)), "key_frames": [frame]}
    with served(policy) as address, Client(address) as client:
        assert client.metadata["stateful"]
        client.ask(asked)
        client.ask(asked | {"executed": done})
        client.ask(asked | {"executed": done, "reset": True})  # of an episode that has ended
        with pytest.raises(InvalidStatus, match="503"):
            Client(address)
        monkeypatch.setattr(connections, "KEPT", 0.0)
        with Client(address) as newer:  # such as the same robot, whose connection was cut
            assert len(newer.ask(asked)["actions"]) == 4
    assert [frame.stamp_ns for frame in policy.observations[0].earlier] == [5, 6]
    ((actions, frames),) = policy.told
    np.testing.assert_array_equal(actions, np.ones((2, 14)))
    assert frames[0].stamp_ns == 5
    with pytest.raises(ConfigError, match="looks back"), served(Looking(), protocol="xpolicylab"):
        pass


def handshake(address):
    """The first bytes of a websocket's handshake, without its end."""
    host, port = endpoint(address)
    return (
        f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    ).encode()


def frame(length, payload=b""):
    """The beginning of a masked binary frame that announces so many bytes."""
    return struct.pack("!BBQI", 0x82, 0xFF, length, 0) + payload


def opened(address, sent=b""):
    """A socket with a websocket's handshake behind it, that has sent something."""
    connection = socket.create_connection(endpoint(address), TIMEOUT)
    connection.sendall(handshake(address) + b"\r\n")
    assert connection.recv(12) == b"HTTP/1.1 101"
    connection.sendall(sent)
    return connection


def is_closed(connection):
    """Whether the other side ends it; what it says before is read."""
    connection.settimeout(TIMEOUT)
    try:
        while connection.recv(2**16):
            pass
    except ConnectionResetError:
        pass
    return True


def test_a_handshake_that_does_not_end_blocks_nobody(monkeypatch):
    monkeypatch.setattr(connections, "HANDSHAKE", 1.0)
    with served(Counting()) as address:
        silent = [socket.create_connection(endpoint(address)) for _ in range(3)]
        silent[1].sendall(b"GET / HTT")
        silent[2].sendall(handshake(address))
        with Client(address) as good:
            assert len(good.ask(request())["actions"]) == 4
            assert all(map(is_closed, silent))
            assert len(good.ask(request())["actions"]) == 4
            assert get(address, "/healthz") == (200, "OK\n")


def test_who_asks_for_nothing_is_let_go_but_who_waits_is_not(monkeypatch):
    monkeypatch.setattr(connections, "IDLE", 1.0)
    monkeypatch.setattr(connections, "CLOSING", 0.1)
    policy = Counting()
    policy.go.clear()
    with served(policy) as address, Client(address) as waiting:
        waiting.send(request())
        assert policy.asked.acquire(timeout=TIMEOUT)
        silent = [opened(address), opened(address, frame(1000, b"x" * 10))]
        with Client(address) as idle, pytest.raises(ConnectionClosed):
            idle.receive()
        assert idle.socket.close_reason == "no request for 1 s"
        assert all(map(is_closed, silent))
        policy.go.set()
        assert len(waiting.receive()["actions"]) == 4


def test_a_message_of_3_gb_is_refused_when_it_is_announced():
    with served(Counting()) as address, opened(address, frame(3 * 2**30)) as connection:
        found = b""
        while part := connection.recv(2**16):
            found += part
        assert b"exceeds limit of" in found
        with Client(address) as client:
            assert client.metadata["max_bytes"] < 2**25


def test_a_client_that_does_not_read_blocks_nobody(monkeypatch):
    monkeypatch.setattr(connections, "SENDING", 0.2)
    policy = Counting(horizon=60_000)  # replies of 7 MB: more than the sockets' buffers
    data = pack(request(), "openpi")
    with served(policy) as address, opened(address, frame(len(data), data)):
        assert policy.asked.acquire(timeout=TIMEOUT)
        with Client(address) as good:
            assert len(good.ask(request())["actions"]) == 60_000
            wait_for(address, "fastwam_clients 1.0")


def test_too_many_clients(monkeypatch):
    monkeypatch.setattr(connections, "MAX_CLIENTS", 2)
    with served(Counting()) as address, Client(address) as used, Client(address) as silent:
        used.ask(request())
        with pytest.raises(InvalidStatus, match="503"):
            Client(address)
        monkeypatch.setattr(connections, "KEPT", 0.0)
        with Client(address) as third:
            with pytest.raises(ConnectionClosed):
                silent.receive()
            assert third.ask(request())["stamp_ns"] == used.ask(request())["stamp_ns"]
        assert 'fastwam_connections_refused_total{reason="evicted"} 1.0' in get(address, "/metrics")[1]


def test_too_many_sockets_are_cut(monkeypatch):
    monkeypatch.setattr(connections, "MAX_SOCKETS", 3)
    with served(Counting()) as address, Client(address) as client:
        others = [socket.create_connection(endpoint(address)) for _ in range(6)]
        assert all(map(is_closed, others[2:]))
        assert len(client.ask(request())["actions"]) == 4
        for other in others:
            other.close()


KEY = "0123456789abcdef0123456789abcdef"


def test_a_key_is_asked_for():
    with served(Counting(), access=Access(KEY)) as address:
        assert get(address, "/healthz")[0] == 200
        for headers in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": "Api-Key \xe9"}):
            assert get(address, "/metrics", **headers)[0] == 401
            with pytest.raises(InvalidStatus, match="401"):
                Client(address, additional_headers=headers)
        known = {"Authorization": f"Api-Key {KEY}"}
        assert 'reason="no key"} 6.0' in get(address, "/metrics", **known)[1]
        with Client(address, additional_headers=known) as client:
            assert len(client.ask(request())["actions"]) == 4


def test_over_tls(tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    access = read_access(None, tmp_path / "cert.pem", tmp_path / "key.pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with served(Counting(), access=access) as address:
        assert address.startswith("wss://127.0.0.1:")
        with Client(address, ssl=trusting) as client:
            assert len(client.ask(request())["actions"]) == 4
        with pytest.raises(ssl.SSLError):
            Client(address, ssl=ssl.create_default_context())


def test_what_guards_a_server_is_checked_before_it_listens(tmp_path):
    (tmp_path / "short").write_text("abc\n")
    (tmp_path / "key").write_text(KEY + "\n")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    assert read_access(tmp_path / "key", None, None).key == KEY
    for files in (
        (tmp_path / "short", None, None),
        (tmp_path / "binary", None, None),
        (tmp_path / "missing", None, None),
        (None, tmp_path / "key", None),
        (None, tmp_path / "key", tmp_path / "key"),
    ):
        with pytest.raises(ConfigError, match=r"^--"):
            read_access(*files)


def test_a_loud_line_where_others_can_connect():
    tls = ssl.create_default_context()
    assert Access().warning("127.0.0.1") == Access().warning("localhost") == Access().warning("::1") == ""
    assert Access(KEY, tls).warning("0.0.0.0") == ""
    assert "without an API key and without TLS: whoever reaches this machine can use" in Access().warning("0.0.0.0")
    assert "without TLS: whoever reaches this machine can read the key" in Access(KEY).warning("workstation")
    assert "without an API key" in Access("", tls).warning("::")


def test_the_command_says_where_it_serves_and_ends_in_order():
    command = [sys.executable, "-m", "fastwam_policy.cli", "serve", f"{HOLD}:Hold", "--port"]
    for ending in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen([*command, "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                name, address = process.stdout.readline().split()
                assert name == "hold:"
                with Client(address) as client:
                    np.testing.assert_array_equal(client.ask(request(images=None))["actions"][31], np.arange(14) / 10)
                    process.send_signal(ending)
                    with pytest.raises(ConnectionClosed):
                        client.receive()
                    assert client.socket.close_code == 1001
                assert process.wait(TIMEOUT) == 0
                assert process.stderr.read() == ""
            finally:
                process.kill()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run([*command, str(port)], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert f"--port {port}: another program listens there; end it, or choose another --port" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("protocol", ["openpi", "gr00t"])
def test_where_it_cannot_listen_the_wrong_option_is_named(protocol):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for place, line in (
            ({"host": "no-such-host.invalid"}, "--host no-such-host.invalid: no such address; 127.0.0.1 is"),
            ({"host": "a..b"}, "--host a..b: no such address"),
            ({"host": "192.0.2.1"}, "--host 192.0.2.1: not an address of this machine"),
            ({"port": port}, f"--port {port}: another program listens there"),
        ):
            with pytest.raises(ConfigError, match=f"^{line}"), served(Counting(), protocol=protocol, **place):
                pass
    with served(Counting(), protocol=protocol, host="localhost") as address:
        assert address.split("://")[1].startswith("localhost:")
    denied = PermissionError(errno.EACCES, "Permission denied")
    assert serving._why_not(serving.Place(port=80), denied).startswith("--port 80: only root may listen there")


def test_what_the_policy_does_not_load_with_reaches_the_one_who_serves():
    def fails():
        raise ConfigError("no such policy")

    def gives_up():
        raise SystemExit(3)

    with pytest.raises(ConfigError, match="no such policy"):
        serving.serve(fails, serving.Place(), lambda *_: None)
    with pytest.raises(RuntimeError, match="SystemExit"):
        serving.serve(gives_up, serving.Place(), lambda *_: None)
