"""The figure of `bnft compare`: paired differences, for each seed and over all of them."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from bnft.report.compared import Compared
from bnft.report.figures.base import Datasets, Figure, Panel
from bnft.report.style import COLOURS
from bnft.studies.measures import MARGIN, MEASURES

WHOLE = "all seeds"


def differences(items: Sequence[Compared]) -> Figure | None:
    """Draw the difference of errors of each pair of rows with its interval; None if none of them could be tested."""
    rows: list[dict[str, Any]] = []
    for one in items:
        if one.difference is None:
            continue
        pair = f"{one.first[0]} − {one.second[0]}"
        each = [(f"seed {seed}", found) for seed, found in one.per_seed]
        for name, found in [*each, *([(WHOLE, one.difference)] if len(each) > 1 else [])]:
            low, high = found.interval
            rows.append({"pair": pair, "of": name, "value": found.value, "low": low, "high": high})
    if not rows:
        return None
    sets = Datasets()
    names, pairs = (list(dict.fromkeys(row[key] for row in rows)) for key in ("of", "pair"))
    base = alt.Chart(sets.add(rows))
    y = alt.Y("of:N", title=None, sort=names)
    title = f"difference of {items[0].measure.replace('_', ' ')} (points)"
    x = alt.X("value:Q", title=title, scale=alt.Scale(nice=True))
    shade = alt.condition(f"datum.of === '{WHOLE}'", alt.value(COLOURS[1]), alt.value(COLOURS[0]))
    zero = (
        alt.Chart(sets.add([{"zero": 0}]))
        .mark_rule(strokeDash=[3, 3], color="#808080")
        .encode(x=alt.X("zero:Q", title=title))
    )
    band = (
        alt.Chart(sets.add([{"low": -MARGIN, "high": MARGIN}]))
        .mark_rect(opacity=0.12, color="#808080")
        .encode(x=alt.X("low:Q", title=title), x2="high:Q")
    )
    panels = []
    for pair in pairs:
        own = base.transform_filter(alt.datum.pair == pair)
        rule = own.mark_rule(size=1.5).encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y, color=shade)
        point = own.mark_point(filled=True, size=45, opacity=1).encode(x=x, y=y, color=shade)
        panels.append(Panel(pair, alt.layer(band, zero, rule, point)))
    caption = f"Paired differences, {MEASURES[items[0].measure].text}. The band is ± {MARGIN:g} points."
    height = 30 + 18 * len(names)
    return Figure("compare", "Paired differences", caption, tuple(panels), height=2 * height, tall=True, datasets=sets)
