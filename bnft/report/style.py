"""How the report and the dashboard look: one colour a policy everywhere, told apart by dash and shape as well.

Colours are of medium luminance, so that they are readable on white and on black; the five policies that the paper's
figures compare have hues of Okabe and Ito (2008), which the colour-blind tell apart. Policies of one family are near
in hue, and differ in dash and shape.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

POLICY_COLOURS = {
    "normal": "#0072B2",
    "normal_bn_only": "#4A74B8",
    "normal_bn_only_logits_conv1": "#7A86C8",
    "adv": "#D55E00",
    "bn_only": "#B8722C",
    "bn_only_logits_conv1": "#E07A52",
    "bn_stats_no_reset": "#5F93A8",
    "bn_stats": "#3E9BD6",
    "bn_only_params": "#C56A9C",
    "bn_params": "#009E73",
    "bn_params_logits_conv1": "#5C9A4E",
}
OTHER_COLOURS = ("#8C6BB1", "#A6761D", "#C2507A", "#608080", "#9A8040", "#B05A5A")

SOLID: list[int] = []
DASHES = (SOLID, [6, 2], [2, 2], [8, 2, 2, 2])
SHAPES = ("circle", "square", "triangle-up", "diamond")
_MEMBER = {  # of its family
    "normal_bn_only": 1,
    "normal_bn_only_logits_conv1": 2,
    "bn_only": 1,
    "bn_only_logits_conv1": 2,
    "bn_stats_no_reset": 1,
    "bn_params_logits_conv1": 2,
}


@dataclass(frozen=True)
class Look:
    """How one row is drawn."""

    colour: str
    dash: tuple[int, ...]
    shape: str


def looks(policies: Iterable[str]) -> dict[str, Look]:
    """The look of each policy; those that are not in the paper get a colour each, in their order."""
    found: dict[str, Look] = {}
    others = 0
    for policy in policies:
        if policy in found:
            continue
        member = _MEMBER.get(policy, 0)
        colour = POLICY_COLOURS.get(policy)
        if colour is None:
            colour = OTHER_COLOURS[others % len(OTHER_COLOURS)]
            member, others = (others // len(OTHER_COLOURS)) % len(DASHES), others + 1
        found[policy] = Look(colour, tuple(DASHES[member]), SHAPES[member])
    return found


SCREEN_FONT = "system-ui, sans-serif"


def screen(text: str, line: str) -> dict[str, Any]:
    """The Vega-Lite configuration of a page whose text and grid lines have these colours."""
    return {
        "background": "transparent",
        "font": SCREEN_FONT,
        "axis": {
            "labelColor": text,
            "titleColor": text,
            "gridColor": line,
            "domainColor": line,
            "tickColor": line,
            "titleFontWeight": "normal",
            "labelFontSize": 12,
            "titleFontSize": 12,
        },
        "legend": {"labelColor": text, "titleColor": text, "labelFontSize": 12, "labelLimit": 240},
        "view": {"stroke": None},
        "line": {"strokeWidth": 1.8},
        "point": {"size": 75},
    }


LIGHT = screen("#333333", "#dddddd")
DARK = screen("#cccccc", "#3a3a3a")

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
    },
    "legend": {"labelFontSize": 7, "titleFontSize": 7, "symbolSize": 30, "labelLimit": 200, "symbolLimit": 0},
    "title": {"fontSize": 8, "fontWeight": "normal", "anchor": "start", "offset": 4},
    "header": {"labelFontSize": 7},
    "line": {"strokeWidth": 1},
    "point": {"size": 28},
    "view": {"stroke": None},
}
