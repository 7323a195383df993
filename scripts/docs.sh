#!/usr/bin/env bash
# Build the documentation into output/docs, with its tools in .venv-docs; see docs/conf.py. Broken links and anchors are errors.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/start.sh"
mermaid=mermaid@11.17.2                # draws the diagrams
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "docs: Python 3.11 or newer is needed, $python is $("$python" -V). Name another: make docs PYTHON=python3.12" >&2
  exit 1
}

wanted=$( (cat requirements-docs.txt; echo "$mermaid $("$python" -V)") | sha256sum)
if [ "$(cat .venv-docs/.installed 2>/dev/null)" != "$wanted" ]; then
  say "tools of the documentation in .venv-docs (120 MB, once)"
  "$python" -m venv --clear .venv-docs
  pip .venv-docs/bin/python --quiet install --no-deps -r requirements-docs.txt
  # With npm the site holds all that it needs; without it, a reader's browser loads mermaid from a CDN, or shows the diagrams as text.
  if command -v npm >/dev/null; then
    (cd .venv-docs && npm pack --silent "$mermaid" >/dev/null && tar xzf mermaid-*.tgz package/dist/mermaid.min.js && rm mermaid-*.tgz)
  else
    echo "docs: no npm: the diagrams will be drawn in browsers that reach the internet only" >&2
  fi
  echo "$wanted" >.venv-docs/.installed
fi

rm -rf output/docs docs/reference/generated
bash -c ". scripts/env.sh && .venv/bin/python scripts/reference.py docs/reference/generated"
.venv-docs/bin/python -m sphinx -q -E -n -W --keep-going -c docs -d .venv-docs/doctrees . output/docs
echo '<meta http-equiv="refresh" content="0; url=docs/index.html">' >output/docs/index.html
echo "documentation: output/docs/index.html"
