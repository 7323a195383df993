import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from fastwam_policy.cli.main import main
from fastwam_policy.policies.base import Observation
from fastwam_policy.policies.fastwam.bundle import Bundle
from fastwam_policy.policies.fastwam.canvas import Tile
from fastwam_policy.policies.fastwam.mean_pictures import write_mean_pictures
from fastwam_policy.policies.fastwam.policy import FastWamPolicy
from fastwam_policy.policies.fastwam.random_bundle import write_random_bundle
from fastwam_policy.policies.robot_check import check_robot
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

ROBOT = RobotConfig.load()


@pytest.fixture
def bundle(random_bundle, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(random_bundle, tmp_path / "bundle")


def edit(bundle, change):
    path = bundle / "policy.yaml"
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data, sort_keys=False))


def observation(seed=0):
    random = np.random.default_rng(seed)
    images = {name: random.integers(0, 255, (72, 128, 3), np.uint8) for name in ROBOT.cameras}
    return Observation(123, images, dict.fromkeys(ROBOT.joint_names, 0.5), "fold the towel")


def test_a_random_bundle_runs_and_is_reproducible(random_bundle, tmp_path):
    policy = FastWamPolicy.load(random_bundle)
    policy.prepare("fold the towel")
    chunk = policy.infer(observation())
    assert chunk.actions.shape == (32, 14)
    assert np.isfinite(chunk.actions).all()
    assert (chunk.names, chunk.stamp_ns, chunk.step_ns) == (ROBOT.joint_names, 123, 66_666_667)
    assert min(chunk.timing.preprocess, chunk.timing.encode, chunk.timing.prefill, chunk.timing.denoise) > 0
    np.testing.assert_array_equal(policy.infer(observation()).actions, chunk.actions)
    assert np.abs(policy.infer(observation(1)).actions - chunk.actions).max() > 1e-4, "images must matter"

    again = tmp_path / "again"
    write_random_bundle(again, ROBOT, "fold the towel")
    other = FastWamPolicy.load(again)
    other.prepare("fold the towel")
    np.testing.assert_array_equal(other.infer(observation()).actions, chunk.actions)


def test_the_checkpoints_own_order_is_used(bundle):
    """A checkpoint with the grippers last must read each joint by its name."""
    order = [*range(6), *range(7, 13), 6, 13]

    def grippers_last(data):
        for kind in ("state", "action"):
            for key in ("names", "units"):
                data[kind][key] = [data[kind][key][i] for i in order]

    statistics = json.loads((bundle / "dataset_stats.json").read_text())
    for kind in ("state", "action"):
        entries = statistics[kind]["default"]
        for name, values in entries.items():
            entries[name] = np.array(values)[..., order].tolist()
    (bundle / "dataset_stats.json").write_text(json.dumps(statistics))
    edit(bundle, grippers_last)
    loaded = Bundle.load(bundle)
    check_robot(loaded.config.info(), ROBOT, "bundle")
    policy = FastWamPolicy(loaded)
    policy.prepare("fold the towel")
    chunk = policy.infer(observation())
    assert chunk.names[-2:] == ["left_gripper", "right_gripper"]
    assert np.abs(chunk.actions[:, -2:] - 50).max() < 50, "statistics go with their joint: strokes lie around 50 mm"
    assert np.abs(chunk.actions[:, :-2]).max() < 5, "angles do not"


def test_an_official_checkpoint_file_serves_as_weights(bundle):
    tensors = load_file(bundle / "model.safetensors")
    proprio = {k.split(".")[1]: tensors.pop(k) for k in list(tensors) if k.startswith("proprio_encoder")}
    mot = {f"mixtures.{k}": v for k, v in tensors.items()}
    torch.save({"mot": mot, "proprio_encoder": proprio, "step": 1, "torch_dtype": "torch.float32"}, bundle / "model.pt")
    before = Bundle.load(bundle).model.state_dict()
    edit(bundle, lambda data: data.update(weights="model.pt"))
    after = Bundle.load(bundle).model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("missing", ["policy.yaml", "model.safetensors", "dataset_stats.json", "vae/config.json"])
def test_missing_files_are_named(bundle, missing):
    (bundle / missing).unlink()
    with pytest.raises(ConfigError, match=missing.replace(".", r"\.")):
        Bundle.load(bundle)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d["action"]["names"].__setitem__(0, "elbow"), "action: elbow is not a commanded joint"),
        (lambda d: d["action"]["names"].__setitem__(0, "elbow"), "the robot's left_arm_joint1 is missing"),
        (lambda d: d["state"]["units"].__setitem__(6, "rad"), "left_gripper is in rad, the robot uses mm"),
        (lambda d: d.update(robot_type="Other"), "it was made for the robot Other, this is a R1Lite"),
        (lambda d: d["layout"]["tiles"][0].update(camera="chest"), "the robot has no camera chest; it has head"),
    ],
)
def test_bundles_for_another_robot_are_refused(bundle, change, expected):
    edit(bundle, change)
    with pytest.raises(ConfigError, match=expected):
        check_robot(Bundle.read_info(bundle), ROBOT, str(bundle))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: d["action"]["units"].pop(), "action: units: needs one for each of the 14 names, got 13"),
        (lambda d: d["action"].update(names=["a"], units=["rad"]), "1 names, but model.action_dim is 14"),
        (lambda d: d["action"]["units"].__setitem__(0, "deg"), r"action.units\[0\].*got 'deg'"),
        (lambda d: d.update(sigma_shift=0), "sigma_shift: .*greater than 0, got 0"),
        (lambda d: d.pop("sigma_shift"), "sigma_shift: Field required"),
        (lambda d: d.update(denoise_steps=0), "denoise_steps.*got 0"),
        (lambda d: d.update(variant="other"), "variant.*got 'other'"),
        (lambda d: d["model"].update(extra=1), "model.*extra"),
        (lambda d: d["model"]["video"].update(extra=1), "model.video.extra"),
        (lambda d: d.update(video_frames=8), "video_frames must be 1 \\+ 4 n and divide the horizon of 32"),
        (lambda d: d["model"]["video"].update(num_layers=9), "num_layers must be equal in both experts"),
        (lambda d: d["layout"].update(height=385), "cover every pixel"),
        (lambda d: d["layout"]["tiles"][0].update(x=1), "lies outside the canvas"),
        (lambda d: d["prompt"].update(template="fold"), "prompt: template: needs {task} once"),
        (lambda d: d["prompt"].update(template="{task} {task.__class__}"), "template: .*no other braces"),
        (lambda d: d["prompt"].update(template="{task} {task}"), "template: needs {task} once"),
        (lambda d: d["prompt"].update(template="{task}" + "x" * 10**5), "prompt.template.*at most 4096"),
        (lambda d: d.update(weights="../other/model.safetensors"), "weights: must be the name of a file"),
        (lambda d: d.update(weights="/dev/zero"), "weights: must be the name of a file"),
        (lambda d: d.update(weights=".."), "weights: must be the name of a file"),
        (lambda d: d.update(horizon=10**12), "horizon.*less than or equal to 10000"),
        (lambda d: d["layout"].update(width=32 * 10**9), "layout.width.*at most|layout.width.*less than or equal to"),
        (lambda d: [d["model"][e].update(num_layers=10**9) for e in ("video", "action")], "num_layers must be above 0"),
        (lambda d: d["model"].update(positions=[10**9, 10**9]), "rows of positions must be above 0 and at most"),
        (lambda d: d["model"]["video"].update(ffn_dim=64), "shape: video.blocks.0.ffn.0.weight"),
    ],
)
def test_wrong_descriptions_are_named(bundle, change, expected):
    edit(bundle, change)
    with pytest.raises(ConfigError, match=expected):
        Bundle.load(bundle)


def test_a_description_costs_no_more_than_its_length(bundle):
    """Aliases, depth and length: each in one short line."""
    path = bundle / "policy.yaml"
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * 9)}]\n" for k in range(9))
    texts = {laughs: "aliases", "a: " + "[" * 50_000: "nested too deeply", "a: " + "x" * 2**21: "longer than"}
    for text, expected in texts.items():
        path.write_text(text)
        with pytest.raises(ConfigError, match=rf"^\S*policy.yaml: .*{expected}.{{0,100}}$"):
            Bundle.read_config(bundle)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=r"^.{1,200}$"):
        Bundle.read_config(bundle)


@pytest.mark.parametrize("name", ["model.safetensors", "dataset_stats.json", "vae/config.json"])
def test_a_link_out_of_the_folder_is_refused(bundle, tmp_path, name):
    elsewhere = (bundle / name).rename(tmp_path / "elsewhere")
    (bundle / name).symlink_to(elsewhere)
    with pytest.raises(ConfigError, match=f"{name} is a link to a file outside of the bundle"):
        Bundle.load(bundle)


def test_an_installed_bundle_may_consist_of_links(random_bundle, tmp_path):
    """As `colcon build --symlink-install` makes it."""
    for path in random_bundle.rglob("*"):
        if path.is_file():
            link = tmp_path / "installed" / path.relative_to(random_bundle)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    assert Bundle.read_info(tmp_path / "installed").name == "random_tiny"


def test_statistics_of_another_shape(bundle):
    path = bundle / "dataset_stats.json"
    statistics = json.loads(path.read_text())
    statistics["action"]["default"]["global_std"].pop()
    path.write_text(json.dumps(statistics))
    with pytest.raises(ConfigError, match=r"action.default needs 14 numbers.*'global_std': \[13\]"):
        Bundle.load(bundle)
    del statistics["action"]["default"]["global_std"]
    missing = json.dumps(statistics)
    for text, expected in {
        "[]": "dataset_stats.json: expected a JSON object, got list$",
        "{}": "not an official dataset_stats.json: it has no state.default$",
        missing: "action.default: not of an official dataset_stats.json: it has no 'global_std'$",
        missing[:-20]: "dataset_stats.json: not JSON: .* line 1 column .*$",
        "[" * 100_000: "dataset_stats.json: not JSON: nested too deeply$",
    }.items():
        path.write_text(text)
        with pytest.raises(ConfigError, match=expected):
            Bundle.load(bundle)


def test_embeddings(bundle):
    loaded = Bundle.load(bundle)
    with pytest.raises(
        ConfigError, match="no text embedding for the prompt '.*: dance'. The bundle has: .*fold the towel"
    ):
        loaded.embedding("dance")
    assert loaded.embedding("  fold   the towel ")[0].shape == (128, 64)
    path = next((bundle / "text_embeddings").iterdir())
    save_file({"context": torch.zeros(5, 64), "mask": torch.ones(5, dtype=torch.bool)}, path, {"prompt": "x"})
    with pytest.raises(ConfigError, match=r"context has shape \[5, 64\], policy.yaml needs \[128, 64\]"):
        Bundle.load(bundle)
    path.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match="not a text embedding"):
        Bundle.load(bundle)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_bundle_without_mean_pictures_says_so(bundle):
    policy = FastWamPolicy.load(bundle)
    with pytest.raises(ConfigError, match=r"mean_pictures/head\.png: there is none: the mean of the pictures"):
        policy.mean_pictures()
    write_mean_pictures(bundle, {camera: np.full((3, 4, 3), 7, np.uint8) for camera in ROBOT.cameras})
    assert {int(picture.max()) for picture in policy.mean_pictures().values()} == {7}
    (bundle / "mean_pictures" / "head.png").write_text("no")
    with pytest.raises(ConfigError, match=r"mean_pictures/head\.png: not a picture"):
        policy.mean_pictures()


def test_cuda_that_is_not_there(random_bundle):
    with pytest.raises(ConfigError, match="device cuda was asked for, but torch .* finds no CUDA GPU"):
        Bundle.load(random_bundle, "cuda")
    with pytest.raises(ConfigError, match="device must be auto, cpu, cuda or cuda:N, got 'gpu'"):
        Bundle.load(random_bundle, "gpu")


def test_command_line(random_bundle, tmp_path, capsys):
    with pytest.raises(SystemExit) as status:
        main(["check-policy", str(random_bundle)])
    assert status.value.code == 0
    assert "fits the R1Lite" in capsys.readouterr().out
    with pytest.raises(SystemExit) as status:
        main(["make-bundle", str(random_bundle)])
    assert status.value.code == 2
    assert "exists already" in capsys.readouterr().err
    with pytest.raises(SystemExit) as status:
        main(["make-bundle", str(tmp_path / "new"), "--size", "huge"])
    assert status.value.code == 2
    assert "invalid choice: 'huge'" in capsys.readouterr().err


def test_a_tile_shows_a_part_of_the_image():
    image = np.zeros((90, 160, 3), np.uint8)
    image[45:, 80:] = 200
    whole = Tile(camera="head", x=0, y=0, width=32, height=32)
    corner = Tile(camera="head", x=0, y=0, width=32, height=32, crop=(0.5, 0.5, 1.0, 1.0))
    assert whole.view(image)[0, 0].max() == 0
    assert corner.view(image)[2:, 2:].min() == 200  # at the edge a pixel from outside has its share
    with pytest.raises(ValueError, match="crop must be left, top, right, bottom"):
        Tile(camera="head", x=0, y=0, width=32, height=32, crop=(0.5, 0.0, 0.5, 1.0))


def test_a_tile_is_covered_after_turning_and_cropping():
    """Scaled as a whole and cut in the middle, as in training; what is used of the picture is chosen before."""
    image = np.zeros((90, 160, 3), np.uint8)
    image[:45, :80] = 200  # once turned, the lower right quarter
    tile = {"camera": "head", "x": 0, "y": 0, "width": 32, "height": 32}
    turned = Tile(**tile, rotated=True)
    assert turned.view(image)[17:, 17:].min() == 200
    assert turned.view(image)[:15].max() == 0
    covered = Tile(**tile, rotated=True, fit="cover", crop=(0.5, 0.5, 1.0, 1.0)).view(image)
    assert covered.shape == (32, 32, 3)
    assert covered[2:, 2:].min() == 200
    sides = np.zeros((32, 64, 3), np.uint8)
    sides[:, :16] = sides[:, 48:] = 255
    assert Tile(**tile, fit="cover").view(sides).max() == 0, "what is cut off is not seen"
    with pytest.raises(ValueError, match="1 x 4096 pixels is too long to cover the tile of head, 32 x 32"):
        Tile(**tile, fit="cover").view(np.zeros((4096, 1, 3), np.uint8))


def test_what_is_new_in_a_layout_is_only_written_where_it_is_used():
    """Cached latents are found by it, and older versions read it."""
    tile = Tile(camera="head", x=0, y=0, width=32, height=32)
    assert set(tile.model_dump()) == {"camera", "x", "y", "width", "height", "crop"}
    assert tile.model_copy(update={"fit": "cover"}).model_dump()["fit"] == "cover"
