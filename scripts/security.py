"""Keys and permissions for a ROS domain in which each machine may do only its own part (SROS 2, DDS Security 1.1).

    python scripts/security.py keystore --domain 1

Makes a keystore as SROS 2 has it, with an enclave for the robot's own nodes, the bridge, the policy and the operator.
Who has which is in `parts`; topics and services are those of config/r1lite.yaml.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from xml.etree import ElementTree as Xml

from galaxea_r1lite_bridge.robot.config import RobotConfig

DAYS = 3650  # that keys and permissions are valid
CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
ALL_NODES = {"rt/rosout", "rt/parameter_events", "ros_discovery_info"}
DIAGNOSTICS = "rt/diagnostics"
PROTECTION = "ENCRYPT"


@dataclass
class Part:
    """What an enclave may publish and subscribe, as DDS names of topics, where * stands for anything."""

    publish: set[str]
    subscribe: set[str]

    def serve(self, *nodes: str) -> Part:
        """And answer the services of these nodes, their actions' included."""
        self.publish |= {f"rr/{node}/*" for node in nodes} | {f"rt/{node}/*" for node in nodes}
        self.subscribe |= {f"rq/{node}/*" for node in nodes}
        return self

    def ask(self, *services: str) -> Part:
        """And call these services."""
        self.publish |= {f"rq/{service}Request" for service in services}
        self.subscribe |= {f"rr/{service}Reply" for service in services}
        return self


def topics(names: Iterable[str]) -> set[str]:
    """DDS names of ROS topics."""
    return {f"rt/{name.lstrip('/')}" for name in names}


def parts(robot: RobotConfig) -> dict[str, Part]:
    """By enclave."""
    own, groups = robot.interfaces, robot.actuated.values()
    feedback = topics(group.feedback for group in robot.groups.values())
    targets = topics([*(group.target for group in groups), robot.base.target])
    takeover = topics(group.takeover for group in groups if group.takeover is not None)
    errors, cameras = topics(robot.driver_errors.topics), topics(camera.topic for camera in robot.cameras.values())
    hands = topics([own.estop, own.heartbeat, own.task_success])
    return {
        "robot": Part(feedback | errors | cameras, targets),
        "bridge": Part(
            targets | topics([own.command, own.bridge_status]) | {DIAGNOSTICS},
            feedback | errors | takeover | hands | topics([own.action_chunk, own.policy_status]),
        ).serve("bridge_node", "bridge_node_brakes", "bridge_node_chunks"),
        "policy": Part(
            topics([own.action_chunk, own.policy_status, own.policy_identity]) | {DIAGNOSTICS},
            feedback | cameras | hands | topics([own.bridge_status]),
        )
        .serve("policy_node")
        .ask(own.stop),
        "operator": Part(hands | takeover | {DIAGNOSTICS}, {"rt/*"})  # the recorder hears everything
        .serve("operator", "recorder_node")
        .ask("bridge_node/*", "policy_node/*"),
    }


def permissions(name: str, part: Part, domain: int) -> str:
    """The XML of what an enclave may do; everything else is denied."""
    root = Xml.Element("dds")
    grant = Xml.SubElement(Xml.SubElement(root, "permissions"), "grant", name=f"/{name}")
    Xml.SubElement(grant, "subject_name").text = f"CN=/{name}"
    validity, now = Xml.SubElement(grant, "validity"), datetime.now(timezone.utc).replace(microsecond=0, tzinfo=None)
    Xml.SubElement(validity, "not_before").text = (now - timedelta(days=1)).isoformat()
    Xml.SubElement(validity, "not_after").text = (now + timedelta(days=DAYS)).isoformat()
    rule = Xml.SubElement(grant, "allow_rule")
    Xml.SubElement(Xml.SubElement(rule, "domains"), "id").text = str(domain)
    for kind, names in (("publish", part.publish), ("subscribe", part.subscribe)):
        listed = Xml.SubElement(Xml.SubElement(rule, kind), "topics")
        for topic in sorted(names | ALL_NODES):
            Xml.SubElement(listed, "topic").text = topic
    Xml.SubElement(grant, "default").text = "DENY"
    return written(root)


def governance(domain: int) -> str:
    """The XML of what everybody keeps to: nobody without a key, everything encrypted."""
    root = Xml.Element("dds")
    rule = Xml.SubElement(Xml.SubElement(root, "domain_access_rules"), "domain_rule")
    Xml.SubElement(Xml.SubElement(rule, "domains"), "id").text = str(domain)
    Xml.SubElement(rule, "allow_unauthenticated_participants").text = "false"
    Xml.SubElement(rule, "enable_join_access_control").text = "true"
    for what in ("discovery", "liveliness", "rtps"):
        Xml.SubElement(rule, f"{what}_protection_kind").text = PROTECTION
    topic = Xml.SubElement(Xml.SubElement(rule, "topic_access_rules"), "topic_rule")
    Xml.SubElement(topic, "topic_expression").text = "*"
    for what in ("discovery_protection", "liveliness_protection", "read_access_control", "write_access_control"):
        Xml.SubElement(topic, f"enable_{what}").text = "true"
    for what in ("metadata", "data"):
        Xml.SubElement(topic, f"{what}_protection_kind").text = PROTECTION
    return written(root)


def written(root: Xml.Element) -> str:
    """The document, indented."""
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def make_keystore(folder: Path, robot: RobotConfig, domain: int) -> None:
    """Write it into a folder that is not there yet; keys can be read by their owner alone."""
    os.umask(0o077)
    public, private, enclaves = (folder / name for name in ("public", "private", "enclaves"))
    for each in (public, private, enclaves):
        each.mkdir(parents=True)
    authority, key = public / "ca.cert.pem", private / "ca.key.pem"
    openssl("req", "-x509", *CURVE, "-days", DAYS, "-subj", "/CN=fastwam", "-keyout", key, "-out", authority)

    def sign(text: str, path: Path) -> None:
        plain = path.with_suffix(".xml")
        plain.write_text(text)
        openssl("smime", "-sign", "-text", "-in", plain, "-out", path, "-signer", authority, "-inkey", key)

    sign(governance(domain), enclaves / "governance.p7s")
    for name, part in parts(robot).items():
        own = enclaves / name
        own.mkdir()
        request = own / "request.pem"
        openssl("req", *CURVE, "-subj", rf"/CN=\/{name}", "-keyout", own / "key.pem", "-out", request)
        openssl(
            "x509", "-req", "-in", request, "-CA", authority, "-CAkey", key, "-CAcreateserial", "-days", DAYS,
            "-out", own / "cert.pem",
        )  # fmt: skip
        request.unlink()
        for copy in ("identity_ca.cert.pem", "permissions_ca.cert.pem"):
            shutil.copy(authority, own / copy)
        shutil.copy(enclaves / "governance.p7s", own)
        sign(permissions(name, part, domain), own / "permissions.p7s")


def openssl(*arguments: object) -> None:
    """Run it; its own words say what is wrong."""
    subprocess.run(["openssl", *map(str, arguments)], check=True, stderr=subprocess.PIPE, text=True)


def main() -> None:
    """Make a keystore."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("keystore", type=Path, help="folder, not there yet")
    parser.add_argument("--domain", type=int, default=0, help="ROS_DOMAIN_ID (default 0)")
    parser.add_argument("--robot", type=Path, help="another robot file than the installed one")
    given = parser.parse_args()
    if given.keystore.exists():
        parser.error(f"{given.keystore} is there already: its keys are in use perhaps. Name another folder")
    try:
        make_keystore(given.keystore, RobotConfig.load(given.robot), given.domain)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(error.cmd[:2])}: {error.stderr.strip()}")
    print(f"{given.keystore}: give each machine enclaves/ of its own parts; private/ stays off the network")


if __name__ == "__main__":
    main()
