"""Official checkpoint to bundle and back, with the authors' tiny random models."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastwam_policy.cli.main import main
from fastwam_policy.model.checkpoint import CheckpointError, load_weights
from fastwam_policy.model.config import PRESETS
from fastwam_policy.policies.base import Observation
from fastwam_policy.policies.fastwam.bundle import Bundle, save_embedding
from fastwam_policy.policies.fastwam.exchange import infer_model_config
from fastwam_policy.policies.fastwam.policy import FastWamPolicy
from fastwam_policy.policies.robot_check import check_robot
from fastwam_policy.training.statistics import with_spread
from galaxea_r1lite_bridge.robot.config import RobotConfig

from .golden_files import GOLDEN

OFFICIAL = GOLDEN / "checkpoint.pt"


def run(*arguments):
    """Exit status of the command line."""
    with pytest.raises(SystemExit) as status:
        main([str(argument) for argument in arguments])
    return status.value.code


def statistics(folder):
    """The authors' ones, which have a joint that never moves, as if it moved."""
    path = folder.parent / f"{folder.name}_statistics.json"
    path.write_text(json.dumps(with_spread(json.loads((GOLDEN / "dataset_stats.json").read_text()))))
    return path


def import_(folder, *extra, checkpoint=OFFICIAL, shift=("--sigma-shift", "5.0")):
    return run(
        "import", checkpoint, folder, "--stats", statistics(folder), "--vae", GOLDEN / "vae_checkpoint.pt",
        "--head-dim", 24, *shift, *extra,
    )  # fmt: skip


def payload(path):
    return torch.load(path, weights_only=True)


def same(left, right):
    return set(left) == set(right) and all(torch.equal(left[name], right[name]) for name in left)


def test_round_trip_is_bit_identical_and_runs(tmp_path, capsys):
    assert import_(tmp_path / "bundle") == 0
    assert run("export", tmp_path / "bundle", tmp_path / "back.pt") == 0
    before, after = payload(OFFICIAL), payload(tmp_path / "back.pt")
    assert same(before["mot"], after["mot"])
    assert same(before["proprio_encoder"], after["proprio_encoder"])
    assert run("export", tmp_path / "bundle", tmp_path / "back.pt") == 2
    assert "exists already" in capsys.readouterr().err

    bundle = Bundle.load(tmp_path / "bundle")
    robot = RobotConfig.load()
    check_robot(bundle.config.info(), robot, "bundle")
    save_embedding(bundle.folder, bundle.config.prompt_of("fold the towel"), torch.randn(128, 64), torch.ones(128) > 0)
    policy = FastWamPolicy.load(bundle.folder)
    policy.prepare("fold the towel")
    images = {name: np.zeros((72, 128, 3), np.uint8) for name in robot.cameras}
    chunk = policy.infer(Observation(0, images, dict.fromkeys(robot.joint_names, 0.1), "fold the towel"))
    assert np.isfinite(chunk.actions).all()


def test_safetensors_are_imported_as_such(tmp_path):
    save_file(load_weights(OFFICIAL), tmp_path / "weights.safetensors")
    assert import_(tmp_path / "bundle", checkpoint=tmp_path / "weights.safetensors") == 0
    Bundle.load(tmp_path / "bundle")


def test_a_bundle_of_ours_exports_too(random_bundle, tmp_path):
    assert run("export", random_bundle, tmp_path / "ours.pt") == 0
    assert import_(tmp_path / "again", checkpoint=tmp_path / "ours.pt") == 0
    ours, again = Bundle.load(random_bundle).model.state_dict(), Bundle.load(tmp_path / "again").model.state_dict()
    assert same(ours, again)


def test_the_sigma_shift_must_be_stated(tmp_path, capsys):
    assert import_(tmp_path / "bundle", shift=()) == 2
    message = capsys.readouterr().err
    assert "--sigma-shift 5.0" in message
    assert "--sigma-shift 1.0" in message
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (("--groups", "left_arm,right_arm"), "its state has 14 numbers, the groups left_arm, right_arm have 12"),
        (("--groups", "legs"), "the robot has no legs; it has left_arm"),
        (("--head-dim", "128"), "head_dim 128 does not divide the attention width 96"),
        (("--head-dim", "16"), "head_dim 16 cannot be split"),
        (("--vae", OFFICIAL), "expected tensors by name"),
        (("--stats", "/nowhere.json"), "/nowhere.json: no such file"),
        (("--denoise-steps", "0"), "--denoise-steps: must be at least 1"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path, capsys, extra, expected):
    assert import_(tmp_path / "bundle", *extra) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_sizes_come_from_the_shapes():
    tensors = {name: torch.empty(value.shape, device="meta") for name, value in load_weights(OFFICIAL).items()}
    assert infer_model_config(tensors, 24) == PRESETS["tiny"]
    with pytest.raises(CheckpointError, match="not a Fast-WAM checkpoint: 'video.blocks.0.self_attn.q.weight'"):
        infer_model_config({}, 24)


@pytest.fixture
def text_weights(tmp_path):
    """A random UMT5 encoder of the tiny model's width in the official layout, and a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    shapes = {"token_embedding.weight": (40, 64), "norm.weight": (64,), "blocks.0.norm1.weight": (64,)}
    shapes |= {f"blocks.0.attn.{name}.weight": (64, 64) for name in "qkvo"}
    shapes |= {"blocks.0.norm2.weight": (64,), "blocks.0.pos_embedding.embedding.weight": (32, 4)}
    shapes |= {f"blocks.0.ffn.{name}.weight": (96, 64) for name in ("gate.0", "fc1")} | {
        "blocks.0.ffn.fc2.weight": (64, 96)
    }
    torch.manual_seed(0)
    torch.save({name: torch.randn(shape) for name, shape in shapes.items()}, tmp_path / "umt5.pth")
    words = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", "fold", "wave", "the", "towel"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(tmp_path / "tokenizer")
    return "--text-encoder", tmp_path / "umt5.pth", "--tokenizer", tmp_path / "tokenizer"


def test_prompts_are_embedded_into_a_bundle(tmp_path, text_weights):
    assert import_(tmp_path / "bundle", *text_weights) == 0
    assert run("encode-prompt", tmp_path / "bundle", "wave the towel", *text_weights) == 0
    bundle = Bundle.load(tmp_path / "bundle")
    fold, mask = bundle.embedding("fold the towel")
    wave, _ = bundle.embedding("wave the towel")
    assert fold.shape == (128, 64)
    assert mask.all()
    assert (fold != wave).any()
    assert (fold[40:] == 0).all(), "padding rows are zero, and stay"


def test_a_missing_embedding_names_the_command(random_bundle, capsys, tmp_path):
    with pytest.raises(Exception, match="fastwam encode-prompt .* 'dance' --text-encoder"):
        Bundle.load(random_bundle).embedding("dance")
    arguments = ("encode-prompt", random_bundle, "dance", "--text-encoder", OFFICIAL, "--tokenizer", tmp_path)
    assert run(*arguments) == 2
    assert "expected tensors by name" in capsys.readouterr().err


def test_statistics_that_cannot_normalise_are_refused_with_the_joint(tmp_path, capsys):
    given = GOLDEN / "dataset_stats.json"
    arguments = ("--vae", GOLDEN / "vae_checkpoint.pt", "--head-dim", 24, "--sigma-shift", "5.0", "--stats", given)
    assert run("import", OFFICIAL, tmp_path / "bundle", *arguments) == 2
    text = "state.default cannot normalise: global_std is not above 0 for left_arm_joint3"
    assert f"{given}: {text}" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
