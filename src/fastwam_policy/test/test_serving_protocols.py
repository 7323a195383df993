"""`fastwam serve --protocol xpolicylab` and `gr00t`: what their clients send and expect, written from the protocols."""

import numpy as np
import pytest
import zmq
from websockets.sync.client import connect

from fastwam_policy.policies.base import Channel
from fastwam_policy.policies.remote.arrays import pack, unpack
from fastwam_policy.policies.remote.server.access import Access
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .served import TIMEOUT, Counting, pictures, served

PICTURES = pictures()
ACTIONS = np.arange(4 * 14).reshape(4, 14) / 10


class Lab:
    """A client of XPolicyLab."""

    def __init__(self, address):
        self._connected, self.sent = connect(address, compression=None), 0
        self.socket = self._connected.__enter__()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._connected.__exit__(*error)

    def send(self, kind, **payload):
        self.sent += 1
        message = {
            "message_type": kind, "message_id": f"m{self.sent}", "evaluation_id": "e", "action_case_id": None,
            "trial_id": "t", "repeat_index": 2, "step": 7, "sent_at": "2026-01-01T00:00:00+00:00", "payload": payload,
        }  # fmt: skip
        self.socket.send(pack(message, "msgpack_numpy"))

    def receive(self):
        return unpack(self.socket.recv(TIMEOUT), "msgpack_numpy")

    def ask(self, kind, **payload):
        self.send(kind, **payload)
        reply = self.receive()
        echoed = {
            key: reply.pop(key) for key in ("evaluation_id", "action_case_id", "trial_id", "repeat_index", "step")
        }
        assert echoed == {"evaluation_id": "e", "action_case_id": None, "trial_id": "t", "repeat_index": 2, "step": 7}
        assert reply.pop("message_id") == f"m{self.sent}"
        assert {*reply} == {"message_type", "sent_at", "payload"}
        return reply["message_type"], reply["payload"]


def lab_observation():
    cameras = {"cam_head": "head", "cam_left_wrist": "wrist_left", "cam_right_wrist": "wrist_right"}
    return {
        "vision": {key: {"color": PICTURES[name], "shape": [18, 32]} for key, name in cameras.items()},
        "state": {
            "left_arm_joint_state": np.arange(6, dtype=np.float32), "left_ee_joint_state": np.array([0.25]),
            "right_arm_joint_state": np.arange(6.0) + 10, "right_ee_joint_state": np.array([1.0]), "left_ee_pose": [],
        },
        "instruction": "fold the towel", "additional_info": {"frequency": 15}, "data_format_version": "v1.0",
        "env_idx": 0,
    }  # fmt: skip


def test_xpolicylab():
    policy = Counting()
    policy.actions = ACTIONS
    with served(policy, protocol="xpolicylab") as address, Lab(address) as lab:
        kind, payload = lab.ask("hello", evaluation_plan={})
        assert (kind, payload["ok"], payload["policy"]["name"]) == ("hello_ack", True, "counting")
        for asked, replied in (
            ("prepare_case", "prepare_case_ack"), ("heartbeat", "heartbeat_ack"), ("trial_end", "trial_end_ack"),
            ("reset", "reset_result"),
        ):  # fmt: skip
            assert lab.ask(asked) == (replied, {"ok": True})
        kind, payload = lab.ask("infer", observation=lab_observation())
        assert kind == "infer_result"
        assert payload["latency_ms"] > 0
        last = payload["actions"][3]
        np.testing.assert_array_equal(last["left_arm_joint_state"], ACTIONS[3, :6])
        np.testing.assert_allclose(last["left_ee_joint_state"], ACTIONS[3, 6:7] / 100)
        np.testing.assert_array_equal(last["right_arm_joint_state"], ACTIONS[3, 7:13])
        (observation,) = policy.observations
        assert observation.instruction == "fold the towel"
        assert observation.joints["left_gripper"] == 25
        assert observation.joints["right_gripper"] == 100
        assert observation.joints["right_arm_joint6"] == 15
        np.testing.assert_array_equal(observation.images["wrist_left"], PICTURES["wrist_left"])
        lab.send("close")
        assert list(lab.socket) == []


def test_xpolicylab_names_what_is_wrong_and_goes_on():
    policy = Counting()
    with served(policy, protocol="xpolicylab") as address, Lab(address) as lab:
        for asked, payload, code, text in (
            ("infer", {}, "infer_failed", "observation: must be a map, got nothing"),
            ("infer", {"observation": lab_observation() | {"vision": {}}}, "infer_failed", "head, wrist_left"),
            (
                "infer",
                {"observation": lab_observation() | {"state": {}}},
                "infer_failed",
                "left_arm_joint_state: missing",
            ),
            ("dance", {}, "unknown_message_type", "'dance' is not known"),
        ):
            kind, error = lab.ask(asked, **payload)
            assert (kind, error["code"], error["details"]) == ("error", code, {})
            assert text in error["message"]
        policy.go.clear()
        lab.send("infer", observation=lab_observation())
        assert policy.asked.acquire(timeout=TIMEOUT)
        assert lab.ask("heartbeat")[0] == "heartbeat_ack"  # also while the policy is busy
        lab.send("infer", observation=lab_observation())
        lab.send("infer", observation=lab_observation())
        older = lab.receive()
        assert (older["message_id"], older["payload"]["message"][:10]) == (f"m{lab.sent - 1}", "superseded")
        policy.go.set()
        assert {lab.receive()["message_id"] for _ in range(2)} == {f"m{lab.sent - 3}", f"m{lab.sent}"}
        lab.socket.send(pack({"message_id": 3}, "msgpack_numpy"))
        assert "not a message of XPolicyLab" in lab.socket.recv(TIMEOUT)


@pytest.fixture
def gr00t():
    """Asks a server, given its address, as GR00T's client does."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, round(1000 * TIMEOUT))

        def ask(address, message):
            if not socket.getsockopt(zmq.LAST_ENDPOINT):
                socket.connect(address.replace("zmq://", "tcp://"))
            socket.send(message if isinstance(message, bytes) else pack(message, "gr00t"))
            return unpack(socket.recv(), "gr00t")

        yield ask


def sample(nested):
    video = {name: value[None] for name, value in PICTURES.items()}
    state = {
        "left_arm": np.arange(6, dtype=np.float32)[None], "left_gripper": np.array([[25]], np.float32),
        "right_arm": np.zeros((1, 6), np.float32), "right_gripper": np.zeros((1, 1), np.float32),
    }  # fmt: skip
    task = "annotation.human.action.task_description"
    if nested:
        return {
            "video": {name: value[None] for name, value in video.items()},
            "state": {name: value[None] for name, value in state.items()},
            "language": {task: [["fold the towel"]]},
        }
    flat = {f"video.{name}": value for name, value in video.items()}
    return flat | {f"state.{name}": value for name, value in state.items()} | {task: ["fold the towel"]}


@pytest.mark.parametrize("nested", [False, True])
def test_gr00t(gr00t, nested):
    policy = Counting()
    policy.actions = ACTIONS
    with served(policy, protocol="gr00t") as address:
        assert gr00t(address, {"endpoint": "ping"})["status"] == "ok"
        modalities = gr00t(address, {"endpoint": "get_modality_config"})
        assert modalities["action"]["as_json"]["delta_indices"] == [0, 1, 2, 3]
        assert modalities["state"]["as_json"]["modality_keys"][:2] == ["left_arm", "left_gripper"]
        assert gr00t(address, {"endpoint": "reset", "data": {"options": None}}) == {}
        asked = {"endpoint": "get_action", "data": {"observation": sample(nested), "options": None}}
        actions, info = gr00t(address, asked)
        name = "left_arm" if nested else "action.left_arm"
        assert actions[name].dtype == np.float32
        np.testing.assert_allclose(actions[name], ACTIONS[None, :, :6], rtol=1e-6)
        np.testing.assert_allclose(actions[name.replace("arm", "gripper")], ACTIONS[None, :, 6:7], rtol=1e-6)
        assert info["infer_ms"] > 0
    (observation,) = policy.observations
    assert (observation.instruction, observation.joints["left_gripper"]) == ("fold the towel", 25)
    np.testing.assert_array_equal(observation.images["head"], PICTURES["head"])


def test_gr00t_names_what_is_wrong_and_goes_on(gr00t):
    key = "0123456789abcdef"
    with served(Counting(), protocol="gr00t", access=Access(key)) as address:
        known = {"api_token": key}
        for message, text in (
            (b"nothing", "not msgpack"),
            ({"endpoint": "ping"}, "api_token: missing or wrong"),
            ({"endpoint": "kill", **known}, "'kill' is not known"),
            ({"endpoint": "get_action", **known}, "data: must be a map"),
            ({"endpoint": "get_action", "data": {"observation": {}}, **known}, "head, wrist_left"),
            ({"endpoint": "get_action", "data": {"observation": {"video": 3}}, **known}, "observation.video: must be"),
        ):
            assert text in gr00t(address, message)["error"]
        assert gr00t(address, {"endpoint": "ping", **known})["status"] == "ok"


@pytest.mark.parametrize("protocol", ["xpolicylab", "gr00t"])
def test_a_policy_with_joints_of_its_own_is_refused(protocol):
    policy = Counting(state=(Channel("left_arm_joint1", "rad"), Channel("knee", "rad")))
    with pytest.raises(ConfigError, match="knee.*--protocol openpi"), served(policy, protocol=protocol):
        pass
