"""Many denoise steps in one or two: the loss, and the bundle that comes of it."""

import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from fastwam_policy.cli.main import main
from fastwam_policy.model.config import ExpertConfig, ModelConfig
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.model.flow import make_schedule
from fastwam_policy.model.training_loss import Batch
from fastwam_policy.model.variants import act
from fastwam_policy.policies.fastwam.bundle import Bundle
from fastwam_policy.policies.fastwam.policy import FastWamPolicy, Options
from fastwam_policy.training.distillation import Distillation, distilling
from fastwam_policy.training.trainer import train
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .test_training import configuration, data  # noqa: F401  a fixture

pytestmark = pytest.mark.training
SHIFT, TEN = 5.0, 10


def small_model():
    """Whose velocities are not those of straight paths: one step of ten leads elsewhere than ten."""
    torch.manual_seed(0)
    expert = ExpertConfig(hidden_dim=32, ffn_dim=64, num_heads=2, head_dim=24, num_layers=2, text_dim=8, freq_dim=32)
    model = FastWam(ModelConfig(expert, expert, action_dim=3, proprio_dim=3))
    with torch.no_grad():
        model.action.head.weight.mul_(4)
    return model


def observations(count, generator):
    random = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    mask = torch.ones(count, 4, dtype=torch.bool)
    return Batch(random(count, 48, 1, 4, 4), random(count, 4, 8), mask, random(count, 3), torch.zeros(count, 6, 3))


@torch.no_grad()
def chunk(model, batch, noise, steps):
    context = model.context(batch.text, batch.text_mask, batch.proprio)
    return act(model, batch.latents, noise, make_schedule(steps, SHIFT), context).actions


@pytest.mark.parametrize("steps", [1, 2])
def test_fewer_steps_come_near_to_all_of_the_teachers(steps):
    model, generator = small_model(), torch.Generator().manual_seed(1)
    batch, noise = observations(16, generator), torch.randn(16, 6, 3, generator=generator)
    wanted = chunk(model, batch, noise, TEN)
    before = (chunk(model, batch, noise, steps) - wanted).square().mean()
    model.requires_grad_(False).action.requires_grad_(True)
    loss = Distillation(model, steps, TEN, SHIFT)
    seeing = [weights.clone() for weights in (*model.video.parameters(), *model.proprio_encoder.parameters())]
    optimizer = torch.optim.AdamW([weights for weights in loss.parameters() if weights.requires_grad], lr=1e-2)
    values = []
    for _ in range(15):
        value = loss(observations(8, generator)).total
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[-5:]) < 0.3 * sum(values[:5])
    assert (chunk(model, batch, noise, steps) - wanted).square().mean() < 0.3 * before
    for now, then in zip((*model.video.parameters(), *model.proprio_encoder.parameters()), seeing, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=0)


def test_the_loss_is_zero_exactly_where_the_steps_meet():
    """Straight paths, of a velocity that is the same everywhere, need no more than one step."""
    model = small_model()
    with torch.no_grad():
        model.action.head.weight.zero_()
    loss = Distillation(model, 1, TEN, SHIFT)
    batch = observations(2, torch.Generator().manual_seed(1))
    assert loss(batch).total < 1e-10
    with torch.no_grad():
        model.action.head.bias += 0.5
    torch.testing.assert_close(loss(batch).total, torch.tensor(0.25), rtol=1e-4, atol=0)


def run(*arguments):
    with pytest.raises(SystemExit) as status:
        main([str(argument) for argument in arguments])
    return status.value.code


def test_a_distilled_bundle_says_so_and_is_continued_exactly(data, tmp_path, capsys):  # noqa: F811
    config = configuration(data, steps=1)
    train(config, tmp_path / "many")
    teacher = tmp_path / "many" / "bundle"
    pace = ("--set", "steps=2", "--set", "checkpoint_every=1", "--set", "validate_every=2")
    command = ("distill", teacher, tmp_path / "few", "--steps", 2, *pace)
    assert run(*command) == 0
    few = tmp_path / "few" / "bundle"
    about = Bundle.read_config(few)
    assert (about.denoise_steps, about.distilled_from.denoise_steps) == (2, 10)
    assert about.distilled_from.sha256 == Bundle.read_info(teacher).identity.sha256
    policy = FastWamPolicy.load(few)
    assert policy.info.identity.distilled_from.startswith("towel_small (")
    assert run("check-policy", few) == 0
    assert "10 denoise steps in 2" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ConfigError, match="it denoises in 2 and knows no other number of steps, got 10"):
        FastWamPolicy.load(few, options=Options(denoise_steps=10))

    last = tmp_path / "few" / "last" / "model.safetensors"
    before, weights = load_file(teacher / "model.safetensors"), load_file(last)
    changed = {name.partition(".")[0] for name, value in weights.items() if not torch.equal(value, before[name])}
    assert changed == {"action"}
    shutil.rmtree(tmp_path / "few" / "checkpoints" / "step_00000002")
    last.unlink()
    assert run(*command) == 0
    for name, value in load_file(last).items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)


def test_what_cannot_be_distilled_is_one_line(data, random_bundle, tmp_path, capsys):  # noqa: F811
    assert run("distill", random_bundle, tmp_path / "out", "--steps", 1) == 2
    assert "training.yaml: no such file; name with --config how" in capsys.readouterr().err
    for change, expected in (
        ({"variant": "joint"}, "the variant joint imagines"),
        ({"denoise_steps": 9}, "9 cannot be taken in 2"),
    ):
        bundle = shutil.copytree(random_bundle, tmp_path / expected.replace(" ", "_"))
        policy = yaml.safe_load((bundle / "policy.yaml").read_text())
        (bundle / "policy.yaml").write_text(yaml.safe_dump(policy | change))
        with pytest.raises(ConfigError, match=expected):
            distilling(bundle, 2, configuration(data))
    with pytest.raises(ConfigError, match=r"--set policy.denoise_steps=4: a distillation has its own policy, trained"):
        distilling(random_bundle, 1, configuration(data), ["steps=3", "policy.denoise_steps=4"])
    config = distilling(random_bundle, 1, configuration(data, start_from=str(random_bundle), start_share=0.3))
    assert config.start_share == 0, "the student is not mixed with its teacher"
    other = shutil.copytree(random_bundle, tmp_path / "other")
    (other / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="other is not the bundle random_tiny that policy.distilled_from names"):
        train(config.model_copy(update={"start_from": other}), tmp_path / "wrong")
