"""Self-contained HTML pages from the templates of this folder."""

from __future__ import annotations

import base64
import io
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure
from youplot.vendor import uplot_css, uplot_js


def write_page(path: Path, template: str, **values: object) -> None:
    """Fill in a template; `made` and `machine` need not be given."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fastwam_policy", "reports/templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template(template).render(
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        machine=f"{platform.machine()}, Python {platform.python_version()}, torch {version('torch')}",
        **values,
    )
    path.write_text(page, encoding="utf-8")


def uplot() -> dict[str, str]:
    """The plots' library as the templates take it: `uplot_js`, `uplot_css` and `uplot_version`.

    uPlot is a JavaScript library; youplot is the package on PyPI that carries it, unchanged.
    """
    script = uplot_js()
    version = script[: script.index(")")].rpartition("v")[2]
    return {"uplot_js": script, "uplot_css": uplot_css(), "uplot_version": version}


def style_figures() -> None:
    """Set the style that all figures share."""
    mpl.rcParams.update(
        {"font.size": 8, "axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False}
    )


def png(figure: Figure) -> str:
    """The figure as a data URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return data_url("image/png", buffer.getvalue())


def data_url(kind: str, data: bytes) -> str:
    """Bytes of a MIME type as a URL that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
