"""Closed loop in the simulator: the execution lets a perfect policy fold, and figures count what happened."""

import io
import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from rich.console import Console

pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")

from fastwam_policy.cli.main import main
from fastwam_policy.common.processes import shipped_bundle
from fastwam_policy.policies.base import ActionChunk, CameraInput, Channel, Frame, PolicyInfo
from fastwam_policy.policies.images import decode_image
from fastwam_policy.policies.loading import load_policy
from fastwam_policy.simulation import evaluate
from fastwam_policy.simulation.episode import (
    ClosedLoop,
    EpisodeResult,
    EpisodeSettings,
    _SimulatedRobot,
    run_episode,
)
from fastwam_policy.simulation.evaluate import Evaluation, gather, summarise, table
from fastwam_policy.simulation.takeover import corrected
from galaxea_r1lite_bridge.robot.config import RobotConfig, limit_arrays, share_directory
from galaxea_r1lite_sim.camera import Cameras, jpeg
from galaxea_r1lite_sim.contacts import Contact
from galaxea_r1lite_sim.expert import STEP
from galaxea_r1lite_sim.randomization import draw
from galaxea_r1lite_sim.simulation import Simulation

pytestmark = pytest.mark.integration
ROBOT = RobotConfig.load()
H = 32


class Oracle:
    """Chunks of the expert's plan, as a policy without error would make them."""

    def __init__(self, seed, offset=0.0):
        self.plan = Simulation(ROBOT, draw(seed)).plan()
        self.plan[:, ROBOT.slices["left_arm"].start] += offset  # rad, turns the left arm away from its corner
        joints = tuple(Channel(name, unit) for name, unit in zip(ROBOT.joint_names, ROBOT.units, strict=True))
        self.info = PolicyInfo("oracle", (), (), joints, 1 / STEP, H)

    def prepare(self, instruction):
        pass

    def reset(self):
        self.begin = None

    def close(self):
        pass

    def infer(self, observation):
        if self.begin is None:
            self.begin = observation.stamp_ns
        first = round((observation.stamp_ns - self.begin) / 1e9 / STEP)
        rows = self.plan[np.arange(first, first + H).clip(max=len(self.plan) - 1)]
        return ActionChunk(observation.stamp_ns, round(1e9 * STEP), ROBOT.joint_names, rows)


@pytest.mark.parametrize("blending", ["switch", "ensemble"])
def test_a_perfect_policy_folds_through_the_bridge(blending):
    outcome = run_episode(Oracle(3), ROBOT, 3, EpisodeSettings(latency=0.2, blending=blending))
    assert outcome.success
    assert (outcome.failure, outcome.grasps) == ("", 2)
    assert outcome.distance < 0.03
    assert 4 < outcome.time < 8
    assert {contact.kind for contact in outcome.contacts} <= {"finger-table"}, "it does not touch itself"


def test_the_shipped_policy_folds_the_towel():
    policy = load_policy(shipped_bundle())
    policy.prepare(policy.info.default_instruction)
    outcome = run_episode(policy, ROBOT, 3, EpisodeSettings(level="objects"))
    assert outcome.success
    assert outcome.grasps == 2


@pytest.mark.parametrize("nodes", [[], ["--nodes"]])
def test_only_a_camera_that_the_policy_needs_must_be_rendered(random_bundle, tmp_path, capsys, nodes):
    def status(cameras):
        (tmp_path / "robot.yaml").write_text(yaml.safe_dump(data | {"cameras": cameras}))
        with pytest.raises(SystemExit) as ended:
            main(["eval-sim", str(random_bundle), "--episodes", "1", "--time-limit", "1", "--workers", "1",
                  "--robot", str(tmp_path / "robot.yaml"), *nodes])  # fmt: skip
        return ended.value.code

    data = yaml.safe_load((share_directory() / "config" / "r1lite.yaml").read_text())
    cameras = data["cameras"]
    bare = {"topic": "chest/compressed", "type": "sensor_msgs/msg/CompressedImage", "dataset_key": "chest_rgb"}
    if not nodes:
        assert status(cameras | {"chest": bare}) == 0
    assert status(cameras | {"head": bare}) == 2
    message = (
        "the simulator cannot render camera head: add cameras.head.mount (link, field_of_view) to the robot's YAML"
    )
    assert message in capsys.readouterr().err


def test_an_arm_that_misses_its_corner_is_classified():
    outcome = run_episode(Oracle(3, offset=0.15), ROBOT, 3, EpisodeSettings(time_limit=8.0))
    assert not outcome.success
    assert (outcome.failure, outcome.grasps) == ("one corner grasped", 1)


class Stalling(Oracle):
    """Stops on its way to the towel."""

    def __init__(self, seed):
        super().__init__(seed)
        self.plan = self.plan[:12]


def test_the_expert_takes_over_where_a_policy_stalls(tmp_path, capsys):
    """Within the limits and without a leap; the rows say who commanded them."""
    simulation = Simulation(ROBOT, draw(3, "objects"))
    episode = corrected(Stalling(3), ROBOT, simulation, Cameras(simulation, 90, 160), EpisodeSettings(), "fold")
    assert simulation.progress().success
    first = int(episode.intervention.argmax())
    assert 1.5 < first * STEP < 4
    assert episode.intervention[first:].all()
    assert len(episode.images["head"]) == episode.length > first + 60
    state, action = (np.concatenate(list(side.values()), axis=1) for side in (episode.state, episode.action))
    assert np.abs(action - state)[first, ROBOT.is_arm].max() < 0.1
    most = limit_arrays(ROBOT.commanded).velocity * 0.07  # s between two rows, in whole control ticks
    assert (np.abs(np.diff(state, axis=0)) < 1.05 * most).all(), "whatever the person wants"
    with pytest.raises(SystemExit) as ended:
        main(["collect", str(tmp_path / "data"), "--takeover"])
    assert ended.value.code == 2
    assert "takeover: name the policy that the expert takes over from (--policy)" in capsys.readouterr().err


class Recalling(Oracle):
    """Looks back half a second, and is told what was executed."""

    def __init__(self, seed):
        super().__init__(seed)
        self.info = replace(self.info, cameras=(CameraInput("head"), CameraInput("chest", required=False)),
                            history=(0.2, 0.5), key_frame_steps=2)  # fmt: skip
        self.seen, self.told = [], []

    def infer(self, observation):
        self.seen.append(observation)
        return super().infer(observation)

    def executed(self, actions, key_frames):
        self.told.append((actions, key_frames))


def test_a_policy_with_a_memory_is_given_what_was_seen_and_executed():
    policy = Recalling(3)
    run_episode(policy, ROBOT, 3, EpisodeSettings(time_limit=2.2, replan=0.5, height=90))
    assert len(policy.seen) == 5
    assert len(policy.told) == 4, "nothing was executed before the first chunk"
    first, last = policy.seen[0], policy.seen[-1]
    assert [frame.stamp_ns for frame in first.earlier] == [first.stamp_ns] * 2, "the oldest there is"
    ages = [(last.stamp_ns - frame.stamp_ns) / 1e9 for frame in last.earlier]
    assert ages == pytest.approx([0.2, 0.5], abs=0.04)
    assert last.earlier[0].images.keys() == last.images.keys() == {"head"}
    actions, frames = policy.told[-1]
    assert actions.shape == (7, 14), "half a second at 15 Hz"
    assert len(frames) == 3
    assert all(isinstance(frame, Frame) for frame in frames)
    assert [frame.stamp_ns for frame in frames] == sorted(frame.stamp_ns for frame in frames)
    measured = np.array([list(frame.joints.values()) for frame in frames])
    assert np.abs(measured - actions[1::2])[:, :6].max() < 0.15, "seen as it was executed, but for the servo's lag"


def test_frames_that_no_policy_is_given_any_more_are_not_kept(monkeypatch):
    kept, remember = [], ClosedLoop._remember

    def counted(loop, frame):
        remember(loop, frame)
        kept.append(len(loop._frames))

    monkeypatch.setattr(ClosedLoop, "_remember", counted)
    run_episode(Recalling(3), ROBOT, 3, EpisodeSettings(time_limit=2.2, replan=0.5, height=90))
    assert len(kept) > 30
    assert max(kept) <= 10, "of half a second at 15 a second, and the one before"


def test_a_policy_sees_what_the_cameras_send():
    policy = Recalling(3)
    run_episode(policy, ROBOT, 3, EpisodeSettings(time_limit=0.1, height=90, jpeg_quality=50))
    rendered = Cameras(Simulation(ROBOT, draw(3)), 90, 160).render("head")
    seen = policy.seen[0].images["head"]
    assert (seen == decode_image(jpeg(rendered, 50))).all()
    assert (seen != rendered).any()


@pytest.mark.parametrize("delay", [0.0, 0.03])
def test_targets_arrive_as_late_as_they_should(delay):
    late = _SimulatedRobot(simulation := Simulation(ROBOT, draw(3)), delay)
    target = simulation.target + 0.1
    arrived = []
    for _ in range(5):
        late.advance(target, 0.01)
        arrived.append(bool((simulation.target == target).all()))
    assert arrived.index(True) == round(delay / 0.01)
    assert all(arrived[arrived.index(True) :])


def test_a_policy_is_told_the_task_that_is_simulated():
    policy = Recalling(3)
    settings = EpisodeSettings(time_limit=0.6, height=90, task="cube", instruction="put the cube on the mat")
    assert run_episode(policy, ROBOT, 3, settings).failure == "not grasped"
    assert {observation.instruction for observation in policy.seen} == {"put the cube on the mat"}


def test_equal_seeds_give_equal_outcomes():
    short = EpisodeSettings(time_limit=4.0)
    one, other = (run_episode(Oracle(5), ROBOT, 5, short) for _ in range(2))
    assert one.distance == other.distance


def test_the_summary_counts():
    outcomes = [EpisodeResult(k, k < 8, 5.0 + k, "" if k < 8 else "misplaced", 2, 0.02, 30.0) for k in range(10)]
    summary = summarise(outcomes)
    assert summary["success"] == 0.8
    # Wilson's interval for 8 of 10, from the formula with z = 1.95996.
    z, p, n = 1.959964, 0.8, 10
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    expected = [(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)]
    np.testing.assert_allclose(summary["success_interval"], expected, atol=1e-5)
    assert summary["failures"] == {"misplaced": 2}
    assert summary["time_mean"] == pytest.approx(8.5)


def test_the_summary_says_what_the_robot_touched():
    touched = Contact("arm-body", "left_arm_link4", "torso_link3", 4.24, 3.0, 0.5, 2)
    outcomes = [EpisodeResult(k, True, 5.0, "", 2, 0.02, 30.0, (touched,) if k else ()) for k in range(3)]
    summary = summarise(outcomes)
    assert summary["contacts"]["arm-body"]["episodes"] == 2
    shown = io.StringIO()
    Console(file=shown, width=120).print(table(summary, "any"))
    assert "4 x arm-body in 2 episodes (deepest 4.2 mm, left_arm_link4 with torso_link3)" in shown.getvalue()


@pytest.mark.parametrize("told", [True, False])
def test_contacts_are_kept_with_the_figures(tmp_path, told):
    """And figures of a version that knew none are gone on with."""
    touched = (Contact("arm-body", "left_arm_link4", "torso_link3", 4.24, 3.0, 0.5, 2),)
    result = EpisodeResult(1, True, 5.0, "", 2, 0.02, 30.0)
    done = asdict(replace(result, contacts=touched))
    if not told:
        del done["contacts"]
    how, figures = Evaluation(policy="a", seeds=(1, 2)), tmp_path / "figures.json"
    figures.write_text(json.dumps({"how": asdict(how), "outcomes": [done]}))
    summary = gather(lambda seeds: (replace(result, seed=seed) for seed in seeds), how, figures)
    assert summary["contacts"]["arm-body"]["count"] == (2 if told else 0)


@pytest.mark.nodes
@pytest.mark.slow
def test_a_bundle_is_evaluated_in_parallel_and_failures_are_filmed(random_bundle, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    with pytest.raises(SystemExit) as ended:
        main([
            "eval-sim", str(random_bundle), "--episodes", "2", "--time-limit", "1", "--workers", "2",
            "--denoise-steps", "2", "--videos", str(tmp_path / "videos"), "--json", str(figures),
        ])  # fmt: skip
    assert ended.value.code == 0
    summary = json.loads(figures.read_text())
    assert summary["failures"] == {"no corner grasped": 2}
    assert summary["how"]["denoise_steps"] == 2
    assert "0 % of 2" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == ["seed_0.mp4", "seed_1.mp4"]


def test_denoise_steps_are_an_option_of_the_bundle(monkeypatch):
    given, policy = [], SimpleNamespace(prepare=lambda instruction: None)
    monkeypatch.setattr(evaluate, "load_policy", lambda source, options: given.append(options) or policy)
    evaluate.ready_policy("some/bundle", instruction="fold", denoise_steps=2)
    assert given == [{"denoise_steps": 2}]


def test_an_interrupted_evaluation_goes_on(tmp_path, capsys):
    """Each outcome is kept as it comes, and counts only for the evaluation it was made for."""
    asked, figures = [], tmp_path / "figures.json"

    def run(seeds, ending_at=9):
        for seed in seeds:
            if seed == ending_at:
                raise KeyboardInterrupt
            asked.append(seed)
            yield EpisodeResult(seed, True, 5.0, "", 2, 0.02, 30.0)

    how = Evaluation(policy="a", seeds=(3, 2, 1))
    with pytest.raises(KeyboardInterrupt):
        gather(lambda seeds: run(seeds, ending_at=1), how, figures)
    assert json.loads(figures.read_text())["episodes"] == 2
    whole = gather(run, how, figures)
    assert "2 of 3 episodes are in" in capsys.readouterr().out
    assert asked == [3, 2, 1]
    assert [outcome["seed"] for outcome in whole["outcomes"]] == [1, 2, 3]
    assert json.loads(figures.read_text()) == json.loads(json.dumps(whole))
    assert gather(run, how, figures)["episodes"] == 3
    assert len(asked) == 3, "nothing is done twice"
    assert gather(run, replace(how, seeds=(1, 2, 3, 4)), figures)["episodes"] == 4
    assert asked == [3, 2, 1, 4], "more seeds are added"
    capsys.readouterr()
    assert gather(run, replace(how, policy="b"), figures)["episodes"] == 3
    assert len(asked) == 7, "another policy is evaluated again"
    assert "is of another evaluation, and is replaced: policy: a -> b" in capsys.readouterr().out
    figures.write_text("[1, 2]")
    assert gather(run, how, figures)["episodes"] == 3


def test_figures_of_an_older_version_are_gone_on_with(tmp_path):
    """It knew fewer settings, and other figures of an episode."""

    def run(seeds):
        raise AssertionError("nothing is done twice")
        yield

    figures, how = tmp_path / "figures.json", Evaluation(policy="a", seeds=(1,))
    about = asdict(how)
    del about["replan"], about["robot"]
    about["bundle"] = about.pop("policy")
    outcome = asdict(EpisodeResult(1, True, 5.0, "", 2, 0.02, 30.0)) | {"of_old": 1}
    outcome["corner_distance"] = outcome.pop("distance")
    figures.write_text(json.dumps({"how": about, "outcomes": [outcome]}))
    assert gather(run, how, figures)["episodes"] == 1


@pytest.mark.nodes
@pytest.mark.slow
def test_episodes_run_through_the_nodes(random_bundle, tmp_path):
    figures = tmp_path / "figures.json"
    with pytest.raises(SystemExit) as ended:
        main([
            "eval-sim", str(random_bundle), "--episodes", "2", "--time-limit", "1.5", "--nodes",
            "--log", str(tmp_path / "nodes.log"), "--json", str(figures),
        ])  # fmt: skip
    assert ended.value.code == 0
    outcomes = json.loads(figures.read_text())["outcomes"]
    assert [(o["seed"], o["failure"]) for o in outcomes] == [(0, "no corner grasped"), (1, "no corner grasped")]
    assert all(o["inference_ms"] > 0 for o in outcomes)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--episodes", "0"], "--episodes: must be at least 1"),
        (["--time-limit", "0"], "--time-limit: must be above 0"),
        (["--denoise-steps", "0"], "--denoise-steps: must be at least 1"),
        (["--workers", "-1"], "--workers: must be at least 0"),
        (["--latency", "-1"], "--latency: must be at least 0, got -1; see: fastwam eval-sim --help"),
        (["--task", "cube"], "no text embedding for the prompt"),
        (["--delay", "1"], "--delay: must be at least 0 and below 1, got 1"),
        (["--latency", "1.6"], "--latency must be below 1.5 s"),
        (["--videos", "/dev/null"], "--videos /dev/null: cannot be written"),
        (["--videos", "/tmp", "--nodes"], "--nodes films nothing"),
    ],
)
def test_wrong_options_are_refused(random_bundle, option, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["eval-sim", str(random_bundle), *option])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
