"""Write the generated half of the reference into a folder: what it says is read from what runs, so it cannot be wrong.

scripts/docs.sh calls this before Sphinx: `python scripts/reference.py docs/reference/generated`.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

import fastwam_policy
from fastwam_policy.cli.main import GROUPS, commands, parsers
from fastwam_policy.common.processes import ARGUMENTS
from fastwam_policy.policies.fastwam.bundle import BundleConfig
from fastwam_policy.policies.remote import mapping
from fastwam_policy.training.config import TrainingConfig
from galaxea_r1lite_bridge.robot import config as robot_config

ROOT = Path(__file__).resolve().parents[1]
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$")
_ENTRY = re.compile(r"^ {4}(\w[\w. ]*): (.*)$")


def prose(text: str) -> str:
    """A docstring's words as Markdown: roles become code, and nothing becomes HTML."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    return re.sub(r"<(?=[a-zA-Z/])", "&lt;", text)


def cell(value: object) -> str:
    """One cell of a table."""
    return prose(" ".join(str(value).split())).replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines) + "\n"


def code(value: object) -> str:
    """A value as code; an empty one as nothing."""
    return f"`{value}`" if str(value) else ""


def docstring(thing: object) -> str:
    """A docstring as Markdown, its sections (Args, Returns, …) as lists."""
    lines = []
    for line in (inspect.getdoc(thing) or "").splitlines():
        if section := _SECTION.match(line):
            lines += ["", f"**{section[1]}**", ""]
        elif entry := _ENTRY.match(line):
            lines.append(f"- `{entry[1]}`: {prose(entry[2])}")
        else:
            lines.append(prose(line.strip()))
    return "\n".join(lines) + "\n"


def parameters() -> str:
    """Every node's parameters, from config/NODE.yaml."""
    text = "# Parameters\n\nRead from `config/*_node.yaml`. The modes change some: `config/{real,sim,replay}.yaml`.\n"
    for path in sorted((ROOT / "config").glob("*_node.yaml")):
        text += f"\n## {path.stem}\n\n"
        rows = []
        for name, about in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            allowed = about.get("range") or about.get("choices") or []
            values = (
                " to ".join(f"{value:g}" for value in allowed) if "range" in about else ", ".join(map(str, allowed))
            )
            default = str(about["default"]) + (f" {about['unit']}" if "unit" in about else "")
            rows.append([code(name), default, values, about.get("about", "")])
        text += table(["parameter", "default", "values", "meaning"], rows)
    rows = [[code(name), code(default), about] for name, (default, about) in ARGUMENTS.items()]
    text += "\n## Arguments of the launch file\n\n" + table(["argument", "default", "meaning"], rows)
    return text


def robot() -> str:
    """Topics, joints, limits and cameras of the robot, from config/r1lite.yaml."""
    loaded = robot_config.RobotConfig.load()
    text = "# The robot\n\nRead from `config/r1lite.yaml`. Units are rad, mm and s.\n\n## Joint groups\n\n"
    rows = [
        [name, ", ".join(group.joints), group.unit, code(group.feedback), code(group.target or "")]
        for name, group in loaded.groups.items()
    ]
    text += table(["group", "joints", "unit", "feedback", "target"], rows)
    text += "\n## Limits\n\n"
    rows = [
        [joint, f"{lower:g} to {upper:g}", f"{group.limits.velocity[index]:g}", f"{group.limits.acceleration[index]:g}"]
        for group in loaded.groups.values()
        for index, (joint, (lower, upper)) in enumerate(zip(group.joints, group.limits.position, strict=True))
    ]
    text += table(["joint", "position", "velocity", "acceleration"], rows)
    rows = [[name, code(camera.topic), code(camera.type)] for name, camera in loaded.cameras.items()]
    return text + "\n## Cameras\n\n" + table(["camera", "topic", "type"], rows)


def messages() -> str:
    """The messages, services and actions, as they are defined."""
    text = "# Messages\n\nOf the package `fastwam_msgs`, as they are defined. Comments give units.\n"
    for kind in ("msg", "srv", "action"):
        for path in sorted((ROOT / "src" / "fastwam_msgs" / kind).glob(f"*.{kind}")):
            text += f"\n## {path.stem}\n\n```text\n{path.read_text(encoding='utf-8').rstrip()}\n```\n"
    return text


def command_line() -> str:
    """Every command's options, from the parsers."""
    known, (_, each) = commands(), parsers()
    text = "# Commands\n\n`./fastwam COMMAND`. Exit status: 0 done, 1 failed, 2 wrong use, 130 interrupted.\n"
    for group in GROUPS:
        for name, command in known.items():
            if group != command.GROUP:
                continue
            text += f"\n## {name}\n\n{prose(command.HELP[:1].upper() + command.HELP[1:])}.\n\n"
            rows = []
            for action in each[name]._actions:  # noqa: SLF001  argparse has no public way to list them
                if isinstance(action, argparse._HelpAction):  # noqa: SLF001
                    continue
                names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
                kept = action.default not in (None, False, argparse.SUPPRESS) and action.option_strings
                help_text = (action.help or "") % (vars(action) | {"prog": name})
                choices = ", ".join(map(str, action.choices)) if action.choices else action.metavar or ""
                rows.append([code(names), choices, code(action.default) if kept else "", help_text])
            text += table(["argument", "values", "default", "meaning"], rows)
            text += f"\n```bash\n{command.EXAMPLE}\n```\n"
    return text


def python() -> str:
    """The public names of fastwam_policy, from their docstrings."""
    text = "# Python\n\nWhat `from fastwam_policy import …` gives. Units are in the names or beside them.\n"
    for name in fastwam_policy.__all__:
        thing = getattr(fastwam_policy, name)
        if inspect.isfunction(thing):
            text += f"\n## {name}\n\n```python\n{name}{inspect.signature(thing)}\n```\n\n{docstring(thing)}"
            continue
        attributes = getattr(thing, "__dataclass_fields__", {})
        text += f"\n## {name}\n\n"
        if attributes:
            text += "```python\n" + "\n".join(f"{key}: {field.type}" for key, field in attributes.items()) + "\n```\n\n"
        text += docstring(thing)
        for key, value in vars(thing).items():
            if inspect.isfunction(value) and not key.startswith("_"):
                text += f"\n### {name}.{key}\n\n```python\n{key}{inspect.signature(value)}\n```\n\n{docstring(value)}"
    return text


def fields(model: type) -> list[list[str]]:
    """Key, type, default and meaning of each field of a pydantic model, from its source: the text below the field."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(tree, ast.ClassDef)
    rows: list[list[str]] = []
    for node in tree.body:
        if isinstance(node, ast.AnnAssign):
            default = "" if node.value is None else ast.unparse(node.value)
            rows.append([code(ast.unparse(node.target)), code(ast.unparse(node.annotation)), code(default), ""])
        elif rows and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and not rows[-1][3]:
            rows[-1][3] = inspect.cleandoc(str(node.value.value))
    return rows


def files() -> str:
    """The files that people write, from the models that check them."""
    text = "# Files\n\nThe keys of each file that people write. An unknown or missing key is an error that names it.\n"
    robots = [thing for thing in vars(robot_config).values() if _is_model(thing, robot_config.__name__)]
    mappings = [thing for thing in vars(mapping).values() if _is_model(thing, mapping.__name__)]
    for heading, models in {
        "Robot: config/r1lite.yaml": [robots[-1], *robots[:-1]],
        "Bundle: policy.yaml": [BundleConfig],
        "Training: config/training/towel.yaml": [TrainingConfig],
        "Mapping of a foreign policy: config/policies/pi05_aloha.yaml": [mappings[-1], *mappings[:-1]],
    }.items():
        text += f"\n## {heading}\n"
        for model in models:
            text += f"\n### {model.__name__}\n\n{docstring(model)}\n"
            text += table(["key", "type", "default", "meaning"], fields(model))
    return text


def _is_model(thing: object, module: str) -> bool:
    return inspect.isclass(thing) and hasattr(thing, "model_fields") and thing.__module__ == module


PAGES = {
    "parameters": parameters,
    "robot": robot,
    "messages": messages,
    "commands": command_line,
    "python": python,
    "files": files,
}


def main(folder: Path) -> None:
    """Write all pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / f"{name}.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
