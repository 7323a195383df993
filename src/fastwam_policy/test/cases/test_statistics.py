"""Statistics that a policy cannot be normalised with, and a robot that stands where its policy never saw it stand."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from fastwam_policy.cli.main import main
from fastwam_policy.model.checkpoint import read_tensors
from fastwam_policy.policies.familiarity import Familiarity, familiarity
from fastwam_policy.policies.fastwam.bundle import Bundle
from fastwam_policy.policies.fastwam.normalizer import load_statistics
from fastwam_policy.policies.loading import inspect_policy
from fastwam_policy.policies.robot_check import check_robot
from fastwam_policy.reports.session import Session
from fastwam_policy.reports.summary import rows, summarise
from fastwam_policy.training.statistics import dataset_statistics, with_spread
from galaxea_r1lite_bridge.execution.reasons import State
from galaxea_r1lite_bridge.robot.config import RobotConfig, limit_arrays
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

ROBOT = RobotConfig.load()
HOME = dict(zip(ROBOT.joint_names, ROBOT.home.tolist(), strict=True))


@pytest.fixture
def bundle(random_bundle, tmp_path):
    return shutil.copytree(random_bundle, tmp_path / "bundle")


def put(bundle, kind, name, place, value):
    path = bundle / "dataset_stats.json"
    statistics = json.loads(path.read_text())
    statistics[kind]["default"][name][place] = value
    path.write_text(json.dumps(statistics))


NAN, INF = float("nan"), float("inf")
WRONG = {
    "NaN": ("state", "global_mean", NAN, "global_mean is not finite for left_gripper"),
    "infinity": ("action", "global_std", INF, "global_std is not finite for left_gripper"),
    "NaN in what is not used": ("state", "global_q01", NAN, "global_q01 is not finite for left_gripper"),
    "too large for their digits": ("state", "global_mean", 1e39, "global_mean is not finite for left_gripper"),
    "no spread": ("action", "global_std", 0.0, "global_std is not above 0 for left_gripper"),
    "negative spread": ("state", "global_std", -1.0, "global_std is not above 0 for left_gripper"),
    "min > max": ("action", "global_max", -1.0, "global_min is above global_max for left_gripper"),
    "q01 > q99": ("state", "global_q01", 1e3, "global_q01 is above global_q99 for left_gripper"),
}


@pytest.mark.parametrize(("kind", "name", "value", "says"), WRONG.values(), ids=WRONG)
def test_they_are_refused_at_load_and_by_check_policy_with_the_joint(bundle, capsys, kind, name, value, says):
    put(bundle, kind, name, 6, value)
    expected = f"{bundle / 'dataset_stats.json'}: {kind}.default cannot normalise: "
    for load in (Bundle.load, Bundle.read_info, inspect_policy):
        with pytest.raises(ConfigError) as error:
            load(bundle)
        assert str(error.value).startswith(expected)
        assert says in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(SystemExit) as status:
        main(["check-policy", str(bundle)])
    assert status.value.code == 1
    assert says in " ".join(capsys.readouterr().err.split())


def test_a_bound_without_a_range_is_refused_where_it_normalises(bundle):
    put(
        bundle,
        "state",
        "global_q99",
        3,
        json.loads((bundle / "dataset_stats.json").read_text())["state"]["default"]["global_q01"][3],
    )
    names = ROBOT.joint_names
    assert load_statistics(bundle / "dataset_stats.json", "state", names, "z-score")
    with pytest.raises(ConfigError, match="global_q99 is not above global_q01 for left_arm_joint4"):
        load_statistics(bundle / "dataset_stats.json", "state", names, "q01_q99")


def test_stepwise_statistics_are_looked_at_where_they_are_used(bundle):
    put(bundle, "action", "stepwise_std", 31, [0.0] * 14)
    names = ROBOT.joint_names
    assert load_statistics(bundle / "dataset_stats.json", "action", names, "z-score")
    with pytest.raises(ConfigError, match="stepwise_std is not above 0 for left_arm_joint1, .*right_gripper"):
        load_statistics(bundle / "dataset_stats.json", "action", names, "z-score", stepwise=True)


def test_a_training_where_a_joint_never_moves_gives_statistics_that_load(tmp_path):
    random = np.random.default_rng(0)
    state, action = (random.normal(ROBOT.home, 0.1, (40, 14)).astype(np.float32) for _ in range(2))
    state[:, 6], action[:, 6] = 0.0, 0.0
    moving = with_spread(dataset_statistics([(state, action)], 32))
    path = tmp_path / "dataset_stats.json"
    path.write_text(json.dumps(moving))
    for kind in ("state", "action"):
        for mode in ("z-score", "min_max", "q01_q99"):
            entries = load_statistics(path, kind, ROBOT.joint_names, mode, stepwise=kind == "action")
        plain = dataset_statistics([(state, action)], 32)[kind]["default"]
        for name, values in entries.items():
            others = np.delete(values, 6, axis=-1)
            np.testing.assert_array_equal(others, np.delete(plain[name], 6, axis=-1), err_msg=name)


def scaled(bundle, places, factor):
    path = bundle / "dataset_stats.json"
    statistics = json.loads(path.read_text())
    for kind in ("state", "action"):
        for name, values in statistics[kind]["default"].items():
            numbers = np.array(values)
            numbers[..., places] *= factor
            statistics[kind]["default"][name] = numbers.tolist()
    path.write_text(json.dumps(statistics))


ARMS, GRIPPERS = [*range(6), *range(7, 13)], [6, 13]


@pytest.mark.parametrize(
    ("places", "factor", "says"),
    [
        (ARMS, 180 / np.pi, "looks like degrees, a factor of 57.3"),
        (GRIPPERS, 0.01, "it looks like 0 to 1, a factor of 100"),
        (GRIPPERS, 2.55, "it looks like 0 to 255"),
    ],
)
def test_a_policy_that_was_trained_in_other_units_is_refused(bundle, capsys, places, factor, says):
    scaled(bundle, places, factor)
    with pytest.raises(SystemExit) as status:
        main(["check-policy", str(bundle)])
    assert status.value.code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "does not fit the robot: training data: left_" in said
    assert says in said


def test_a_policy_whose_gripper_is_always_closed_fits(bundle):
    scaled(bundle, [6], 0.004)
    check_robot(inspect_policy(bundle), ROBOT, "it")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "dataset_stats.json", "policy.yaml", "vae/config.json", "text_embeddings/"]
)
def test_a_pointer_of_git_lfs_in_a_bundle_is_named(bundle, name):
    path = next(p for p in sorted(bundle.rglob("*")) if str(p.relative_to(bundle)).startswith(name) and p.is_file())
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for load in (Bundle.load, Bundle.read_info):
        with pytest.raises(ConfigError, match=f"{path.name}: is a git-lfs pointer, not the file itself; run git lfs"):
            load(bundle)
    if name == "model.safetensors":
        with pytest.raises(ConfigError, match="is a git-lfs pointer"):
            read_tensors(path)


def test_a_byte_order_mark_before_them_changes_nothing(bundle):
    path = bundle / "dataset_stats.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    Bundle.read_info(bundle)


# --- where the robot stands


def test_the_joints_outside_of_the_band_are_named_with_how_far(random_bundle):
    info = Bundle.read_info(random_bundle)
    lower, upper = limit_arrays(ROBOT.commanded)[:2]
    np.testing.assert_allclose(info.state_band, np.stack([lower, upper], axis=1))
    assert familiarity(info, HOME) == Familiarity(14, 14)
    assert str(familiarity(info, HOME)) == "14 of 14 joints where the policy's training data has them"
    found = familiarity(info, HOME | {"left_arm_joint2": 0.05, "right_gripper": 104.0})
    assert (found.inside, found.known) == (12, 14)
    assert list(found.outside) == [
        "left_arm_joint2 at 0.05 rad, 0.05 below 0.1 to 3",
        "right_gripper at 104 mm, 4 above 0 to 100",
    ]
    assert familiarity(info, {"left_gripper": 50.0}).known == 1, "only what is measured"


def test_a_policy_that_does_not_say_has_no_band(random_bundle):
    info = Bundle.read_config(random_bundle).info()
    assert familiarity(info, HOME) == Familiarity()


def status(second, **fields):
    stamp = SimpleNamespace(sec=second, nanosec=0)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), **fields)


def test_the_report_shows_where_the_joints_were_when_the_arms_were_armed():
    counts = {"drops": [], "interventions": [], "control_rate": 100.0, "control_period_p99": 10.0}
    bridge = [
        status(second, state=state, reason=0, control_period_max=10.0, **counts)
        for second, state in ((1, State.DISARMED), (5, State.HOLDING), (6, State.TRACKING))
    ]
    said = {
        "policy_id": "p",
        "random_weights": False,
        "instruction": "fold",
        "chunks": 0,
        "streams": [],
        "drops": [],
        "reason": 0,
    }
    policy = [
        status(second, state_known=14, state_inside=inside, state_outside=outside, **said)
        for second, inside, outside in (
            (2, 12, ["a", "b"]),
            (4, 13, ["left_gripper at 0.6 mm, 1.2 below"]),
            (6, 14, []),
        )
    ]
    summary = summarise(Session(10.0, policy_status=policy, bridge_status=bridge), ROBOT)
    assert summary["start_state"] == {"inside": 13, "known": 14, "outside": ["left_gripper at 0.6 mm, 1.2 below"]}
    expected = "13 of 14 joints where the policy's training data has them: left_gripper at 0.6 mm, 1.2 below"
    assert ("joints at arming", expected) in rows(summary)
    former = [status(2, **said)]
    assert summarise(Session(10.0, policy_status=former, bridge_status=bridge), ROBOT)["start_state"] == {}
