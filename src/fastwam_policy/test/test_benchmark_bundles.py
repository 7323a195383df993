"""Official LIBERO and RoboTwin checkpoints as bundles: small files of their layout, and the authors' numbers."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml

from fastwam_policy.cli.main import main
from fastwam_policy.model.config import ExpertConfig, ModelConfig
from fastwam_policy.model.fastwam import FastWam
from fastwam_policy.policies.base import Channel, Observation
from fastwam_policy.policies.fastwam.bundle import Bundle, save_embedding
from fastwam_policy.policies.fastwam.embodiments import BENCHMARKS
from fastwam_policy.policies.fastwam.policy import FastWamPolicy, Options
from fastwam_policy.policies.robot_check import check_robot
from fastwam_policy.training.statistics import with_spread
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from .golden_files import GOLDEN, golden

SIZES = {"ffn_dim": 32, "num_heads": 2, "head_dim": 24, "num_layers": 1, "text_dim": 16, "freq_dim": 16}
STATISTICS = {"libero": "libero_dataset_stats.json", "robotwin": "dataset_stats.json"}
WIDTHS = {"libero": (7, 8), "robotwin": (14, 14)}
SHIFT = ("--sigma-shift", "5.0")


def run(*arguments):
    """Exit status of the command line."""
    with pytest.raises(SystemExit) as status:
        main([str(argument) for argument in arguments])
    return status.value.code


def official_checkpoint(path, benchmark):
    """A file as `save_checkpoint` writes it, in bfloat16 as the published ones."""
    experts = (ExpertConfig(hidden_dim=32, **SIZES), ExpertConfig(hidden_dim=16, **SIZES))
    torch.manual_seed(0)
    tensors = FastWam(ModelConfig(*experts, *WIDTHS[benchmark])).bfloat16().state_dict()
    proprio = {name: tensors.pop(f"proprio_encoder.{name}") for name in ("weight", "bias")}
    mot = {f"mixtures.{name}": value for name, value in tensors.items()}
    torch.save({"mot": mot, "proprio_encoder": proprio, "step": 7, "torch_dtype": "torch.bfloat16"}, path)


def import_(folder, benchmark, *extra, name=None, checkpoint=None):
    """Exit status of importing a small checkpoint of a benchmark, with the authors' statistics made to move."""
    checkpoint = checkpoint or folder.with_suffix(".pt")
    official_checkpoint(folder.with_suffix(".pt"), benchmark)
    statistics = folder.with_suffix(".json")
    statistics.write_text(json.dumps(with_spread(json.loads((GOLDEN / STATISTICS[name or benchmark]).read_text()))))
    return run(
        "import", checkpoint, folder, "--benchmark", benchmark, "--stats", statistics,
        "--vae", GOLDEN / "vae_checkpoint.pt", "--head-dim", 24, *SHIFT, *extra,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """One of each benchmark, by its name."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for benchmark in BENCHMARKS:
        assert import_(folder / benchmark, benchmark) == 0
        config = Bundle.read_config(folder / benchmark)
        context = torch.randn(128, 16)
        save_embedding(folder / benchmark, config.prompt_of("tidy up"), context, torch.ones(128, dtype=torch.bool))
    return {benchmark: folder / benchmark for benchmark in BENCHMARKS}


def test_what_a_libero_bundle_says_of_itself(bundles):
    info = Bundle.read_info(bundles["libero"])
    assert [camera.name for camera in info.cameras] == ["agentview", "wrist"]
    names = ["eef_x", "eef_y", "eef_z", "eef_rx", "eef_ry", "eef_rz", "finger_left", "finger_right"]
    assert info.state == tuple(Channel(name, "opaque") for name in names)
    names = ["delta_x", "delta_y", "delta_z", "delta_rx", "delta_ry", "delta_rz", "gripper"]
    assert info.action == tuple(Channel(name, "opaque") for name in names)
    assert (info.action_kind, info.fps, info.horizon, info.robot_type) == ("delta", 20.0, 32, "libero")
    config = Bundle.read_config(bundles["libero"])
    assert (config.seed, config.video_frames, config.denoise_steps, config.sigma_shift) == (42, 9, 10, 5.0)


def test_what_a_robotwin_bundle_says_of_itself(bundles):
    info = Bundle.read_info(bundles["robotwin"])
    assert [camera.name for camera in info.cameras] == ["head", "wrist_left", "wrist_right"]
    assert info.state == info.action
    assert [channel.name for channel in info.state[5:8]] == ["left_joint6", "left_gripper", "right_joint1"]
    assert [channel.unit for channel in info.state[5:8]] == ["rad", "opaque", "rad"]
    assert (info.action_kind, info.horizon, info.robot_type) == ("absolute", 32, "robotwin")
    config = Bundle.read_config(bundles["robotwin"])
    assert (config.seed, config.action.normalization, config.action.toggled) == (42, "z-score", [])


@pytest.mark.parametrize("number", [0, 1])
def test_libero_pictures_states_and_actions_are_the_authors(bundles, number):
    case, bundle = golden(f"image_libero_case{number}"), Bundle.load(bundles["libero"])
    config = bundle.config
    images = {"agentview": case["agentview_image"], "wrist": case["robot0_eye_in_hand_image"]}
    np.testing.assert_array_equal(config.layout.compose(images), case["canvas_u8"])
    joints = dict(zip(config.state.names, case["state_raw"].tolist(), strict=True))
    np.testing.assert_array_equal(bundle.state.forward(config.state.values(joints))[None], case["proprio_normalized"])
    sent = bundle.restore_actions(case["action_model_out"], joints)
    np.testing.assert_array_equal(sent, case["action_env_binarized"])
    continuous = config.action.model_copy(update={"binarise": False})
    rows = continuous.toggle(bundle.action.backward(case["action_model_out"]))
    np.testing.assert_array_equal(rows, case["action_env_continuous"])
    np.testing.assert_allclose(continuous.untoggle(rows), bundle.action.backward(case["action_model_out"]), atol=1e-6)
    assert config.prompt_of("put the bowl on the plate") == str(case["prompt"])


def test_a_running_plan_goes_back_into_the_model(bundles):
    """What was sent to the gripper, -1 or 1, is 1 or 0 for the model."""
    bundle = Bundle.load(bundles["libero"])
    sent = np.zeros((2, 7))
    sent[:, 6] = 1, -1
    rows = bundle.action.backward(bundle.normalise_actions(sent, {}))
    np.testing.assert_allclose(rows[:, 6], [0, 1], atol=1e-6)
    np.testing.assert_allclose(rows[:, :6], 0, atol=1e-6)


def prepared(bundle, **options):
    policy = FastWamPolicy.load(bundle, options=Options(**options))
    policy.prepare("tidy up")
    random = np.random.default_rng(0)
    images = {camera.name: random.integers(0, 255, (240, 320, 3), np.uint8) for camera in policy.info.cameras}
    return policy, Observation(0, images, {channel.name: 0.1 for channel in policy.info.state}, "tidy up")


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_they_run(bundles, benchmark):
    policy, observation = prepared(bundles[benchmark])
    actions = policy.infer(observation).actions
    assert np.isfinite(actions).all()
    if benchmark == "libero":
        assert set(actions[:, 6]) <= {-1.0, 1.0}
    missing = policy.info.state[1].name
    joints = {name: value for name, value in observation.joints.items() if name != missing}
    with pytest.raises(ValueError, match=f"no position of {missing}, which the policy needs"):
        policy.infer(dataclasses.replace(observation, joints=joints))


def test_every_call_begins_with_the_same_noise(bundles):
    policy, observation = prepared(bundles["libero"])
    actions = policy.infer(observation).actions
    np.testing.assert_array_equal(policy.infer(observation).actions, actions)
    same, other = (prepared(bundles["libero"], seed=seed)[0].infer(observation).actions for seed in (42, 1))
    np.testing.assert_array_equal(same, actions)
    assert (other != actions).any()


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_r1_lite_refuses_them_naming_joints_and_cameras(bundles, benchmark):
    info = Bundle.read_info(bundles[benchmark])
    with pytest.raises(ConfigError) as error:
        check_robot(info, RobotConfig.load(), benchmark)
    text = str(error.value)
    assert f"it was made for the robot {benchmark}, this is a R1Lite" in text
    assert "action: the robot's left_arm_joint1 is missing" in text
    for kind, channels in (("state", info.state), ("action", info.action)):
        assert all(f"{kind}: {channel.name} is " in text for channel in channels), "no such joint, or in another unit"
    if benchmark == "libero":
        assert "delta actions; the bridge takes absolute targets only" in text
        assert "the robot has no camera agentview" in text


def test_the_weights_go_back_bit_for_bit(bundles, tmp_path):
    assert run("export", bundles["libero"], tmp_path / "back.pt") == 0
    before, after = (
        torch.load(path, weights_only=True) for path in (bundles["libero"].with_suffix(".pt"), tmp_path / "back.pt")
    )
    for part in ("mot", "proprio_encoder"):
        assert before[part].keys() == after[part].keys()
        assert all(torch.equal(value, after[part][name]) for name, value in before[part].items())


def test_lerobot_has_no_place_for_libero_here(bundles, tmp_path, capsys):
    assert run("export", bundles["libero"], tmp_path / "theirs", "--to", "lerobot") == 2
    said = capsys.readouterr().err
    assert "action.toggled: its step" in said
    assert "action.kind: delta" in said


@pytest.mark.parametrize(
    ("benchmark", "of", "extra", "expected"),
    [
        ("libero", "robotwin", (), "state.default needs 8 numbers an entry"),
        ("libero", "libero", ("--groups", "left_arm"), "--groups: --benchmark libero says it"),
        ("libero", "libero", ("--fps", "15"), "--fps: --benchmark libero says it"),
        ("libero", "libero", ("--normalization", "z-score"), "--normalization: --benchmark libero says it"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, capsys, benchmark, of, extra, expected):
    assert import_(tmp_path / "bundle", benchmark, *extra, name=of) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_a_checkpoint_of_another_body_is_named(tmp_path, capsys):
    checkpoint = GOLDEN / "checkpoint.pt"
    assert import_(tmp_path / "bundle", "libero", checkpoint=checkpoint) == 2
    said = capsys.readouterr().err
    assert "its state has 14 numbers, that of libero has 8: eef_x, eef_y" in said
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d["action"].update(toggled=["thumb"]), "toggled: thumb not in names"),
        (lambda d: d["action"].update(kind="jump"), "action.kind: .*'absolute' or 'delta', got 'jump'"),
        (lambda d: d["state"].update(kind="delta"), "state: stepwise, relative, kind and toggled are for actions only"),
        (lambda d: d["layout"]["tiles"][0].update(fit="contain"), "fit: .*'stretch' or 'cover', got 'contain'"),
    ],
)
def test_wrong_descriptions_are_named(bundles, tmp_path, change, expected):
    data = yaml.safe_load((bundles["libero"] / "policy.yaml").read_text())
    change(data)
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=expected):
        Bundle.read_config(tmp_path)
