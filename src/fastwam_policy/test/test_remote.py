"""A policy served in another process gives what it gives here, whatever else comes to its port."""

import io
import socket
import subprocess
import sys
import urllib.request
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fastwam_policy.cli.main import main
from fastwam_policy.policies.base import CameraInput, Channel, Observation, PolicyInfo, RunningPlan
from fastwam_policy.policies.fastwam.policy import FastWamPolicy
from fastwam_policy.policies.remote.client import RemotePolicy
from fastwam_policy.policies.remote.wire import decode_chunk, decode_observation, encode_observation
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

ROBOT = RobotConfig.load()
_VECTOR = tuple(Channel(name, unit) for name, unit in zip(ROBOT.joint_names, ROBOT.units, strict=True))
INFO = PolicyInfo("mine", tuple(CameraInput(name) for name in ROBOT.cameras), _VECTOR, _VECTOR, 15.0, 32)


def observation(instruction="fold the towel", running=None):
    random = np.random.default_rng(0)
    images = {camera: random.integers(0, 255, (36, 64, 3), np.uint8) for camera in ROBOT.cameras}
    return Observation(5_000_000_000, images, dict.fromkeys(ROBOT.joint_names, 0.2), instruction, running)


@contextmanager
def served(bundle):
    command = [sys.executable, "-m", "fastwam_policy.cli", "serve", str(bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            yield line.split()[-1]
        finally:
            process.terminate()


def test_observations_travel_unchanged():
    given = observation(running=RunningPlan(np.arange(28.0).reshape(2, 14), 1))
    found = decode_observation(encode_observation(given, INFO), INFO)
    assert (found.stamp_ns, found.joints, found.instruction) == (given.stamp_ns, given.joints, given.instruction)
    assert found.running.committed == 1
    np.testing.assert_array_equal(found.running.actions, given.running.actions)
    for camera, pixels in given.images.items():
        np.testing.assert_array_equal(found.images[camera], pixels)
    assert decode_observation(encode_observation(observation(), INFO), INFO).running is None


def archive(compression=zipfile.ZIP_STORED, **entries):
    """An archive of these; bytes are put in as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, value in entries.items():
            if not isinstance(value, bytes):
                written = io.BytesIO()
                np.save(written, value)
                value = written.getvalue()
            file.writestr(f"{name}.npy", value)
    return buffer.getvalue()


def header(descr="|u1", shape=(10**13,)):
    """An array whose numbers did not come."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def body(**changed):
    """An observation with other entries; those that are None are left out."""
    given = observation()
    images = {f"image.{name}": pixels for name, pixels in given.images.items()}
    entries = {
        "stamp_ns": 5, "instruction": "fold the towel", "names": list(given.joints),
        "positions": list(given.joints.values()), **images,
    }  # fmt: skip
    return {name: value for name, value in (entries | changed).items() if value is not None}


HEAD = f"image.{next(iter(ROBOT.cameras))}"
ODD = {
    "not an archive": b"x" * 100,
    "empty": b"",
    "cut off": archive(**body())[:-30],
    "many entries": archive(**{f"x{k}": b"" for k in range(2000)}),
    "unknown name": archive(**body(x=1)),
    "nothing": archive(),
    "image missing": archive(**body(**{HEAD: None})),
    "compressed": archive(zipfile.ZIP_DEFLATED, **body()),
    "a bomb": archive(zipfile.ZIP_DEFLATED, **body(**{HEAD: header() + bytes(2**26)})),
    "10 TB promised": archive(**body(**{HEAD: header()})),
    "10 TB image promised": archive(**body(**{HEAD: header(shape=(2_000_000, 2_000_000, 3))})),
    "fits, but promised only": archive(**body(**{HEAD: header(shape=(2000, 3000, 3))})),
    "more than promised": archive(**body(**{HEAD: header(shape=(2, 2, 3)) + bytes(13)})),
    "deep header": archive(**body(**{HEAD: header().replace(b"|u1", b"(" * 3)})),
    "objects": archive(**body(stamp_ns=header("|O", ()) + b"cos\nsystem\n")),
    "records": archive(**body(stamp_ns=header([("a", "<i8")], ()) + bytes(8))),
    "image 1-d": archive(**body(**{HEAD: np.zeros(5, np.uint8)})),
    "image of 0 pixels": archive(**body(**{HEAD: np.zeros((0, 0, 3), np.uint8)})),
    "grey image": archive(**body(**{HEAD: np.zeros((48, 64), np.uint8)})),
    "image of numbers": archive(**body(**{HEAD: np.full((48, 64, 3), np.nan)})),
    "image of texts": archive(**body(**{HEAD: np.full((4, 4, 3), "a")})),
    "huge image": archive(**body(**{HEAD: np.zeros((2161, 1, 3), np.uint8)})),
    "position NaN": archive(**body(positions=[np.nan] * len(INFO.state))),
    "positions too few": archive(**body(positions=[0.0])),
    "names no list": archive(**body(names="x")),
    "a joint missing": archive(**body(names=["x"] * len(INFO.state))),
    "long instruction": archive(**body(instruction="x" * 5000)),
    "stamp a text": archive(**body(stamp_ns="x")),
    "running of other joints": archive(**body(running=np.zeros((3, 2)), committed=1)),
    "running committed beyond": archive(**body(running=np.zeros((3, len(INFO.action))), committed=5)),
    "running without committed": archive(**body(running=np.zeros((3, len(INFO.action))))),
    "running NaN": archive(**body(running=np.full((3, len(INFO.action)), np.nan), committed=1)),
}


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_what_is_no_observation_is_refused_in_a_line(data):
    with pytest.raises(ValueError, match=r"^.{5,400}$"):
        decode_observation(data, INFO)


def test_the_list_of_a_large_archive_is_not_read():
    """Its number of entries and their place may also stand in the record for archives beyond 4 GB."""
    many = archive(**{f"x{k}": b"" for k in range(70_000)})
    with pytest.raises(ValueError, match="an archive of more than"):
        decode_observation(many, INFO)


def test_a_chunk_of_another_policy_is_refused():
    with pytest.raises(ValueError, match=r"actions: .* got float64 \[400, 14\]"):
        decode_chunk(archive(stamp_ns=1, step_ns=1, actions=np.zeros((400, 14))), INFO)


@pytest.mark.nodes
def test_a_served_policy_gives_the_same_chunk_and_names_what_is_wrong(random_bundle, capsys):
    own = FastWamPolicy.load(random_bundle)
    own.prepare("fold the towel")
    expected = own.infer(observation())
    with served(random_bundle) as address:
        remote = RemotePolicy(address)
        assert remote.info == own.info
        remote.reset()
        found = remote.infer(observation())
        np.testing.assert_allclose(found.actions, expected.actions, atol=1e-5)
        assert (found.stamp_ns, found.step_ns, found.names) == (expected.stamp_ns, expected.step_ns, expected.names)
        with pytest.raises(ConfigError, match="wash the car"):
            remote.infer(observation("wash the car"))
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"{address}/infer", b"no archive")
        with pytest.raises(ConfigError, match="wash the car"):  # and its like
            remote.infer(observation("{task.__class__} wash the car %s {0}"))
        np.testing.assert_array_equal(remote.infer(observation()).actions, found.actions)
        port = address.rsplit(":", 1)[1]
        with pytest.raises(SystemExit):
            main(["serve", str(random_bundle), "--port", port])
        assert "choose another --port" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no policy answers"):
        RemotePolicy(address)


@pytest.mark.nodes
def test_an_evaluation_by_address(random_bundle, capsys):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    with served(random_bundle) as address, pytest.raises(SystemExit) as ended:
        main(["eval-sim", address, "--episodes", "1", "--time-limit", "1", "--workers", "1"])
    assert ended.value.code in (0, None)
    assert "no corner grasped: 1" in capsys.readouterr().out


def request(text, data=b""):
    """The bytes of a request to the policy."""
    return f"{text}\r\n\r\n".encode() + data


def infer(data, length=None):
    return request(f"POST /infer HTTP/1.1\r\nContent-Length: {len(data) if length is None else length}", data)


ATTACKS = {
    "GET above the root": request("GET /../../../etc/passwd HTTP/1.0"),
    "another method": request("DELETE /policy HTTP/1.0"),
    "another path": request("POST /x HTTP/1.1\r\nContent-Length: 4", b"abcd"),
    "no length": request("POST /infer HTTP/1.1", b"abc"),
    "length below 0": infer(b"abc", -1),
    "length no number": infer(b"abc", "abc"),
    "length of 30 GB": infer(b"", 30 * 10**9),
    "length of many digits": infer(b"", "9" * 5000),
    "length longer than the body": infer(b"abc", 4),
    "two lengths": request("POST /infer HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: x", b"abc"),
    **{name: infer(ODD[name]) for name in ("a bomb", "10 TB image promised", "image 1-d", "running of other joints")},
    "good, but long": infer(archive(**body()) + bytes(10**8)),
}


def answer(address, data):
    """Status and text of the server's answer."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(data[: 2**20])
        try:
            connection.sendall(data[2**20 :])
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # it has closed, which it may
            pass
        found = b""
        while part := connection.recv(2**16):
            found += part
    head, _, text = found.partition(b"\r\n\r\n")
    return int(head.split()[1]) if b" " in head else 0, text.decode(errors="replace")


def resident_kb(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


@pytest.mark.nodes
def test_attacks_are_answered_in_a_line_and_cost_no_memory(random_bundle):
    command = [sys.executable, "-m", "fastwam_policy.cli", "serve", str(random_bundle), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().split()[-1]
            assert answer(address, infer(archive(**body())))[0] == 200
            before = resident_kb(process)
            for name, data in ATTACKS.items():
                status, text = answer(address, data)
                assert 400 <= status < 600, name
                assert 0 < len(text.splitlines()) <= 1, (name, text)
                assert process.poll() is None, name
            assert resident_kb(process) - before < 50_000
            assert answer(address, infer(archive(**body())))[0] == 200
        finally:
            process.terminate()
        assert process.stderr.read() == ""
