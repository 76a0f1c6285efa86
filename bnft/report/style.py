"""The look of the report and the dashboard: each policy has one colour everywhere, and a dash and a shape.

The colours have medium luminance, so they are readable on white and on black. The three policies in the paper's figures
have colours of Okabe and Ito (2008). The other colours were chosen so that colour-blind people can distinguish all
policies with the same dash. Policies of one family have similar hues, and differ in dash and shape.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

POLICY_COLOURS = {
    "normal": "#0072B2",
    "normal_bn_only": "#395CF6",
    "normal_bn_only_logits_conv1": "#6466CB",
    "adv": "#D55E00",
    "bn_only": "#C7682A",
    "bn_only_logits_conv1": "#C33D2E",
    "bn_stats_no_reset": "#44888D",
    "bn_stats": "#0893FF",
    "bn_only_params": "#D46FA6",
    "bn_params": "#009E73",
    "bn_params_logits_conv1": "#659F58",
}
OTHER_COLOURS = ("#7B5CC8", "#B48600", "#D070A1", "#5A6C76", "#846537", "#E07161")
PART_COLOURS = ("#6E7681", "#8F7A00", "#9C4F96", "#9348DE")  # for other things than policies, such as parts of a cost

SOLID: list[int] = []
DASHES = (SOLID, [6, 2], [2, 2], [8, 2, 2, 2])
SHAPES = ("circle", "square", "triangle-up", "diamond")
_MEMBER = {  # number within its family, which selects dash and shape
    "normal_bn_only": 1,
    "normal_bn_only_logits_conv1": 2,
    "bn_only": 1,
    "bn_only_logits_conv1": 2,
    "bn_stats_no_reset": 1,
    "bn_stats": 3,
    "bn_params_logits_conv1": 2,
}


@dataclass(frozen=True)
class Look:
    """The colour, dash and shape of one row."""

    colour: str
    dash: tuple[int, ...]
    shape: str


def looks(policies: Iterable[str]) -> dict[str, Look]:
    """Return the look of each policy. Policies that are not in the paper get other colours, in their order."""
    by_policy: dict[str, Look] = {}
    others = 0
    for policy in policies:
        if policy in by_policy:
            continue
        member = _MEMBER.get(policy, 0)
        colour = POLICY_COLOURS.get(policy)
        if colour is None:
            colour = OTHER_COLOURS[others % len(OTHER_COLOURS)]
            member, others = others % len(DASHES), others + 1  # six colours distinguish twelve policies
        by_policy[policy] = Look(colour, tuple(DASHES[member]), SHAPES[member])
    return by_policy


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
