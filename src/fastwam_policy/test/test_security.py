"""The keystore of scripts/security.py: who may do what, and signatures that hold."""

import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from galaxea_r1lite_bridge.robot.config import RobotConfig

ROBOT = RobotConfig.load()
OWN = ROBOT.interfaces
PROGRAM = Path(__file__).parents[3] / "scripts" / "security.py"
ENCLAVES = {"robot", "bridge", "policy", "operator"}


@pytest.fixture(scope="module")
def keystore(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys") / "keystore"
    subprocess.run([sys.executable, PROGRAM, folder, "--domain", "7"], check=True, capture_output=True)
    return folder


def who_may(keystore, kind, topic):
    def allowed(name):
        rule = Xml.parse(keystore / "enclaves" / name / "permissions.xml").find("permissions/grant/allow_rule")
        assert [each.text for each in rule.findall("domains/id")] == ["7"]
        return any(fnmatchcase(topic, each.text) for each in rule.findall(f"{kind}/topics/topic"))

    return {name for name in ENCLAVES if allowed(name)}


@pytest.mark.parametrize(
    ("topic", "publishers"),
    [(f"rt/{OWN.action_chunk}", {"policy"}), (f"rt/{OWN.estop}", {"operator"}), (f"rt/{OWN.heartbeat}", {"operator"})]
    + [(f"rt/{group.target}", {"bridge"}) for group in ROBOT.actuated.values()]
    + [(f"rt/{group.feedback}", {"robot"}) for group in ROBOT.actuated.values()]
    + [(f"rt/{camera.topic}", {"robot"}) for camera in ROBOT.cameras.values()]
    + [(f"rq/{OWN.arm}Request", {"operator"}), (f"rq/{OWN.stop}Request", {"operator", "policy"})]
    + [(f"rq/{OWN.run_task}/_action/send_goalRequest", {"operator"}), (f"rr/{OWN.arm}Reply", {"bridge"})],
)
def test_each_part_publishes_its_own(keystore, topic, publishers):
    assert who_may(keystore, "publish", topic) == publishers


@pytest.mark.parametrize(
    ("topic", "subscriber"),
    [(f"rt/{OWN.action_chunk}", "bridge"), (f"rt/{OWN.policy_status}", "bridge"), (f"rt/{OWN.bridge_status}", "policy")]
    + [(f"rt/{group.target}", "robot") for group in ROBOT.actuated.values()]
    + [(f"rt/{group.feedback}", "bridge") for group in ROBOT.actuated.values()]
    + [(f"rq/{OWN.arm}Request", "bridge"), (f"rr/{OWN.stop}Reply", "policy"), (f"rt/{OWN.command}", "operator")],
)
def test_each_part_hears_what_it_needs(keystore, topic, subscriber):
    assert subscriber in who_may(keystore, "subscribe", topic)


def test_signatures_hold_and_keys_are_private(keystore):
    authority = keystore / "public" / "ca.cert.pem"
    for name in ENCLAVES:
        own = keystore / "enclaves" / name
        subprocess.run(["openssl", "verify", "-CAfile", authority, own / "cert.pem"], check=True, capture_output=True)
        subject = subprocess.check_output(["openssl", "x509", "-in", own / "cert.pem", "-noout", "-subject"], text=True)
        assert subject.split("=")[-1].strip() == f"/{name}"
        for signed in ("governance", "permissions"):
            verify = ["openssl", "smime", "-verify", "-text", "-in", own / f"{signed}.p7s", "-CAfile", authority]
            assert Xml.fromstring(subprocess.check_output(verify, stderr=subprocess.DEVNULL)).tag == "dds"
        assert os.stat(own / "key.pem").st_mode & 0o077 == 0
    again = subprocess.run([sys.executable, PROGRAM, keystore], capture_output=True, text=True, check=False)
    assert "is there already" in again.stderr
