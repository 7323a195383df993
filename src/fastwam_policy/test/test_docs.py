"""What the documentation names exists: files, anchors, commands, options, make targets, launch arguments, defaults."""

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from fastwam_policy.cli.main import parsers
from fastwam_policy.common.processes import ARGUMENTS
from fastwam_policy.runtime.reasons import PolicyReason
from galaxea_r1lite_bridge.execution.reasons import Reason
from galaxea_r1lite_bridge.robot.config import RobotConfig

ROOT = Path(__file__).parents[3]
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def markdown_files():
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted({name for name in names if name and (ROOT / name).is_file()})


PAGES = markdown_files()
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}


def anchors(text):
    """Anchors of the headings, as GitHub and Sphinx make them."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(page, text):
    result = []
    for link in LINK.findall(CODE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        known = anchors(target.read_text(encoding="utf-8")) if target.suffix == ".md" and target.exists() else set()
        if not target.exists() or (anchor and anchor not in known):
            result.append(link)
    return result


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors(page):
    assert broken_links(page, TEXTS[page]) == []


def test_a_broken_link_is_found():
    links = ["nodes.md", "missing.md", "nodes.md#missing", "../../config/r1lite.yaml", "#missing", "https://ros.org"]
    text = "".join(f"[x]({link}) " for link in links) + "`[x](code.md)`"
    assert broken_links("docs/reference/index.md", text) == ["missing.md", "nodes.md#missing", "#missing"]


def prose_lines(text):
    """Number and text of the lines that wrap: not code, not tables."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.lstrip().startswith("|"):
            yield number, line


@pytest.mark.parametrize("page", PAGES)
def test_prose_wraps_at_100_characters(page):
    assert [number for number, line in prose_lines(TEXTS[page]) if len(line) > 100] == []


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 90


# What the field says instead.
AVOIDED = {
    "mend": "fix", "utilize": "use", "utilise": "use", "leverage": "use", "seamlessly": "", "simply": "",
    "obviously": "", "easily": "", "state-of-the-art": "", "blazing": "", "cutting-edge": "",
    "in order to": "to", "whilst": "while",
    "prior to": "before", "functionality": "what it does", "and/or": "or", "please": "", "ROS2": "ROS 2",
}  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_words_that_we_do_not_use(page):
    prose = CODE.sub("", TEXTS[page])
    assert [word for word in AVOIDED if re.search(rf"\b{re.escape(word)}\b", prose)] == []


def code_lines(text):
    """Lines of code blocks and code in the text; a comment ends a line, continued lines are one."""
    blocks = re.findall(r"```(?:bash|sh)?\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        yield from re.split(r"&&|\|\|", line.split(" #")[0])


def unknown_commands(text):
    commands, result = parsers()[1], []
    for line in code_lines(text):
        words = line.split()
        if not words or words[0].removeprefix("./") != "fastwam" or len(words) == 1:
            continue
        name = words[1]
        if name in ("--help", "COMMAND") or f'NAME, GROUP = "{name}"' in text:  # or it is the page's own example
            continue
        known = commands[name]._option_string_actions if name in commands else {}
        result += [] if name in commands else [name]
        options = [word.split("=")[0] for word in words[2:] if name in commands and re.match(r"--[a-z]", word)]
        result += [f"{name} {option}" for option in options if option not in known]
    return result


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options(page):
    assert unknown_commands(TEXTS[page]) == []


def test_an_unknown_command_is_found():
    text = "```bash\n./fastwam fly --high\n./fastwam bench --size mid --fast   # --loud\n```\n`./fastwam view --web`"
    assert unknown_commands(text) == ["fly", "bench --fast"]


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_and_variables(page):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z]+) \?=", makefile, re.MULTILINE)) | {"PYTHON", "TORCH", "ROS"}
    for line in code_lines(TEXTS[page]):
        words = line.split()
        if "make" not in words[:1]:
            continue
        for word in words[1:]:
            name, assigned, _ = word.partition("=")
            if assigned and re.fullmatch(r"[A-Z]+", name):
                assert name in variables, line
                if '"' in word:  # the words of its value
                    break
            else:
                assert word in targets, line


@pytest.mark.parametrize("page", PAGES)
def test_launch_arguments(page):
    lines = [line for line in code_lines(TEXTS[page]) if "towel_fold.launch.py" in line]
    names = {name for line in lines for name in re.findall(r"(\w+):=", line)}
    assert names <= {"mode", "namespace", *ARGUMENTS}


def test_the_tables_of_parameters_agree_with_the_configuration():
    rows = 0
    for node in ("policy_node", "bridge_node"):
        declared = yaml.safe_load((ROOT / "config" / f"{node}.yaml").read_text())
        (table,) = re.findall(rf"\| parameter of {node} .*?\n\n", TEXTS["docs/how-to/tune-latency.md"], re.DOTALL)
        for name, default, limits in re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", table, re.MULTILINE):
            about = declared[name]
            unit = f" {about['unit']}" if "unit" in about else ""
            value = about["default"]
            assert default == f"{value:g}{unit}" if isinstance(value, float) else default == f"{value}{unit}", name
            span = about.get("range")
            assert limits == (" to ".join(f"{v:g}" for v in span) if span else ", ".join(about["choices"])), name
            rows += 1
    assert rows >= 10


@pytest.mark.parametrize(("heading", "reasons"), [("bridge_node", Reason), ("policy_node", PolicyReason)])
def test_each_numbered_reason_is_on_the_page_of_troubles(heading, reasons):
    (part,) = re.findall(rf"^## Reasons of {heading}$(.*?)^## ", TEXTS["docs/how-to/troubleshoot.md"], re.M | re.S)
    cells = re.findall(r"^\| ([\d, ]+) \|", part, re.MULTILINE)
    numbers = [int(number) for cell in cells for number in cell.split(",")]
    assert sorted(numbers) == sorted(reason for reason in reasons if reason)


def test_each_topic_and_service_is_on_the_page_of_nodes():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src").glob("*/*/nodes/*_node.py")]
    names = {name for source in sources for name in re.findall(r'"(~/[a-z_]+)", ', source)}
    for name in vars(RobotConfig.load().interfaces).values():
        names.add(re.sub(r"^[a-z]+_node/", "~/", name))
    assert len(names) >= 20
    assert [name for name in sorted(names) if f"`{name}" not in TEXTS["docs/reference/nodes.md"]] == []
