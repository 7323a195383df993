"""policy_node with a policy behind a wire, and the bridge: the arms hold while it is away, and the reason is named."""

import threading
from contextlib import ExitStack

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from std_srvs.srv import SetBool

from fastwam_msgs.msg import ActionChunk, BridgeStatus, Heartbeat, PolicyStatus
from fastwam_msgs.srv import SetInstruction
from fastwam_policy.runtime.reasons import PolicyReason, PolicyState
from galaxea_r1lite_bridge.execution.reasons import Reason, State
from galaxea_r1lite_bridge.robot.config import RobotConfig

from . import policy_peers as peers

ROBOT = RobotConfig.load()
PATIENT = {
    "watchdog.feedback_age.limit": 1.0, "watchdog.overrun.limit": 1.0, "watchdog.feedback_jump.limit": 2.0,
    "watchdog.heartbeat.limit": 1.5,
}  # fmt: skip
CHUNK_AGE = 1.5  # s: of bridge_node.yaml
NEAR, FAR = 0.02, 0.5  # rad from where the arm is: what the policy wants, and what must never come through
ABOUT = {
    "protocol": "openpi",
    "images": {"image": {"camera": "head", "size": [36, 64]}},
    "state": {"parts": list(ROBOT.commanded)},
    "action": {"fps": 15, "horizon": 32},
    "timeout_s": 20.0,
    "first_timeout_s": 20.0,
}


class Peer:
    """A server that answers when its gate is open; what it has to say may change meanwhile."""

    def __init__(self):
        self.gate, self.asked = threading.Event(), threading.Event()
        self.gate.set()
        self.wants, self.port, self._stack = NEAR, 0, ExitStack()

    def start(self):
        address = self._stack.enter_context(peers.websocket_peer(self.talk, self.port))
        self.port = int(address.rsplit(":", 1)[1])
        return address

    def kill(self):
        self.gate.set()
        self._stack.close()

    def talk(self, connection):
        connection.send(peers.openpi_pack({}))
        for message in connection:
            state = peers.openpi_unpack(message)["state"]
            wants = self.wants
            self.asked.set()
            self.gate.wait()
            goal = state.copy()
            goal[5] += wants
            connection.send(peers.openpi_pack({"actions": peers.towards(state, goal, 32)}))


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.kill()


@pytest.mark.nodes
def test_the_arms_hold_while_a_policy_elsewhere_is_away(ros, peer, tmp_path):
    mapping = tmp_path / "mine.yaml"
    mapping.write_text(yaml.safe_dump(ABOUT))
    address = peer.start()
    peer.kill()  # nobody answers there yet
    ros.start("galaxea_r1lite_bridge", "emulator_node", camera_rate=10.0, feedback_rate=60.0)
    ros.start("galaxea_r1lite_bridge", "bridge_node", **PATIENT)
    ros.start(
        "fastwam_policy", "policy_node", policy=address, mapping=mapping, instruction="fold", status_rate=20.0,
        max_observation_age=2.0, max_skew=0.2,
    )  # fmt: skip
    beat = ros.node.create_publisher(Heartbeat, ROBOT.interfaces.heartbeat, 10)
    ros.node.create_timer(0.04, lambda: beat.publish(Heartbeat(session=1, pressed=True)))
    bridge = ros.collect(BridgeStatus, ROBOT.interfaces.bridge_status)
    status = ros.collect(PolicyStatus, ROBOT.interfaces.policy_status)
    chunks = ros.collect(ActionChunk, ROBOT.interfaces.action_chunk)
    diagnosed = ros.collect(DiagnosticArray, "/diagnostics")
    ros.until(lambda: status)
    assert (status[-1].state, status[-1].reason) == (PolicyState.WAITING, PolicyReason.POLICY_UNAVAILABLE)
    assert f"does not answer: {address}: no policy answers: no connection" in status[-1].reason_text
    ros.until(lambda: any(f"does not answer: {address}" in one.message for array in diagnosed for one in array.status))
    peer.start()
    ros.until(lambda: chunks)
    ros.until(lambda: ros.call(SetBool, ROBOT.interfaces.arm, SetBool.Request(data=True)).success)
    ros.until(lambda: bridge[-1].state == State.TRACKING)

    # It falls silent, with a reply of this epoch under way that would move the arm far.
    peer.asked.clear()
    peer.wants = FAR
    peer.gate.clear()
    ros.until(peer.asked.is_set)
    ros.until(lambda: bridge[-1].state == State.HOLDING)
    assert bridge[-1].reason == Reason.PLAN_STALE
    assert max(one.plan_age for one in bridge if one.state == State.TRACKING) < CHUNK_AGE + 0.3
    before = len(chunks)
    answer = ros.call(SetInstruction, "policy_node/set_instruction", SetInstruction.Request(instruction="wave"))
    peer.wants = NEAR
    peer.gate.set()  # now the late reply comes
    ros.until(lambda: len(chunks) > before)
    assert chunks[-1].epoch >= answer.epoch
    ros.until(lambda: any(drop.reason == PolicyReason.INSTRUCTION_CHANGED for drop in status[-1].drops))
    ros.until(lambda: bridge[-1].state == State.TRACKING)

    # It is killed, and started again.
    peer.kill()
    ros.until(lambda: bridge[-1].state == State.HOLDING)
    ros.until(lambda: status[-1].reason == PolicyReason.POLICY_UNAVAILABLE)
    assert status[-1].state == PolicyState.WAITING
    assert f"the policy runs elsewhere and does not answer: {address}" in status[-1].reason_text
    ros.until(lambda: "no connection" in status[-1].reason_text)
    diagnosed.clear()
    ros.until(lambda: any("does not answer" in one.message for array in diagnosed for one in array.status))
    before = len(chunks)
    peer.start()
    ros.until(lambda: len(chunks) > before)
    ros.until(lambda: bridge[-1].state == State.TRACKING)
    ros.until(lambda: status[-1].state == PolicyState.RUNNING)
    for chunk in chunks:
        first, last = (np.array(chunk.trajectory.points[k].positions) for k in (0, -1))
        assert np.abs(last - first).max() < FAR / 2
