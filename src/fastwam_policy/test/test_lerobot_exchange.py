"""Bundles to LeRobot's Fast-WAM and back, on tiny checkpoints; lerobot itself is not needed."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from fastwam_policy.cli.main import main
from fastwam_policy.model.config import PRESETS, ExpertConfig, ModelConfig
from fastwam_policy.policies.fastwam.bundle import Bundle
from fastwam_policy.policies.fastwam.random_bundle import write_random_bundle
from galaxea_r1lite_bridge.robot.config import RobotConfig

ROBOT = RobotConfig.load()
CAMERAS = ("head", "wrist_left", "wrist_right")
SIZES = {"ffn_dim": 64, "num_heads": 2, "head_dim": 24, "num_layers": 2, "text_dim": 16, "freq_dim": 16}
SQUARE = ModelConfig(ExpertConfig(hidden_dim=48, **SIZES), ExpertConfig(hidden_dim=32, **SIZES), 14, 14)
HEAD, POST = "policy_preprocessor.json", "policy_postprocessor.json"


def run(capsys, *arguments):
    """Exit status, and what was said."""
    with pytest.raises(SystemExit) as status:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return status.value.code, said.out + said.err


def edit(path, change):
    read, write = (json.loads, json.dumps) if path.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
    data = read(path.read_text())
    change(data)
    path.write_text(write(data))


def side_by_side(cameras=CAMERAS, width=64, height=96):
    tiles = [{"camera": c, "x": k * width, "y": 0, "width": width, "height": height} for k, c in enumerate(cameras)]
    return {"width": len(cameras) * width, "height": height, "tiles": tiles}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle that LeRobot can run."""
    folder = tmp_path_factory.mktemp("bundles") / "square"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "square", SQUARE)
        write_random_bundle(folder, ROBOT, "fold the towel", "square")
    edit(folder / "policy.yaml", lambda policy: policy.update(layout=side_by_side(), sigma_shift=1.0, seed=7))
    return folder


@pytest.fixture
def bundle(made, tmp_path):
    return shutil.copytree(made, tmp_path / "bundle")


@pytest.fixture
def theirs(bundle, tmp_path, capsys):
    """That bundle as LeRobot writes it."""
    status, said = run(capsys, "export", bundle, tmp_path / "theirs", "--to", "lerobot")
    assert status == 0, said
    return tmp_path / "theirs"


def back(capsys, theirs, *extra):
    target = theirs.parent / "back"
    arguments = ("import", theirs, target, "--from", "lerobot", "--vae", theirs.parent / "bundle" / "vae", *extra)
    status, said = run(capsys, *arguments)
    assert status in (0, 2)
    assert target.exists() == (status == 0), "nothing is written where something does not fit"
    return said if status else target


def statistics(theirs, change):
    """Edit the statistics as numpy arrays by name, such as action.mean."""
    for path in theirs.glob("policy_*.safetensors"):
        figures = {name: value.double().numpy() for name, value in load_file(path).items()}
        change(figures)
        save_file({name: torch.tensor(value, dtype=torch.float32) for name, value in figures.items()}, path)


def normalise(theirs, mode):
    for name in (HEAD, POST):
        edit(theirs / name, lambda data: [
            step["config"]["norm_map"].update(STATE=mode, ACTION=mode) for step in data["steps"] if "state_file" in step
        ])  # fmt: skip


def test_a_bundle_comes_back_bit_for_bit(bundle, theirs, capsys):
    weights = load_file(theirs / "model.safetensors")
    assert weights["model.mot.layers.1.blocks.video.self_attn.q.weight"].shape == (48, 48)
    assert weights["model.mot.mixtures.action.action_encoder.weight"].shape == (32, 14)
    assert weights["model.proprio_encoder.weight"].shape == (16, 14)
    config = json.loads((theirs / "config.json").read_text())
    assert (config["num_video_frames"], config["action_video_freq_ratio"]) == (33, 4)
    assert config["image_size"] == [96, 192]
    assert config["input_features"]["observation.images.wrist_left"] == {"type": "VISUAL", "shape": [3, 96, 64]}

    again = back(capsys, theirs)
    for name in ("model.safetensors", "vae/diffusion_pytorch_model.safetensors"):
        assert (again / name).read_bytes() == (bundle / name).read_bytes()
    before, after = Bundle.load(bundle), Bundle.load(again)
    assert after.config.model_dump(exclude={"name", "description"}) == before.config.model_dump(
        exclude={"name", "description"}
    )
    for kind in ("state", "action"):
        for part in ("scale", "offset"):
            assert (getattr(getattr(after, kind), part) == getattr(getattr(before, kind), part)).all()
    assert after.embeddings.keys() == before.embeddings.keys()


def test_the_legacy_layout_is_read_too(theirs, capsys):
    def legacy(name):
        head, layers, rest = name.partition("model.mot.layers.")
        if not layers:
            return name
        layer, _, expert, tail = rest.split(".", 3)
        return f"{head}model.mot.mixtures.{expert}.blocks.{layer}.{tail}"

    path = theirs / "model.safetensors"
    before = load_file(path)
    assert {legacy(name) for name in before} != set(before)
    save_file({legacy(name): value for name, value in before.items()}, path)
    again = back(capsys, theirs)
    assert (again / "model.safetensors").read_bytes() == (theirs.parent / "bundle/model.safetensors").read_bytes()
    shutil.rmtree(again)
    save_file(before | {legacy(name): value.clone() for name, value in before.items()}, path)
    assert "is there twice, under two layouts" in back(capsys, theirs)


@pytest.mark.parametrize(
    ("mode", "names", "normalization"),
    [
        ("MEAN_STD", ("mean", "std"), "z-score"),
        ("MIN_MAX", ("min", "max"), "min_max"),
        ("QUANTILES", ("q01", "q99"), "q01_q99"),
        ("MIN_MAX", ("narrow", "narrow"), "z-score"),
    ],
)
@pytest.mark.parametrize("others", [True, False])
def test_numbers_mean_the_same_in_each_normalisation(theirs, capsys, mode, names, normalization, others):
    """Against LeRobot's formulas, with and without the figures that a mode does not need."""
    random = np.random.default_rng(0)
    lower = random.normal(size=14)
    upper = lower + random.uniform(0.5, 2, 14)
    if names[0] == "narrow":  # a bundle would only shift a range below 1e-4
        names, upper[3] = ("min", "max"), lower[3] + 5e-5
    first, second = (lower, upper) if mode != "MEAN_STD" else (lower, upper - lower)

    def change(figures):
        for key in ("observation.state", "action"):
            if not others:
                for name in [name for name in figures if name.startswith(key)]:
                    del figures[name]
            figures[f"{key}.{names[0]}"], figures[f"{key}.{names[1]}"] = first, second

    statistics(theirs, change)
    normalise(theirs, mode)
    loaded = Bundle.load(back(capsys, theirs))
    assert loaded.config.state.normalization == loaded.config.action.normalization == normalization
    values = random.normal(size=(5, 14))
    z = mode == "MEAN_STD"
    inside = (values - first) / second if z else 2 * (values - first) / (second - first) - 1
    outside = values * second + first if z else (values + 1) / 2 * (second - first) + first
    np.testing.assert_allclose(loaded.state.forward(values), inside.clip(-5, 5), atol=2e-5, rtol=1e-3)
    np.testing.assert_allclose(loaded.action.backward(values.astype(np.float32)), outside, atol=2e-6)


@pytest.mark.parametrize("mode", ["z-score", "min_max", "q01_q99"])
@pytest.mark.parametrize("narrow", [False, True])
def test_what_was_exported_normalises_as_the_bundle(bundle, tmp_path, capsys, mode, narrow):
    def change(policy):
        policy["state"]["normalization"] = policy["action"]["normalization"] = mode

    edit(bundle / "policy.yaml", change)
    if narrow and mode != "z-score":
        low, high = {"min_max": ("min", "max"), "q01_q99": ("q01", "q99")}[mode]
        edit(bundle / "dataset_stats.json", lambda data: data["action"]["default"][f"global_{high}"].__setitem__(
            0, data["action"]["default"][f"global_{low}"][0] + 5e-5
        ))  # fmt: skip
    assert run(capsys, "export", bundle, tmp_path / "theirs", "--to", "lerobot")[0] == 0
    before, after = Bundle.load(bundle), Bundle.load(back(capsys, tmp_path / "theirs"))
    numbers = np.linspace(-2, 2, 28, dtype=np.float32).reshape(2, 14)
    np.testing.assert_allclose(after.action.backward(numbers), before.action.backward(numbers), atol=1e-5)
    assert after.config.state.normalization == mode


def test_other_units_and_orders_are_carried_into_the_statistics(theirs, capsys):
    order = ["right_arm", "left_arm", "right_gripper", "left_gripper"]

    def change(told):
        told.update(state=order, units={"left_gripper": {"range": [0, 1]}, "left_arm": {"unit": "deg"}})
        del told["action"]

    edit(theirs / "fastwam.yaml", change)
    statistics(
        theirs, lambda figures: figures.update({"action.mean": np.full(14, 0.5), "action.std": np.full(14, 0.1)})
    )
    loaded = Bundle.load(back(capsys, theirs))
    names = loaded.config.action.names
    assert names[0] == "right_arm_joint1"
    found = dict(zip(names, loaded.action.backward(np.ones(14, np.float32)), strict=True))
    assert found["left_gripper"] == pytest.approx(60)
    assert found["right_gripper"] == pytest.approx(0.6)
    assert found["left_arm_joint2"] == pytest.approx(np.deg2rad(0.6))


def test_what_must_be_told_is_printed_as_a_file_to_begin_with(theirs, tmp_path, capsys):
    (theirs / "fastwam.yaml").unlink()
    said = back(capsys, theirs)
    assert "--about FILE" in said
    begin = tmp_path / "about.yaml"
    lines = said.split("--about FILE:\n")[1]
    begin.write_text("\n".join(line[2:] for line in lines.splitlines()).replace("head|wrist_left|wrist_right", "head"))
    edit(begin, lambda told: told["cameras"].update({f"observation.images.{name}": name for name in CAMERAS}))
    assert Bundle.load(back(capsys, theirs, "--about", begin)).config.fps == 15


@pytest.mark.parametrize("key", ["fps", "instruction", "state"])
def test_each_thing_that_is_not_told_has_a_line(theirs, capsys, key):
    edit(theirs / "fastwam.yaml", lambda told: [told.pop(key), told.pop("origin")])
    said = back(capsys, theirs)
    assert f"fastwam.yaml: {key}: Field required" in said
    assert len(said.splitlines()) == 1


CONFIG, ABOUT = "config.json", "fastwam.yaml"


def step(name, **config):
    def change(data):
        data["steps"].append({"registry_name": name, "config": config})

    return change


@pytest.mark.parametrize(
    ("file", "change", "expected"),
    [
        (CONFIG, lambda c: c.update(type="act"), "type: Input should be 'fastwam', got 'act'"),
        (CONFIG, lambda c: c.update(toggle_action_dimensions=[-1]), "toggle_action_dimensions [-1]: LeRobot turns"),
        (CONFIG, lambda c: c["video_dit_config"].update(action_conditioned=True), "action_conditioned: its video sees"),
        (
            CONFIG,
            lambda c: c["video_dit_config"].update(video_attention_mask_mode="bidirectional"),
            "only first_frame_causal, got bidirectional",
        ),
        (CONFIG, lambda c: c["video_dit_config"].update(patch_size=[1, 4, 4]), "patches of 1 x 2 x 2"),
        (CONFIG, lambda c: c["action_scheduler"].update(num_train_timesteps=500), "num_train_timesteps must be 1000"),
        (CONFIG, lambda c: c.update(num_video_frames=17), "num_video_frames must be action_horizon + 1"),
        (CONFIG, lambda c: c["video_dit_config"].update(hidden_dim=96), "parameters do not fit"),
        (CONFIG, lambda c: c["action_dit_config"].update(num_heads=4), "num_heads must be equal in both experts"),
        (HEAD, lambda p: p["steps"].clear(), "no step normalizer_processor"),
        (HEAD, step("relative_actions_processor"), "a bundle cannot say what the step relative_actions_processor does"),
        (POST, step("fastwam_action_toggle_processor", toggle_dimensions=[0]), "fastwam_action_toggle_processor does"),
        (HEAD, lambda p: p["steps"][3]["config"]["norm_map"].update(VISUAL="MEAN_STD"), "images are normalised by"),
        (HEAD, lambda p: p["steps"][3]["config"]["norm_map"].update(STATE="QUANTILE10"), "normalised by QUANTILE10"),
        (ABOUT, lambda a: a.update(state=["left_arm"]), "state: the checkpoint has 14 numbers, these are 6 joints"),
        (ABOUT, lambda a: a.update(action=["legs"]), "action: legs is no group or joint"),
        (ABOUT, lambda a: a.update(state=["left_arm", "left_arm_joint1"]), "left_arm_joint1 is named twice"),
        (ABOUT, lambda a: a.update(units={"legs": {}}), "units: there is no group legs"),
        (ABOUT, lambda a: a.update(units={"left_arm": {"unit": "mm"}}), "units.left_arm.unit: joints in rad"),
        (ABOUT, lambda a: a.update(units={"left_gripper": {"range": [1, 0]}}), "count the other way"),
        (ABOUT, lambda a: a["cameras"].popitem(), "cameras: needs the keys observation.images.head,"),
        (ABOUT, lambda a: a["cameras"].update({"observation.images.head": "eye"}), "the robot has no camera eye"),
        (ABOUT, lambda a: a.pop("cameras"), "or layout, for one image composed of several"),
        (ABOUT, lambda a: [a.pop("cameras"), a.update(layout=side_by_side())], "layout: is for one image of 192 x 96"),
    ],
)  # fmt: skip
def test_what_no_bundle_can_say_is_refused_with_the_reason(theirs, capsys, file, change, expected):
    edit(theirs / file, change)
    assert expected in back(capsys, theirs)


def test_statistics_that_are_missing_or_cannot_normalise_are_named(theirs, capsys):
    statistics(theirs, lambda figures: figures.pop("observation.state.std"))
    assert "MEAN_STD needs observation.state.std, which are missing" in back(capsys, theirs)
    statistics(theirs, lambda figures: figures.update({"observation.state.std": np.eye(14)[3]}))
    assert "its statistics of state cannot normalise: global_std is not above 0 for" in back(capsys, theirs)
    (theirs / HEAD).unlink()
    assert f"{HEAD}: no such file" in back(capsys, theirs)


def test_a_checkpoint_without_a_state_is_imported(theirs, capsys):
    edit(theirs / CONFIG, lambda c: [c.update(proprio_dim=None), c["input_features"].pop("observation.state")])
    weights = load_file(theirs / "model.safetensors")
    save_file({n: v for n, v in weights.items() if "proprio" not in n}, theirs / "model.safetensors")
    loaded = Bundle.load(back(capsys, theirs))
    assert loaded.config.model.proprio_dim is None
    assert loaded.proprio(dict.fromkeys(ROBOT.joint_names, 0.0)) is None


def test_a_canvas_that_lerobot_does_not_make_becomes_one_image(bundle, random_bundle, tmp_path, capsys):
    robotwin = yaml.safe_load((random_bundle / "policy.yaml").read_text())["layout"]
    edit(bundle / "policy.yaml", lambda policy: policy.update(layout=robotwin, max_prefix=3))
    status, said = run(capsys, "export", bundle, tmp_path / "theirs", "--to", "lerobot")
    assert status == 0
    assert "note: LeRobot takes one image, observation.images.canvas" in said
    assert "note: max_prefix is lost" in said
    config = json.loads((tmp_path / "theirs" / CONFIG).read_text())
    assert config["input_features"]["observation.images.canvas"]["shape"] == [3, 384, 320]
    assert Bundle.load(back(capsys, tmp_path / "theirs")).config.layout == Bundle.load(bundle).config.layout


def test_the_order_of_the_cameras_survives_sorting(bundle, tmp_path, capsys):
    cameras = ("wrist_right", "head", "wrist_left")
    edit(bundle / "policy.yaml", lambda policy: policy.update(layout=side_by_side(cameras)))
    assert run(capsys, "export", bundle, tmp_path / "theirs", "--to", "lerobot")[0] == 0
    keys = json.loads((tmp_path / "theirs" / CONFIG).read_text())["input_features"]
    assert sorted(keys)[:3] == [f"observation.images.{k}_{name}" for k, name in enumerate(cameras)]
    tiles = Bundle.load(back(capsys, tmp_path / "theirs")).config.layout.tiles
    assert tuple(tile.camera for tile in tiles) == cameras


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: p.update(variant="idm"), "it has no variant idm"),
        (lambda p: p["action"].update(stepwise=True), "action.stepwise: it has one set"),
        (lambda p: p["action"].update(relative=["left_gripper"]), "action.relative: its actions do not count"),
        (lambda p: p["model"].update(positions=[3, 6]), "model.positions: it has no learned positions"),
        (
            lambda p: p["model"]["video"].update(hidden_dim=64),
            "model.video: hidden_dim must be num_heads x head_dim, got 64 and 2",
        ),
        (lambda p: p.update(video_frames=2, frames_per_latent=1), "video_frames must be 1 + 4 n"),
        (lambda p: p.update(origin="trained"), "vae: it always takes Wan2.2's; this one has base_dim 8, not 160"),
    ],
)
def test_what_lerobot_cannot_run_is_not_exported(bundle, tmp_path, capsys, change, expected):
    edit(bundle / "policy.yaml", change)
    status, said = run(capsys, "export", bundle, tmp_path / "theirs", "--to", "lerobot")
    assert (status, (tmp_path / "theirs").exists()) == (2, False)
    assert f"LeRobot cannot run it: {expected}" in said


def test_options_of_the_other_format_are_refused(theirs, capsys):
    said = back(capsys, theirs, "--fps", "30", "--head-dim", "24")
    assert "--head-dim, --fps: only for --from official; a LeRobot checkpoint or --about says it" in said
    about = theirs / ABOUT
    status, said = run(capsys, "import", theirs, theirs / "x", "--vae", theirs, "--about", about)
    assert (status, "--about is for --from lerobot" in said) == (2, True)
