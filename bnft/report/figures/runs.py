"""Figures of runs: how they trained, and what they cost."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from bnft.report.figures.base import ROW, Datasets, Figure, Panel, Rows, over_epochs
from bnft.report.groups import Group
from bnft.report.style import PART_COLOURS

CURVE_POINTS = 60  # of a long training that are drawn, at most


def training(group: Group, histories: dict[str, list[list[dict[str, Any]]]]) -> Figure | None:
    """Loss and errors over epochs; `histories` has each label's runs, each a list of lines."""
    sets = Datasets()
    rows: Rows = []
    for series in group.series:
        for history in histories.get(series.label, []):
            step = max(1, -(-len(history) // CURVE_POINTS))
            for line in [*history[:-1:step], *history[-1:]]:
                kept = {key: line.get(key) for key in ("epoch", "loss", "error", "clean_error", "lr")}
                rows.append({"row": series.label, **kept})
    if not rows:
        return None
    panels = [
        Panel(title, over_epochs(sets, group.series, rows, key, axis))
        for key, title, axis in (
            ("loss", "training loss", "cross-entropy"),
            ("error", "training error", "error (%)"),
            ("clean_error", "clean training error, eval mode", "error (%)"),
            ("lr", "learning rate", "learning rate"),
        )
    ]
    caption = (
        "Loss and error of the batches that were trained on: adversarial ones, but for the rows called NORMAL. The"
        " clean error is that of 1,000 training images after each epoch. Learning rates of rows with one schedule lie"
        " on each other."
    )
    if any(len(series.row.results) > 1 for series in group.series):
        caption += " Means over seeds; bands go from the lowest seed to the highest."
    return Figure(
        "training", "Training curves", caption, tuple(panels), group.series, wide=True, height=200, datasets=sets
    )


def costs(group: Group, seconds: Sequence[dict[str, Any]]) -> Figure | None:
    """What each row cost: seconds of training and of evaluation, a run."""
    sets = Datasets()
    rows = [
        {"row": line["row"], "part": part, "seconds": line[part]}
        for line in seconds
        for part in ("training", "evaluation")
        if line.get(part) is not None
    ]
    if not rows:
        return None
    order = [series.label for series in group.series]
    chart = (
        alt.Chart(sets.add(rows))
        .mark_bar()
        .encode(
            y=alt.Y("row:N", title=None, sort=order),
            x=alt.X("sum(seconds):Q", title="seconds a run"),
            color=alt.Color(
                "part:N",
                sort=["training", "evaluation"],
                scale=alt.Scale(domain=["training", "evaluation"], range=PART_COLOURS[:2]),
                legend=alt.Legend(title=None, orient="bottom", columns=1),
            ),
            tooltip=[ROW, "part:N", alt.Tooltip("sum(seconds):Q", format=".1f")],
        )
    )
    caption = "Mean over seeds, without what a run's base cost."
    return Figure(
        "cost",
        "Cost: what each run took",
        caption,
        (Panel("seconds", chart),),
        (),
        height=26 * len(order) + 40,
        tall=True,
        datasets=sets,
    )
