"""From a dataset to a bundle: statistics, samples, initial weights, the trainer and its restart."""

import io
import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from fastwam_policy.cli.compare import VARIANTS
from fastwam_policy.cli.main import main
from fastwam_policy.common.failure import RunError
from fastwam_policy.common.files import alone_in
from fastwam_policy.common.parallel import THIS_PROCESS
from fastwam_policy.data.lerobot_layout import INTERVENTION
from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.data.lerobot_writer import Dataset, Episode
from fastwam_policy.model import variants
from fastwam_policy.model.checkpoint import load_weights, read_tensors
from fastwam_policy.model.config import PRESETS
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.training_loss import training_loss
from fastwam_policy.model.vae import OFFICIAL_CONFIG, ImageAutoencoder, ImageEncoder, VideoAutoencoder, load_vae
from fastwam_policy.model.variants import training_mask
from fastwam_policy.policies.base import Observation
from fastwam_policy.policies.fastwam.bundle import Bundle
from fastwam_policy.policies.fastwam.normalizer import Normalizer
from fastwam_policy.policies.fastwam.policy import FastWamPolicy
from fastwam_policy.policies.robot_check import check_robot
from fastwam_policy.training.autoencoder import AutoencoderSettings, _unlikeness, train_autoencoder
from fastwam_policy.training.config import TrainingConfig, changed
from fastwam_policy.training.datasets import spread
from fastwam_policy.training.initialization import initialise, interpolated
from fastwam_policy.training.mean_pictures import mean_picture
from fastwam_policy.training.output_folder import check_output, parts_of_a_batch
from fastwam_policy.training.statistics import dataset_statistics
from fastwam_policy.training.trainer import _Trainer, train
from fastwam_policy.training.windows import Windows, cache_latents, encoded, load_samples
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, validate

from .golden_files import GOLDEN, golden

pytestmark = pytest.mark.training
ROBOT = RobotConfig.load()
CONFIG = Path(__file__).parents[3] / "config" / "training" / "towel.yaml"
H = 32


def test_statistics_are_the_official_ones():
    given = golden("dataset_stats_input")
    episodes = [(given[f"state_ep{k}"], given[f"action_ep{k}"]) for k in range(3)]
    found = dataset_statistics(episodes, H)
    expected = json.loads((GOLDEN / "dataset_stats.json").read_text())
    assert (found["num_episodes"], found["num_transition"]) == (3, 170)
    for kind in ("state", "action"):
        assert set(found[kind]["default"]) == set(expected[kind]["default"])
        for name, value in expected[kind]["default"].items():
            np.testing.assert_allclose(found[kind]["default"][name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_states_and_actions_may_be_of_different_widths():
    given = golden("dataset_stats_input")
    episodes = [(given[f"state_ep{k}"][:, :8], given[f"action_ep{k}"][:, :7]) for k in range(3)]
    expected = json.loads((GOLDEN / "dataset_stats.json").read_text())
    found = dataset_statistics(episodes, H, relative=np.zeros(7, np.float32))
    for kind, width in (("state", 8), ("action", 7)):
        for name, value in expected[kind]["default"].items():
            own = np.array(value)[..., :width]
            np.testing.assert_allclose(found[kind]["default"][name], own, rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_action_expert_is_interpolated_as_officially():
    video = {
        name.removeprefix("video."): value
        for name, value in load_weights(GOLDEN / "checkpoint.pt").items()
        if name.startswith("video.")
    }
    expected = read_tensors(GOLDEN / "action_backbone.pt")["backbone_state_dict"]
    found = interpolated(video, FastWam(PRESETS["tiny"]).action.state_dict())
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=5e-5, msg=name)


def test_wan_weights_fill_both_experts(tmp_path):
    torch.manual_seed(0)
    source, model = FastWam(PRESETS["tiny"]), FastWam(PRESETS["tiny"])
    save_file(source.video.state_dict(), tmp_path / "part.safetensors")
    initialise(model, tmp_path)
    for name, value in model.video.state_dict().items():
        torch.testing.assert_close(value, source.video.state_dict()[name], rtol=0, atol=0)
    with pytest.raises(ConfigError, match="neither a bundle, nor weights"):
        initialise(model, tmp_path / "nothing")
    save_file({"head.head.bias": torch.zeros(3)}, tmp_path / "part.safetensors")
    with pytest.raises(ConfigError, match="missing: blocks"):
        initialise(model, tmp_path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Five short episodes in which the arms go where a bright square is, and an untrained autoencoder."""
    folder = tmp_path_factory.mktemp("data")
    dataset = Dataset(folder / "towel", ROBOT, 15)
    for index in range(5):
        random = np.random.default_rng(index)
        aim = random.uniform(-0.3, 0.3)
        images = np.full((40, 36, 64, 3), 90, np.uint8)
        images[:, 10:20, 32 + int(60 * aim) :][:, :, :10] = 220
        ramp = np.linspace(0, 1, 40)[:, None]
        state = {name: np.array(g.home) + aim * ramp for name, g in ROBOT.commanded.items()}
        state |= {name: 50 - 30 * (ramp > 0.5) for name, g in ROBOT.commanded.items() if g.unit == "mm"}
        dataset.write(
            index, Episode("fold the towel", {camera: list(images) for camera in ROBOT.cameras}, state, state)
        )
    dataset.finish()
    torch.manual_seed(0)
    config = json.loads(OFFICIAL_CONFIG.read_text()) | {
        "base_dim": 8, "decoder_base_dim": 8, "num_res_blocks": 1, "temperal_downsample": [False, False, False],
        "scale_factor_temporal": 1,
    }  # fmt: skip
    ImageAutoencoder(config).save(folder / "vae", torch.zeros(48), torch.ones(48))
    return folder


def configuration(data, **entries):
    content = yaml.safe_load(CONFIG.read_text())
    content["policy"]["model"]["positions"] = [7, 6]
    small = {"num_heads": 2, "head_dim": 24, "num_layers": 2, "text_dim": 16, "freq_dim": 32}
    content["policy"]["model"]["video"] = {"hidden_dim": 32, "ffn_dim": 64, **small}
    content["policy"]["model"]["action"] = {"hidden_dim": 32, "ffn_dim": 64, **small}
    content |= {
        "datasets": [str(data / "towel")], "autoencoder": str(data / "vae"), "steps": 6, "batch_size": 4,
        "warm_up": 2, "validate_every": 3, "checkpoint_every": 3, "precision": "no",
    }  # fmt: skip
    return validate(
        changed(content, [f"{key}={json.dumps(value)}" for key, value in entries.items()]), TrainingConfig, ""
    )


def test_an_image_autoencoder_is_one_of_the_official_class(data):
    """Trained in two dimensions, loaded as the class that runs everywhere: the same numbers."""
    torch.manual_seed(1)
    video = torch.rand(1, 3, 2, 64, 96) * 2 - 1
    encoder, whole = ImageEncoder.load(data / "vae"), VideoAutoencoder(load_vae(data / "vae"))
    with torch.no_grad():
        latents = whole.encode(video)
        assert latents.shape == (1, 48, 2, 4, 6)
        torch.testing.assert_close(encoder(video[:, :, 1]), latents[:, :, 1:], rtol=0, atol=1e-5)
        assert whole.decode(latents).shape == video.shape


def test_samples_pad_at_the_end_and_count_from_the_measured_state(data):
    config = configuration(data)
    readers = [Reader(data / "towel", ROBOT, 15, list(ROBOT.cameras))]
    cache_latents(readers, config.policy, config.autoencoder)
    samples = load_samples(readers, config.policy, config.autoencoder)
    assert [len(s.state) for s in samples] == [40] * 5
    assert samples[0].latents.shape == (40, 1, 48, 14, 12)
    assert all(s.approach == 20 for s in samples)  # the grippers close half way
    plain = Normalizer(np.ones(14, np.float32), np.zeros(14, np.float32))
    texts = {"fold the towel": (torch.zeros(4, 16), torch.ones(4, dtype=torch.bool))}
    windows = Windows(samples, config.policy, plain, plain, texts)
    batch = windows.batch([20, 45], torch.device("cpu"))  # frame 20 of the first episode, frame 5 of the second
    assert batch.action_is_pad.sum(dim=1).tolist() == [12, 0]
    assert batch.image_is_pad.tolist() == [[False, True], [False, False]]
    assert batch.latents.shape == (2, 48, 2, 14, 12)
    torch.testing.assert_close(batch.latents[0, :, 1], torch.from_numpy(samples[0].latents[39, 0]).float())
    torch.testing.assert_close(batch.latents[1, :, 1], torch.from_numpy(samples[1].latents[37, 0]).float())
    expected = samples[0].action[39] - samples[0].state[20]
    grippers = np.array([unit == "mm" for unit in ROBOT.units])
    expected[grippers] = np.clip(samples[0].action[39][grippers], -5, 5)
    np.testing.assert_allclose(batch.actions[0, 31], expected, atol=1e-6)
    early = windows.draw(np.random.default_rng(0), 400, 0.75)
    assert np.mean([windows.places[n][1] < 20 for n in early]) == pytest.approx(0.75, abs=0.08)


def test_frames_of_a_takeover_are_as_much_of_a_batch_as_told(data, tmp_path, monkeypatch):
    """And those that led to it are left out; with a share of 0 all are drawn as if nobody had taken over."""
    shutil.copytree(data / "towel", tmp_path / "towel")
    path = tmp_path / "towel" / "data" / "chunk-000" / "episode_000001.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index(INTERVENTION)
    over = pa.array(np.arange(40) >= 33, pa.float32())
    pq.write_table(table.set_column(place, INTERVENTION, over), path)
    drawn = []
    batch = Windows.batch

    def noted(windows, numbers, device):
        drawn.append([windows.places[number] for number in numbers])
        return batch(windows, numbers, device)

    monkeypatch.setattr(Windows, "batch", noted)
    own = {"steps": 1, "batch_size": 200, "approach_share": 0.0, "datasets": [str(tmp_path / "towel")]}
    train(configuration(data, **own, intervention_share=0.6, before_takeover=1.0), tmp_path / "out")
    first = drawn[0]
    assert np.mean([k == 1 and frame >= 33 for k, frame in first]) == pytest.approx(0.6, abs=0.1)
    assert {frame for k, frame in first if k == 1} <= {*range(18), *range(33, 40)}, "1 s at 15 Hz before it"
    drawn.clear()
    train(configuration(data, **own), tmp_path / "plain")
    numbers = np.random.default_rng((0, 0)).integers(160, size=200)
    assert drawn[0] == [(number // 40, number % 40) for number in numbers]


def losses(output):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for path in sorted((output / "logs").rglob("events*")):
        events = EventAccumulator(str(path)).Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, {}).update({event.step: event.value for event in events.Scalars(tag)})
    return found


def test_a_restart_gives_the_losses_it_would_have_given(data, tmp_path):
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    config = configuration(data)
    result = train(config, whole)
    train(config, halved)
    # As after a kill in the second half: the last checkpoint and what comes after it are gone.
    shutil.rmtree(halved / "checkpoints" / "step_00000006")
    shutil.rmtree(halved / "logs")
    (halved / "last" / "model.safetensors").unlink()
    again = train(config, halved)
    assert losses(halved)["loss/total"][6] == losses(whole)["loss/total"][6]
    assert (again.errors, again.video) == (result.errors, result.video)
    for name, value in load_file(whole / "last" / "model.safetensors").items():
        torch.testing.assert_close(load_file(halved / "last" / "model.safetensors")[name], value, rtol=0, atol=0)


def test_another_configuration_is_refused_and_the_difference_shown(data, tmp_path):
    train(configuration(data, steps=1, learning_rate=0.002), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"learning_rate: 0.002 -> 0.003"):
        train(configuration(data, steps=1, learning_rate=0.003), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="no training was begun in it"):
        train(configuration(data), tmp_path / "full")


def test_an_output_of_an_older_version_is_gone_on_with(data, tmp_path):
    """It did not know every option; its other options keep their defaults."""
    config = configuration(data, steps=1)
    train(config, tmp_path)
    written = yaml.safe_load((tmp_path / "training.yaml").read_text())
    for key in ("gradient_clip", "weight_decay", "intervention_share", "keep_statistics"):
        del written[key]
    del written["policy"]["max_prefix"], written["policy"]["layout"]["tiles"][1]["crop"]
    (tmp_path / "training.yaml").write_text(yaml.safe_dump(written))
    for path in tmp_path.glob("*/dataset_stats.json"):
        statistics = json.loads(path.read_text())
        del statistics["state"]["default"]["global_std"]
        path.write_text(json.dumps(statistics))
    train(configuration(data, steps=1, checkpoint_every=7), tmp_path)
    assert yaml.safe_load((tmp_path / "training.yaml").read_text())["gradient_clip"] == 1.0
    (tmp_path / "training.yaml").write_text(yaml.safe_dump(written | {"momentum": 0.9}))
    with pytest.raises(ConfigError, match="(?s)gradient_clip: 1.0 -> 2.0.*momentum: 0.9 -> unknown to this version"):
        check_output(configuration(data, steps=1, gradient_clip=2.0), tmp_path)


def test_other_data_are_refused_in_the_middle(data, tmp_path):
    shutil.copytree(data / "towel", tmp_path / "towel")
    config = configuration(data, steps=1, datasets=[str(tmp_path / "towel")])
    train(config, tmp_path / "out")
    table = next((tmp_path / "towel" / "data").rglob("*.parquet"))
    rows = pq.read_table(table).to_pydict()
    rows["action.left_arm"][0][0] += 0.5
    pq.write_table(pa.table(rows), table)
    with pytest.raises(ConfigError, match="not those that .* was begun with"):
        train(config, tmp_path / "out")


def test_processes_that_cannot_share_a_batch_equally_are_refused(tmp_path):
    assert [parts_of_a_batch(8, now, tmp_path) for now in (1, 2, 4, 8)] == [8] * 4
    for now in (3, 16):
        with pytest.raises(ConfigError, match=f"begun with 8 processes, not {now}"):
            parts_of_a_batch(8, now, tmp_path)


@pytest.mark.slow
def test_another_autoencoder_is_refused_in_the_middle(data, tmp_path):
    """The bundle would hold the old one beside weights that know the new one's latents."""
    for name in ("vae", "towel"):
        shutil.copytree(data / name, tmp_path / name)
    own = {"autoencoder": str(tmp_path / "vae"), "datasets": [str(tmp_path / "towel")]}
    config = configuration(data, steps=1, **own)
    train(config, tmp_path / "out")
    weights = next((tmp_path / "vae").glob("*.safetensors"))
    save_file({name: 1.01 * value for name, value in load_file(weights).items()}, weights)
    with pytest.raises(ConfigError, match="not the autoencoder that"):
        train(config, tmp_path / "out")


def test_two_trainings_never_write_into_one_folder(data, tmp_path):
    train(configuration(data, steps=1), tmp_path / "out")
    with alone_in(tmp_path / "out"), pytest.raises(ConfigError, match="another command writes into it"):
        train(configuration(data, steps=1), tmp_path / "out")


def test_a_training_that_diverges_ends_and_keeps_its_checkpoint(data, tmp_path):
    config = configuration(data, steps=9, warm_up=0, checkpoint_every=2, learning_rate=1e30)
    with pytest.raises(RunError, match=r"step \d: the loss or its gradient is not finite"):
        train(config, tmp_path / "out")
    for folder in (tmp_path / "out" / "checkpoints").glob("step_*"):
        assert all(value.isfinite().all() for value in load_file(folder / "model.safetensors").values())


def test_weights_that_are_finite_until_they_are_cast_are_not_written(data, tmp_path):
    config = configuration(data, steps=1, warm_up=0, learning_rate=1e6, stored_as="float16")
    with pytest.raises(RunError, match=r"last: weights are not finite any more as float16, such as "):
        train(config, tmp_path / "out")
    assert not (tmp_path / "out" / "last" / "model.safetensors").exists()
    assert not list((tmp_path / "out" / "checkpoints").glob("step_*"))


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(data, tmp_path, capfd):
    config = configuration(data, steps=3, checkpoint_every=1)
    train(config, tmp_path)
    checkpoints = tmp_path / "checkpoints"
    file = checkpoints / "step_00000003" / "model.safetensors"
    weights = {name: value.clone() for name, value in load_file(file).items()}  # and no view of the file
    for damage in (lambda file: os.truncate(file, 100), lambda file: file.write_bytes(bytes(file.stat().st_size))):
        damage(file)
        train(config, tmp_path)
        assert f"{file}: is damaged or incomplete: the checkpoint before it is used" in capfd.readouterr().out
        for name, value in load_file(file).items():
            torch.testing.assert_close(weights[name], value, rtol=0, atol=0)
    for folder in checkpoints.glob("step_*"):
        (folder / "progress.json").write_text("")
    with pytest.raises(ConfigError, match=r"step_00000003/progress.json: is damaged .*no checkpoint is whole"):
        train(config, tmp_path)


def test_latents_are_computed_again_when_a_video_is_newer(data, tmp_path):
    shutil.copytree(data / "towel", tmp_path / "towel")
    config = configuration(data, datasets=[str(tmp_path / "towel")])
    readers = [Reader(tmp_path / "towel", ROBOT, 15, list(ROBOT.cameras))]

    def written():
        cache_latents(readers, config.policy, config.autoencoder)
        return [path.stat().st_mtime_ns for path in sorted((tmp_path / "towel" / "latents").rglob("*.npy"))]

    before = written()
    assert written() == before
    video, _ = readers[0].episodes[1].videos["head"]
    later = before[1] / 1e9 + 5
    os.utime(video, (later, later))
    assert [a != b for a, b in zip(written(), before, strict=True)] == [k == 1 for k in range(len(before))]
    files = sorted((tmp_path / "towel" / "latents").rglob("*.npy"))
    whole = [file.read_bytes() for file in files]
    os.truncate(files[0], 0)
    files[1].write_bytes(whole[1][:-4096] + bytes(4096))
    written()
    assert [file.read_bytes() for file in files] == whole


@pytest.mark.parametrize("variant", ["fastwam", "fastwam_no_video", "joint", "idm", "optional_idm"])
def test_the_bundle_of_every_variant_runs(data, tmp_path, variant):
    config = configuration(data, **{"steps": 2, "policy.variant": variant, "policy.name": variant})
    train(config, tmp_path / "out")
    policy = FastWamPolicy.load(tmp_path / "out" / "bundle")
    check_robot(policy.info, ROBOT, "bundle")
    policy.prepare("fold the towel")
    images = {camera: np.full((36, 64, 3), 90, np.uint8) for camera in ROBOT.cameras}
    joints = dict.fromkeys(ROBOT.joint_names, 0.1)
    chunk = policy.infer(Observation(0, images, joints, "fold the towel"))
    assert chunk.actions.shape == (H, 14)
    assert np.isfinite(chunk.actions).all()
    assert {name: picture.shape for name, picture in policy.mean_pictures().items()} == dict.fromkeys(
        ROBOT.cameras, (36, 64, 3)
    )


def test_a_mean_picture_is_of_all_episodes(data):
    reader = Reader(data / "towel", ROBOT, 15, list(ROBOT.cameras))
    images = [reader.images(episode, "head", range(0, 40, 13)) for episode in reader.episodes]
    expected = np.mean(np.concatenate(images), axis=0)
    np.testing.assert_allclose(mean_picture([reader], "head"), expected, atol=2)
    assert expected[15].std() > 5, "the square is not always in the same place, and there"


def test_a_blind_training_is_shown_what_its_bundle_sees_blind(data, tmp_path, monkeypatch):
    batches = []

    def noted(model, mode, batch, *rest, **more):
        batches.append(batch.latents)
        return training_loss(model, mode, batch, *rest, **more)

    monkeypatch.setattr("fastwam_policy.training.trainer.training_loss", noted)
    config = configuration(data, steps=2, blind=True)
    train(config, tmp_path / "out")
    pictures = FastWamPolicy.load(tmp_path / "out" / "bundle").mean_pictures()
    expected = torch.from_numpy(encoded(pictures, config.policy, data / "vae"))[:, None].expand(-1, 2, -1, -1)
    assert batches
    for latents in (latents for batch in batches for latents in batch):
        torch.testing.assert_close(latents, expected, rtol=0, atol=1e-5)


def test_an_autoencoder_is_trained_and_shows_what_is_left_of_pictures(data, tmp_path):
    config, folder = configuration(data), tmp_path / "vae"
    readers = [Reader(data / "towel", ROBOT, 15, list(ROBOT.cameras))]
    error = train_autoencoder(readers, config.policy.layout, folder, AutoencoderSettings(40, width=8, images=40))
    assert 0 < error < 37, "of 255: one grey everywhere leaves that much of a table of 90"
    assert ImageEncoder.load(folder)(torch.zeros(1, 3, 32, 32)).shape == (1, 48, 1, 2, 2)
    height, width = config.policy.layout.height, config.policy.layout.width
    shown = np.asarray(Image.open(tmp_path / "vae.png")).reshape(-1, height, 2, width, 3).astype(float)
    assert np.abs(shown[:, :, 0] - shown[:, :, 1]).mean() == pytest.approx(error, rel=0.3)
    with pytest.raises(ConfigError, match="exists already"):
        train_autoencoder(readers, config.policy.layout, folder, AutoencoderSettings(1))
    chosen = spread(readers * 40, 50)
    assert sum(len(frames) for *_, frames in chosen) == 50
    assert len({frame for *_, frames in chosen for frame in frames}) > 10, "not only the first of each episode"
    assert sum(len(frames) for *_, frames in spread(readers, 10**6)) == sum(e.length for e in readers[0].episodes)


def test_an_autoencoder_goes_on_where_it_was_killed(data, tmp_path, monkeypatch):
    config = configuration(data)
    readers = [Reader(data / "towel", ROBOT, 15, list(ROBOT.cameras))]
    settings = AutoencoderSettings(6, width=8, images=40)

    def trained(name, settings=settings):
        return train_autoencoder(readers, config.policy.layout, tmp_path / name, settings)

    monkeypatch.setattr("fastwam_policy.training.autoencoder._CHECKPOINT_EVERY", 2)
    whole = trained("whole")
    assert not list(tmp_path.glob("*unfinished*"))
    clip = torch.nn.utils.clip_grad_norm_
    steps = iter(range(5))
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *given: (next(steps), clip(*given)))
    with pytest.raises(StopIteration):
        trained("killed")
    with pytest.raises(ConfigError, match=r"killed\.unfinished was begun otherwise:\n  steps: 6 -> 8"):
        trained("killed", AutoencoderSettings(8, width=8, images=40))
    counted = []
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *given: counted.append(clip(*given)))
    assert trained("killed") == pytest.approx(whole, rel=1e-6)
    assert len(counted) == 2, "the fifth step was not kept"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trained("late")
    assert not (tmp_path / "late").exists(), "killed while it is saved"
    assert trained("late") == pytest.approx(whole, rel=1e-6)
    assert not list(tmp_path.glob("late.*[a-z]l"))
    (tmp_path / "damaged.unfinished").write_bytes(b"no")
    with pytest.raises(ConfigError, match=r"damaged\.unfinished: damaged, or not of this command; delete"):
        trained("damaged")


def test_another_colour_is_a_larger_error_than_another_light():
    light, colour = torch.zeros(2, 1, 3, 8, 8)
    light[:, :, 2:5, 2:5] = 0.3
    colour[:, :, 2:5, 2:5] = torch.tensor([0.3, -0.3, 0.3])[:, None, None]
    assert _unlikeness(colour) > 2 * _unlikeness(light)


@pytest.mark.slow
def test_training_lowers_the_error_on_episodes_left_out(data, tmp_path):
    config = configuration(data, steps=150, warm_up=5, learning_rate=0.003, validate_every=10, ema_decay=0.8)
    train(config, tmp_path / "out")
    error = losses(tmp_path / "out")["validation/rad"]
    assert error[150] < 0.7 * error[10]


def test_gradient_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    model = FastWam(PRESETS["tiny"]).train()
    latents, actions = torch.randn(2, 48, 2, 4, 4), torch.randn(2, 8, 14)
    context = model.context(torch.randn(2, 4, 64), torch.ones(2, 4, dtype=torch.bool), torch.randn(2, 14))
    gradients = []
    for model.gradient_checkpointing in (False, True):
        model.zero_grad()
        context = model.context(torch.ones(2, 4, 64), torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 14))
        video, action = model.joint_velocity(
            latents, actions, torch.full((2, 2), 500.0), torch.full((2, 1), 300.0), context,
            training_mask("first_frame", 2, 4, 8),
        )  # fmt: skip
        (video.square().mean() + action.square().mean()).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_two_processes_train_together(data, tmp_path):
    """Each takes its share of the batch, and what they learn is one: their weights are equal, and differ from one's.

    One of them lags, and is waited for. One process can go on from there, with the same result.
    """
    config = configuration(data, steps=3, batch_size=2, warm_up=0, ema_decay=0.0, checkpoint_every=2)
    done = by_two_processes(config, tmp_path, limit=100, delay=2)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert summary["processes"] == 2
    assert json.loads((tmp_path / "figures.json").read_text()) == summary
    # The gradient of two processes with 2 observations each is the mean of theirs: computed here by hand.
    one = train_by_hand(config, tmp_path / "one")
    checkpoints = tmp_path / "two" / "checkpoints"
    for processes in (2, 1):
        found = load_file(checkpoints / "step_00000003" / "model.safetensors")
        for name, value in one.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
        if processes == 2:
            shutil.rmtree(checkpoints / "step_00000003")
            train(config, tmp_path / "two")
    assert json.loads((checkpoints / "step_00000003" / "progress.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_a_process_that_lags_too_far_ends_the_others_with_one_line(data, tmp_path):
    # They must find each other within the limit, too: with 1 s, a busy machine may end both, each with its line.
    done = by_two_processes(configuration(data, steps=1), tmp_path, limit=18, delay=150)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("fastwam: ")]
    assert "another process did not come within 0.005 hours, or has ended: see what it says" in line
    assert "That is not expected" not in done.stderr
    assert not (tmp_path / "two").exists()


def by_two_processes(config, folder, limit, delay):
    """A training into `folder / two`, in which one process lags by `delay` s, and may by `limit`."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [
        # By itself torchrun connects to the host's name, and waits for ever where that does not resolve.
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
        "--nproc-per-node", "2",
        str(Path(__file__).with_name("lagging.py")), str(limit), str(delay),
        "train", str(path), str(folder / "two"), "--threads", "1", "--json", str(folder / "figures.json"),
    ]  # fmt: skip
    return subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.slow
def test_two_processes_share_the_weights(data, tmp_path):
    """FSDP with the shipped configuration, on CPUs: the averages are those of whole models, also where one goes on."""
    path, output = tmp_path / "config.yaml", tmp_path / "shared"
    config = configuration(
        data, steps=3, batch_size=2, warm_up=0, validate_every=2, checkpoint_every=2, stored_as="float32"
    )
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0",
        "--mixed_precision", "no", "--config_file", str(CONFIG.parent / "accelerate" / "fsdp.yaml"),
        str(Path(__file__).with_name("sharded_on_cpu.py")), "train", str(path), str(output), "--threads", "1",
    ]  # fmt: skip
    expected = train_by_hand(config, tmp_path / "one")
    for processes in ("2", "1"):
        wanted = [*command[:3], "--num_processes", processes, *command[3:]]
        done = subprocess.run(wanted, env=os.environ, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        stored = load_file(output / "last" / "model.safetensors")
        for name, value in expected.items():
            torch.testing.assert_close(stored[name.removeprefix("model.")], value, rtol=1e-4, atol=1e-5, msg=name)
        shutil.rmtree(output / "checkpoints" / "step_00000003")
        (output / "last" / "model.safetensors").unlink()
    assert "continuing after step 2" in done.stdout


def train_by_hand(config, output):
    """Averaged weights after the steps of two processes, one after the other here, with their gradients averaged."""
    trainer = _Trainer(config, None, output, ExitStack(), THIS_PROCESS)
    random, optimizer = np.random, trainer._optimizer
    for step in range(config.steps):
        numbers = trainer._windows.draw(
            random.default_rng((config.seed, step)), 2 * config.batch_size, config.approach_share
        )
        for rank in range(2):
            torch.manual_seed((config.seed * config.steps + step) * 2 + rank)
            batch = trainer._disturbed(trainer._windows.batch(numbers[rank::2], torch.device("cpu")))
            (trainer._loss(batch, "first_frame").total / 2).backward()
        torch.nn.utils.clip_grad_norm_(trainer._loss.parameters(), config.gradient_clip)
        optimizer.step()
        trainer._schedule.step()
        optimizer.zero_grad()
        trainer._average.step(trainer._loss.parameters())
    with trainer._averaged():
        return {name: value.detach().clone() for name, value in trainer._loss.state_dict().items()}


def test_relative_actions_come_back_as_targets(data, tmp_path):
    train(configuration(data, steps=1), tmp_path / "out")
    bundle = Bundle.load(tmp_path / "out" / "bundle")
    joints = {name: 0.1 * k for k, name in enumerate(bundle.config.action.names)}
    targets = np.array(list(joints.values())) + np.linspace(0, 0.02, 5)[:, None]
    found = bundle.restore_actions(bundle.normalise_actions(targets, joints), joints)
    np.testing.assert_allclose(found, targets, atol=1e-4)


def test_wrong_entries_are_named(data, capsys):
    for entry, message in (
        ("learning_rate=-1", "learning_rate"), ("policy.video_frames=4", "divide the horizon"),
        ("nothing.there=1", "expected KEY=VALUE"), ("policy.action.relative=[elbow]", "elbow not in names"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as error:
            main(["train", str(CONFIG), "/nowhere", "--set", entry])
        assert error.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_variants_are_compared_and_what_is_done_is_not_done_again(data, tmp_path):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    from fastwam_policy.benchmarks.compare import compare, tables
    from fastwam_policy.benchmarks.sim import Sim

    config, benchmark = configuration(data, steps=1), Sim(time_limit=0.3)
    tasks = [task for task in benchmark.tasks(["objects"]) if task.number == 0]
    rows = compare(config, tmp_path / "out", benchmark, tasks, 2, trainings=2, where=THIS_PROCESS)
    assert [(row["variant"], row["mode"]) for row in rows] == [
        ("fastwam", "first_frame"), ("fastwam_no_video", "first_frame"), ("behaviour_cloning", "first_frame"),
        ("joint", "joint"), ("idm", "idm"), ("optional_idm", "first_frame"), ("optional_idm", "idm"),
    ]  # fmt: skip
    for row in rows:
        assert [training["training"]["steps"] for training in row["trainings"]] == [1, 1]
        assert [len(training["episodes"]) for training in row["trainings"]] == [2, 2]
        assert {training["how"]["mode"] for training in row["trainings"]} == {row["mode"]}
        assert len({training["how"]["policy"] for training in row["trainings"]}) == 2, "other seeds, other weights"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jsonl")}
    assert compare(config, tmp_path / "out", benchmark, tasks, 2, trainings=2, where=THIS_PROCESS) == rows
    summary = tmp_path / "out" / "fastwam" / "0" / "summary.json"
    whole = summary.read_text()
    for damaged in (whole[:-9], "[]", "{}"):
        summary.write_text(damaged)
        with pytest.raises(ConfigError, match=r"summary.json is damaged: remove it"):
            compare(config, tmp_path / "out", benchmark, tasks, 2, trainings=2, where=THIS_PROCESS)
    summary.write_text(whole)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.jsonl")} == before
    for row, done in zip(rows[:2], ([True, True], [False, False]), strict=True):
        for training in row["trainings"]:
            for episode, success in zip(training["episodes"], done, strict=True):
                episode["success"] = success
    assert list(tables(rows[:2])[0].columns[3].cells) == ["-", "-100 (-100 to -100)"]
    for shown in tables(rows):
        printed = io.StringIO()
        Console(file=printed, width=80).print(shown)
        assert "…" not in printed.getvalue(), "a pipe has 80 columns"
    asked = ("joint", "fastwam", "joint")
    some = compare(config, tmp_path / "out", benchmark, tasks, 2, asked, 1, where=THIS_PROCESS)
    assert [row["variant"] for row in some] == ["joint", "fastwam"], "in this order: differences are from the first"


def test_variants_are_trained_with_the_same_data(data, tmp_path):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    from fastwam_policy.benchmarks.compare import compare
    from fastwam_policy.benchmarks.sim import Sim

    vae = shutil.copytree(configuration(data).autoencoder, tmp_path / "vae")
    config = configuration(data, steps=1, autoencoder=str(vae))
    benchmark = Sim(time_limit=0.3)
    [fold, *_] = benchmark.tasks(["objects"])
    compare(config, tmp_path / "out", benchmark, [fold], 1, ["fastwam"], where=THIS_PROCESS)
    (vae / "config.json").write_text((vae / "config.json").read_text() + "\n")
    with pytest.raises(ConfigError, match=r"not the autoencoder that \S*/out/fastwam/0 was begun with"):
        compare(config, tmp_path / "out", benchmark, [fold], 1, ["fastwam", "joint"], where=THIS_PROCESS)
    assert not list((tmp_path / "out" / "joint").rglob("model.safetensors"))


def test_a_variant_that_there_is_not_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["compare", str(CONFIG), str(tmp_path / "out"), "--variant", "fastwam", "--variant", "wan"])
    assert "--variant: invalid choice: 'wan'" in capsys.readouterr().err
    assert tuple(variants.VARIANTS) == VARIANTS


def test_what_cannot_be_compared_is_said_before_any_training(data, tmp_path):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    from fastwam_policy.benchmarks.compare import compare
    from fastwam_policy.benchmarks.libero import INTERFACE
    from fastwam_policy.benchmarks.sim import Sim

    class Other(Sim):
        def check(self, info, source):
            INTERFACE.check(info, source)

    config, out = configuration(data, steps=1), tmp_path / "out"
    fold, cube = Sim().tasks(["objects"])
    done = configuration(data, start_from=str(tmp_path / "earlier"), steps=1)
    (tmp_path / "earlier" / "fastwam" / "0" / "bundle").mkdir(parents=True)
    (tmp_path / "earlier" / "fastwam" / "0" / "bundle" / "model.safetensors").touch()
    for asked, benchmark, task, message in (
        (config, Sim(), cube, "the datasets have no episode of the tasks below"),
        (config, Other(), fold, "what is trained does not fit"),
        (done, Sim(), fold, "start_from: .*earlier/joint/0/bundle: neither a bundle"),
    ):
        with pytest.raises(ConfigError, match=message):
            compare(asked, out, benchmark, [task], 1, ("fastwam", "joint"), where=THIS_PROCESS)
    (out / "joint" / "0").mkdir(parents=True)
    (out / "joint" / "0" / "training.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    with pytest.raises(ConfigError, match="was begun with another configuration"):
        compare(config, out, Sim(), [fold], 1, ("fastwam", "joint"), where=THIS_PROCESS)
    assert not (out / "fastwam").exists()


def test_a_comparison_goes_on_from_an_earlier_one(data, tmp_path):
    from fastwam_policy.benchmarks.compare import of_variant

    (tmp_path / "idm" / "1" / "bundle").mkdir(parents=True)
    config = configuration(data, start_from=str(tmp_path), seed=4)
    own = of_variant(config, "idm", 1)
    assert (own.policy.variant, own.start_from, own.seed) == ("idm", tmp_path / "idm" / "1" / "bundle", 5)
    assert of_variant(config, "joint", 1).start_from == tmp_path / "joint" / "1" / "bundle", "which is not there"


def test_the_bundle_holds_the_averaged_weights(data, tmp_path):
    """Those that were validated, and not the last ones."""
    config = configuration(data, steps=6, ema_decay=0.9, learning_rate=0.01, warm_up=0)
    train(config, tmp_path / "out")
    checkpoint = tmp_path / "out" / "checkpoints" / "step_00000006"
    last = load_file(checkpoint / "model.safetensors")
    parts = [torch.load(checkpoint / f"custom_checkpoint_{k}.pkl", weights_only=False) for k in (0, 1)]
    shadow = next(part["shadow_params"] for part in parts if "shadow_params" in part)
    names = [name for name, _ in FastWam(config.policy.model).named_parameters()]
    written = load_file(tmp_path / "out" / "last" / "model.safetensors")
    for name, value in zip(names, shadow, strict=True):
        torch.testing.assert_close(written[name].float(), value, rtol=2e-3, atol=1e-4, msg=name)  # stored as halves
    assert max((written[name].float() - last[f"model.{name}"]).abs().max() for name in names) > 0.005


def test_a_stored_half_is_trained_as_a_float(data, tmp_path):
    train(configuration(data, steps=2), tmp_path / "first")
    assert load_file(tmp_path / "first" / "bundle" / "model.safetensors")["video.position"].dtype == torch.float16
    config = configuration(data, start_from=str(tmp_path / "first" / "bundle"), steps=3, warm_up=0)
    result = train(config, tmp_path / "second")
    assert np.isfinite(result.error)
    learned = [Bundle.load(tmp_path / name / "bundle").embedding("fold the towel") for name in ("first", "second")]
    torch.testing.assert_close(learned[0][0], learned[1][0], rtol=0, atol=0)
    checkpoint = load_file(tmp_path / "second" / "checkpoints" / "step_00000003" / "model.safetensors")
    assert {value.dtype for value in checkpoint.values()} == {torch.float32}


def test_a_bundle_that_is_trained_on_normalises_as_before_where_told(data, tmp_path):
    """A few corrections have other statistics than the data that the weights know."""
    first, stats = tmp_path / "first" / "bundle", "dataset_stats.json"
    train(configuration(data, steps=1), tmp_path / "first")
    shutil.copytree(data / "towel", tmp_path / "towel")
    for path in (tmp_path / "towel" / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        place = table.schema.get_field_index("action.left_gripper")
        half = pa.array(table["action.left_gripper"].to_numpy() / 2)
        pq.write_table(table.set_column(place, "action.left_gripper", half), path)
    own = {"steps": 1, "start_from": str(first), "datasets": [str(tmp_path / "towel")]}
    train(configuration(data, **own), tmp_path / "new")
    train(configuration(data, **own, keep_statistics=True), tmp_path / "kept")
    assert (tmp_path / "new" / "bundle" / stats).read_text() != (first / stats).read_text()
    assert json.loads((tmp_path / "kept" / "bundle" / stats).read_text()) == json.loads((first / stats).read_text())
    with pytest.raises(ConfigError, match="keep_statistics: start_from must be a bundle, got None"):
        train(configuration(data, keep_statistics=True), tmp_path / "none")
    other = {"policy.action.relative": [], "keep_statistics": True}
    with pytest.raises(ConfigError, match="first/bundle has other joints, units or normalisation than policy.state"):
        train(configuration(data, **own, **other), tmp_path / "other")


def test_joints_in_another_order_are_taken_by_name(data):
    names = [*ROBOT.joint_names[7:], *ROBOT.joint_names[:7]]
    config = configuration(data, **{"policy.state.names": names, "policy.action.names": names})
    readers = [Reader(data / "towel", ROBOT, 15, list(ROBOT.cameras))]
    cache_latents(readers, config.policy, config.autoencoder)
    sample = load_samples(readers, config.policy, config.autoencoder)[0]
    state, action = readers[0].vectors(readers[0].episodes[0])
    np.testing.assert_array_equal(sample.state, np.roll(state, -7, axis=1))
    np.testing.assert_array_equal(sample.action, np.roll(action, -7, axis=1))
    wrong = ["elbow", *ROBOT.joint_names[1:]]
    with pytest.raises(ConfigError, match="elbow is not a commanded joint"):
        train(
            configuration(
                data, **{"policy.state.names": wrong, "policy.action.names": wrong, "policy.action.relative": []}
            ),
            data / "never",
        )


def test_a_mistake_in_the_data_does_not_claim_the_output(data, tmp_path):
    with pytest.raises(ConfigError, match="typo: no such folder"):
        train(configuration(data, datasets=[str(tmp_path / "typo")]), tmp_path / "out")
    train(configuration(data, steps=1), tmp_path / "out")
