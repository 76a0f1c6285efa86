"""The page of the report: one HTML file that needs no other files and no network."""

import base64
import json
from dataclasses import asdict
from functools import cache
from importlib.resources import files as resources
from io import BytesIO
from typing import Any

import jinja2
import numpy as np
import vl_convert
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from bnft import __version__
from bnft.report import style
from bnft.report.figures.base import Figure
from bnft.report.style import Look

_MARKERS = {  # markers of a legend, as SVG around (13, 6)
    "circle": '<circle cx="13" cy="6" r="4" fill="{0}"/>',
    "square": '<rect x="9.5" y="2.5" width="7" height="7" fill="{0}"/>',
    "triangle-up": '<path d="M13 1.5 L17.5 10 L8.5 10 Z" fill="{0}"/>',
    "diamond": '<path d="M13 1 L17.5 6 L13 11 L8.5 6 Z" fill="{0}"/>',
}


def render(content: dict[str, Any]) -> str:
    """Return the page with the given content, which comes from `content.content`.

    `live` is what a page that is served while a sweep runs has in addition; see `bnft.report.live`.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_text("page.html"))
    return template.render(
        **content,
        version=__version__,
        css=Markup(_text("page.css")),
        javascript=Markup(_text("page.js")),
        live_javascript=Markup(_text("live.js")),
        bundle=Markup(_bundle().replace("</script", "<\\/script")),
        look=_json(style.SCREEN),
    )


def drawn(figure: Figure, place: str, files: str | None) -> dict[str, Any]:
    """Return a figure for the template.

    Args:
        figure: the figure.
        place: a prefix that makes its ids unique.
        files: the path of its PDF and PNG without suffix; None if they are not written.
    """
    key = f"{place}-{figure.key}"
    return {
        "id": key,
        "title": figure.title,
        "caption": figure.caption,
        "files": files,
        "state": figure.state,
        "legend": legend(figure),
        "controls": [asdict(control) for control in figure.controls],
        "panels": [
            {
                "title": panel.title,
                "id": f"{key}-{number}",
                "spec": _json(spec),
                "height": figure.height * (len(figure.visible) if panel.lanes else 1),
                "lanes": panel.lanes is not None,
            }
            for number, (panel, spec) in enumerate(zip(figure.panels, figure.screen(), strict=True))
        ],
    }


def legend(figure: Figure) -> list[dict[str, Any]]:
    """Return the entries of a figure's legend: label, symbol, and whether the row is shown at first."""
    return [
        {"label": one.label, "shown": one.label in figure.visible, "symbol": _symbol(one.look, figure.symbols)}
        for one in figure.series
    ]


def _symbol(look: Look, kind: str) -> Markup:
    """Return the symbol of a row as SVG elements."""
    dash = " ".join(map(str, look.dash))
    line = '<line x1="0" y1="6" x2="26" y2="6" stroke="{}" stroke-width="2.4" stroke-dasharray="{}"/>'
    parts = {
        "line": Markup(line).format(look.colour, dash) + Markup(_MARKERS[look.shape]).format(look.colour),
        "point": Markup(_MARKERS[look.shape]).format(look.colour),
        "area": Markup('<rect x="3" y="1" width="20" height="10" fill="{}"/>').format(look.colour),
    }
    return parts.get(kind, Markup(""))


def picture(pixels: NDArray[np.uint8]) -> str:
    """Return an image (H, W, C) with one or three channels as a PNG in a data URL."""
    buffer = BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _json(value: Any) -> Markup:
    """Return JSON that is safe within a script element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _text(name: str) -> str:
    return (resources("bnft.report") / "templates" / name).read_text(encoding="utf-8")


@cache
def _bundle() -> str:
    """Return Vega-Embed with Vega and Vega-Lite as JavaScript."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
