"""Files that the documentation links to outside docs/, such as ../config/r1lite.yaml, become pages of the site."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
_FOLDER = "source/"  # where the pages of other files are in the site
_LINK = re.compile(r"(```.*?```|`[^`\n]*`)|(\]\()([^)#\s]+)((?:#[^)\s]*)?\))", re.DOTALL)
_LANGUAGES = {".cfg": "ini", ".msg": "text", ".srv": "text", ".action": "text", ".sh": "bash", ".py": "python"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file that a page links to, and for those that such a page links to."""
    waiting = [(f"docs/{file.src_uri}", Path(file.abs_src_path or "")) for file in files.documentation_pages()]
    while waiting:
        name, path = waiting.pop()
        for link in (match[3] for match in _LINK.finditer(path.read_text(encoding="utf-8")) if match[3]):
            target = _target(name, link)
            if target is None or files.get_file_from_path(_page_of(target)) is not None:
                continue
            content = (ROOT / target).read_text(encoding="utf-8")
            if target.endswith(".md"):
                waiting.append((target, ROOT / target))
            else:
                suffix = Path(target).suffix
                content = f"# {target}\n\n````{_LANGUAGES.get(suffix, suffix.lstrip('.'))}\n{content}\n````\n"
            files.append(File.generated(config, _page_of(target), content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point the links of a page at the site's pages; those that lead nowhere stay, and mkdocs complains of them."""
    uri = page.file.src_uri
    name = uri.removeprefix(_FOLDER) if uri.startswith(_FOLDER) else f"docs/{uri}"
    if uri.startswith(_FOLDER) and not (ROOT / name).is_file():
        return markdown  # the text of a file that is not Markdown

    def rewritten(match: re.Match[str]) -> str:
        target = _target(name, match[3]) if match[3] else None
        if target is None:
            inside = os.path.normpath(os.path.join(os.path.dirname(name), match[3])) if match[3] else ""
            if not inside.startswith("docs/") or ":" in match[3]:
                return match[0]
            place = inside.removeprefix("docs/")
        else:
            place = _page_of(target)
        return f"{match[2]}{os.path.relpath(place, os.path.dirname(uri) or '.')}{match[4]}"

    return _LINK.sub(rewritten, markdown)


def _target(page: str, link: str) -> str | None:
    """Path in the repository of a file outside docs/ that `page` links to; None for other links."""
    path = os.path.normpath(os.path.join(os.path.dirname(page), link))
    return path if not path.startswith(("docs/", "..")) and (ROOT / path).is_file() else None


def _page_of(target: str) -> str:
    return _FOLDER + (target if target.endswith(".md") else f"{target}.md")
