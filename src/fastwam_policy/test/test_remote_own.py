"""Our client and our server: nothing is lost between them, and whatever is another policy is refused."""

import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trustme

from fastwam_policy.cli.main import main
from fastwam_policy.policies.base import (
    Frame,
    ImaginingPolicy,
    Observation,
    PolicyUnavailableError,
    RunningPlan,
    StatefulPolicy,
)
from fastwam_policy.policies.fastwam.policy import FastWamPolicy
from fastwam_policy.policies.loading import inspect_policy, load_policy
from fastwam_policy.policies.remote.metadata import Metadata
from fastwam_policy.policies.remote.server.access import read_access
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from . import policy_peers as peers
from .served import ROBOT, Counting, pictures, served
from .waiting import PATIENCE

HOLD = Path(__file__).resolve().parents[3] / "examples" / "custom_policy" / "policy.py"
JOINTS = dict(zip(ROBOT.joint_names, np.random.default_rng(1).random(14).tolist(), strict=True))


def observation(stamp=5_000_000_000, **changed):
    return replace(Observation(stamp, pictures((36, 64)), JOINTS, "fold the towel"), **changed)


def test_a_served_policy_is_the_same_bit_for_bit(random_bundle):
    own = FastWamPolicy.load(random_bundle)
    own.prepare("fold the towel")
    running = RunningPlan(np.random.default_rng(2).random((9, 14)), 3)
    with served(FastWamPolicy.load(random_bundle)) as address:
        assert inspect_policy(address) == own.info
        remote = load_policy(address, {"realtime": "guidance"})
        for plan in (None, running):
            seen = observation(running=plan)
            expected, found = own.infer(seen), remote.infer(seen)
            np.testing.assert_array_equal(found.actions, expected.actions)
            assert (found.stamp_ns, found.step_ns, found.names) == (seen.stamp_ns, expected.step_ns, expected.names)
            assert found.committed == expected.committed
            assert found.timing.denoise > 0
        with pytest.raises(ConfigError, match="does not know the instruction 'wash the car'"):
            remote.prepare("wash the car")
        remote.close()


class Imagining(Counting):
    """Its video is what it sees."""

    def __init__(self):
        super().__init__(abilities=frozenset(["imagination"]))
        self.video = lambda seen: np.stack([seen.images["head"]] * 2)

    def imagine(self, seen):
        return self.video(seen)


def test_what_a_policy_imagines_travels():
    policy = Imagining()
    with served(policy) as address, closing(load_policy(address)) as remote:
        assert isinstance(remote, ImaginingPolicy)
        np.testing.assert_array_equal(remote.imagine(observation()), policy.video(observation()))
        policy.video = lambda seen: np.zeros((2, 3, 4))
        with pytest.raises(ConfigError, match=r"expected imagination .*, the reply has <f8 \[2, 3, 4\]"):
            remote.imagine(observation())
    with served(Counting()) as address, closing(load_policy(address)) as remote:
        assert not isinstance(remote, ImaginingPolicy)


class Recalling(Counting):
    """Looks back, and is told what was executed."""

    def __init__(self):
        super().__init__(history=(0.1,), key_frame_steps=2)
        self.told = []

    def executed(self, actions, key_frames):
        self.told.append((actions, key_frames))


def test_what_a_policy_with_a_memory_needs_travels():
    policy, frame = Recalling(), Frame(4_900_000_000, pictures(), JOINTS)
    with served(policy) as address:
        remote = load_policy(address)
        assert isinstance(remote, StatefulPolicy)
        remote.reset()
        remote.infer(observation(earlier=(frame,)))
        remote.executed(np.arange(42.0).reshape(3, 14), (frame, frame))
        remote.infer(observation(6_000_000_000, earlier=(frame,)))
        remote.close()
    assert [len(seen.earlier) for seen in policy.observations] == [1, 1]
    assert policy.observations[0].earlier[0].joints == JOINTS
    ((actions, frames),) = policy.told
    np.testing.assert_array_equal(actions, np.arange(42.0).reshape(3, 14))
    assert [each.stamp_ns for each in frames] == [4_900_000_000] * 2
    np.testing.assert_array_equal(frames[0].images["head"], frame.images["head"])


def test_another_policy_that_answers_there_later_is_not_followed():
    with ExitStack() as first:
        address = first.enter_context(served(Counting()))
        remote = load_policy(address)
        remote.infer(observation())
        first.close()
        with served(Counting(name="another"), port=int(address.rsplit(":", 1)[1])):
            refusal = None
            for _ in range(20):
                try:
                    remote.infer(observation())
                except PolicyUnavailableError as error:
                    time.sleep(error.retry_after)
                except ConfigError as error:
                    refusal = str(error)
                    break
    assert refusal == f"{address}: another policy than counting answers there now"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ({"actions": np.zeros((3, 14)), "stamp_ns": 1}, r"expected actions \[4, 14\], the reply has <f8 \[3, 14\]"),
        ({"actions": np.zeros((4, 14)), "stamp_ns": 2}, "the reply belongs to another request"),
        ({"actions": np.zeros((4, 14)), "stamp_ns": 1, "committed": 3}, "committed must be 0 to 2, got 3"),
        ({"actions": np.ones((4, 14)), "stamp_ns": 1, "committed": 2}, "the 2 steps .* committed are others"),
        ({"actions": np.full((4, 14), np.longdouble("1e4000")), "stamp_ns": 1}, "not finite"),
        ({"actions": np.zeros((4, 14), int), "stamp_ns": 1}, r"the reply has <i8 \[4, 14\]"),
        ({"actions": np.full((4, 14), np.nan), "stamp_ns": 1}, "not finite"),
        ({"superseded": True}, "expected an answer with actions, stamp_ns, got superseded"),
        (None, "got NoneType"),
    ],
)
def test_a_reply_that_is_not_to_the_request_is_refused(reply, message):
    def talk(connection):
        connection.send(peers.openpi_pack(Metadata(Counting().info, stateful=False, max_bytes=2**26).to_wire()))
        for message in connection:
            asked = peers.openpi_unpack(message)
            connection.send(peers.openpi_pack({} if "reset" in asked else reply))

    with peers.websocket_peer(talk) as address:
        remote = load_policy(address)
        with pytest.raises(ConfigError, match=message):
            remote.infer(observation(1, running=RunningPlan(np.zeros((3, 14)), 2)))
        remote.close()


def test_a_damaged_greeting_is_refused():
    for said, message in (
        ({"fastwam": 2}, "the server speaks version 2 of the wire"),
        ({"fastwam": 1, "policy": {}}, "policy.name: Field required"),
        (about(fps=1e-9), "policy.fps: must be 0.1 to 1000"),
        (about(fps=float("nan")), "policy.fps: must be 0.1 to 1000"),
        (about(horizon=10**6), "policy.horizon: must be 1 to 4096"),
        (about(key_frame_steps=0), "policy.key_frame_steps: must be 1 to 4096"),
        (about(history=[1e9]), "policy.history: must be 0 to 60 s"),
        (about(state_band=[[0.0, float("inf")]] * 14), "policy.state_band: not all numbers are finite"),
        (about(name="x" * 10**5), "a name must be at most 200 letters"),
        (about(name="\x1b[2Jgone\n"), "a name must be at most 200 letters that can be shown"),
        ({"fastwam": 1, "more": b"x" * 2**20}, "at most 1048576 are taken"),
        ([1], "expected an answer with keys, got list"),
    ):
        with (
            peers.websocket_peer(lambda c, said=said: (c.send(peers.openpi_pack(said)), c.recv())) as address,
            pytest.raises(ConfigError, match=message) as refused,
        ):
            load_policy(address)
        assert str(refused.value).isprintable()


def about(**changed):
    """The greeting of a server of ours, changed."""
    said = Metadata(Counting().info, stateful=False, max_bytes=2**26).to_wire()
    return said | {"policy": said["policy"] | changed}


def test_over_tls_with_a_key(tmp_path, monkeypatch):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    cert, key, known, secret = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem", "secret"))
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(known)
    secret.write_text("a-secret-of-some-length\n")
    with served(Counting(), access=read_access(secret, cert, key)) as address:
        assert address.startswith("wss://")
        monkeypatch.setenv("FASTWAM_API_KEY", "a-secret-of-some-length")
        with pytest.raises(ConfigError, match="no policy answers: no connection: .*certificate"):
            load_policy(address)
        monkeypatch.setenv("SSL_CERT_FILE", str(known))
        remote = load_policy(address)
        assert remote.infer(observation()).actions.shape == (4, 14)
        remote.close()
        with pytest.raises(ConfigError, match="no policy answers: no connection: .*[Hh]ostname"):
            load_policy(address.replace("127.0.0.1", "localhost"))
        with pytest.raises(ConfigError, match="no policy answers: no connection: "):
            load_policy(address.replace("wss://", "ws://"))
    monkeypatch.delenv("FASTWAM_API_KEY")
    with served(Counting(), access=read_access(secret, None, None)) as address:
        with pytest.raises(ConfigError, match="no connection: HTTP 401 the header Authorization: Api-Key KEY"):
            load_policy(address)
        with pytest.raises(ConfigError, match="no policy answers: no connection: .*SSL"):
            load_policy(address.replace("ws://", "wss://"))


@pytest.mark.nodes
def test_a_server_whose_process_is_stopped_and_goes_on(monkeypatch):
    monkeypatch.setattr("fastwam_policy.policies.remote.client._TIMEOUT", 0.5)
    command = [sys.executable, "-m", "fastwam_policy.cli", "serve", f"{HOLD}:Hold", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            remote = load_policy(process.stdout.readline().split()[-1])
            expected = remote.infer(observation())
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(PolicyUnavailableError, match=r"no answer within 0.5 s"):
                remote.infer(observation(6_000_000_000))
            process.send_signal(signal.SIGCONT)
            give_up, found = time.monotonic() + PATIENCE, None
            while found is None and time.monotonic() < give_up:
                try:
                    found = remote.infer(observation(7_000_000_000))
                except PolicyUnavailableError as error:
                    time.sleep(error.retry_after)
            assert found.stamp_ns == 7_000_000_000
            np.testing.assert_array_equal(found.actions, expected.actions)
            remote.close()
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()


@pytest.mark.nodes
def test_an_evaluation_by_address(random_bundle, capsys):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    with served(FastWamPolicy.load(random_bundle)) as address, pytest.raises(SystemExit) as ended:
        main(["eval-sim", address, "--episodes", "1", "--time-limit", "1", "--workers", "1", "--blending", "rtc"])
    assert ended.value.code in (0, None)
    assert "no corner grasped: 1" in capsys.readouterr().out
