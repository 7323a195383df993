"""LIBERO: our end of it; and the simulator where it is installed (make benchmark-libero)."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")

from scipy.spatial.transform import Rotation

from fastwam_policy.benchmarks.apart.libero_expert import Expert
from fastwam_policy.benchmarks.apart.libero_grasps import Grasp
from fastwam_policy.benchmarks.apart.libero_placements import FARTHEST, shifts
from fastwam_policy.benchmarks.apart.libero_scene import rotation_vector
from fastwam_policy.benchmarks.base import MOVED
from fastwam_policy.benchmarks.collect import PLACE as LIBERO_DATA
from fastwam_policy.benchmarks.collect import LiberoSettings, record
from fastwam_policy.benchmarks.libero import INTERFACE, RULES, libero, libero_pro, opened
from fastwam_policy.benchmarks.robotwin import INTERFACE as ROBOTWIN
from fastwam_policy.benchmarks.run import Job, play
from fastwam_policy.benchmarks.simulator import environment_python
from fastwam_policy.policies.base import ActionChunk, CameraInput, PolicyInfo
from fastwam_policy.policies.fastwam.embodiments import BENCHMARKS
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

LIBERO = libero("fastwam")


def installed():
    try:
        environment_python("libero")
    except ConfigError:
        return False
    return True


simulated = pytest.mark.skipif(not installed(), reason="LIBERO is not installed: make benchmark-libero")


class Wave:
    """Moves as a number says, whatever it sees."""

    info = PolicyInfo(
        "wave", (CameraInput("agentview"), CameraInput("wrist")), INTERFACE.state, INTERFACE.action, 20.0, 32, "delta"
    )

    def __init__(self):
        self.seen = []

    def prepare(self, instruction):
        pass

    def infer(self, observation):
        self.seen.append(observation)
        rows = np.random.default_rng(len(self.seen)).uniform(-0.5, 0.5, (32, 7))
        return ActionChunk(observation.stamp_ns, self.info.step_ns, [c.name for c in self.info.action], rows)

    def reset(self):
        self.seen.clear()

    def close(self):
        pass


def test_rotation_vectors_are_those_that_policies_were_trained_with():
    for seed in range(5):
        rotation = Rotation.random(random_state=seed)
        quaternion = rotation.as_quat(canonical=True)  # the angle is below pi
        np.testing.assert_allclose(rotation_vector(quaternion), rotation.as_rotvec(), atol=1e-12)
        turned = rotation_vector(-quaternion)  # and here 2 pi minus that, the other way
        assert np.linalg.norm(turned) == pytest.approx(2 * np.pi - np.linalg.norm(rotation.as_rotvec()))
    np.testing.assert_array_equal(rotation_vector(np.array([0.0, 0, 0, 1])), np.zeros(3))


def test_the_protocols_are_the_published_ones():
    rules = RULES["fastwam"]
    assert (rules.seed, rules.settle, rules.replan, rules.limits, rules.size) == (42, 30, 10, (400, 400, 400, 700), 256)
    assert LIBERO.protocol() != libero("openpi").protocol()
    assert RULES["lerobot"].limits == (280, 280, 300, 520), "LeRobot 0.6.1, TASK_SUITE_MAX_STEPS"
    assert set(LIBERO.suites) == {*LIBERO.official, *(suite + MOVED for suite in LIBERO.official)}
    assert all(any(suite.startswith(each) for each in LIBERO.suites) for suite in libero_pro("fastwam").suites)


def boxes(*corners):
    return np.array([[[x, y], [x + 0.06, y + 0.06]] for x, y in corners]).reshape(-1, 2, 2)


def test_things_are_moved_by_a_few_centimetres_and_never_into_each_other():
    stacked = np.array([[[0.01, 0.01], [0.03, 0.03]]])  # on the first
    things = np.concatenate([boxes((0, 0), (0.08, 0), (0, 0.08), (0.08, 0.08), (0.3, 0)), stacked])
    furniture, base = boxes((0.31, 0.02), (-0.08, 0)), np.array([-0.6, 0.0])
    for seed in range(20):
        moves = shifts(things, furniture, base, np.random.default_rng(seed))
        far = np.linalg.norm(moves, axis=1)
        assert ((far[[0, 1, 2, 3, 5]] >= 0.01) & (far[[0, 1, 2, 3, 5]] <= FARTHEST)).all()
        np.testing.assert_allclose(moves[5], moves[0], atol=1e-12, err_msg="what stands on another goes with it")
        np.testing.assert_array_equal(moves[4], 0, err_msg="what stands on furniture stays")
        there = np.concatenate([(things + moves[:, None])[:5], furniture])
        for k, box in enumerate(there[:4]):
            others = np.delete(there, k, axis=0)
            apart = np.maximum(others[:, 0] - box[1], box[0] - others[:, 1]).max(axis=1)
            assert (apart >= 0.005 - 1e-9).all()
    same = shifts(things, furniture, base, np.random.default_rng(3))
    np.testing.assert_array_equal(same, shifts(things, furniture, base, np.random.default_rng(3)))
    far_off = base + np.array([0.75 - 1e-9, 0])  # at the arm's reach
    for seed in range(10):
        (move,) = shifts(boxes(far_off - 0.03), boxes(), base, np.random.default_rng(seed))
        assert np.linalg.norm(far_off + move - base) <= 0.75
    crowd = boxes(*((0.061 * x, 0.061 * y) for x in range(5) for y in range(5)))
    with pytest.raises(ValueError, match="they have no room"):
        shifts(crowd, boxes(), base, np.random.default_rng(0))


def without_times(episode):
    return replace(episode, seconds=0.0, inference_ms=0.0)


@pytest.mark.parametrize(("benchmark", "interface"), [("libero", INTERFACE), ("robotwin", ROBOTWIN)])
def test_bundles_of_the_published_checkpoints_fit(benchmark, interface):
    body = BENCHMARKS[benchmark]
    cameras = tuple(CameraInput(tile.camera) for tile in body.layout.tiles)
    state, action = body.state.channels, body.action.channels
    interface.check(PolicyInfo("any", cameras, state, action, body.fps, 32, body.action.kind), benchmark)
    assert body.fps == interface.fps


@pytest.mark.slow
@simulated
def test_the_same_trial_is_the_same_again(tmp_path):
    """Rendered every step or only when the policy looks, after another trial or alone."""
    task = LIBERO.tasks(["libero_object"])[0]
    assert task.instruction == "pick up the alphabet soup and place it in the basket"
    assert task.trials == 50
    policy, shown = Wave(), {}
    for name, trials in (("both", (0, 1)), ("one", (1,))):
        opened = LIBERO.open(task, policy, tmp_path / "log", film=False)
        opened._limit = 30
        shown[name] = [(opened.play(trial, None), [each.images for each in policy.seen]) for trial in trials]
        opened.close()
    (episode, pictures), (alone, alone_pictures) = shown["both"][1], shown["one"][0]
    assert without_times(episode) == without_times(alone)
    assert len(pictures) == 3
    assert pictures[0]["wrist"].shape == (256, 256, 3)
    for one, other in zip(pictures, alone_pictures, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in INTERFACE.cameras)


@pytest.mark.slow
@simulated
def test_placements_of_our_own(tmp_path):
    """They are not the official ones, the same again, and within the expert's reach."""
    official, moved = LIBERO.tasks(["libero_object", "libero_object_moved"])[::10]
    assert (moved.suite, moved.instruction, moved.trials) == ("libero_object_moved", official.instruction, 50)
    first, again, as_ever = (
        list(play(Job(LIBERO, "expert", task, trials, tmp_path)))
        for task, trials in ((moved, (0, 1)), (moved, (1,)), (official, (1,)))
    )
    assert without_times(first[1]) == without_times(again[0])
    assert again[0].initial != as_ever[0].initial
    assert [each.success for each in first] == [True, True]


@pytest.mark.slow
@simulated
def test_the_expert_and_nothing(tmp_path):
    task = LIBERO.tasks(["libero_object"])[0]
    job = partial(Job, LIBERO, task=task, trials=(0,), folder=tmp_path)
    (expert,), (nothing,) = (list(play(job(source=source))) for source in ("expert", "noop"))
    assert expert.success
    assert expert.steps < 200
    assert (nothing.success, nothing.steps) == (False, 400)
    assert expert.initial == nothing.initial
    assert "mujoco 3.3.2" in expert.simulator
    assert Path(tmp_path / "simulator.log").exists()
    assert "MUJOCO_GL" not in os.environ


@pytest.mark.slow
@simulated
def test_the_experts_episodes_to_learn_from(tmp_path):
    """On placements of our own, one row a step."""
    task = LIBERO.tasks(["libero_object"])[0]
    process = opened(task, RULES["fastwam"], tmp_path / "log", look=True, place=LIBERO_DATA)
    settings = LiberoSettings(["libero_object 0"], noise=0.0)
    episode = record(process, task, 10_000, settings)
    (state,), (action,), length = episode.state.values(), episode.action.values(), episode.length
    assert 60 < length < 200
    holds = np.flatnonzero(action[:, 6] == 1)
    assert 0 < holds[0] < holds[-1] == holds[0] + len(holds) - 1 < length - 1, "it closes once, and opens once"
    assert np.abs(action).max() <= 1
    assert np.abs(np.diff(state[:, :3], axis=0)).max() < 0.05
    pictures = episode.images["wrist"]
    assert pictures.shape == (length, 256, 256, 3)
    assert np.abs(pictures.astype(int) - episode.images["agentview"]).mean() > 20, "of two cameras"
    assert np.mean([(one != other).any() for one, other in zip(pictures, pictures[1:], strict=False)]) > 0.9
    # As if a policy had brought it so far: the expert goes on, and does not let go.
    process.ask("begin", trial=10_000, look=False)
    process.ask("step", actions=action[: holds[-1] - 10], look=False)
    rest = process.ask("record", seed=0, noise=0.0, lead=1, push=0, steps=300, every=1)
    assert rest["done"]
    assert len(rest["actions"]) < 60
    assert (rest["actions"][:5, 6] == 1).all()
    process.close()


@pytest.mark.parametrize(
    ("tool", "goes_down"),
    [
        ((0.0, 0.0, 0.06), True),
        ((0.012, 0.0, 0.06), False),  # along the closing axis: a finger stands on the thing
        ((0.0, 0.012, 0.06), True),
        ((0.012, 0.0, 0.09), True),  # over all of it
        ((0.0, 0.02, 0.06), False),
    ],
)
def test_the_expert_comes_down_again_where_a_finger_stands_on_the_thing(tool, goes_down):
    grasp, expert = Grasp(0.0, np.array([0.0, 0.0, 0.03]), 0.0), Expert.__new__(Expert)
    expert._scene = SimpleNamespace(tool=np.array(tool), tool_axes=grasp.axes)
    assert expert._is_above(grasp, 0.065, 0.135) == goes_down
