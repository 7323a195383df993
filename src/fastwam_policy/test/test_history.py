"""A model that is given earlier frames besides the observation: what sees what, and when the past tells."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
import yaml

from fastwam_policy.model.config import PRESETS
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import make_schedule
from fastwam_policy.model.masks import mixture_mask, video_mask
from fastwam_policy.model.training_loss import Batch, TimestepSampler, draw, training_loss
from fastwam_policy.model.variants import act, imagine_and_act
from fastwam_policy.performance.plain import plain_inference
from fastwam_policy.policies.base import Frame, Observation
from fastwam_policy.policies.fastwam.bundle import Bundle
from fastwam_policy.policies.fastwam.engine import Engine
from fastwam_policy.policies.fastwam.exchange import export_official
from fastwam_policy.policies.fastwam.normalizer import Normalizer
from fastwam_policy.policies.fastwam.policy import FastWamPolicy
from fastwam_policy.training.config import TrainingConfig
from fastwam_policy.training.distillation import Distillation, distilling
from fastwam_policy.training.trainer import train
from fastwam_policy.training.windows import Sample, Windows
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError, validate

from .test_training import configuration, data  # noqa: F401  a fixture

TINY = dataclasses.replace(PRESETS["tiny"], history=(4, 8))
H, TEXT = 6, 5


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = FastWam(TINY).eval().requires_grad_(False)
    for weights in model.parameters():
        weights.add_(0.05 * torch.randn_like(weights))  # fresh heads and gates are zero
    return model


def inputs(frames, seed=0):
    """Latents [1, C, frames, h, w], prompt, its mask, joint state, noise of the actions and of the video."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=random)

    text, mask = normal(1, TEXT, TINY.video.text_dim), torch.ones(1, TEXT, dtype=torch.bool)
    return normal(1, 48, frames, 4, 4), text, mask, normal(1, 14), normal(1, H, 14), normal(1, 48, 5, 4, 4)


def test_given_frames_see_each_other_and_nothing_later():
    """Frames: two given ones, one later; a token each. Then two actions."""
    assert video_mask(3, 1, given=2).int().tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    sees = mixture_mask(3, 1, 2, given=2, action_sees_future=False).int().tolist()
    assert sees == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 1], [1, 1, 0, 1, 1]]


@pytest.mark.parametrize("mode", ["first_frame", "joint", "idm"])
@torch.inference_mode()
def test_the_engine_computes_what_the_formulae_say(model, mode):
    given, text, mask, proprio, noise, video_noise = inputs(3)
    schedule = make_schedule(4, 5.0)
    later = 1 if mode == "first_frame" else 3
    engine = Engine(model, (2, 2), H, schedule, TEXT, frames=later)
    engine.set_prompt(text, mask)
    engine.prefill(given, proprio)
    if mode == "joint":
        actions = engine.imagine_and_denoise(video_noise, noise).actions
    elif mode == "idm":
        video = engine.imagine(video_noise)
        torch.testing.assert_close(video[:, :, :3], given)
        actions = engine.denoise(noise)
    else:
        actions = engine.denoise(noise)
    imagined = None if mode == "first_frame" else video_noise
    expected = plain_inference(model, given, text, mask, proprio, noise, schedule, mode, imagined)
    torch.testing.assert_close(actions, expected, rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match="expected latents of 3 frames, got 1"):
        engine.prefill(given[:, :, :1], proprio)


@torch.inference_mode()
def test_the_future_can_be_dropped_and_the_past_cannot(model):
    given, text, mask, proprio, noise, video_noise = inputs(3)
    schedule, context = make_schedule(4, 5.0), model.context(text, mask, proprio)
    actions = act(model, given, noise, schedule, context).actions
    both = imagine_and_act(model, given, video_noise, noise, schedule, schedule, context, action_sees_future=False)
    torch.testing.assert_close(both.actions, actions, rtol=0, atol=1e-5)
    for frame in range(3):
        other = given.clone()
        other[:, :, frame] = 0
        assert not torch.allclose(act(model, other, noise, schedule, context).actions, actions, atol=1e-4), frame
    swapped = given[:, :, [1, 0, 2]]
    assert not torch.allclose(act(model, swapped, noise, schedule, context).actions, actions, atol=1e-4), "their order"


def test_given_frames_are_clean_and_have_no_loss(model):
    latents, text, mask, proprio, noise, _ = inputs(5)
    batch = Batch(latents, text, mask, proprio, noise, image_is_pad=torch.tensor([[False, False, True]]))
    sampler = TimestepSampler(5.0)
    draws = draw(batch, "first_frame", sampler)
    losses = training_loss(model, "first_frame", batch, draws, sampler)
    other = dataclasses.replace(draws, video_noise=draws.video_noise.clone())
    other.video_noise[:, :, :3] = 9.0
    same = training_loss(model, "first_frame", batch, other, sampler)
    torch.testing.assert_close(same.total, losses.total)
    other.video_noise[:, :, 3] = 9.0
    assert not torch.allclose(training_loss(model, "first_frame", batch, other, sampler).total, losses.total)
    whole = dataclasses.replace(batch, image_is_pad=None)
    assert not torch.allclose(training_loss(model, "first_frame", whole, draws, sampler).video, losses.video)


@pytest.fixture(scope="module")
def bundle(random_bundle, tmp_path_factory):
    """The random bundle with a history of 3 and 6 steps of 1/15 s."""
    folder = tmp_path_factory.mktemp("bundles") / "history"
    shutil.copytree(random_bundle, folder)
    policy = yaml.safe_load((folder / "policy.yaml").read_text())
    policy["model"]["history"] = [3, 6]
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    return folder


def test_windows_have_the_frames_before_them(bundle):
    config = Bundle.read_config(bundle)
    row = torch.zeros(4, 16), torch.ones(4, dtype=torch.bool)
    latents = np.broadcast_to(np.arange(20, dtype=np.float16)[:, None, None, None, None], (20, 3, 2, 1, 1))
    rows = np.zeros((20, 14), np.float32)
    sample = Sample(rows, rows, latents, ["fold the towel"] * 20, 0, np.zeros(20, bool))
    plain = Normalizer(np.ones(14, np.float32), np.zeros(14, np.float32))
    texts = {"fold the towel": row}
    windows = Windows([sample], config, plain, plain, texts)
    seen = windows.batch([10, 4, 0], torch.device("cpu")).latents[:, 0, :, 0, 0]
    # Before the beginning it is the first frame again. What comes after the observation is of its own row.
    assert seen.tolist() == [[4, 7, 10, 10, 10], [0, 1, 4, 4, 4], [0, 0, 0, 0, 0]]

    # Frames that are encoded alone, every third of them: windows begin there, and the video ends 32 steps on.
    alone = config.model_copy(update={"frames_per_latent": 1, "video_frames": 2})
    sample = dataclasses.replace(sample, latents=latents[:7, :1])
    windows = Windows([sample], alone, plain, plain, texts, every=3)
    assert [frame for _, frame in windows.places] == [0, 3, 6, 9, 12, 15, 18]
    seen = windows.batch([3, 1], torch.device("cpu")).latents[:, 0, :, 0, 0]
    assert seen.tolist() == [[1, 2, 3, 6], [0, 0, 1, 6]], "in threes"
    blind = Windows([sample], alone, plain, plain, texts, every=3, seen=np.full((2, 1, 1), 5, np.float32))
    assert blind.batch([3], torch.device("cpu")).latents[0, 0, :, 0, 0].tolist() == [5, 5, 5, 5]


def test_what_is_distilled_sees_the_same_frames(bundle, data):  # noqa: F811
    with pytest.raises(ConfigError, match=r"history: must be multiples of every, 2,.*; got 3"):
        distilling(bundle, 1, configuration(data, every=2))
    config = distilling(bundle, 1, configuration(data))
    assert config.policy.model.history == (3, 6)
    loss = Distillation(FastWam(TINY), 1, 4, 5.0)
    given, text, mask, proprio, noise, _ = inputs(5)
    assert torch.isfinite(loss(Batch(given, text, mask, proprio, noise)).total)


def test_a_bundle_asks_for_earlier_frames_and_looks_at_them(bundle):
    policy = FastWamPolicy.load(bundle)
    assert policy.info.history == (0.2, 0.4)
    policy.prepare("fold the towel")
    random = np.random.default_rng(0)
    joints = dict.fromkeys(policy.bundle.config.state.names, 0.1)
    now, recent, old = (
        Frame(0, {c.name: random.integers(0, 256, (96, 128, 3), np.uint8) for c in policy.info.cameras}, joints)
        for _ in range(3)
    )

    def chunk(*earlier):
        return policy.infer(Observation(0, now.images, joints, "fold the towel", earlier=earlier)).actions

    expected = chunk(recent, old)
    np.testing.assert_array_equal(chunk(recent, old), expected)
    assert np.abs(chunk(old, recent) - expected).max() > 1e-6
    with pytest.raises(ValueError, match="expected 2 earlier frames, got 0"):
        chunk()
    seen = Observation(0, now.images, joints, "fold the towel", earlier=(recent, old))
    video = policy.imagine(seen)
    assert len(video) == policy.bundle.config.video_frames
    alone = policy.imagination.reconstruct(policy.bundle.config.layout.compose(now.images)[None])
    np.testing.assert_allclose(video[0].astype(int), alone[0], atol=1)


def test_the_authors_code_would_not_know_it(bundle, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.history: earlier frames"):
        export_official(bundle, Bundle.read_config(bundle), tmp_path / "official.pt")


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([8, 4], "history must be at most 64 numbers of steps, ascending"),
        ([4, 4], "history must be at most 64 numbers of steps, ascending"),
        ([0, 4], "history must be at most 64 numbers of steps, ascending"),
        ([*range(1, 70)], "history must be at most 64 numbers of steps, ascending"),
        ([4, 2000], r"model\.history: reaches 133\.3 s back, 60 at most"),
    ],
)
def test_a_history_that_makes_no_sense_is_one_line(bundle, tmp_path, history, expected):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    policy = yaml.safe_load((folder / "policy.yaml").read_text())
    policy["model"]["history"] = history
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    with pytest.raises(ConfigError, match=expected):
        Bundle.read_config(folder)


@pytest.mark.training
def test_a_training_with_a_history_gives_a_policy_with_one(data, tmp_path):  # noqa: F811
    content = configuration(data, steps=2)
    model = dataclasses.replace(content.policy.model, history=(2, 6))
    config = content.model_copy(update={"policy": content.policy.model_copy(update={"model": model})})
    train(config, tmp_path)
    policy = FastWamPolicy.load(tmp_path / "bundle")
    assert policy.info.history == (2 / 15, 6 / 15)
    policy.prepare("fold the towel")
    entries = config.model_dump(mode="json") | {"every": 4}
    with pytest.raises(ConfigError, match=r"policy\.model\.history: must be multiples of every, 4,.*; got 2"):
        validate(entries, TrainingConfig, "")


@pytest.mark.training
@pytest.mark.slow
@pytest.mark.parametrize("history", [(), (4,)])
def test_what_only_the_past_tells_is_learned_with_a_history(history):
    """Two pictures alike, one before them that differs: the actions follow that one."""
    torch.manual_seed(0)
    model = FastWam(dataclasses.replace(PRESETS["tiny"], history=history))
    sampler, schedule = TimestepSampler(5.0), make_schedule(10, 5.0)
    past = torch.randn(2, 48, 1, 4, 4)
    now = torch.randn(1, 48, 2, 4, 4).expand(2, -1, -1, -1, -1)
    latents = torch.cat([past, now], dim=2) if history else now
    text, mask = torch.randn(1, 4, 64).expand(2, -1, -1), torch.ones(2, 4, dtype=torch.bool)
    actions = torch.stack([torch.ones(H, 14), -torch.ones(H, 14)])
    batch = Batch(latents, text, mask, torch.zeros(2, 14), actions)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(140):
        draws = draw(batch, "first_frame", sampler, action_draws=4)
        training_loss(model, "first_frame", batch, draws, sampler).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        context = model.context(batch.text, batch.text_mask, batch.proprio)
        noise = torch.randn(1, H, 14, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1)
        observed = latents[:, :, : model.config.given_frames]
        error = float((act(model, observed, noise, schedule, context).actions - actions).abs().mean())
    assert (error < 0.3) == bool(history), error
