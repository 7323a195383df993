"""Each of the wires drives an episode to its end; what is on the other end is in policy_peers."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from fastwam_policy.cli.main import main
from fastwam_policy.common.arguments import policy_source
from fastwam_policy.policies.base import Observation, StatefulPolicy
from fastwam_policy.policies.loading import load_policy
from galaxea_r1lite_bridge.robot.config import RobotConfig
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

from . import policy_peers as peers

pytestmark = pytest.mark.integration
ROBOT = RobotConfig.load()
FOLDER = Path(__file__).resolve().parents[3] / "config" / "policies"
CLOSED_TO_OPEN = np.array([1.0] * 6 + [100.0] + [1.0] * 6 + [100.0])
GOAL = ROBOT.home / CLOSED_TO_OPEN + np.array([0.1, 0.1, -0.1, 0, 0, 0.1, 0, -0.1, 0.05, -0.1, 0, 0, 0.1, 0])
GOAL[[6, 13]] = 0.4, 0.7
WIRES = {
    "openpi": ("pi05_aloha", peers.openpi),
    "vllm-omni": ("pi05_aloha", peers.vllm_omni),
    "lingbot-va": ("lingbot_va", peers.lingbot_va),
    "galaxea": ("galaxea_vla", peers.galaxea),
    "xpolicylab": ("xpolicylab", peers.xpolicylab),
    "gr00t": ("gr00t_n1", peers.gr00t),
    "gr00t N1.6": ("gr00t_n16", partial(peers.gr00t, nested=True)),
    "openvla-oft": ("openvla_oft", peers.openvla_oft),
}


def mapping_file(folder, shipped, protocol, **changed):
    """A shipped mapping with the peers' horizon."""
    about = yaml.safe_load((FOLDER / f"{shipped}.yaml").read_text())
    about |= {"protocol": protocol.split()[0], **changed}
    about["action"] |= {"horizon": peers.HORIZON, "fps": 15}
    if protocol == "lingbot-va":
        about["key_frame_steps"] = 1
    file = folder / f"{shipped}.yaml"
    file.write_text(yaml.safe_dump(about))
    return file


@pytest.mark.parametrize("protocol", WIRES)
def test_a_wire_drives_an_episode_on_the_simulated_robot(protocol, tmp_path):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    from fastwam_policy.simulation.episode import EpisodeSettings, drive
    from galaxea_r1lite_sim.camera import Cameras
    from galaxea_r1lite_sim.randomization import draw
    from galaxea_r1lite_sim.simulation import Simulation

    shipped, peer = WIRES[protocol]
    heard = []
    with peer(GOAL, heard) as address:
        policy = load_policy(f"{address}#{mapping_file(tmp_path, shipped, protocol)}")
        policy.prepare(policy.info.default_instruction)
        simulation = Simulation(ROBOT, draw(0, "none"))
        settings = EpisodeSettings("none", latency=0.1, replan=0.5, height=90)
        drive(policy, ROBOT, simulation, Cameras(simulation, 90, 160), settings, 1.6)
        assert len(heard) >= 3
        assert isinstance(policy, StatefulPolicy) == (protocol == "lingbot-va")
        policy.close()
    np.testing.assert_allclose(simulation.target / CLOSED_TO_OPEN, GOAL, atol=0.01)
    np.testing.assert_allclose(simulation.joints / CLOSED_TO_OPEN, GOAL, atol=0.04)


@pytest.mark.slow
@pytest.mark.nodes
def test_two_policies_behind_different_wires_are_compared_in_blinded_order(tmp_path, capsys):
    pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    heard = [], []
    with peers.openpi(GOAL, heard[0]) as first, peers.gr00t(GOAL, heard[1]) as second:
        given = {first: ("pi05_aloha", "openpi"), second: ("gr00t_n1", "gr00t")}
        options = [
            word
            for address, (shipped, protocol) in given.items()
            for word in ("--policy", address, "--mapping", str(mapping_file(tmp_path, shipped, protocol)))
        ]
        with pytest.raises(SystemExit) as ended:
            main(["trials", str(tmp_path / "out"), "--n", "1", "--time-limit", "2", *options])
    assert ended.value.code in (0, None)
    assert "p = 1 (exact McNemar test" in " ".join(capsys.readouterr().out.split())
    assert all(heard)


def test_openvla_drives_a_single_arm_by_steps_of_its_hand(tmp_path):
    """On no robot of ours: seven numbers of an end effector, which the policy sees and never is told."""
    names = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
    about = {
        "protocol": "openvla",
        "images": {"image": {"camera": "head"}},
        "action": {"kind": "delta", "fps": 5, "horizon": 1, "parts": [{"channels": names}]},
        "prompt": {"key": "instruction", "template": "In: What action should the robot take to {task}?"},
        "constants": {"unnorm_key": "bridge_orig"},
    }
    file = tmp_path / "openvla.yaml"
    file.write_text(yaml.safe_dump(about))
    goal, heard = np.array([30.0, 5, 77, 12, 0, 55, 100]), []
    here = np.zeros(7)
    with peers.openvla(goal, heard) as address:
        policy = load_policy(address, {"mapping": str(file)})
        for step in range(20):
            picture = np.zeros((9, 16, 3), np.uint8)
            picture[0, :7, 0] = here
            joints = dict(zip(names, here.tolist(), strict=True))
            chunk = policy.infer(Observation(step, {"head": picture}, joints, "fold"))
            assert chunk.names == names
            here = chunk.actions[0]
            if (here == goal).all():
                break
    assert (here == goal).all()
    assert heard[0] == "In: What action should the robot take to fold?"


@pytest.mark.parametrize(
    ("protocol", "changed", "message"),
    [
        ("openpi", {"constants": {"x": 1}}, "the server says: .*AssertionError"),
        ("vllm-omni", {"constants": {"session_id": ""}}, "the server says: session_id is missing"),
        ("galaxea", {"constants": {}}, "the server says: .*KeyError: 'embodiment_type'"),
        ("xpolicylab", {"constants": {"additional_info.frequency": 15}}, "the server says: .*KeyError: 'data_format"),
        ("gr00t", {"prompt": None}, "the server says: .*KeyError"),
        ("openvla-oft", {"prompt": None}, "the server says: error"),
    ],
)
def test_a_servers_own_words_reach_the_operator(protocol, changed, message, tmp_path):
    shipped, peer = WIRES[protocol]
    images = {camera: np.ones((90, 160, 3), np.uint8) for camera in ROBOT.cameras}
    joints = dict(zip(ROBOT.joint_names, ROBOT.home.tolist(), strict=True))
    with peer(GOAL, []) as address:
        policy = load_policy(f"{address}#{mapping_file(tmp_path, shipped, protocol, **changed)}")
        with pytest.raises(ConfigError, match=message):
            policy.infer(Observation(1, images, joints, "fold the towel"))
        policy.close()


@pytest.mark.parametrize(("protocol", "key"), [("vllm-omni", "action_horizon"), ("galaxea", "action_steps")])
def test_a_server_of_another_horizon_is_refused_at_once(protocol, key, tmp_path):
    shipped, peer = WIRES[protocol]
    file = mapping_file(tmp_path, shipped, protocol)
    file.write_text(file.read_text().replace("horizon: 16", "horizon: 20"))
    with peer(GOAL, []) as address, pytest.raises(ConfigError, match=f"the server says {key} 16, the mapping 20"):
        load_policy(f"{address}#{file}")


def test_addresses_and_mappings_that_do_not_suit_each_other(tmp_path):
    for address, shipped, message in (
        ("ws://127.0.0.1:9", "gr00t_n1", "protocol gr00t goes over zmq://"),
        ("zmq://127.0.0.1:9", "pi05_aloha", "protocol openpi goes over ws://"),
        ("ws://127.0.0.1:9", "openvla_oft", "protocol openvla-oft goes over http://"),
        ("http://127.0.0.1:9", "openvla_oft", "no policy answers: no connection: .*refused"),
        ("zmq://127.0.0.1:9", "gr00t_n1", "no policy answers: no connection: .*refused"),
        ("ws://127.0.0.1:9", "pi05_aloha", "no policy answers: no connection: .*refused"),
        ("ws://127.0.0.1:9", "nothing", "nothing.yaml: no such file"),
        ("ws://127.0.0.1:99999", "pi05_aloha", "Port out of range 0-65535; an address is ws://HOST:PORT"),
        ("zmq://[::1", "gr00t_n1", "Invalid IPv6 URL; an address is"),
        ("http://:80", "openvla_oft", "names no host; an address is"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_policy(f"{address}#{FOLDER / shipped}.yaml")
    with pytest.raises(ConfigError, match="name a mapping file, such as zmq://127.0.0.1:9#config"):
        load_policy("zmq://127.0.0.1:9")
    with pytest.raises(ConfigError, match="realtime prefix: how a plan is continued is the server's choice"):
        load_policy("ws://127.0.0.1:9", {"realtime": "prefix"})


def test_a_foreign_server_needs_a_mapping():
    with peers.openpi(GOAL, []) as address, pytest.raises(ConfigError, match="not `fastwam serve`: .*has reset_pose"):
        load_policy(address)


@pytest.mark.parametrize("shown", ["sim", "recording"])
def test_check_policy_shows_what_answers_and_draws_its_chunk(shown, tmp_path, sample_bag, capsys):
    if shown == "sim":
        pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    mapping, plot = mapping_file(tmp_path, "pi05_aloha", "openpi"), tmp_path / "chunk.png"
    source = str(sample_bag) if shown == "recording" else shown
    with peers.openpi(GOAL, []) as address, pytest.raises(SystemExit) as ended:
        main(["check-policy", address, "--mapping", str(mapping), "--show", source, "--plot", str(plot)])
    assert ended.value.code in (0, None)
    out = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert f"fits the {ROBOT.robot_type}" in out
    assert "the server says reset_pose: [" in out
    assert "from the pose it was shown" in out
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_check_policy_refuses_what_does_not_fit(tmp_path, capsys):
    mapping = mapping_file(tmp_path, "pi05_aloha", "openpi")
    mapping.write_text(mapping.read_text().replace("horizon: 16", "horizon: 20"))
    with peers.openpi(GOAL, []) as address, pytest.raises(SystemExit) as ended:
        main(["check-policy", address, "--mapping", str(mapping)])
    assert ended.value.code == 1
    assert "expected actions [20, 14], the reply has [16, 14]" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit) as ended:
        main(["check-policy", "json:loads", "--mapping", str(mapping)])
    assert ended.value.code == 2
    assert "is for a policy with an address, got json:loads" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check-policy", "eval-sim", "trials", "demo"])
def test_a_command_refuses_a_server_that_is_not_there_at_once(command, tmp_path, capsys):
    if command in ("eval-sim", "trials"):
        pytest.importorskip("mujoco", reason="MuJoCo 4 has no wheel for Python 3.10")
    address = "ws://127.0.0.1:9"
    given = {"check-policy": [address], "eval-sim": [address], "demo": ["--policy", address]}
    with pytest.raises(SystemExit) as ended:
        main([command, *given.get(command, [str(tmp_path / "out"), "--policy", address])])
    assert ended.value.code == (1 if command == "check-policy" else 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{address}: no policy answers: no connection: " in line


def test_a_mapping_is_a_part_of_the_address(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastwam_policy.common.processes.has_simulator", lambda: True)
    assert policy_source("ws://there:1", Path("mine.yaml")) == f"ws://there:1#{tmp_path}/mine.yaml"
    assert policy_source("zmq://there#mine.yaml") == f"zmq://there#{tmp_path}/mine.yaml"
    assert policy_source("ws://there:1") == "ws://there:1"
    mapping = str(mapping_file(tmp_path, "pi05_aloha", "openpi"))
    with pytest.raises(SystemExit) as ended:
        main(["trials", "out", "--policy", "ws://there:1", "--mapping", mapping, "--mapping", mapping])
    assert ended.value.code == 2
    assert "--mapping is given once for each --policy with an address, 1; got 2" in capsys.readouterr().err


def test_an_api_key_is_sent(monkeypatch, tmp_path):
    def check(connection, request):
        if request.headers.get("Authorization") != "Api-Key secret":
            return connection.respond(401, "an API key is needed\n")
        return None

    def talk(connection):
        connection.send(peers.openpi_pack({}))
        connection.recv()

    with peers.websocket_peer(talk, process_request=check) as address:
        source = f"{address}#{mapping_file(tmp_path, 'pi05_aloha', 'openpi')}"
        with pytest.raises(ConfigError, match="no policy answers: no connection: .*401"):
            load_policy(source)
        monkeypatch.setenv("FASTWAM_API_KEY", "secret")
        policy = load_policy(source)
        assert "secret" not in str(policy.info)
        policy.close()


def test_a_library_is_imported_for_its_own_protocol_only():
    script = (
        "import sys, fastwam_policy.policies.remote.client; from fastwam_policy import load_policy; "
        "loaded = {'websockets', 'zmq', 'httpx'} & set(sys.modules); assert not loaded, loaded; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
