"""The documentation as a site: scripts/docs.sh runs Sphinx over the repository with this configuration."""

from pathlib import Path

project = html_title = "Fast-WAM on the Galaxea R1 Lite"
html_theme = "furo"
html_show_copyright = html_copy_source = False
extensions = ["myst_parser", "sphinxcontrib.mermaid"]

# The source folder is the repository: so these pages may link to each other, and to files, which become downloads.
root_doc = "docs/index"
include_patterns = ["*.md", "docker/*.md", "examples/*.md", "docs/**.md"]
exclude_patterns = [".*", "bags", "build", "bundles", "data", "install", "log", "output", "src"]  # not searched

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]  # GitHub's way to write a diagram
mermaid_height = "auto"
mermaid_fullscreen = False

# In a page opened from a folder, browsers refuse to import modules from it. So mermaid is loaded as a plain script,
# and the import map turns the import into that. Without the file, pages load mermaid from a CDN.
_mermaid = Path(__file__).parents[1] / ".venv-docs/package/dist/mermaid.min.js"
if _mermaid.exists():
    mermaid_use_local = "/mermaid"
    _imports = '{"imports": {"/mermaid": "data:text/javascript,export default mermaid"}}'
    html_static_path = [str(_mermaid)]
    html_js_files = [_mermaid.name, ("", {"type": "importmap", "body": _imports, "priority": 400})]
