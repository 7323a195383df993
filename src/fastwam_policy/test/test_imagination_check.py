"""`check-policy --imagination`: pictures and actions against what happened."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from fastwam_policy.cli.main import main
from fastwam_policy.data.lerobot_reader import Reader
from fastwam_policy.performance import imagination
from fastwam_policy.performance.imagination import check_imagination, psnr, ssim, table
from fastwam_policy.policies.fastwam.policy import FastWamPolicy
from galaxea_r1lite_bridge.robot.config import RobotConfig

from .test_imagination import small_bundle  # noqa: F401  a fixture
from .test_training import configuration, data  # noqa: F401  a fixture

pytestmark = pytest.mark.training
ROBOT = RobotConfig.load()


def test_measures_of_pictures():
    picture = np.random.default_rng(0).integers(0, 200, (40, 60, 3), np.uint8)
    assert psnr(picture, picture + 10) == pytest.approx(10 * np.log10(255**2 / 100))
    assert ssim(picture, picture) == pytest.approx(1)
    flat, brighter = np.full_like(picture, 100), np.full_like(picture, 150)
    stable = (0.01 * 255) ** 2
    assert ssim(flat, brighter) == pytest.approx((2 * 100 * 150 + stable) / (100**2 + 150**2 + stable))
    assert ssim(picture, cv2.blur(picture, (9, 9))) < 0.5


class Recorded(FastWamPolicy):
    """Whose chunks are those of the dataset, and which imagines what happened."""

    imagination = None

    def __init__(self, config, folder):
        self.bundle, self.imagination = SimpleNamespace(config=config), self
        reader = Reader(folder, ROBOT, config.fps, list(ROBOT.cameras))
        self._rows = {}  # by joints and picture: at the beginning all episodes have the same joints
        for episode in reader.episodes:
            views = zip(*(reader.images(episode, name, range(episode.length)) for name in ROBOT.cameras), strict=True)
            images = [dict(zip(ROBOT.cameras, pictures, strict=True)) for pictures in views]
            canvases = [config.layout.compose(each) for each in images]
            state, action = reader.vectors(episode)
            for row, (joints, each) in enumerate(zip(state, images, strict=True)):
                self._rows[joints.tobytes(), each["head"].tobytes()] = action[row:], canvases[row:]

    def prepare(self, instruction):
        assert instruction == "fold the towel"

    def reconstruct(self, canvases):
        return canvases

    def _from_here(self, observation):
        joints = np.array([observation.joints[name] for name in ROBOT.joint_names], np.float32)
        return self._rows[joints.tobytes(), observation.images["head"].tobytes()]

    def imagine(self, observation):
        _, canvases = self._from_here(observation)
        return np.stack([canvases[0], canvases[32]])

    def infer(self, observation):
        actions, _ = self._from_here(observation)
        return SimpleNamespace(actions=actions[1:33])


def test_who_imagines_what_happens_is_right_in_all_measures(data):  # noqa: F811
    config = configuration(data).policy
    found = check_imagination(Recorded(config, data / "towel"), data / "towel", ROBOT)
    assert found["observations"] == 16, "two episodes of 40 frames, seen 32 ahead"
    assert found["psnr"]["imagined"] == found["psnr"]["autoencoder"] > found["psnr"]["no change"] > 10
    assert found["ssim"]["imagined"] == found["ssim"]["autoencoder"] == pytest.approx(1)
    assert found["actions"]["imagined"] == pytest.approx(found["actions"]["happened"])
    assert "read in what it imagines" in list(table(found).columns[0].cells)[4]


def test_a_bundle_is_compared_and_filmed(data, small_bundle, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(imagination, "_OBSERVATIONS", 2)
    monkeypatch.setattr(imagination, "_FITTED", 6)
    arguments = ["check-policy", small_bundle, "--imagination", data / "towel", "--json", tmp_path / "found.json"]
    with pytest.raises(SystemExit) as status:
        main([str(argument) for argument in (*arguments, "--video", tmp_path / "beside.mp4")])
    assert status.value.code == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "found.json").read_text())["imagination"]
    assert found["psnr"]["imagined"] < found["psnr"]["autoencoder"], "it has learned nothing"
    film = cv2.VideoCapture(str(tmp_path / "beside.mp4"))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == found["observations"] == 2


def test_what_cannot_be_compared_is_one_line(data, small_bundle, tmp_path, capsys):  # noqa: F811
    with pytest.raises(SystemExit) as status:
        main(["check-policy", str(small_bundle), "--video", str(tmp_path / "x.mp4")])
    assert status.value.code == 2
    assert "--video films what is compared with --imagination DATASET" in capsys.readouterr().err
