"""The section `body` of a robot file, from its URDF."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from galaxea_r1lite_bridge.robot.config import share_directory
from galaxea_r1lite_bridge.robot.geometry import Capsule, fit, link_solids
from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_DIGITS = 4  # of a metre: radii are rounded up by as much as the ends are rounded
_SECTION = re.compile(r"^body:.*\n(?:[ \t].*\n)*\n*", re.MULTILINE)
_HEAD = "body:                                  # what each link occupies, m in its frame: from `./fastwam fit-body`\n"


@dataclass(frozen=True)
class FittedLink:
    """What a link is covered by.

    Attributes:
        link: its name.
        capsules: their number.
        error: m, furthest that their surface is from the link's.
        outside: m that a point of the link's surface is outside of them.
    """

    link: str
    capsules: int
    error: float
    outside: float


def fit_body(robot_file: Path) -> tuple[str, list[FittedLink]]:
    """The robot file's text with its section `body` fitted anew, and how well each link is.

    Raises:
        ConfigError: the file names no URDF, or that one has links with meshes.
    """
    try:
        text = robot_file.read_text(encoding="utf-8")
        urdf = share_directory() / "urdf" / str(yaml.safe_load(text)["urdf"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{robot_file}: cannot be read as a robot file with a key `urdf`: {error}") from None
    if not urdf.is_file():
        raise ConfigError(f"{robot_file.name}: urdf: {urdf} does not exist")
    lines, fitted = [_HEAD], []
    for link, solids in link_solids(urdf).items():
        found = fit(solids)
        fitted.append(FittedLink(link, len(found.capsules), found.error, found.outside))
        lines.append(f"  {link}:\n")
        lines += [f"    - {_text(capsule)}\n" for capsule in found.capsules]
    section = "".join(lines)
    if _SECTION.search(text):
        return _SECTION.sub(lambda _: section + "\n", text, count=1), fitted
    return f"{text.rstrip()}\n\n{section}", fitted


def _text(capsule: Capsule) -> str:
    ends = [", ".join(f"{value + 0.0:g}" for value in end.round(_DIGITS)) for end in (capsule.begin, capsule.end)]
    radius = math.ceil(capsule.radius * 10**_DIGITS + 1) / 10**_DIGITS
    return f"{{begin: [{ends[0]}], end: [{ends[1]}], radius: {radius:g}}}"
