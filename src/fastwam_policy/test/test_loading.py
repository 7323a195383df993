"""Where policies come from, what is refused, and what the public interface costs to import."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import fastwam_policy
from fastwam_policy.policies.base import CameraInput, Channel, PolicyInfo
from fastwam_policy.policies.loading import inspect_policy, load_policy, policy_identity, policy_key
from fastwam_policy.policies.robot_check import check_instruction, check_robot
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

ROBOT = RobotConfig.load()
JOINTS = tuple(Channel(name, unit) for name, unit in zip(ROBOT.joint_names, ROBOT.units, strict=True))
INFO = PolicyInfo("any", (CameraInput("head"),), JOINTS, JOINTS, 15.0, 32)
HOLD = Path(__file__).resolve().parents[3] / "examples" / "custom_policy" / "policy.py"


def test_a_bundle_says_what_it_is_before_and_after_it_is_loaded(random_bundle):
    policy = load_policy(random_bundle, {"device": "cpu", "denoise_steps": 2})
    assert policy.info == inspect_policy(random_bundle)
    info = policy.info
    assert (info.name, info.fps, info.horizon, info.action_kind) == ("random_tiny", 15.0, 32, "absolute")
    assert [camera.name for camera in info.cameras] == list(ROBOT.cameras)
    assert info.action == JOINTS
    assert info.instructions == ("fold the towel",)
    assert info.abilities == {"realtime_chunking", "imagination"}
    assert info.identity.origin == "random"
    assert len(info.identity.sha256) == 64
    check_robot(info, ROBOT, "bundle")
    policy.close()


def test_results_belong_to_all_that_actions_depend_on(random_bundle, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(random_bundle, own)
    before, sha = policy_key(inspect_policy(own), own), inspect_policy(own).identity.sha256
    assert before == policy_key(inspect_policy(random_bundle), random_bundle), "wherever it lies"
    assert before.startswith(sha)
    policy, statistics = own / "policy.yaml", own / "dataset_stats.json"
    seen = {before}
    policy.write_text("# a remark\n" + policy.read_text().replace("name: random_tiny", "name: other"))
    assert policy_key(inspect_policy(own), own) == before, "its name changes nothing"
    text = policy.read_text()
    policy.write_text(re.sub("(?m)^denoise_steps: .*$", "denoise_steps: 7", text))
    assert policy.read_text() != text
    seen.add(policy_key(inspect_policy(own), own))
    statistics.write_text(statistics.read_text() + " ")
    seen.add(policy_key(inspect_policy(own), own))
    (own / "vae" / "config.json").write_text((own / "vae" / "config.json").read_text() + " ")
    seen.add(policy_key(inspect_policy(own), own))
    assert len(seen) == 4
    assert inspect_policy(own).identity.sha256 == sha, "of the weights alone"


def test_a_class_of_a_file_or_a_module(monkeypatch):
    before = list(sys.path)
    policy = load_policy(f"{HOLD}:Hold", {"horizon": 8})
    assert (policy.info.name, policy.info.horizon) == ("hold", 8)
    assert sys.path == before
    assert len(policy_identity(policy, f"{HOLD}:Hold")["sha256"]) == 64, "of the file"
    monkeypatch.syspath_prepend(HOLD.parent)
    assert load_policy("policy:Hold").info.name == "hold"
    assert inspect_policy(f"{HOLD}:Hold").name == "hold"


def test_an_existing_folder_wins_over_a_colon(random_bundle, tmp_path):
    odd = tmp_path / "mine.py:Hold"
    odd.symlink_to(random_bundle)
    assert load_policy(odd).info.name == "random_tiny"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nothing/here", {}, "nothing/here: no such folder; a policy is a folder with a bundle, an address"),
        ("teapot://host:1", {}, "no policy takes teapot://; known are http, https, tcp, ws, wss, zmq"),
        ("nothing.py:Hold", {}, "nothing.py: no such file"),
        (str(HOLD), {}, "policy.py: name the policy's class as well, such as .*policy.py:Hold"),
        ("no_such_module:Hold", {}, "No module named 'no_such_module'"),
        (f"{HOLD}:Fold", {}, "there is no class Fold in .*policy.py; it has Hold"),
        (f"{HOLD}:Hold", {"steps": 3}, "options steps: got an unexpected keyword argument 'steps'"),
        ("json:JSONDecoder", {}, "a policy needs info, prepare, infer, reset, close as well"),
        ("ws://127.0.0.1:9", {}, "no policy answers"),
    ],
)
def test_what_is_no_policy_is_named(source, options, message):
    with pytest.raises(ConfigError, match=message):
        load_policy(source, options)


def test_a_bundle_has_only_its_own_options(random_bundle):
    with pytest.raises(ConfigError, match="a bundle has no option speed, but device, engine"):
        load_policy(random_bundle, {"speed": 2})


def test_a_file_that_does_not_import_is_named(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_library\n")
    with pytest.raises(ConfigError, match="broken.py: cannot be imported: No module named 'no_such_library'"):
        load_policy(f"{tmp_path}/broken.py:Policy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action_kind": "delta"}, "action: delta actions; the bridge takes absolute targets only"),
        ({"action": JOINTS[1:]}, "action: the robot's left_arm_joint1 is missing"),
        ({"action": (*JOINTS, Channel("tail", "rad"))}, "action: tail is not a commanded joint of the robot"),
        ({"action": (Channel("left_arm_joint1", "opaque"), *JOINTS[1:])}, "left_arm_joint1 is in opaque, .* uses rad"),
        ({"action": (*JOINTS, JOINTS[0])}, "action: left_arm_joint1 comes 2 times"),
        ({"state": (Channel("left_gripper", "m"),)}, "state: left_gripper is in m, the robot uses mm"),
        ({"cameras": (CameraInput("chest"),)}, "the robot has no camera chest; it has head"),
        ({"robot_type": "Other"}, "it was made for the robot Other"),
    ],
)
def test_what_does_not_fit_the_robot_is_named(change, message):
    check_robot(INFO, ROBOT, "policy")
    with pytest.raises(ConfigError, match=message):
        check_robot(replace(INFO, **change), ROBOT, "policy")


def test_what_need_not_fit():
    optional = (CameraInput("head"), CameraInput("chest", required=False))
    check_robot(replace(INFO, state=JOINTS[:3], cameras=optional), ROBOT, "policy")
    check_instruction(INFO, "anything", "policy")
    with pytest.raises(ConfigError, match="does not know the instruction 'dance', but: fold; wave"):
        check_instruction(replace(INFO, instructions=("fold", "wave")), "dance", "policy")
    check_instruction(replace(INFO, instructions=("fold it",)), " fold \n it", "policy")


def test_importing_the_package_and_its_interface_does_not_import_torch():
    script = (
        "import sys, fastwam_policy; assert 'numpy' not in sys.modules; "
        "from fastwam_policy import Policy, PolicyInfo, load_policy; assert 'torch' not in sys.modules, 'torch'; "
        "assert set(fastwam_policy.__all__) <= set(dir(fastwam_policy))"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError, match="no attribute 'load_polcy'"):
        _ = fastwam_policy.load_polcy
    assert all(hasattr(fastwam_policy, name) for name in fastwam_policy.__all__)
