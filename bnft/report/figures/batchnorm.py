"""Figures of BN layers: Figures 1 and 2 of the paper, and the channels that fine-tuning turned off."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from bnft.batchnorm.record import QUANTITIES
from bnft.report.channels import TurnedOff
from bnft.report.distributions import Histograms, LayerMeans, histograms
from bnft.report.figures.base import ROW, Chart, Control, Datasets, Figure, Panel, colour, dash, over_epochs
from bnft.report.groups import Series
from bnft.report.recorded import RowRecords
from bnft.report.style import PART_COLOURS

PAPER_LAYER = 7  # the 8th BN layer, which the paper's Figure 1 shows
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


def figure1(series: Sequence[Series], records: Mapping[str, RowRecords], every_epoch: bool = True) -> Figure | None:
    """Draw histograms of each quantity. A list selects the layer, and a slider the logged epoch.

    Args:
        series: the rows. Rows without a record are left out.
        records: the records by label. With several seeds, the first one is drawn.
        every_epoch: whether to include all logged epochs, rather than the last one only.

    Returns:
        The figure; None if no row has a record.
    """
    sets = Datasets()
    shown = [one for one in series if one.label in records and records[one.label].layers]
    if not shown:
        return None
    first_records = [records[one.label].first for one in shown]
    drawn = [record for record in first_records if record is not None]
    layers = drawn[0].layers
    places = max(len(record.epochs) for record in drawn)
    steps = list(range(places)) if every_epoch else [places - 1]
    start = min(PAPER_LAYER, len(layers) - 1)
    panels = []
    for quantity in QUANTITIES:
        rows: list[dict[str, Any]] = []
        for layer in layers:
            histogram = histograms(drawn, layer, quantity, log10=quantity == "variance")
            if histogram is not None:
                rows += _lines(shown, histogram, steps)
        panels.append(Panel(AXES[quantity], _histogram(sets, shown, rows, layers[start], steps[-1], quantity)))
    controls = [Control("layer", "layer", tuple(layers), start)]
    if len(steps) > 1:
        choices = tuple(_epochs_at(step, shown, [record.epochs for record in drawn]) for step in steps)
        controls.append(Control("step", "after epoch", choices, len(steps) - 1, slider=True))
    epochs = " · ".join(f"{one.label}: {_some(record.epochs)}" for one, record in zip(shown, drawn, strict=True))
    seeds = {seed for one in shown for seed in list(records[one.label].records)[:1]}
    caption = (
        "Number of channels in each bin, for one BN layer. BN maps its input z to m z + b, with m = γ / √(σ² + ε) and"
        " b = β − m μ (Equation 1). γ is the scale itself. If BN is written with a scale of 1 + w, γ − 1 is w. All rows"
        " and epochs have the same bins; the outermost bins also count values beyond them. The paper shows its 8th"
        f" layer after training. Seed {', '.join(map(str, sorted(seeds)))}. The slider selects a logged epoch"
        f" ({epochs}); epoch 0 is before training."
    )
    title = "Figure 1: BN layers, channel by channel"
    return Figure(
        "figure1", title, caption, tuple(panels), tuple(shown), tuple(controls), height=190, wide=True, datasets=sets
    )


def _epochs_at(step: int, shown: Sequence[Series], logged: Sequence[Sequence[int]]) -> str:
    """Return the epoch of each row at a step of the slider, or one number if all rows have the same."""
    at_step = [epochs[min(step, len(epochs) - 1)] for epochs in logged]
    if len(set(at_step)) == 1:
        return str(at_step[0])
    return ", ".join(f"{epoch} ({one.label})" for one, epoch in zip(shown, at_step, strict=True))


def _some(epochs: Sequence[int]) -> str:
    if len(epochs) <= 2 or epochs == list(range(epochs[0], epochs[-1] + 1)):
        return f"{epochs[0]} to {epochs[-1]}"
    return f"{len(epochs)} epochs from {epochs[0]} to {epochs[-1]}"


def _lines(shown: Sequence[Series], histogram: Histograms, steps: Sequence[int]) -> list[dict[str, Any]]:
    """Return one dict per row and step. Its keys are short, because there are thousands of them.

    A row with fewer epochs stays at its last one.
    """
    low, high = histogram.edges[0], histogram.edges[-1]
    lines = []
    for one, counts, epochs in zip(shown, histogram.counts, histogram.epochs, strict=True):
        for step in steps if counts else ():
            place = min(step, len(counts) - 1)
            line = {"row": one.label, "l": histogram.layer, "s": step, "e": epochs[place]}
            drawn = [*counts[place], counts[place][-1]]  # the last bin needs an end
            lines.append({**line, "c": drawn, "a": _short(low), "z": _short(high)})
    return lines


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _histogram(
    sets: Datasets, shown: Sequence[Series], rows: list[dict[str, Any]], layer: str, step: int, quantity: str
) -> Chart:
    """Draw the histogram of one quantity as steps. The page sets the signals `layer` and `step`."""
    place, log, title = "datum.i / datum.n", quantity == "variance", None
    x = f"datum.a * pow(datum.z / datum.a, {place})" if log else f"datum.a + (datum.z - datum.a) * {place}"
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False, nice=False)
    axis = alt.Axis(format="~g", tickCount=5, labelOverlap=True)
    if quantity == "gamma":
        title, axis.labelExpr = GAMMA_TITLE, GAMMA_LABELS
    return (
        alt.Chart(sets.add(rows))
        .add_params(alt.param(name="layer", value=layer), alt.param(name="step", value=step))
        .transform_filter("datum.l === layer && datum.s === step")
        .transform_calculate(n="length(datum.c) - 1", i="sequence(length(datum.c))")
        .transform_flatten(["c", "i"])
        .transform_calculate(x=x)
        .mark_line(interpolate="step-after")
        .encode(
            x=alt.X("x:Q", title=title, scale=scale, axis=axis),
            y=alt.Y("c:Q", title="channels"),
            color=colour(shown),
            strokeDash=dash(shown),
            tooltip=[ROW, alt.Tooltip("e:Q", title="epoch"), alt.Tooltip("c:Q", title="channels")],
        )
    )


def figure2(series: Sequence[Series], means: Mapping[str, LayerMeans], caption: str) -> Figure | None:
    """Draw the mean of the normalized weight m in each layer. `means` is by label."""
    sets = Datasets()
    shown = [one for one in series if one.label in means]
    rows: list[dict[str, Any]] = []
    for one in shown:
        of_row = means[one.label]
        for number, (layer, mean, spread) in enumerate(
            zip(of_row.layers, of_row.means, of_row.deviations, strict=True), 1
        ):
            if mean is not None:
                low, high = (mean - spread, mean + spread) if spread is not None else (mean, mean)
                rows.append({"row": one.label, "n": number, "layer": layer, "mean": mean, "low": low, "high": high})
    if not rows:
        return None
    base = alt.Chart(sets.add(rows))
    x = _layer_axis()
    y = alt.Y("mean:Q", title="mean of m")
    tooltip = [ROW, "layer:N", alt.Tooltip("mean:Q", format=".3f")]
    line = base.mark_line(point=alt.OverlayMarkDef(size=22)).encode(
        x=x, y=y, color=colour(shown), strokeDash=dash(shown), tooltip=tooltip
    )
    rule = base.mark_rule(opacity=0.5).encode(
        x=x, y=alt.Y("low:Q", title="mean of m"), y2="high:Q", color=colour(shown)
    )
    title = "Figure 2: mean normalized weight"
    return Figure(
        "figure2",
        title,
        caption,
        (Panel("mean of m in each layer", alt.layer(rule, line)),),
        tuple(shown),
        datasets=sets,
    )


def channels(series: Sequence[Series], turned: Mapping[str, TurnedOff], caption: str) -> Figure | None:
    """Draw the share of turned-off channels, per layer after training, and over epochs. `turned` is by label."""
    sets = Datasets()
    shown = [one for one in series if one.label in turned]
    if not shown:
        return None
    by_layer: dict[tuple[str, str], list[float]] = {}
    by_epoch = [
        {"row": one.label, "epoch": line["epoch"], "share": line["share"]}
        for one in shown
        for line in turned[one.label].epochs
    ]
    order: dict[str, int] = {}
    for one in shown:
        for line in turned[one.label].last:
            by_layer.setdefault((one.label, line["layer"]), []).append(line["share"])
            order.setdefault(line["layer"], len(order) + 1)
    rows = [
        {"row": row, "n": order[layer], "layer": layer, "share": sum(shares) / len(shares)}
        for (row, layer), shares in by_layer.items()
    ]
    share = "channels turned off (%)"
    layers = (
        alt.Chart(sets.add(rows))
        .mark_line(point=alt.OverlayMarkDef(size=22))
        .encode(
            x=_layer_axis(),
            y=alt.Y("share:Q", title=share),
            color=colour(shown),
            strokeDash=dash(shown),
            tooltip=[ROW, "layer:N", alt.Tooltip("share:Q", format=".1f")],
        )
    )
    epochs = over_epochs(sets, shown, by_epoch, "share", share)
    if any(len(turned[one.label].which) > 1 for one in shown):
        caption += " Lines are means over seeds. Bands extend from the lowest to the highest seed."
    panels = (Panel("in each layer, after training", layers), Panel("in all layers, over epochs", epochs))
    return Figure("channels", "Channels turned off", caption, panels, tuple(shown), wide=True, datasets=sets)


def layer_ratios(rows: Sequence[dict[str, Any]], caption: str) -> Figure | None:
    """Draw the spread of quantities per layer, relative to the base. Rows have `layer`, `quantity` and `ratio`."""
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
            y=alt.Y("ratio:Q", title="relative to NORMAL's", scale=alt.Scale(type="log")),
            color=alt.Color("quantity:N", sort=names, scale=alt.Scale(domain=names, range=PART_COLOURS), legend=legend),
            tooltip=["layer:N", "quantity:N", alt.Tooltip("ratio:Q", format=".2f")],
        )
    )
    line = (
        alt.Chart(sets.add([{"one": 1}])).mark_rule(strokeDash=[3, 3], opacity=0.6, color="#808080").encode(y="one:Q")
    )
    panel = Panel("BN PARAMS relative to NORMAL", alt.layer(line, chart))
    return Figure("spread", "Concentration: how narrow the distributions become", caption, (panel,), datasets=sets)


def _layer_axis() -> alt.X:
    """Return the axis of BN layers by number, counted from 1."""
    axis = alt.Axis(tickMinStep=1, format="d")
    return alt.X("n:Q", title="BN layer", axis=axis, scale=alt.Scale(nice=False, zero=False))
