"""The look of the report and the dashboard: each row has one colour everywhere, and a dash and a shape.

The colours have medium luminance, so they are readable on white and on black. A study can choose the colour and dash of
its rows. Other rows have the colours below, the first of which are those of Okabe and Ito (2008). Colour-blind people
can distinguish those that have the same dash.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bnft.studies.study import Study

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#7B5CC8", "#B48600", "#D070A1", "#5A6C76", "#846537", "#E07161")
PART_COLOURS = ("#6E7681", "#8F7A00", "#9C4F96", "#9348DE")  # for other things than rows, such as parts of a cost

SOLID: list[int] = []
DASHES = (SOLID, [6, 2], [2, 2], [8, 2, 2, 2])
SHAPES = ("circle", "square", "triangle-up", "diamond")


@dataclass(frozen=True)
class Look:
    """The colour, dash and shape of one row."""

    colour: str
    dash: tuple[int, ...]
    shape: str


def looks(titles: Iterable[str], study: Study | None = None) -> dict[str, Look]:
    """Return the look of each row by its title. Those that the study does not choose get colours in their order."""
    by_title: dict[str, Look] = {}
    others = 0
    for title in dict.fromkeys(titles):
        row = study.by_title.get(title) if study else None
        colour, dash = (row.colour, row.dash) if row else (None, 0)
        if colour is None:
            colour, dash = COLOURS[others % len(COLOURS)], others % len(DASHES)
            others += 1
        by_title[title] = Look(colour, tuple(DASHES[dash]), SHAPES[dash])
    return by_title


SCREEN_FONT = "system-ui, sans-serif"


SCREEN: dict[str, Any] = {  # the Vega-Lite configuration of the page; its colours follow those of the page's text
    "background": "transparent",
    "font": SCREEN_FONT,
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "gridColor": "currentColor",
        "gridOpacity": 0.15,
        "domainColor": "currentColor",
        "domainOpacity": 0.3,
        "tickColor": "currentColor",
        "tickOpacity": 0.3,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "labelSeparation": 5,
        "labelLimit": 240,
        "titleFontSize": 12,
    },
    "legend": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "labelFontSize": 12,
        "labelLimit": 240,
    },
    "header": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "labelFontSize": 12,
        "labelPadding": 2,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "view": {"stroke": None},
    "line": {"strokeWidth": 1.8},
    "point": {"size": 75},
}

PRINT_FONT = "Liberation Sans"
COLUMN, PAGE = 234, 487  # points: a column and the text width of a two-column paper (3.25 and 6.75 inches)
PRINT: dict[str, Any] = {
    "background": "white",
    "font": PRINT_FONT,
    "axis": {
        "labelFontSize": 7,
        "titleFontSize": 7.5,
        "titleFontWeight": "normal",
        "gridColor": "#e5e5e5",
        "domainColor": "#888888",
        "tickColor": "#888888",
        "tickSize": 3,
        "labelLimit": 130,
    },
    "legend": {"labelFontSize": 7, "titleFontSize": 7, "symbolSize": 30, "labelLimit": 170, "symbolLimit": 0},
    "title": {"fontSize": 8, "fontWeight": "normal", "anchor": "start", "frame": "group", "offset": 4},
    "header": {
        "labelFontSize": 7,
        "labelPadding": 1,
        "titleFontSize": 7.5,
        "titleFontWeight": "normal",
        "titlePadding": 2,
    },
    "line": {"strokeWidth": 1},
    "point": {"size": 28},
    "view": {"stroke": None},
}
