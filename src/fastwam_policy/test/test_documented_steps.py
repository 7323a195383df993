"""The commands of README.md and docs/get-started, run as they stand there, one page after the other, in a copy.

A block that is not run says why in a comment before it: `<!-- not run: needs root -->`.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path("docs/get-started")
PAGES = ["install.md", "first-fold.md", "first-replay.md", "first-training.md", "first-policy.md"]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<language>bash|python)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
# `make test` is what runs this; a second one inside would never end.
SKIPPED = re.compile(r"^make test\b.*$", re.MULTILINE)


def blocks(page):
    """Language and code of each block that is run."""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if match["why"] is None:
            yield match["language"], SKIPPED.sub("", match["code"])


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """This checkout's files in another folder, with the same environment; `make setup` builds the workspace there."""
    folder = tmp_path_factory.mktemp("documented") / "fastwam"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() or (ROOT / name).is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    if not (folder / ".venv").exists():
        (folder / ".venv").symlink_to((ROOT / ".venv").resolve())
    return folder


def test_every_page_is_run():
    assert sorted(PAGES) == sorted(path.name for path in (ROOT / FOLDER).glob("*.md") if path.name != "index.md")
    assert all(list(blocks(ROOT / FOLDER / page)) for page in PAGES)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.nodes
@pytest.mark.parametrize("page", [f"{FOLDER}/{name}" for name in PAGES] + ["README.md"])
def test_the_steps_of_a_page(copy, page):
    for language, code in blocks(copy / page):
        script = code if language == "bash" else f". scripts/env.sh\npython - <<'CODE'\n{code}\nCODE"
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script], cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=1800,
        )  # fmt: skip
        assert done.returncode == 0, f"{page}:\n{code}\n{done.stdout[-3000:]}"
