"""From the expert's episodes in LIBERO to a bundle for it; the simulator is a stand-in here."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from fastwam_policy.benchmarks import collect as collecting
from fastwam_policy.benchmarks.apart.disturbance import Disturbance
from fastwam_policy.benchmarks.base import SimulatorDiedError, Task
from fastwam_policy.benchmarks.collect import BODY, _turn, collect
from fastwam_policy.benchmarks.libero import INTERFACE
from fastwam_policy.benchmarks.lockstep import Noop
from fastwam_policy.benchmarks.run import ready_policy
from fastwam_policy.cli.main import main
from fastwam_policy.common.failure import RunError
from fastwam_policy.common.parallel import THIS_PROCESS
from fastwam_policy.data.body import WHOLE, Body
from fastwam_policy.data.lerobot_layout import INTERVENTION
from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.data.lerobot_writer import Dataset, Episode
from fastwam_policy.model.vae import OFFICIAL_CONFIG, ImageAutoencoder
from fastwam_policy.policies.base import Observation
from fastwam_policy.policies.fastwam.normalizer import Normalizer
from fastwam_policy.policies.fastwam.policy import FastWamPolicy
from fastwam_policy.training.config import TrainingConfig, changed
from fastwam_policy.training.datasets import open_datasets
from fastwam_policy.training.trainer import train
from fastwam_policy.training.windows import Windows, cache_latents, load_samples
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, validate

pytestmark = pytest.mark.training
CONFIG = Path(__file__).parents[3] / "config" / "training" / "libero_small.yaml"
TASKS = [Task("libero_object", 0, "take the soup", 50), Task("libero_object", 2, "take the milk", 50)]
LENGTH, CLOSES = 40, 25
FRAME = 32  # px


def played(seed, length=LENGTH):
    """State, actions and pictures of an episode; the gripper closes once."""
    random = np.random.default_rng(seed)
    pictures = {camera: random.integers(0, 255, (length, FRAME, FRAME, 3), np.uint8) for camera in INTERFACE.cameras}
    actions = random.uniform(-1, 1, (length, 7))
    actions[:, 6] = np.where(np.arange(length) < CLOSES, -1.0, 1.0)
    return {"images": pictures, "state": random.normal(0, 0.1, (length, 8)), "actions": actions}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("libero")
    dataset = Dataset(folder / "data", BODY, 20, "v3.0")
    for index in range(4):
        seen = played(index)
        task = TASKS[index % 2].instruction
        dataset.write(index, Episode(task, seen["images"], {WHOLE: seen["state"]}, {WHOLE: seen["actions"]}))
    dataset.finish()
    torch.manual_seed(0)
    vae = json.loads(OFFICIAL_CONFIG.read_text()) | {
        "base_dim": 8, "decoder_base_dim": 8, "num_res_blocks": 1, "temperal_downsample": [False, False, False],
        "scale_factor_temporal": 1,
    }  # fmt: skip
    ImageAutoencoder(vae).save(folder / "vae", torch.zeros(48), torch.ones(48))
    return folder


def configuration(data, **entries):
    content = yaml.safe_load(CONFIG.read_text())
    small = {"hidden_dim": 32, "ffn_dim": 64, "num_heads": 2, "head_dim": 24, "num_layers": 2, "text_dim": 16}
    content["policy"]["model"] |= {"video": {**small, "freq_dim": 32}, "action": {**small, "freq_dim": 32}}
    content |= {
        "datasets": [str(data / "data")], "autoencoder": str(data / "vae"), "steps": 2, "batch_size": 4, "warm_up": 1,
        "validate_every": 1, "checkpoint_every": 2, "precision": "no",
    }  # fmt: skip
    return validate(
        changed(content, [f"{key}={json.dumps(value)}" for key, value in entries.items()]), TrainingConfig, ""
    )


def test_an_interrupted_collection_has_episodes_of_every_task_and_no_gaps():
    order = sorted(range(600), key=lambda index: _turn(index, 10))
    assert sorted(order[:200]) == list(range(200))
    assert [index % 10 for index in order[:40]] == [0] * 20 + [1] * 20, "a simulator is loaded for many episodes"


def test_a_dataset_names_what_it_holds_and_is_read_by_these_names(data):
    info = json.loads((data / "data" / "meta" / "info.json").read_text())
    assert (info["robot_type"], info["fps"], info["codebase_version"]) == ("libero", 20, "v3.0")
    assert info["features"]["observation.state"]["names"] == [channel.name for channel in INTERFACE.state]
    assert info["features"]["action"]["names"] == [channel.name for channel in INTERFACE.action]
    assert info["features"]["observation.images.wrist"]["shape"] == [FRAME, FRAME, 3]
    some = Body.plain("libero", ["finger_left", "eef_x"], ["gripper", "delta_y"], ["wrist"])
    reader = Reader(data / "data", some, 20, ["wrist"])
    reader.leave_out_unusable()
    assert not reader.notes
    state, action = reader.vectors(reader.episodes[1])
    expected = played(1)
    np.testing.assert_allclose(state, expected["state"][:, [6, 0]], rtol=1e-6)
    np.testing.assert_allclose(action, expected["actions"][:, [6, 1]], rtol=1e-6)
    assert reader.instructions(reader.episodes[1]) == ["take the milk"] * LENGTH
    with pytest.raises(ConfigError, match=r"expected each of eef_w once; eef_w is not there once among its names: eef"):
        Reader(data / "data", Body.plain("libero", ["eef_w"], [], []), 20, [])
    with pytest.raises(ConfigError, match="the robot has no camera head; it has wrist"):
        Reader(data / "data", some, 20, ["head"])


def test_the_gripper_is_learned_as_the_model_gives_it(data):
    """From 0, closed, to 1, open, whatever the simulator takes; and before it closes is where the approach is."""
    config = configuration(data)
    readers = open_datasets(config)
    cache_latents(readers, config.policy, config.autoencoder)
    for index, sample in enumerate(load_samples(readers, config.policy, config.autoencoder)):
        expected = played(index)["actions"]
        np.testing.assert_array_equal(sample.action[:, 6], expected[:, 6] < 0)
        np.testing.assert_allclose(sample.action[:, :6], expected[:, :6], rtol=1e-6)
        assert sample.approach == CLOSES
        assert sample.latents.shape == (LENGTH, 1, 48, 8, 16)


def test_windows_begin_where_there_is_a_new_picture(data):
    """And end at the newest of then; what happens between is learned all the same."""
    config = configuration(data, every=4)
    readers = open_datasets(config)
    cached = {}
    for every in (1, 4):
        cache_latents(readers, config.policy, config.autoencoder, every=every)
        cached[every] = load_samples(readers, config.policy, config.autoencoder, every)
    assert cached[4][0].latents.shape == (LENGTH // 4, 1, 48, 8, 16)
    np.testing.assert_allclose(cached[4][0].latents, cached[1][0].latents[::4], atol=2e-3)
    plain = Normalizer(np.ones(8), np.zeros(8)), Normalizer(np.ones(7), np.zeros(7))
    texts = {task.instruction: (torch.zeros(4, 16), torch.ones(4, dtype=torch.bool)) for task in TASKS}
    windows = Windows(cached[4], config.policy, *plain, texts, every=4)
    assert windows.places[:11] == [*((0, frame) for frame in range(0, LENGTH, 4)), (1, 0)]
    batch = windows.batch([1, 9], torch.device("cpu"))
    expected = torch.from_numpy(cached[1][0].latents[[4, 36, 36, 36], 0]).float()
    torch.testing.assert_close(batch.latents.transpose(1, 2).flatten(0, 1), expected, rtol=0, atol=2e-3)
    np.testing.assert_array_equal(batch.actions[0, :, :6], cached[1][0].action[4:36, :6])


def test_a_bundle_that_libero_takes_comes_out(data, tmp_path):
    result = train(configuration(data), tmp_path / "out")
    assert result.unit == "opaque"
    assert result.error > 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert 0 < summary["validation/opaque"] <= result.error, "the smallest of both validations"
    statistics = json.loads((tmp_path / "out" / "bundle" / "dataset_stats.json").read_text())
    assert len(statistics["state"]["default"]["global_mean"]) == 8
    gripper = [statistics["action"]["default"][f"global_{name}"][6] for name in ("min", "max")]
    assert gripper == [0.0, 1.0]
    policy = FastWamPolicy.load(tmp_path / "out" / "bundle")
    INTERFACE.check(policy.info, "bundle")
    assert {"take the soup", "take the milk"} < set(policy.info.instructions)
    policy.prepare("take the milk")
    images = {camera: np.zeros((256, 256, 3), np.uint8) for camera in INTERFACE.cameras}
    joints = dict.fromkeys([channel.name for channel in INTERFACE.state], 0.0)
    chunk = policy.infer(Observation(0, images, joints, "take the milk"))
    assert chunk.actions.shape == (32, 7)
    assert set(np.unique(chunk.actions[:, 6])) <= {-1.0, 1.0}
    assert np.abs(chunk.actions[:, :6]).max() > 0


def test_a_policy_that_libero_would_not_take_is_not_trained(data):
    for entries, message in (
        ({"policy.action.kind": "absolute"}, "action.kind: absolute, not delta"),
        ({"policy.state.units": ["m"] * 8}, r"state: eef_x \(m\) is unknown; there are eef_x \(opaque\)"),
    ):
        with pytest.raises(ConfigError, match=f"(?s)policy does not fit libero:.*{message}"):
            open_datasets(configuration(data, **entries))


def test_a_gripper_that_the_simulator_would_not_take_is_not_learned(data, tmp_path):
    """As the authors' datasets have it: 0 closes and 1 opens, which would be learned the wrong way round."""
    dataset = Dataset(tmp_path / "data", BODY, 20, "v3.0")
    seen = played(0)
    seen["actions"][:, 6] = (1 - seen["actions"][:, 6]) / 2
    dataset.write(0, Episode("take", seen["images"], {WHOLE: seen["state"]}, {WHOLE: seen["actions"]}))
    dataset.finish()
    with pytest.raises(ConfigError, match="data: action gripper is nowhere below 0; -1 is to open and 1 to close"):
        open_datasets(configuration(data, datasets=[str(data / "data"), str(tmp_path / "data")]))


class StandIn:
    """Answers as LIBERO's end of the pipe does; of some seeds the expert fails, or the simulator dies."""

    def __init__(self, fails=(), dies=()):
        self.fails, self.dies, self.asked, self.closed = fails, list(dies), [], 0

    def ask(self, question, **about):
        self.asked.append((question, about))
        if question == "record":
            if about["seed"] in self.dies:
                self.dies.remove(about["seed"])
                raise SimulatorDiedError("out of luck")
            answer = {"done": about["seed"] not in self.fails}
            return answer | played(about["seed"], 12)
        seen = played(0, 1)
        observed = {"state": seen["state"][0], "images": {name: rows[0] for name, rows in seen["images"].items()}}
        if question == "begin":
            return {"initial": "a", "simulator": "stand-in", "observation": observed}
        return {"steps": len(about.get("actions", ())), "done": False, "observation": observed, "final": "b"}

    def close(self):
        self.closed += 1


@pytest.fixture
def stand_in(monkeypatch):
    """What the simulator is asked, and the tasks that it is started for."""
    simulator, started = StandIn(fails=(10_001,), dies=(10_002,)), []

    def opened(task, rules, log, *, look, place):
        started.append(task.number)
        return simulator

    monkeypatch.setattr(collecting, "opened", opened)
    return simulator, started


def test_what_fails_is_left_out_and_what_is_there_is_kept(stand_in, tmp_path):
    simulator, started = stand_in
    assert collect(tmp_path / "data", 3, TASKS, 0.3, 10_000, where=THIS_PROCESS) == 2
    assert started == [0, 0, 2], "once for each task, and again where it died"
    assert simulator.closed == len(started)
    seeds = [about["seed"] for question, about in simulator.asked if question == "record"]
    assert seeds == [10_000, 10_002, 1_010_002, 10_001, 1_010_001]
    begun = [about["trial"] for question, about in simulator.asked if question == "begin"]
    assert begun == seeds
    reader = Reader(tmp_path / "data", BODY, 20, INTERFACE.cameras)
    assert [episode.task for episode in reader.episodes] == ["take the soup", "take the milk", "take the soup"]
    assert not any(reader.interventions(episode).any() for episode in reader.episodes)
    state, action = reader.vectors(reader.episodes[2])
    np.testing.assert_allclose(state, played(1_010_002, 12)["state"], rtol=1e-6)
    np.testing.assert_allclose(action, played(1_010_002, 12)["actions"], rtol=1e-6)
    simulator.asked.clear()
    assert collect(tmp_path / "data", 4, TASKS, 0.3, 10_000, where=THIS_PROCESS) == 0
    assert [about["seed"] for question, about in simulator.asked if question == "record"] == [10_003]
    with pytest.raises(ConfigError, match=r"begun with other settings: noise: 0.3 -> 0.1"):
        collect(tmp_path / "data", 5, TASKS, 0.1, 10_000, where=THIS_PROCESS)


def test_a_picture_is_repeated_until_the_next(stand_in, tmp_path):
    simulator, _ = stand_in
    task, settings = TASKS[0], collecting.LiberoSettings(["libero_object 0"], picture_every=4)
    episode = collecting.record(simulator, task, 20_000, settings)
    assert {about.get("every") for question, about in simulator.asked if question == "record"} == {4}
    for camera, made in played(20_000, 12)["images"].items():
        np.testing.assert_array_equal(episode.images[camera], made[np.repeat([0, 1, 2], 4)], err_msg=camera)


def test_some_episodes_begin_behind_a_push(stand_in, tmp_path):
    simulator, _ = stand_in
    collect(tmp_path / "data", 12, TASKS, 0.3, 20_000, where=THIS_PROCESS)
    pushes = [(about["lead"], about["push"]) for question, about in simulator.asked if question == "record"]
    assert 0 < sum(push > 0 for _, push in pushes) < len(pushes)
    assert all(lead >= 1 for lead, _ in pushes), "the step before the first picture is not kept"


class Rests(Noop):
    """Does nothing."""

    def __init__(self):
        super().__init__(INTERFACE)


def test_a_policy_drives_first_and_the_expert_continues(stand_in, tmp_path):
    simulator, _ = stand_in
    ready_policy.cache_clear()
    collect(tmp_path / "data", 2, TASKS[:1], 0.0, 10_003, f"{__file__}:Rests", where=THIS_PROCESS)
    questions = [question for question, _ in simulator.asked]
    records = [k for k, question in enumerate(questions) if question == "record"]
    assert questions[0] == "begin"
    steps = [sum(len(about["actions"]) for question, about in part if question == "step") for part in
             (simulator.asked[: records[0]], simulator.asked[records[0] : records[1]])]  # fmt: skip
    assert all(6 <= count < 260 for count in steps)
    assert steps[0] != steps[1]
    assert all(about["push"] == 0 for question, about in simulator.asked if question == "record")
    table = pq.read_table(tmp_path / "data" / "data" / "chunk-000" / "file-000.parquet")
    assert table[INTERVENTION].to_pylist() == [1.0] * 12
    with pytest.raises(ConfigError, match=r"policy_sha256: [0-9a-f]{64} -> "):
        collect(tmp_path / "data", 3, TASKS[:1], 0.0, 10_003, where=THIS_PROCESS)


def test_a_task_that_the_expert_cannot_do_is_named(stand_in, tmp_path, monkeypatch):
    simulator, _ = stand_in
    monkeypatch.setattr(simulator, "ask", lambda question, **_: {"cannot": "the expert cannot: open drawer"})
    with pytest.raises(RunError, match="libero_object, task 0: the expert cannot: open drawer; leave it out"):
        collect(tmp_path / "data", 1, TASKS, 0.0, 10_000, where=THIS_PROCESS)
    assert simulator.closed == 1


def test_options_of_another_simulator_are_refused(tmp_path, capsys):
    for words, message in (
        (["--benchmark", "libero", "--height", "90"], "--height is for our own simulator, not for libero"),
        (["--tasks", "0"], "--suite, --tasks and --picture-every need --benchmark"),
    ):
        with pytest.raises(SystemExit) as status:
            main(["collect", str(tmp_path / "data"), *words])
        assert status.value.code == 2
        assert message in capsys.readouterr().err


def test_noise_is_a_share_of_the_speed_and_spares_the_gripper():
    fast, slow = np.array([0.0, 0.5, 0, 0, 0, 0, -1]), np.array([0.0, 0, 0, 0, 0, 0.01, 1])
    disturbance = Disturbance(seed=0, noise=0.2, push=0, begins=1)
    off = np.array([disturbance.executed(fast) - fast for _ in range(2000)])
    assert not off[:, 6].any()
    assert off[:, :3].std() == pytest.approx(0.5 * 0.2, rel=0.15)
    assert off[:, 3:6].std() == pytest.approx(0.5 * 0.2 * 0.1, rel=0.15), "a share of turning is ten times as much"
    assert np.corrcoef(off[:-1, 0], off[1:, 0])[0, 1] == pytest.approx(0.85, abs=0.05)
    assert np.abs(disturbance.executed(slow) - slow).max() < 0.01
    assert np.abs(Disturbance(0, 9.0, 0, 1).executed(fast)).max() == 1.0, "no more than the arm takes"
    again = Disturbance(seed=0, noise=0.2, push=0, begins=1)
    np.testing.assert_array_equal(again.executed(fast) - fast, off[0])


def test_a_push_is_one_motion_upwards_or_aside():
    action = np.array([0.1, 0, 0, 0, 0, 0, 1])
    disturbance = Disturbance(seed=3, noise=0.0, push=4, begins=2)
    done = np.array([disturbance.executed(action) for _ in range(8)])
    np.testing.assert_array_equal(done[[0, 1, 6, 7]], np.tile(action, (4, 1)))
    assert np.ptp(done[2:6], axis=0).max() == 0
    assert np.abs(done[2]).max() > 0.1
    assert done[2, 2] >= 0
    assert (done[:, 6] == 1).all()
