"""Figures with their panels, controls and data, for the page and for print."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import altair as alt
import vl_convert

from bnft.report.groups import Series
from bnft.report.style import COLUMN, PAGE, PRINT

Chart = alt.Chart | alt.LayerChart | alt.FacetChart
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Panel:
    """One chart of a figure. It has no width, because the page and print set different ones."""

    title: str
    chart: Chart


@dataclass(frozen=True)
class Control:
    """A slider or list that sets a signal in all panels of a figure.

    Attributes:
        signal: the name of the signal.
        label: the label on the page.
        choices: the possible values.
        start: the number of the initial choice.
        slider: whether it is a slider. The signal of a slider is the number of the choice, and the page shows the
            choice next to it. The signal of a list is the choice itself.
    """

    signal: str
    label: str
    choices: tuple[str, ...]
    start: int
    slider: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure with its texts and charts. `wide` figures span both columns of a paper."""

    key: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    series: tuple[Series, ...] = ()
    controls: tuple[Control, ...] = ()
    height: int = 220
    wide: bool = False
    tall: bool = False  # whether print uses `height` too
    datasets: "Datasets" = field(kw_only=True)

    def screen(self) -> list[dict[str, Any]]:
        """Return the Vega-Lite specification of each panel, as wide as its container on the page."""
        sized = [panel.chart.properties(width="container", height=self.height, autosize=_FIT) for panel in self.panels]
        specifications = [self.datasets.put_into(chart.to_dict(validate=False)) for chart in sized]
        return list(map(_without_legends, specifications)) if self.series else specifications

    def printed(self) -> dict[str, Any]:
        """Return one specification for all panels, in points, as wide as one or both columns of a paper."""
        across, columns = (PAGE, self.columns) if self.wide else (COLUMN, 1)
        for beside in range(4 if self.wide else 2, 0, -1):  # legend entries per line, until they fit
            width = across / columns - AXIS_POINTS
            for _ in range(FITS):
                specification = self._printed(round(width), columns, beside)
                too_wide = _width(specification) - across
                if -columns < too_wide <= 0:
                    return specification
                if round(width - (too_wide + 0.5) / columns) < LEAST * across / columns:
                    break  # narrower panels alone do not help
                width -= (too_wide + 0.5) / columns
        return specification

    @property
    def columns(self) -> int:
        """The number of panels side by side, if there is room."""
        return 2 if len(self.panels) in (2, 4) else min(len(self.panels), 3)

    def _printed(self, width: int, columns: int, beside: int) -> dict[str, Any]:
        height = self.height // 2 if self.tall else round(min(110, max(75, 0.7 * width)))
        parts = [panel.chart.properties(title=panel.title, width=width, height=height) for panel in self.panels]
        whole = parts[0] if len(parts) == 1 else alt.concat(*parts, columns=columns, spacing=10)
        legend = {**PRINT["legend"], "columns": beside}
        return self.datasets.put_into(whole.configure(**{**PRINT, "legend": legend}).to_dict(validate=False))


AXIS_POINTS = 40  # approximate width of a panel's vertical axis in print
LEAST = 0.25  # the plot takes at least this fraction of a panel's width
FITS = 4  # attempts at the width, because only a drawing shows how wide axes and legends are


def _width(specification: dict[str, Any]) -> float:
    """Return the width of a drawing in pixels, which are points in a PDF."""
    match = re.search(r'<svg[^>]* width="([0-9.]+)"', vl_convert.vegalite_to_svg(specification))
    assert match is not None
    return float(match[1])


_FIT = alt.AutoSizeParams(type="fit-x", contains="padding")


def _without_legends(specification: Any) -> Any:
    """Remove the legends of rows, because the page has one for all panels."""
    if isinstance(specification, list):
        return [_without_legends(item) for item in specification]
    if not isinstance(specification, dict):
        return specification
    kept = {key: item if key == "datasets" else _without_legends(item) for key, item in specification.items()}
    return {**kept, "legend": None} if kept.get("field") == "row" and "legend" in kept else kept


ROW = alt.Tooltip("row:N", title="row")


class Datasets:
    """The data of a figure, kept outside of its charts, because Altair copies charts with their data many times."""

    def __init__(self) -> None:
        self._rows: dict[str, Rows] = {}

    def add(self, rows: Iterable[dict[str, Any]]) -> alt.NamedData:
        """Add rows, and return the reference to them for a chart."""
        name = f"data{len(self._rows)}"
        self._rows[name] = list(rows)
        return alt.NamedData(name=name)

    def put_into(self, specification: dict[str, Any]) -> dict[str, Any]:
        """Return the specification with the rows that it refers to."""
        used = sorted(_names(specification) & self._rows.keys())
        return {**specification, "datasets": {name: self._rows[name] for name in used}}


def _names(specification: Any) -> set[str]:
    """Return the names of data in a specification."""
    if isinstance(specification, list):
        return set().union(*map(_names, specification)) if specification else set()
    if not isinstance(specification, dict):
        return set()
    names = set().union(*map(_names, specification.values())) if specification else set()
    named = specification.get("data")
    return names | {named["name"]} if isinstance(named, dict) and "name" in named else names


def over_epochs(sets: Datasets, series: Sequence[Series], lines: Rows, key: str, title: str) -> Chart:
    """Draw the mean of a quantity over seeds at each epoch, in a band from the lowest to the highest seed.

    Values that are not finite are left out.

    Args:
        sets: the data of the figure.
        series: the rows, which give colours and dashes.
        lines: dicts with `row`, `epoch` and `key`.
        key: the quantity.
        title: the title of the vertical axis.
    """
    values_by_epoch: dict[tuple[str, int], list[float]] = {}
    for line in lines:
        if line[key] is not None and isfinite(line[key]):
            values_by_epoch.setdefault((line["row"], line["epoch"]), []).append(line[key])
    epochs = {epoch for _, epoch in values_by_epoch}
    rows = [
        {"row": row, "epoch": epoch, "mean": sum(values) / len(values), "low": min(values), "high": max(values)}
        for (row, epoch), values in values_by_epoch.items()
    ]
    base = alt.Chart(sets.add(rows))
    x = alt.X("epoch:Q", title="epoch", axis=_of_whole_numbers(epochs), scale=alt.Scale(nice=False))
    tooltip = [ROW, "epoch:Q", alt.Tooltip("mean:Q", title=title, format=".4g")]
    short = len(epochs) == 1  # a line of one point would be invisible
    line = base.mark_line(point=short).encode(
        x=x, y=alt.Y("mean:Q", title=title), color=colour(series), strokeDash=dash(series), tooltip=tooltip
    )
    if all(len(values) == 1 for values in values_by_epoch.values()):
        return line
    band = base.mark_area(opacity=0.12).encode(x=x, y=alt.Y("low:Q", title=title), y2="high:Q", color=colour(series))
    return alt.layer(band, line)


def _of_whole_numbers(shown: Collection[int]) -> alt.Axis:
    """Return an axis with ticks at whole numbers only. In a range of less than three, Vega ignores `tickMinStep`."""
    first, last = min(shown, default=0), max(shown, default=0)
    few = list(range(first, last + 1)) if last - first < 3 else alt.Undefined
    return alt.Axis(tickMinStep=1, format="d", values=few)


def colour(series: Sequence[Series], lines: bool = True) -> alt.Color:
    """Encode the field `row`, which is the label of a series, as the colour of lines or points."""
    labels, colours = [one.label for one in series], [one.look.colour for one in series]
    return alt.Color("row:N", scale=alt.Scale(domain=labels, range=colours), sort=labels, legend=_legend(lines))


def dash(series: Sequence[Series]) -> alt.StrokeDash:
    labels, dashes = [one.label for one in series], [list(one.look.dash) or [1, 0] for one in series]
    return alt.StrokeDash("row:N", scale=alt.Scale(domain=labels, range=dashes), sort=labels, legend=_legend(True))


def shape(series: Sequence[Series]) -> alt.Shape:
    labels, shapes = [one.label for one in series], [one.look.shape for one in series]
    return alt.Shape("row:N", scale=alt.Scale(domain=labels, range=shapes), sort=labels, legend=_legend(False))


def _legend(lines: bool) -> alt.Legend:
    """Return the legend for print; see `_without_legends` for the page. Lines are long enough to show their dashes."""
    symbol, size = ("stroke", 200) if lines else (alt.Undefined, alt.Undefined)
    return alt.Legend(title=None, orient="bottom", symbolLimit=0, symbolOpacity=1, symbolType=symbol, symbolSize=size)
