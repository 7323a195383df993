"""LeRobot itself against this project: its Fast-WAM, and a policy of it served to a client of ours.

INTEROP_LEROBOT names the Python of an environment with lerobot[fastwam,dataset], websockets and msgpack. `make interop`
makes one. The autoencoder and the text encoder that LeRobot would download are tiny random stand-ins of the same
classes; the text's context is taken from LeRobot, and everything else is its own.
"""

import os
import shutil
import subprocess
import threading
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from fastwam_policy import load_policy
from fastwam_policy.data.lerobot_writer import Dataset, Episode
from fastwam_policy.model.config import PRESETS, ExpertConfig, ModelConfig
from fastwam_policy.policies.base import Observation
from fastwam_policy.policies.fastwam.bundle import Bundle, save_embedding
from fastwam_policy.policies.fastwam.export_lerobot import export_lerobot
from fastwam_policy.policies.fastwam.import_lerobot import import_lerobot
from fastwam_policy.policies.fastwam.policy import FastWamPolicy
from fastwam_policy.policies.fastwam.random_bundle import write_random_bundle
from fastwam_policy.policies.robot_check import check_robot
from galaxea_r1lite_bridge.robot.config import RobotConfig

HERE = Path(__file__).parent
SERVER = HERE.parents[1] / "examples" / "serve_lerobot.py"
PYTHON = os.environ.get("INTEROP_LEROBOT", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="INTEROP_LEROBOT names no Python with lerobot; make interop does")
ROBOT = RobotConfig.load()
TASK = "fold the towel"
CAMERAS = ("head", "wrist_left", "wrist_right")
SIZES = {"ffn_dim": 96, "num_heads": 2, "head_dim": 24, "num_layers": 3, "text_dim": 32, "freq_dim": 32}
SQUARE = ModelConfig(ExpertConfig(hidden_dim=48, **SIZES), ExpertConfig(hidden_dim=32, **SIZES), 14, 14)
MODES = ("z-score", "min_max", "q01_q99")
AGREE = 1e-5  # rad, and of a gripper's stroke; larger numbers relative to their size


def cached(home, repository):
    """Where Hugging Face's cache has the files of a repository."""
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0")
    (folder / "snapshots" / "0").mkdir(parents=True)
    return folder / "snapshots" / "0"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lerobot") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "square", SQUARE)
        write_random_bundle(folder, ROBOT, TASK, "square")
    policy = yaml.safe_load((folder / "policy.yaml").read_text())
    tiles = [{"camera": name, "x": 64 * k, "y": 0, "width": 64, "height": 96} for k, name in enumerate(CAMERAS)]
    policy |= {"layout": {"width": 192, "height": 96, "tiles": tiles}, "sigma_shift": 3.0, "seed": 7}
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    return folder


@pytest.fixture(scope="module")
def home(bundle):
    """HF_HOME with the stand-ins."""
    home = bundle.parent / "hf"
    wan = cached(home, "Wan-AI/Wan2.2-TI2V-5B-Diffusers")
    shutil.copytree(bundle / "vae", wan / "vae")
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2, "vocab_size": 16}
    config = UMT5Config(**sizes, feed_forward_proj="gated-gelu")
    UMT5EncoderModel(config).save_pretrained(wan / "text_encoder")
    words = ["<pad>", "</s>", "<unk>", "fold", "the", "towel", "robot", "instruction", ":"]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    umt5 = cached(home, "google/umt5-xxl")
    config.save_pretrained(umt5)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(umt5)
    return home


@pytest.fixture(scope="module")
def frame():
    random = np.random.default_rng(1)
    images = {name: random.integers(0, 256, (96, 64, 3), np.uint8) for name in CAMERAS}
    joints = dict(zip(ROBOT.joint_names, ROBOT.home + random.normal(0, 0.1, 14), strict=True))
    return Observation(0, images, joints, TASK)


def environment(home):
    # PYTHONPATH and the like belong to this project's environment.
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return kept | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


@contextmanager
def served(*arguments, home):
    """The address of examples/serve_lerobot.py."""
    command = [PYTHON, "-u", SERVER, *arguments, "--port", "0", "--threads", "1"]
    process = subprocess.Popen(command, env=environment(home), stderr=subprocess.PIPE, text=True)
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("ws://"):
                break
        else:
            pytest.fail("".join(said))
        threading.Thread(target=process.stderr.read, daemon=True).start()  # nothing waits for its reader
        yield line.strip()
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def exported(bundle, home, frame):
    """The bundle in each normalisation and its export, which LeRobot has run, in one folder."""
    for mode in MODES:
        ours = shutil.copytree(bundle, bundle.parent / f"ours_{mode}")
        policy = yaml.safe_load((ours / "policy.yaml").read_text())
        policy["state"]["normalization"] = policy["action"]["normalization"] = mode
        (ours / "policy.yaml").write_text(yaml.safe_dump(policy))
        export_lerobot(ours, Bundle.read_config(ours), bundle.parent / mode)
    keys = {f"observation.images.{name}": image for name, image in frame.images.items()}
    keys["observation.state"] = np.array([frame.joints[name] for name in ROBOT.joint_names], np.float32)
    np.savez(bundle.parent / "frame.npz", **keys, task=TASK)
    command = [PYTHON, HERE / "lerobot_fastwam.py", "frame.npz", *MODES]
    subprocess.run(command, cwd=bundle.parent, env=environment(home), check=True)
    return bundle.parent


@pytest.mark.parametrize("mode", MODES)
def test_both_compute_the_same_actions_and_weights_come_back(exported, frame, tmp_path, mode):
    ours, result = exported / f"ours_{mode}", np.load(exported / f"{mode}.npz")
    shutil.rmtree(ours / "text_embeddings")
    context, mask = (torch.from_numpy(result[name]) for name in ("context", "mask"))
    save_embedding(ours, Bundle.read_config(ours).prompt_of(TASK), context, mask)
    loaded = FastWamPolicy.load(ours)
    loaded.prepare(TASK)
    chunk = loaded.infer(frame).actions
    assert chunk.shape == result["actions"].shape == (32, 14)
    assert np.ptp(chunk, axis=0).min() > 1e-3, "a policy that does something"
    difference = np.abs(chunk - result["actions"]) / np.maximum(1, np.abs(chunk))
    print(f"{mode}: largest difference {difference.max():.2g}")
    assert difference.max() <= AGREE

    again = exported / f"{mode}_again"
    shutil.copy(exported / mode / "fastwam.yaml", again)  # LeRobot does not know it
    import_lerobot(again, None, ours / "vae", tmp_path / "back", ROBOT)
    before, after = load_file(ours / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for part in ("scale", "offset"):
        left, right = (getattr(Bundle.load(folder).action, part) for folder in (ours, tmp_path / "back"))
        np.testing.assert_array_equal(left, right)


def test_lerobots_fast_wam_is_served(exported, home, frame):
    """Without a dataset its server says nothing of the policy: a mapping file does."""
    mapping = exported / "mapping.yaml"
    images = {f"images.{name}": {"camera": name} for name in CAMERAS}
    told = {"protocol": "openpi", "images": images, "state": {"key": "state", "parts": list(ROBOT.commanded)}}
    told |= {"action": {"key": "actions", "fps": 15, "horizon": 32}, "prompt": {"key": "prompt"}}
    mapping.write_text(yaml.safe_dump(told))
    with served(exported / "z-score", home=home) as address, closing(load_policy(f"{address}#{mapping}")) as policy:
        policy.prepare(TASK)
        chunk = policy.infer(frame).actions
    np.testing.assert_allclose(chunk, np.load(exported / "z-score.npz")["actions"], atol=AGREE, rtol=AGREE)


def test_what_lerobot_trains_on_our_dataset_drives_through_our_client(home, frame, tmp_path):
    """ACT: two steps of lerobot's trainer on a dataset in v3.0, its server, and a client that needs no mapping file."""
    dataset = Dataset(tmp_path / "data", ROBOT, 15, "v3.0")
    random = np.random.default_rng(0)
    for index in range(2):
        images = {name: random.integers(0, 256, (40, 36, 64, 3), np.uint8) for name in CAMERAS}
        state, action = (
            {name: random.normal(group.home, 0.1, (40, len(group.home))) for name, group in ROBOT.commanded.items()}
            for _ in range(2)
        )
        dataset.write(index, Episode(TASK, images, state, action))
    dataset.finish()
    options = {
        "dataset.repo_id": "local/towel", "dataset.root": tmp_path / "data", "dataset.video_backend": "pyav",
        "output_dir": tmp_path / "run", "policy.type": "act", "policy.device": "cpu", "policy.push_to_hub": "false",
        "policy.pretrained_backbone_weights": "null", "policy.chunk_size": 20, "policy.n_action_steps": 20,
        "policy.dim_model": 32, "policy.dim_feedforward": 32, "policy.n_heads": 2, "steps": 2, "batch_size": 2,
        "num_workers": 0,
    }  # fmt: skip
    command = [PYTHON, "-m", "lerobot.scripts.lerobot_train", *(f"--{key}={value}" for key, value in options.items())]
    ran = subprocess.run(command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ran.returncode == 0, ran.stdout[-3000:]
    trained = tmp_path / "run" / "checkpoints" / "last" / "pretrained_model"
    with served(trained, "--dataset", tmp_path / "data", home=home) as address, closing(load_policy(address)) as policy:
        info = policy.info
        check_robot(info, ROBOT, address)
        assert (info.fps, info.horizon, info.default_instruction) == (15, 20, TASK)
        policy.prepare(TASK)
        chunk = policy.infer(frame).actions
        assert (chunk == policy.infer(frame).actions).all()
        shown = {name: np.zeros((720, 1280, 3), np.uint8) for name in CAMERAS}
        assert (chunk != policy.infer(replace(frame, images=shown)).actions).any()
    assert chunk.shape == (20, 14)
    assert np.abs(chunk - ROBOT.home).max() < 5, "what was trained on"
