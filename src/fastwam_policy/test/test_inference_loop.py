import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fastwam_msgs.msg import BridgeStatus
from fastwam_policy.nodes.bridge_view import BridgeView
from fastwam_policy.policies.base import ActionChunk, Channel, PolicyInfo, PolicyUnavailableError, Timing
from fastwam_policy.policies.images import ImageError
from fastwam_policy.runtime.frames import FrameSource
from fastwam_policy.runtime.hovering import Replanning
from fastwam_policy.runtime.inference_loop import ABSENT, Executing, InferenceLoop
from fastwam_policy.runtime.observation_buffer import ObservationBuffer
from fastwam_policy.runtime.reasons import PolicyReason, PolicyState
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .waiting import PATIENCE, until

MS = 1_000_000
ARM = SimpleNamespace(joint_names=["j1", "j2"], is_arm=np.array([True, True]))


class FakePolicy:
    """Records who calls it with what."""

    def __init__(self):
        self.threads, self.prepared, self.gate = set(), [], threading.Event()
        self.gate.set()
        self.inferring = threading.Event()
        self.error = None
        joints = (Channel("j1", "rad"), Channel("j2", "rad"))
        self.info = PolicyInfo("fake", (), joints, joints, 1e9 / (66 * MS), 4, default_instruction="rest")
        self.resets, self.closed = 0, False

    def reset(self):
        self.resets += 1

    def close(self):
        self.threads.add(threading.get_ident())
        self.closed = True

    def prepare(self, instruction):
        self.threads.add(threading.get_ident())
        self.prepared.append(instruction)

    def infer(self, observation):
        self.threads.add(threading.get_ident())
        self.inferring.set()
        self.gate.wait(PATIENCE)
        if self.error:
            raise self.error
        joints = [observation.joints["j1"], observation.joints["j2"]]
        return ActionChunk(observation.stamp_ns, 66 * MS, ["j1", "j2"], np.array([joints] * 4), Timing(1, 2, 3, 4))


class World:
    """A loop on a clock that the test moves."""

    def __init__(self, make_policy=None, hover_interval=0.0):
        self.now, self.published = 1000 * MS, []
        self.policy, self.executing = FakePolicy(), None
        self.buffer = ObservationBuffer(["head"], {"arm": 2}, max_skew=0.05, max_age=0.3)
        self.loop = InferenceLoop(
            make_policy or (lambda: self.policy),
            lambda _: FrameSource(self.buffer, {"arm": ["j1", "j2"]}, {"head": self.decode}),
            lambda: self.now, self.published.append, Replanning(ARM, 0.5, hover_interval),
            executing=lambda: self.executing, realtime=True,
        )  # fmt: skip

    def decode(self, data):
        if data == "corrupt":
            raise ImageError("corrupt")
        return np.zeros((2, 2, 3), np.uint8)

    def advance(self, ms, image="image"):
        self.now += ms * MS
        self.buffer.add_image("head", self.now, image)
        self.buffer.add_joints("arm", self.now, [0.1, 0.2])


@pytest.fixture
def world():
    world = World()
    world.loop.load("fold")
    yield world
    world.policy.gate.set()
    world.loop.stop()


def test_replans_by_time_on_one_thread(world):
    world.loop.activate()
    for k in range(20):
        world.advance(100)
        time.sleep(0.02)
        until(lambda k=k: len(world.published) > k // 5)
    assert [result.chunk_id for result in world.published] == [1, 2, 3, 4]
    gaps = np.diff([result.inference_start_ns for result in world.published]) / MS
    assert (gaps == 500).all()
    assert world.policy.threads == {world.loop._thread.ident}
    assert world.loop.state == PolicyState.RUNNING
    result = world.published[0]
    assert (result.session, result.epoch) == (world.loop.session, 1), "activation begins a new epoch"
    assert result.latency_ms[1:4] == (2, 3, 4)
    assert result.chunk.actions[0].tolist() == [0.1, 0.2]


def test_where_the_arms_hover_the_next_inference_begins_later_and_the_status_says_so():
    world = World(hover_interval=1.0)
    world.executing = Executing(0, 0, 1, 0)
    world.loop.load("fold")
    world.loop.activate()
    for k in range(26):
        world.advance(100)
        time.sleep(0.02)
        until(lambda k=k: len(world.published) >= 1 + k // 5 - (k >= 15))
        if k == 12:
            until(lambda: world.loop.reason == PolicyReason.HOVERING)
            assert world.loop.state == PolicyState.RUNNING
    gaps = np.diff([result.inference_start_ns for result in world.published]) / MS
    assert gaps.tolist() == [500, 500, 1000, 500]
    until(lambda: world.loop.reason == PolicyReason.NONE)
    world.loop.stop()


def test_says_what_it_waits_for(world):
    world.loop.activate()
    until(lambda: world.loop.reason == PolicyReason.MISSING_STREAM)
    assert world.loop.detail == "head, arm"


def test_a_corrupt_image_is_skipped_for_the_one_before(world):
    world.advance(0)
    world.advance(20, "corrupt")
    world.loop._active.set()  # activate() would clear the buffer
    until(lambda: world.published)
    assert world.published[0].chunk.stamp_ns == 1000 * MS
    assert world.buffer.streams["head"].rejected == {PolicyReason.CORRUPT_IMAGE: 1}


def test_a_result_of_an_older_epoch_is_dropped(world):
    world.policy.gate.clear()
    world.loop.activate()
    world.advance(10)
    assert world.policy.inferring.wait(PATIENCE)
    epoch = world.loop.set_instruction("wave")
    world.policy.gate.set()
    until(lambda: world.loop.drops)
    assert world.loop.drops == {PolicyReason.INSTRUCTION_CHANGED: 1}
    world.advance(10)
    until(lambda: world.published)
    assert (world.published[0].epoch, world.published[0].instruction) == (epoch, "wave")
    assert world.policy.prepared == ["fold", "wave"]


def test_an_error_of_the_policy_is_a_fault_with_its_text_and_activation_clears_it(world):
    world.policy.error = RuntimeError("out of memory")
    world.loop.activate()
    world.advance(10)
    until(lambda: world.loop.state == PolicyState.FAULT)
    assert world.loop.reason == PolicyReason.INFERENCE_FAILED
    assert "out of memory" in world.loop.detail
    world.policy.error = None
    world.loop.activate()
    world.advance(10)
    until(lambda: world.published)


def test_a_policy_that_does_not_answer_is_asked_again_and_named_meanwhile(world):
    world.policy.error = PolicyUnavailableError("ws://there: no answer within 5 s", retry_after=0.01)
    world.loop.activate()
    world.advance(10)
    until(lambda: world.loop.drops[PolicyReason.POLICY_UNAVAILABLE] >= 3)
    assert (world.loop.state, world.loop.reason) == (PolicyState.WAITING, PolicyReason.POLICY_UNAVAILABLE)
    assert world.loop.detail == "ws://there: no answer within 5 s"
    world.policy.error = None
    until(lambda: world.published)
    assert (world.loop.state, world.loop.reason) == (PolicyState.RUNNING, PolicyReason.NONE)


def test_a_policy_that_does_not_answer_does_not_keep_a_node_from_ending(world, monkeypatch):
    monkeypatch.setattr("fastwam_policy.runtime.inference_loop._ENDING", 0.05)
    world.policy.gate.clear()
    world.loop.activate()
    world.advance(10)
    assert world.policy.inferring.wait(PATIENCE)
    begin = time.monotonic()
    world.loop.stop()
    assert time.monotonic() - begin < PATIENCE / 2
    assert world.loop._thread.is_alive()


def test_a_policy_that_does_not_load_is_reported_to_the_caller():
    def fail():
        raise ConfigError("no such bundle")

    with pytest.raises(ConfigError, match="no such bundle"):
        World(fail).loop.load("")


def test_a_policy_elsewhere_may_be_started_later():
    errors = [PolicyUnavailableError("ws://there: no policy answers")]

    def make():
        if errors:
            raise errors[0]
        return world.policy

    world = World(make)
    loop = world.loop
    loop.load("")
    assert loop.info is ABSENT
    assert (loop.state, loop.reason) == (PolicyState.INACTIVE, PolicyReason.POLICY_UNAVAILABLE)
    loop.activate()
    assert (loop.state, loop.reason) == (PolicyState.WAITING, PolicyReason.POLICY_UNAVAILABLE)
    assert loop.detail == "ws://there: no policy answers"
    errors[0] = ConfigError("ws://there does not fit the robot")
    until(lambda: loop.state == PolicyState.FAULT)
    assert (loop.reason, loop.detail) == (PolicyReason.INFERENCE_FAILED, "ws://there does not fit the robot")
    errors.clear()
    until(lambda: loop.info is world.policy.info)
    assert (world.policy.prepared, loop.instruction) == (["rest"], "rest")
    world.advance(10)
    until(lambda: world.published)
    until(lambda: loop.state == PolicyState.RUNNING)
    assert loop.reason == PolicyReason.NONE
    loop.stop()
    assert world.policy.closed


def test_a_loop_ends_whose_policy_never_answered():
    def away():
        raise PolicyUnavailableError("ws://there: no policy answers")

    world = World(away)
    world.loop.load("")
    world.loop.stop()
    assert not world.loop._thread.is_alive()


def test_a_policy_that_does_not_know_the_instruction_is_closed():
    world = World()
    world.policy.prepare = lambda _: (_ for _ in ()).throw(ConfigError("does not know it"))
    with pytest.raises(ConfigError, match="does not know it"):
        world.loop.load("dance")
    assert world.policy.closed


def test_pausing_and_starting(world):
    world.loop.activate(start=False)
    world.advance(10)
    time.sleep(0.05)
    assert world.loop.state == PolicyState.IDLE
    assert not world.published
    epoch = world.loop.epoch
    world.loop.start()
    world.advance(10)
    until(lambda: world.published)
    assert world.loop.state == PolicyState.RUNNING
    world.loop.pause()
    assert world.loop.state == PolicyState.IDLE
    assert world.loop.epoch > epoch


def test_the_running_plan_is_what_the_bridge_says_it_follows(world):
    loop, seen = world.loop, []
    infer = world.policy.infer
    world.policy.infer = lambda observation: seen.append(observation.running) or infer(observation)
    loop.activate()
    world.advance(10)
    until(lambda: world.published)
    world.advance(500)
    until(lambda: len(world.published) == 2)
    assert seen == [None, None], "the bridge follows nothing"

    first = world.published[1].chunk
    loop.latencies[-1] = (0, 0, 0, 0, 100.0)
    loop._executing = lambda: Executing(loop.session, loop.epoch, 2, 33 * MS)
    world.now += 400 * MS
    world.advance(100)
    until(lambda: len(world.published) == 3)
    assert seen[2] is None, "its four steps are over"

    loop.latencies.clear()
    loop.latencies.append((0, 0, 0, 0, 20.0))
    old = replace(world.published[2], chunk=replace(first, actions=np.arange(64.0).reshape(32, 2)))
    loop._results[-1] = old
    loop._executing = lambda: Executing(loop.session, loop.epoch, 3, 33 * MS)
    stamp = old.chunk.stamp_ns
    world.advance(500)
    until(lambda: len(world.published) == 4)
    running = seen[3]
    ahead = (world.now - 33 * MS - stamp) / (66 * MS)
    np.testing.assert_allclose(running.actions[:5, 0], 2 * (ahead + np.arange(5)), atol=1e-6)
    assert len(running.actions) == int((31 - ahead) + 1)
    assert running.committed == 2, "20 ms of inference and 20 ms of transport are one step, and the next one"


def test_every_activation_is_a_session_of_its_own(world):
    loop = world.loop
    loop.activate()
    first = loop.session
    world.advance(10)
    until(lambda: world.published)
    loop.deactivate()
    loop.activate()
    world.advance(600)
    until(lambda: len(world.published) == 2)
    assert [result.chunk_id for result in world.published] == [1, 1]
    assert [result.session for result in world.published] == [first, loop.session]
    assert first != loop.session


def test_nothing_of_the_policy_is_executed_while_a_person_has_taken_over():
    view = BridgeView()
    view.store(BridgeStatus(state=BridgeStatus.STATE_TRACKING, session=5, chunk_id=3))
    assert view.executing() == Executing(5, 0, 3, 0)
    view.store(BridgeStatus(state=BridgeStatus.STATE_TAKEOVER, session=5, taken_over=True))
    assert view.executing() is None
    assert view.armed, "a task goes on"


@pytest.mark.parametrize("foreign", ["session", "epoch"])
def test_what_is_not_ours_is_not_continued(world, foreign):
    loop, seen = world.loop, []
    infer = world.policy.infer
    world.policy.infer = lambda observation: seen.append(observation.running) or infer(observation)
    loop._executing = lambda: Executing(loop.session - (foreign == "session"), loop.epoch - (foreign == "epoch"), 1, 0)
    loop.activate()
    for _ in range(3):
        world.advance(500)
        count = len(world.published)
        until(lambda count=count: len(world.published) > count)
    assert seen == [None, None, None]


def test_a_policy_is_reset_with_each_epoch_and_closed_on_its_own_thread():
    world = World()
    world.loop.load("")
    assert world.policy.prepared == ["rest"], "its default instruction"
    world.loop.activate()
    for count in (1, 2):
        world.advance(500)
        until(lambda count=count: len(world.published) == count)
    assert world.policy.resets == 1
    world.loop.reset()
    world.advance(500)
    until(lambda: len(world.published) == 3)
    assert world.policy.resets == 2
    world.loop.stop()
    assert world.policy.closed
    assert world.policy.threads == {world.loop._thread.ident}


class Recalling(FakePolicy):
    def __init__(self):
        super().__init__()
        self.info = replace(self.info, history=(0.1, 0.3), key_frame_steps=2)
        self.seen, self.told = [], []

    def infer(self, observation):
        self.seen.append(observation)
        return super().infer(observation)

    def executed(self, actions, key_frames):
        self.told.append((actions, key_frames))


def test_a_policy_with_a_memory_is_given_what_was_seen_and_executed():
    world = World()
    world.policy = policy = Recalling()
    world.buffer = ObservationBuffer(["head"], {"arm": 2}, max_skew=0.05, max_age=0.3, memory=1.0)
    loop = world.loop
    loop.load("fold")
    loop.activate()
    world.advance(1)
    until(lambda: len(world.published) == 1)
    assert [frame.stamp_ns for frame in policy.seen[0].earlier] == [world.now] * 2, "the oldest there is"
    assert not policy.told
    old = world.published[0].chunk
    loop._results[-1] = replace(world.published[0], chunk=replace(old, actions=np.arange(64.0).reshape(32, 2)))
    loop._executing = lambda: Executing(loop.session, loop.epoch, 1, 0)
    for _ in range(10):
        world.advance(50)
    until(lambda: len(world.published) == 2)
    assert [(world.now - frame.stamp_ns) // MS for frame in policy.seen[1].earlier] == [100, 300]
    ((actions, frames),) = policy.told
    np.testing.assert_allclose(actions[:, 0], 2 * np.arange(1, 8), atol=1e-3)
    since = [(frame.stamp_ns - old.stamp_ns) // MS for frame in frames]
    assert since == [150, 250, 400], "every second step of 66 ms, by the nearest frames 50 ms apart"
    loop.stop()


def test_a_reset_while_earlier_frames_are_decoded_is_no_fault():
    world = World()
    world.policy = policy = Recalling()
    world.buffer = ObservationBuffer(["head"], {"arm": 2}, max_skew=0.05, max_age=0.3, memory=1.0)
    loop = world.loop
    loop.load("fold")
    at = loop.frames.at
    loop.frames.at = lambda stamp: world.buffer.clear() or at(stamp)
    loop.activate()
    world.advance(1)
    until(lambda: len(policy.seen) == 1)
    assert len(policy.seen[0].earlier) == 2, "the observation itself, where nothing else is left"
    assert loop.state != PolicyState.FAULT
    loop.stop()


def test_a_camera_that_is_not_needed_is_not_waited_for():
    buffer = ObservationBuffer(["head"], {"arm": 2}, max_skew=0.05, max_age=0.3, optional_cameras=["wrist"])
    source = FrameSource(buffer, {"arm": ["j1", "j2"]}, dict.fromkeys(("head", "wrist"), lambda _: "pixels"))
    buffer.add_image("head", 1000 * MS, "image")
    buffer.add_joints("arm", 1000 * MS, [0.1, 0.2])
    assert source.newest(1000 * MS, 0).images == {"head": "pixels"}
    buffer.add_image("wrist", 990 * MS, "image")
    assert source.newest(1000 * MS, 0).images.keys() == {"head", "wrist"}
    buffer.add_image("head", 1100 * MS, "image")
    buffer.add_joints("arm", 1100 * MS, [0.1, 0.2])
    assert source.newest(1100 * MS, 0).images == {"head": "pixels"}, "too old for this observation"
    blind = ObservationBuffer([], {"arm": 2}, max_skew=0.05, max_age=0.3)
    blind.add_joints("arm", 1000 * MS, [0.1, 0.2])
    assert FrameSource(blind, {"arm": ["j1", "j2"]}, {}).newest(1000 * MS, 0).joints == {"j1": 0.1, "j2": 0.2}
