"""Figures with their panels, controls and data, for the page and for print."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

import altair as alt
import vl_convert

from bnft.report.groups import Group, Series
from bnft.report.rows import Row
from bnft.report.style import COLUMN, PAGE, PRINT

Chart = alt.Chart | alt.LayerChart | alt.FacetChart
Rows = list[dict[str, Any]]
Specification = dict[str, Any]

ALL_SEEDS = "all"  # the value of `seed` in data that are means or sums over seeds


@dataclass(frozen=True)
class Panel:
    """One chart of a figure. It has no size, because the page and print set different ones.

    Attributes:
        title: its title.
        chart: the chart.
        lanes: the title of the vertical axes, if each row has a lane: one above the other, with the same axes.
    """

    title: str
    chart: Chart
    lanes: str | None = None


@dataclass(frozen=True)
class Control:
    """A slider or list that sets a signal in all panels of a figure.

    Attributes:
        signal: the name of the signal.
        label: the label on the page.
        choices: the possible values.
        texts: what each value means, in words.
        start: the number of the initial choice.
        slider: whether it is a slider. The signal of a slider is the number of the choice, that of a list is the
            choice itself.
    """

    signal: str
    label: str
    choices: tuple[str, ...]
    texts: tuple[str, ...]
    start: int
    slider: bool = False

    @property
    def value(self) -> str | int:
        """The initial value of the signal."""
        return self.start if self.slider else self.choices[self.start]


@dataclass(frozen=True)
class Figure:
    """A figure with its texts and charts.

    Attributes:
        key: its name in files and links.
        title: its title.
        caption: the text below it.
        panels: its charts.
        series: the rows that a reader can choose.
        shown: the labels of the rows that are shown at first; None for all.
        symbols: what stands for a row in the legend.
        controls: what else a reader can choose.
        height: the height of a chart on the page. With lanes, it is that of one lane.
        wide: whether it spans both columns of a paper.
        tall: whether print uses `height` too.
        datasets: the data of the charts.
    """

    key: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    series: tuple[Series, ...] = ()
    shown: tuple[str, ...] | None = None
    symbols: Literal["line", "point", "area", "none"] = "line"
    controls: tuple[Control, ...] = ()
    height: int = 220
    wide: bool = False
    tall: bool = False
    datasets: "Datasets" = field(kw_only=True)

    @property
    def visible(self) -> list[str]:
        """The labels of the rows that are shown at first."""
        return [one.label for one in self.series if self.shown is None or one.label in self.shown]

    @property
    def state(self) -> str:
        """The initial choices in words, such as the layer and the epoch."""
        return ", ".join(control.texts[control.start] for control in self.controls)

    def screen(self) -> list[Specification]:
        """Return the Vega-Lite specification of each panel, as wide as its container on the page."""
        found = []
        for panel in self.panels:
            chart = self._sized(panel, "container", self.height)
            if not panel.lanes:
                chart["autosize"] = {"type": "fit-x", "contains": "padding"}
            if self.series:
                chart = _with_legends(chart, None)
            found.append(self._whole(chart))
        return found

    def printed(self) -> Specification:
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

    def _printed(self, width: int, columns: int, beside: int) -> Specification:
        parts = []
        for panel in self.panels:
            height = self.height // 2 if self.tall else round(min(110, max(75, 0.7 * width)))
            if panel.lanes:
                height = max(14, min(height // 3, 220 // max(1, len(self.visible))))
            part = {"title": panel.title, **self._sized(panel, width, height)}
            parts.append(_with_legends(part, None if panel.lanes else self.visible))  # lanes have titles
        config = {**PRINT, "legend": {**PRINT["legend"], "columns": beside}}
        whole: Specification = {"concat": parts, "columns": columns, "spacing": 10, "config": config}
        if any(control.signal != "seed" for control in self.controls):
            whole["title"] = {"text": self.state, "fontSize": 7, "offset": 6}
        return self._whole(whole)

    def _sized(self, panel: Panel, width: int | str, height: int) -> Specification:
        """Return the specification of a panel with its size, in which rows can be hidden."""
        chart = _filtered(panel.chart.to_dict(validate=False), self._filter)
        chart = {key: value for key, value in chart.items() if key not in ("$schema", "config")}
        if panel.lanes is None:
            return {**chart, "width": width, "height": height}
        inner: Specification = {key: chart.pop(key) for key in ("mark", "encoding", "layer") if key in chart}
        limit, character = (LANE_LABEL, 7.0) if isinstance(width, str) else (width, 3.7)
        half = int(limit / character / 2) - 1
        shortened = f"slice(datum.label, 0, {half}) + '…' + slice(datum.label, -{half})"
        header: Specification = {
            "title": panel.lanes,
            "titleOrient": "left",
            "labelOrient": "top",
            "labelAnchor": "start",
            "labelLimit": limit,
            "labelExpr": f"length(datum.label) > {2 * half} ? {shortened} : datum.label",
        }
        lanes = {"field": "row", "type": "nominal", "sort": [one.label for one in self.series], "header": header}
        sized = {**inner, "width": LANE_WIDTH if isinstance(width, str) else width, "height": height}
        return {**chart, "facet": {"row": lanes}, "spacing": 4, "spec": sized}

    @property
    def _filter(self) -> str:
        chosen = "indexof(hidden, datum.row) < 0"
        return f"{chosen} && datum.seed === seed" if any(one.signal == "seed" for one in self.controls) else chosen

    def _whole(self, specification: Specification) -> Specification:
        """Add the data and the signals."""
        hidden = [one.label for one in self.series if one.label not in self.visible]
        signals = [("hidden", hidden), *((control.signal, control.value) for control in self.controls)]
        params = [{"name": name, "value": value} for name, value in signals]
        return {"$schema": alt.SCHEMA_URL, **self.datasets.put_into({**specification, "params": params})}


AXIS_POINTS = 40  # approximate width of a panel's vertical axis in print
LANE_WIDTH = 200  # of lanes on the page, until it knows their container
LANE_LABEL = 280  # pixels of the title of a lane on the page, at most
LEAST = 0.25  # the plot takes at least this fraction of a panel's width
FITS = 4  # attempts at the width, because only a drawing shows how wide axes and legends are


def _width(specification: Specification) -> float:
    """Return the width of a drawing in pixels, which are points in a PDF."""
    match = re.search(r'<svg[^>]* width="([0-9.]+)"', vl_convert.vegalite_to_svg(specification))
    assert match is not None
    return float(match[1])


def _walked(specification: Any, change: Callable[[Specification], Specification]) -> Any:
    """Return a specification in which every dict is changed, the innermost first."""
    if isinstance(specification, list):
        return [_walked(item, change) for item in specification]
    if not isinstance(specification, dict):
        return specification
    return change({key: _walked(item, change) for key, item in specification.items()})


def _with_legends(specification: Specification, labels: Sequence[str] | None) -> Specification:
    """Let the legends of rows have these entries only. The page has one legend for all panels: None removes them."""

    def change(part: Specification) -> Specification:
        if part.get("field") != "row" or not isinstance(part.get("legend"), dict):
            return part
        return {**part, "legend": None if labels is None else {**part["legend"], "values": list(labels)}}

    found: Specification = _walked(specification, change)
    return found


def _filtered(specification: Specification, condition: str) -> Specification:
    """Filter the data of all marks that are of a row."""

    def change(part: Specification) -> Specification:
        channels = part.get("encoding", {}).values() if "mark" in part else ()
        if not any(isinstance(channel, dict) and channel.get("field") == "row" for channel in channels):
            return part
        return {**part, "transform": [{"filter": condition}, *part.get("transform", ())]}

    found: Specification = _walked(specification, change)
    return found


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

    def put_into(self, specification: Specification) -> Specification:
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


def seed_control(seeds: Iterable[int], together: str | None = "all seeds") -> tuple[Control, ...]:
    """Return a list of seeds, if there are several. `together` names the first choice; None leaves it out."""
    found = [str(seed) for seed in sorted(set(seeds))]
    if len(found) < 2:
        return ()
    texts = tuple(f"seed {seed}" for seed in found)
    first = ((ALL_SEEDS,), (together,)) if together is not None else ((), ())
    return (Control("seed", "seed", (*first[0], *found), (*first[1], *texts), 0),)


def by_seed(row: Row) -> dict[str, Row]:
    """Return a row by the values of the control of seeds: with all of its runs, and with each one alone."""
    alone = {str(one.seed): Row((one,)) for one in row.results} if len(row.results) > 1 else {}
    return {ALL_SEEDS: row, **alone}


def seeds_of(group: Group, together: str | None = "all seeds") -> tuple[Control, ...]:
    """Return a list of the seeds of a group's rows, see `seed_control`."""
    return seed_control((seed for series in group.series for seed in series.row.seeds), together)


def of_seeds(lines: Rows, number: str = "number") -> Rows:
    """Return lines once for all seeds together and, if there are several seeds, once for each of them.

    Each line has `row` and a number `seed`. In the result, `seed` is a value of the control of seeds, and the number
    is in the field `number`.
    """
    alone = len({line["seed"] for line in lines}) < 2
    together = [{**line, number: line["seed"], "seed": ALL_SEEDS} for line in lines]
    return together + ([] if alone else [{**line, number: line["seed"], "seed": str(line["seed"])} for line in lines])


def over_epochs(sets: Datasets, series: Sequence[Series], lines: Rows, key: str, title: str) -> Chart:
    """Draw the mean of a quantity over seeds at each epoch, in a band from the lowest to the highest seed.

    Values that are not finite are left out. A marker is at the last epoch of each row, so rows with one epoch are
    visible.

    Args:
        sets: the data of the figure.
        series: the rows, which give colours, dashes and markers.
        lines: dicts with `row`, `seed`, `epoch` and `key`.
        key: the quantity.
        title: the title of the vertical axis.
    """
    values_by_epoch: dict[tuple[str, str, int], list[float]] = {}
    for line in of_seeds([line for line in lines if line[key] is not None and isfinite(line[key])]):
        values_by_epoch.setdefault((line["row"], line["seed"], line["epoch"]), []).append(line[key])
    last: dict[tuple[str, str], int] = {}
    for row, seed, epoch in values_by_epoch:
        last[row, seed] = max(epoch, last.get((row, seed), epoch))
    rows: Rows = []
    bands: Rows = []
    for (row, seed, epoch), values in values_by_epoch.items():
        place = {"row": row, "seed": seed, "epoch": epoch}
        rows.append({**place, "mean": sum(values) / len(values), **({"last": 1} if epoch == last[row, seed] else {})})
        if len(values) > 1:
            bands.append({**place, "low": min(values), "high": max(values)})
    x = epoch_axis(epoch for _, _, epoch in values_by_epoch)
    y = alt.Y("mean:Q", title=title, axis=VERTICAL)
    tooltip = [ROW, alt.Tooltip("epoch:Q"), alt.Tooltip("mean:Q", title=title, format=".4g")]
    base = alt.Chart(sets.add(rows)).encode(x=x, y=y, tooltip=tooltip)
    line = base.mark_line().encode(color=colour(series), strokeDash=dash(series))
    end = _points(base.transform_filter("datum.last"), series)
    if not bands:
        return alt.layer(line, end)
    band = (
        alt.Chart(sets.add(bands))
        .mark_area(opacity=0.12)
        .encode(x=x, y=alt.Y("low:Q", title=title), y2="high:Q", color=colour(series))
    )
    return alt.layer(band, line, end)


def lined(chart: alt.Chart, series: Sequence[Series]) -> Chart:
    """Return a chart, which has its axes, as lines with the marker of each row."""
    lines = chart.mark_line().encode(color=colour(series), strokeDash=dash(series))
    return alt.layer(lines, _points(chart, series))


def _points(chart: alt.Chart, series: Sequence[Series]) -> alt.Chart:
    return chart.mark_point(filled=True, opacity=1, size=32).encode(color=colour(series), shape=shape(series))


VERTICAL = alt.Axis(labelFlush=True, tickCount=5)  # no label reaches over the frame, so titles of panels align
LANE_AXIS = alt.Axis(labelFlush=True, tickCount=2, tickMinStep=1)
PERCENT = alt.Scale(domain=[0, 100], padding=6)  # room for what lies on the frame


def epoch_axis(epochs: Iterable[int], most: int = 8) -> alt.X:
    """Return an axis of epochs with at most about `most` ticks, at whole numbers."""
    found = sorted(set(epochs)) or [0]
    low, high = found[0], found[-1]
    step = next(
        step for power in range(9) for step in (10**power, 2 * 10**power, 5 * 10**power) if high - low <= step * most
    )
    ticks = [low, *(tick for tick in range(low - low % step + step, high + 1, step) if tick - low >= step / 2)]
    domain = [low, high] if high > low else [low - 1, high + 1]
    scale = alt.Scale(domain=domain, nice=False, padding=6)
    return alt.X("epoch:Q", title="epoch", axis=alt.Axis(values=ticks, format="d"), scale=scale)


def colour(series: Sequence[Series]) -> alt.Color:
    """Encode the field `row`, which is the label of a series, as a colour."""
    labels, colours = [one.label for one in series], [one.look.colour for one in series]
    return alt.Color("row:N", scale=alt.Scale(domain=labels, range=colours), sort=labels, legend=_legend())


def dash(series: Sequence[Series]) -> alt.StrokeDash:
    labels, dashes = [one.label for one in series], [list(one.look.dash) or [1, 0] for one in series]
    return alt.StrokeDash("row:N", scale=alt.Scale(domain=labels, range=dashes), sort=labels, legend=_legend())


def shape(series: Sequence[Series]) -> alt.Shape:
    labels, shapes = [one.label for one in series], [one.look.shape for one in series]
    return alt.Shape("row:N", scale=alt.Scale(domain=labels, range=shapes), sort=labels, legend=_legend())


def _legend() -> alt.Legend:
    """Return the legend for print; the page has its own."""
    return alt.Legend(title=None, orient="bottom", symbolLimit=0, symbolOpacity=1)
