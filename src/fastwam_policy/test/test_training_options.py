"""What a training may leave as it is, see in other versions, and find out: weights, pictures, the batch, the log."""

import sys

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, DistributedType
from safetensors.torch import load_file

from fastwam_policy.common.failure import RunError
from fastwam_policy.model.checkpoint import load_into
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.training_loss import Batch, TimestepSampler, draw, training_loss
from fastwam_policy.training import augmentation, trainer
from fastwam_policy.training.augmentation import augmented
from fastwam_policy.training.optimizer import make_optimizer
from fastwam_policy.training.trained import choose_trained, hold_frozen, merged
from fastwam_policy.training.trainer import train, with_batch_that_fits
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .test_distillation import chunk, observations, small_model
from .test_training import configuration, data  # noqa: F401  a fixture

pytestmark = pytest.mark.training


def test_the_action_expert_alone():
    model = small_model()
    choose_trained(model, "action", 1)
    trained = {name for name, weights in model.named_parameters() if weights.requires_grad}
    assert trained == {name for name in model.state_dict() if name.startswith("action.")}


def test_lora_learns_and_what_is_written_gives_the_same_actions():
    pytest.importorskip("peft", reason="an optional extra, requirements-lora.txt")
    model, generator = small_model(), torch.Generator().manual_seed(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    choose_trained(model, "lora", 4)
    assert merged(model.state_dict()).keys() == before.keys()
    seen = observations(4, generator)
    batch = Batch(torch.randn(4, 48, 2, 4, 4, generator=generator), seen.text, seen.text_mask, seen.proprio,
                  torch.randn(4, 6, 3, generator=generator))  # fmt: skip
    sampler, values = TimestepSampler(5.0), []
    optimizer = torch.optim.AdamW([weights for weights in model.parameters() if weights.requires_grad], lr=1e-2)
    for _ in range(30):
        torch.manual_seed(0)
        loss = training_loss(model, "first_frame", batch, draw(batch, "first_frame", sampler), sampler).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0]
    plain, noise = FastWam(model.config), torch.randn(4, 6, 3, generator=generator)
    load_into(plain, merged(model.state_dict()), "merged")
    torch.testing.assert_close(chunk(plain, seen, noise, 4), chunk(model, seen, noise, 4), rtol=0, atol=1e-5)
    changed = [name for name, value in plain.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) == 2 * 2 * 10, "the linear layers of both experts' blocks"


def test_lora_is_continued_exactly(data, tmp_path):  # noqa: F811
    pytest.importorskip("peft", reason="an optional extra, requirements-lora.txt")
    config = configuration(data, steps=2, checkpoint_every=1, trained="lora", lora_rank=2)
    train(config, tmp_path)
    last = tmp_path / "last" / "model.safetensors"
    weights = load_file(last)
    last.unlink()
    (tmp_path / "checkpoints" / "step_00000002").rename(tmp_path / "aside")
    train(config, tmp_path)
    for name, value in load_file(last).items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)


@pytest.fixture
def other_precision():
    """accelerate keeps a process's first one."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.mark.parametrize("trained", ["action", "lora"])
def test_what_is_frozen_may_be_held_in_half(trained, data, tmp_path, other_precision):  # noqa: F811
    """Mixed precision computes with no other numbers."""
    if trained == "lora":
        pytest.importorskip("peft", reason="an optional extra, requirements-lora.txt")
    model = small_model()
    choose_trained(model, trained, 2)
    hold_frozen(model, torch.bfloat16)
    types = {weights.dtype for weights in model.parameters() if weights.requires_grad}
    assert types == {torch.float32}
    assert all(block.ffn[0].weight.dtype == torch.bfloat16 for block in model.video.blocks if trained == "action")
    assert sum(weights.dtype == torch.bfloat16 for weights in model.parameters()) >= 2 * 10

    train(configuration(data, steps=1, precision="bf16", stored_as="bfloat16"), tmp_path / "base")
    entries = {"trained": trained, "lora_rank": 2, "precision": "bf16", "start_from": str(tmp_path / "base" / "last")}
    written = {}
    for held in ("float32", "bfloat16"):
        config = configuration(data, steps=2, checkpoint_every=1, frozen_as=held, **entries)
        train(config, tmp_path / held)
        written[held] = load_file(tmp_path / held / "last" / "model.safetensors")
    before = load_file(tmp_path / "base" / "last" / "model.safetensors")
    changed = [name for name, value in written["float32"].items() if not torch.equal(value, before[name].float())]
    assert changed
    (tmp_path / "bfloat16" / "checkpoints" / "step_00000002").rename(tmp_path / "aside")
    train(config, tmp_path / "bfloat16")  # again, from the first step on
    again = load_file(tmp_path / "bfloat16" / "last" / "model.safetensors")
    for name, value in written["float32"].items():
        for other in (written["bfloat16"], again):
            torch.testing.assert_close(other[name], value, rtol=0, atol=0, msg=name)


def test_what_cannot_be_held_in_half_is_one_line(data, tmp_path, monkeypatch, other_precision):  # noqa: F811
    for entries in ({"precision": "bf16"}, {"trained": "action", "precision": "auto"}):
        with pytest.raises(ConfigError, match="frozen_as: bfloat16 needs trained: action or lora, and precision: bf16"):
            configuration(data, frozen_as="bfloat16", **entries)
    config = configuration(data, frozen_as="bfloat16", trained="action", precision="bf16")
    monkeypatch.setattr(trainer.Accelerator, "distributed_type", DistributedType.FSDP)
    with pytest.raises(ConfigError, match="frozen_as: FSDP shards weights of one type"):
        train(config, tmp_path / "out")


@pytest.mark.parametrize(
    ("package", "entry", "file"),
    [("peft", {"trained": "lora"}, "lora"), ("bitsandbytes", {"optimizer": "adamw_8bit"}, "8bit")],
)
def test_a_package_that_is_missing_is_one_line_before_any_work(package, entry, file, data, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, package, None)
    ((key, value),) = entry.items()
    config = configuration(data, datasets=[str(tmp_path / "none")], **entry)
    with pytest.raises(ConfigError, match=f"{key}: {value} needs {package}: .* -r requirements-{file}.txt"):
        train(config, tmp_path / "out")


def test_adam_in_8_bit_learns_and_is_continued_exactly(data, tmp_path):  # noqa: F811
    pytest.importorskip("bitsandbytes", reason="an optional extra, requirements-8bit.txt")
    weights = torch.nn.Parameter(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
    optimizer = make_optimizer("adamw_8bit", [weights], 0.05, 0.0)
    for _ in range(100):
        optimizer.zero_grad()
        weights.square().mean().backward()
        optimizer.step()
    assert weights.detach().square().mean() < 0.01
    assert {
        state.dtype for state in optimizer.state[weights].values() if getattr(state, "shape", None) == (64, 64)
    } == {torch.uint8}
    train(configuration(data, steps=2, checkpoint_every=1, optimizer="adamw_8bit"), tmp_path)
    last = tmp_path / "last" / "model.safetensors"
    written = load_file(last)
    last.unlink()
    (tmp_path / "checkpoints" / "step_00000002").rename(tmp_path / "aside")
    train(configuration(data, steps=2, checkpoint_every=1, optimizer="adamw_8bit"), tmp_path)
    for name, value in load_file(last).items():
        torch.testing.assert_close(value, written[name], rtol=0, atol=0, msg=name)


def test_adam_in_8_bit_is_not_sharded(data, tmp_path, monkeypatch, other_precision):  # noqa: F811
    monkeypatch.setattr(trainer, "_check_packages", lambda config: None)
    config = configuration(data, optimizer="adamw_8bit")
    monkeypatch.setattr(trainer.Accelerator, "distributed_type", DistributedType.FSDP)
    with pytest.raises(ConfigError, match="optimizer: FSDP shards the figures of adamw alone"):
        train(config, tmp_path / "out")


def test_a_share_of_the_start_is_in_what_is_written(data, tmp_path):  # noqa: F811
    """Of the same training: what it would have written, and what it began with."""
    train(configuration(data, steps=1, warm_up=0), tmp_path / "base")
    start = tmp_path / "base" / "last"
    own = {"steps": 3, "warm_up": 0, "start_from": str(start), "seed": 1}
    train(configuration(data, **own), tmp_path / "plain")
    train(configuration(data, **own, start_share=0.25), tmp_path / "mean")
    begun, plain, mean = (
        load_file(tmp_path / name / "last" / "model.safetensors") for name in ("base", "plain", "mean")
    )
    assert any((plain[key] != begun[key]).any() for key in plain)
    for key, weight in mean.items():
        expected = 0.75 * plain[key].float() + 0.25 * begun[key].float()
        torch.testing.assert_close(weight.float(), expected, rtol=2e-3, atol=1e-5)


def test_a_share_of_no_start_is_refused(data):  # noqa: F811
    with pytest.raises(ConfigError, match="start_share: needs start_from"):
        configuration(data, start_share=0.3)


def test_all_pictures_of_a_version_are_changed_in_the_same_way():
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    one, again, other = (np.stack(augmented([picture, picture], np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert (one.shape, one.dtype) == ((2, *picture.shape), np.uint8)
    assert (one[0] == one[1]).all()
    assert (one == again).all()
    assert np.abs(one.astype(int) - picture).mean() > 2
    assert np.abs(one.astype(int) - other).mean() > 2


def test_pictures_of_a_version_are_compressed_as_a_camera_does(monkeypatch):
    qualities = []
    encode = augmentation.simplejpeg.encode_jpeg
    monkeypatch.setattr(
        augmentation.simplejpeg,
        "encode_jpeg",
        lambda picture, quality, **how: (qualities.append(quality), encode(picture, quality, **how))[1],
    )
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    for seed in range(4):
        augmented([picture, picture], np.random.default_rng(seed))
    assert qualities[::2] == qualities[1::2], "one for a video"
    assert len(set(qualities)) > 1
    assert all(70 <= quality <= 95 for quality in qualities)


def test_augmented_versions_are_trained_with_and_not_validated_with(data, tmp_path, monkeypatch):  # noqa: F811
    made = []
    batch = trainer.Windows.batch
    monkeypatch.setattr(trainer.Windows, "batch", lambda own, *given: (made.append(own), batch(own, *given))[1])
    train(configuration(data, steps=1, augmented=1), tmp_path)
    windows, held_out = made[0].samples, made[-1].samples
    assert (len(windows), len(held_out)) == (8, 1), "two versions of four episodes; one is left out"
    for plain, changed in zip(windows[:4], windows[4:], strict=True):
        assert (plain.action == changed.action).all()
        assert np.abs(plain.latents[:] - changed.latents[:]).max() > 0
    assert all((held_out[0].action != sample.action).any() for sample in windows)


def test_the_batch_is_made_smaller_until_a_step_fits(data, tmp_path, monkeypatch):  # noqa: F811
    config = configuration(data, batch_size=2)
    sizes = []

    def step(own, number):
        sizes.append(own.config.batch_size)
        if sizes[-1] > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(trainer._Trainer, "step", step)
    most = 1
    assert with_batch_that_fits(config, tmp_path / "out").batch_size == 1
    assert sizes == [2, 1]
    assert not list(tmp_path.iterdir()), "what was tried is gone"
    most = 0
    with pytest.raises(RunError, match="not one observation fits into memory"):
        with_batch_that_fits(configuration(data, batch_size=1), tmp_path / "out")
    (tmp_path / "training.yaml").write_text("batch_size: 5\n")
    assert with_batch_that_fits(config, tmp_path).batch_size == 5, "as the training there was begun"


def test_a_log_that_is_not_installed_is_one_line(data, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ConfigError, match="log_with: trackio is not installed: .* -m pip install trackio"):
        train(configuration(data, log_with="trackio"), tmp_path)
