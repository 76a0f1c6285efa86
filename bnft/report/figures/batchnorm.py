"""Figures of BN layers: Figures 1 and 2 of the paper, and the channels that fine-tuning turned off."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from bnft.batchnorm.record import QUANTITIES, BatchNormRecord
from bnft.report.channels import TurnedOff
from bnft.report.distributions import histograms, layer_means
from bnft.report.figures.base import (
    ALL_SEEDS,
    LANE_AXIS,
    ROW,
    VERTICAL,
    Chart,
    Control,
    Datasets,
    Figure,
    Panel,
    Rows,
    colour,
    lined,
    of_seeds,
    over_epochs,
    seed_control,
)
from bnft.report.groups import Series
from bnft.report.recorded import Moment, RowRecords
from bnft.report.style import PART_COLOURS

BINS = 14  # of Figure 1; a layer has some tens or hundreds of channels
MOST_HISTOGRAMS = 60_000  # in Figure 1; these are about 2 MB of the page
AXES = {
    "gamma": "γ",
    "beta": "β",
    "mean": "running mean μ",
    "variance": "running variance σ²",
    "m": "normalized weight m",
    "b": "normalized bias b",
}
GAMMA_TITLE = "upper line: γ, lower line: γ − 1"
GAMMA_LABELS = "[format(datum.value, '~g'), format(datum.value - 1, '~g')]"  # of two lines each


def figure1(
    series: Sequence[Series],
    records: Mapping[str, RowRecords],
    every_epoch: bool = True,
    shown: Sequence[Series] | None = None,
    layer: str | int = 1,
) -> Figure | None:
    """Draw histograms of each quantity. The page has lists of layers and seeds, and a slider of logged epochs.

    Args:
        series: the rows. Rows without a record are left out.
        records: the records by label.
        every_epoch: whether to include all logged epochs, rather than the last one only.
        shown: the rows that are shown at first, which determine the bins; None for all. If there is too much data, the
            other rows and other seeds are left out.
        layer: the layer that is shown at first, by name or by its number, counted from 1.

    Returns:
        The figure; None if no row has a record.
    """
    sets = Datasets()
    drawn = [one for one in series if one.label in records and records[one.label].layers]
    if not drawn:
        return None
    first = [one for one in drawn if shown is None or one in shown] or drawn
    of_rows = {one.label: records[one.label].records for one in drawn}
    layers, epochs = records[first[0].label].layers, Epochs(first, records)
    steps = range(len(epochs)) if every_epoch else range(len(epochs) - 1, len(epochs))
    each = len(layers) * len(steps) * len(QUANTITIES)
    if each * sum(map(len, of_rows.values())) > MOST_HISTOGRAMS:
        of_rows = {label: dict(list(found.items())[:1]) for label, found in of_rows.items()}
    if each * len(of_rows) > MOST_HISTOGRAMS:
        drawn, of_rows = first, {one.label: of_rows[one.label] for one in first}
    number = layer if isinstance(layer, int) else layers.index(layer) + 1 if layer in layers else 1
    start = min(number, len(layers)) - 1
    panels = []
    for quantity in QUANTITIES:
        rows = [line for name in layers for line in _counts(of_rows, first, name, quantity, steps)]
        panels.append(Panel(AXES[quantity], _histogram(sets, drawn, rows, quantity), lanes="channels"))
    controls = [Control("layer", "layer", tuple(layers), _layer_texts(layers), start)]
    if len(steps) > 1:
        controls.append(epochs.control())
    else:
        controls.append(Control("step", "epoch", (str(steps[0]),), (epochs.text(steps[0]),), 0))
    seeds = seed_control((seed for found in of_rows.values() for seed in found), together=None)
    controls += seeds or [Control("seed", "seed", (found,), (f"seed {found}",), 0) for found in _only(of_rows)]
    caption = (
        "Number of channels in each bin, for one BN layer. BN maps its input z to m z + b, with m = γ / √(σ² + ε) and"
        " b = β − m μ (Equation 1). γ is the scale itself. If BN is written with a scale of 1 + w, γ − 1 is w. All rows"
        " and epochs have the same bins, which contain the values of the rows that are shown at first; the outermost"
        " bins also count values beyond them."
    )
    return Figure(
        "figure1",
        "Figure 1: BN layers, channel by channel",
        caption,
        tuple(panels),
        tuple(drawn),
        tuple(one.label for one in first),
        "area",
        tuple(controls),
        height=44,
        wide=True,
        datasets=sets,
    )


class Epochs:
    """The logged epochs of several rows, as steps of a slider. A row with fewer epochs stays at its last one.

    Args:
        series: the rows.
        records: the records by label.
    """

    def __init__(self, series: Sequence[Series], records: Mapping[str, RowRecords]) -> None:
        firsts = {one.label: records[one.label].first for one in series if one.label in records}
        self._epochs = {label: list(first.epochs) for label, first in firsts.items() if first is not None}

    def __len__(self) -> int:
        return max((len(epochs) for epochs in self._epochs.values()), default=0)

    def text(self, step: int) -> str:
        """Return the epochs of the rows at a step, in words."""
        rows: dict[int, list[str]] = {}
        for label, epochs in self._epochs.items():
            rows.setdefault(epochs[min(step, len(epochs) - 1)], []).append(label)
        last = step == len(self) - 1
        if len(rows) == 1:
            (epoch,) = rows
            return f"after training (epoch {epoch})" if last else f"after epoch {epoch}" if epoch else "before training"
        if last:
            return "after training"
        parts = [f"{epoch} ({', '.join(labels) if len(labels) < 4 else 'others'})" for epoch, labels in rows.items()]
        return f"after epoch {' or '.join(parts)}"

    def control(self) -> Control:
        """Return a slider, which starts at the last step."""
        steps = [*range(len(self))]
        return Control("step", "epoch", tuple(map(str, steps)), tuple(map(self.text, steps)), steps[-1], slider=True)


def _only(of_rows: Mapping[str, Mapping[int, BatchNormRecord]]) -> list[str]:
    """Return the only seed of all rows, if there is one."""
    seeds = {seed for found in of_rows.values() for seed in found}
    return [str(seed) for seed in seeds] if len(seeds) == 1 else []


def _layer_texts(layers: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"BN layer {number} of {len(layers)} ({name})" for number, name in enumerate(layers, 1))


def _counts(
    of_rows: Mapping[str, Mapping[int, BatchNormRecord]],
    first: Sequence[Series],
    layer: str,
    quantity: str,
    steps: range,
) -> Rows:
    """Return one dict per row and seed, with the counts at each step. Its keys are short, because there are many."""
    names = [(label, seed) for label, found in of_rows.items() for seed in found]
    every = [of_rows[label][seed] for label, seed in names]
    leading = [record for (label, _), record in zip(names, every, strict=True) if label in {one.label for one in first}]
    log10 = quantity == "variance"
    histogram = histograms(every, layer, quantity, bins=BINS, log10=log10, within=leading)
    if histogram is None:
        return []
    low, high = _short(histogram.edges[0]), _short(histogram.edges[-1])
    lines: Rows = []
    for (label, seed), counts, epochs in zip(names, histogram.counts, histogram.epochs, strict=True):
        if counts:
            kept = counts if len(steps) > 1 else counts[-1:]
            line = {"row": label, "seed": str(seed), "l": layer, "c": kept, "e": epochs[-len(kept) :]}
            lines.append({**line, "a": low, "z": high})
    return lines


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _histogram(sets: Datasets, drawn: Sequence[Series], rows: Rows, quantity: str) -> Chart:
    """Draw the histogram of one quantity as bars. The page sets the signals `layer`, `step` and `seed`."""
    log, title = quantity == "variance", None
    edge = "datum.a * pow(datum.z / datum.a, {0})" if log else "datum.a + (datum.z - datum.a) * {0}"
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False, nice=False)
    axis = alt.Axis(format="~g", tickCount=4, labelOverlap=True)
    if quantity == "gamma":
        title, axis.labelExpr = GAMMA_TITLE, GAMMA_LABELS
    place = "min(toNumber(step), length(datum.e) - 1)"
    return (
        alt.Chart(sets.add(rows))
        .transform_filter("datum.l === layer")
        .transform_calculate(count=f"datum.c[{place}]", epoch=f"datum.e[{place}]", i=f"sequence({BINS})")
        .transform_flatten(["count", "i"])
        .transform_calculate(x=edge.format(f"datum.i / {BINS}"), x2=edge.format(f"(datum.i + 1) / {BINS}"))
        .mark_rect()
        .encode(
            x=alt.X("x:Q", title=title, scale=scale, axis=axis),
            x2="x2:Q",
            y=alt.Y("count:Q", title=None, axis=LANE_AXIS),
            y2=alt.Y2Datum(0),
            color=colour(drawn),
            tooltip=[
                ROW,
                alt.Tooltip("epoch:Q", title="epoch"),
                alt.Tooltip("x:Q", title="from", format=".3g"),
                alt.Tooltip("x2:Q", title="to", format=".3g"),
                alt.Tooltip("count:Q", title="channels"),
            ],
        )
    )


def figure2(
    series: Sequence[Series],
    records: Mapping[str, RowRecords],
    caption: str,
    shown: Sequence[Series] | None = None,
) -> Figure | None:
    """Draw the mean of the normalized weight m in each layer, at each logged epoch.

    Args:
        series: the rows. Rows without a record are left out.
        records: the records by label.
        caption: the text below the figure.
        shown: the rows that are shown at first; None for all.
    """
    sets = Datasets()
    drawn = [one for one in series if one.label in records and records[one.label].layers]
    epochs = Epochs(drawn if shown is None else shown, records)
    rows: Rows = []
    for one in drawn:
        found = records[one.label].records
        chosen = {ALL_SEEDS: found, **({str(seed): {seed: found[seed]} for seed in found} if len(found) > 1 else {})}
        for seed, of_seed in chosen.items():
            for step in range(len(epochs)):
                moments = {key: Moment(record, min(step, len(record.epochs) - 1)) for key, record in of_seed.items()}
                rows += _means(one.label, seed, step, moments)
    if not rows:
        return None
    base = _in_layers(sets, rows, ["mean", "low", "high"], records[drawn[0].label].layers)
    x, y = _layer_axis(), alt.Y("mean:Q", title="mean of m", axis=VERTICAL)
    tooltip = [ROW, alt.Tooltip("layer:N"), alt.Tooltip("mean:Q", format=".3f")]
    rule = base.mark_rule(opacity=0.5).encode(
        x=x, y=alt.Y("low:Q", title="mean of m"), y2="high:Q", color=colour(drawn)
    )
    panel = Panel("mean of m in each layer", alt.layer(rule, lined(base.encode(x=x, y=y, tooltip=tooltip), drawn)))
    seeds = seed_control((seed for one in drawn for seed in records[one.label].records), "mean over all seeds")
    return Figure(
        "figure2",
        "Figure 2: mean normalized weight",
        caption,
        (panel,),
        tuple(drawn),
        None if shown is None else tuple(one.label for one in shown),
        controls=(epochs.control(), *seeds),
        datasets=sets,
    )


def _means(label: str, seed: str, step: int, moments: Mapping[int, Moment]) -> Rows:
    """Return the means of m in all layers at one step, as one dict. Means that are not finite are None."""
    found = layer_means(moments)
    if found is None:
        return []
    means = list(zip(found.means, found.deviations, strict=True))
    known = [(_rounded(mean), _rounded(spread or 0.0)) if mean is not None else None for mean, spread in means]
    return [
        {
            "row": label,
            "seed": seed,
            "s": step,
            "mean": [one and one[0] for one in known],
            "low": [one and _rounded(one[0] - one[1]) for one in known],
            "high": [one and _rounded(one[0] + one[1]) for one in known],
        }
    ]


def _rounded(value: float) -> float:
    return round(value, 4)


def _in_layers(sets: Datasets, rows: Rows, fields: list[str], layers: Sequence[str]) -> alt.Chart:
    """Return a chart of one datum per layer, of rows at a step `s` with a list of one value per layer and field."""
    return (
        alt.Chart(sets.add(rows))
        .transform_filter("datum.s === toNumber(step)")
        .transform_calculate(n=f"sequence(1, {len(layers) + 1})")
        .transform_flatten([*fields, "n"])
        .transform_filter(f"isValid(datum.{fields[0]})")
        .transform_calculate(layer=f"{list(layers)}[datum.n - 1]")
    )


def channels(
    series: Sequence[Series], records: Mapping[str, RowRecords], turned: Mapping[str, TurnedOff], caption: str
) -> Figure | None:
    """Draw the share of turned-off channels in each layer and over epochs. `records` and `turned` are by label."""
    sets = Datasets()
    drawn = [one for one in series if one.label in turned]
    if not drawn:
        return None
    by_epoch = [
        {"row": one.label, "seed": line["seed"], "epoch": line["epoch"], "share": line["share"]}
        for one in drawn
        for line in turned[one.label].epochs
    ]
    epochs, layers = Epochs(drawn, records), records[drawn[0].label].layers
    rows = [
        {"row": one.label, "seed": seed, "s": step, "share": shares}
        for one in drawn
        for (seed, step), shares in _shares(turned[one.label], layers, len(epochs)).items()
    ]
    share = "channels turned off (%)"
    tooltip = [ROW, alt.Tooltip("layer:N"), alt.Tooltip("share:Q", format=".1f")]
    base = _in_layers(sets, rows, ["share"], layers).encode(
        x=_layer_axis(), y=alt.Y("share:Q", title=share, axis=VERTICAL), tooltip=tooltip
    )
    if any(len(turned[one.label].which) > 1 for one in drawn):
        caption += " Lines are means over seeds. Bands extend from the lowest to the highest seed."
    panels = (
        Panel("in each layer", lined(base, drawn)),
        Panel("in all layers, over epochs", over_epochs(sets, drawn, by_epoch, "share", share)),
    )
    seeds = seed_control((line["seed"] for line in by_epoch), "mean over all seeds")
    return Figure(
        "channels",
        "Channels turned off",
        caption,
        panels,
        tuple(drawn),
        controls=(epochs.control(), *seeds),
        wide=True,
        datasets=sets,
    )


def _shares(turned: TurnedOff, layers: Sequence[str], steps: int) -> dict[tuple[str, int], list[float | None]]:
    """Return the mean share of each layer over seeds, by the value of the control of seeds and by step."""
    found: dict[tuple[str, int, str], list[float]] = {}
    logged = {seed: sorted({line["epoch"] for line in turned.layers if line["seed"] == seed}) for seed in turned.which}
    for line in of_seeds(turned.layers, "of"):
        epochs = logged[line["of"]]
        place = epochs.index(line["epoch"])
        for step in range(place, place + 1 if place < len(epochs) - 1 else steps):
            found.setdefault((line["seed"], step, line["layer"]), []).append(line["share"])
    return {
        (seed, step): [_mean(found.get((seed, step, layer))) for layer in layers]
        for seed, step in dict.fromkeys((seed, step) for seed, step, _ in found)
    }


def _mean(values: Sequence[float] | None) -> float | None:
    return _rounded(sum(values) / len(values)) if values else None


def layer_ratios(rows: Sequence[dict[str, Any]], title: str, caption: str) -> Figure | None:
    """Draw the spread of quantities per layer in one row, relative to another.

    Args:
        rows: dicts with `layer`, `quantity` and `ratio`.
        title: which row is relative to which.
        caption: the caption.
    """
    sets = Datasets()
    if not rows:
        return None
    order = {layer: number for number, layer in enumerate(dict.fromkeys(row["layer"] for row in rows), 1)}
    kept = [{**row, "n": order[row["layer"]]} for row in rows]
    names = list(dict.fromkeys(row["quantity"] for row in kept))
    legend = alt.Legend(title=None, orient="bottom", columns=2, labelLimit=200)
    chart = (
        alt.Chart(sets.add(kept))
        .mark_line(point=alt.OverlayMarkDef(size=22))
        .encode(
            x=_layer_axis(),
            y=alt.Y("ratio:Q", title="ratio of spreads", scale=alt.Scale(type="log"), axis=alt.Axis(tickCount=4)),
            color=alt.Color("quantity:N", sort=names, scale=alt.Scale(domain=names, range=PART_COLOURS), legend=legend),
            tooltip=["layer:N", "quantity:N", alt.Tooltip("ratio:Q", format=".2f")],
        )
    )
    line = (
        alt.Chart(sets.add([{"one": 1}])).mark_rule(strokeDash=[3, 3], opacity=0.6, color="#808080").encode(y="one:Q")
    )
    panel = Panel(title, alt.layer(line, chart))
    return Figure("spread", "Concentration: how narrow the distributions become", caption, (panel,), datasets=sets)


def _layer_axis() -> alt.X:
    """Return the axis of BN layers by number, counted from 1."""
    axis = alt.Axis(tickMinStep=1, format="d")
    return alt.X("n:Q", title="BN layer", axis=axis, scale=alt.Scale(nice=False, zero=False, padding=6))
