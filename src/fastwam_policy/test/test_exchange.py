"""Official checkpoint to bundle and back, with the authors' tiny random models."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from fastwam_policy.cli.main import main
from fastwam_policy.model.checkpoint import CheckpointError, load_weights
from fastwam_policy.model.config import PRESETS
from fastwam_policy.model.fastwam import FastWam
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
        (
            ("--groups", "left_arm,right_arm"),
            "its state has 14 numbers, that of R1Lite has 12: left_arm_joint1, left_arm_joint2",
        ),
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
    assert infer_model_config(tensors, 24) == infer_model_config(tensors, None, 24) == PRESETS["tiny"]
    with pytest.raises(CheckpointError, match="not a Fast-WAM checkpoint: 'video.blocks.0.self_attn.q.weight'"):
        infer_model_config({}, 24)


def test_a_wrong_width_of_a_head_is_one_line():
    """No shape tells it: it is that of the file or of the published width, or must be stated."""
    tiny = {name: torch.empty(value.shape, device="meta") for name, value in load_weights(OFFICIAL).items()}
    with torch.device("meta"):
        published = FastWam(dataclasses.replace(
            PRESETS["full"], video=dataclasses.replace(PRESETS["full"].video, num_layers=1),
            action=dataclasses.replace(PRESETS["full"].action, num_layers=1),
        )).state_dict()  # fmt: skip
    assert infer_model_config(published, None).video.num_heads == 24
    for tensors, stated, written, expected in (
        (published, 96, None, "--head-dim 96 is wrong: the heads of this checkpoint are 128 wide"),
        (tiny, 48, 24, "--head-dim 48 is wrong: the heads of this checkpoint are 24 wide"),
        (tiny, None, None, "must be stated with --head-dim: .* 96, all heads together"),
    ):
        with pytest.raises(CheckpointError, match=f"^[^\n]*{expected}[^\n]*$"):
            infer_model_config(tensors, stated, written)


def test_an_export_of_ours_says_how_wide_its_heads_are(random_bundle, tmp_path, capsys):
    assert run("export", random_bundle, tmp_path / "ours.pt") == 0
    assert import_(tmp_path / "wrong", "--head-dim", 48, checkpoint=tmp_path / "ours.pt") == 2
    assert "--head-dim 48 is wrong: the heads of this checkpoint are 24 wide" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d["model"].update(positions=[7, 6]), "model.positions: its learned positions"),
        (lambda d: d["action"].update(stepwise=True), "action.stepwise: statistics for each step"),
        (lambda d: d["action"].update(relative=["left_arm_joint1"]), "action.relative: .*: left_arm_joint1"),
        (
            lambda d: d.update(
                denoise_steps=2, distilled_from={"name": "many", "sha256": 64 * "0", "denoise_steps": 10}
            ),
            "distilled_from: weights that know 2 denoise steps",
        ),
        (lambda d: d.update(dtype="bfloat16"), "dtype: it is computed in bfloat16, but stored as float32"),
        (lambda d: d.update(origin="trained"), "vae: an autoencoder of its own, not Wan2.2's: base_dim 8, not 160"),
    ],
)
def test_an_export_that_would_lose_something_is_refused_by_name(random_bundle, tmp_path, capsys, change, expected):
    bundle = shutil.copytree(random_bundle, tmp_path / "bundle")
    data = yaml.safe_load((bundle / "policy.yaml").read_text())
    change(data)
    (bundle / "policy.yaml").write_text(yaml.safe_dump(data))
    assert run("export", bundle, tmp_path / "out.pt") == 2
    assert re.search(f"{bundle}: an official file cannot hold it: {expected}", capsys.readouterr().err)
    assert not (tmp_path / "out.pt").exists()


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


def test_what_is_missing_for_the_instruction_is_said_before_anything_is_written(tmp_path, text_weights, capsys):
    assert import_(tmp_path / "bundle", "--text-encoder", "/no/such.pth", *text_weights[2:]) == 2
    assert "/no/such.pth: no such file or folder" in capsys.readouterr().err
    assert import_(tmp_path / "bundle", "--instruction", "  ") == 2
    assert "argument --instruction: must be a sentence" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_prompts_are_embedded_into_a_bundle(tmp_path, text_weights):
    assert import_(tmp_path / "bundle", *text_weights) == 0
    (tmp_path / "tasks.txt").write_text("fold the towel\n\nfold\n")
    bundle = tmp_path / "bundle"
    assert run("encode-prompt", bundle, "wave the towel", "--file", tmp_path / "tasks.txt", *text_weights) == 0
    bundle = Bundle.load(bundle)
    assert set(bundle.embeddings) == {
        bundle.config.prompt_of(task) for task in ("fold the towel", "fold", "wave the towel")
    }
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
    assert run("encode-prompt", random_bundle, "--text-encoder", OFFICIAL, "--tokenizer", tmp_path) == 2
    assert "name an instruction, or a --file" in capsys.readouterr().err


def test_statistics_that_cannot_normalise_are_refused_with_the_joint(tmp_path, capsys):
    given = GOLDEN / "dataset_stats.json"
    arguments = ("--vae", GOLDEN / "vae_checkpoint.pt", "--head-dim", 24, "--sigma-shift", "5.0", "--stats", given)
    assert run("import", OFFICIAL, tmp_path / "bundle", *arguments) == 2
    text = "state.default cannot normalise: global_std is not above 0 for left_arm_joint3"
    assert f"{given}: {text}" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
