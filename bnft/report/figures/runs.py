"""Figures of runs: how they trained, and what they cost."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from bnft.report.figures.base import ROW, Datasets, Figure, Panel, Rows, colour, dash
from bnft.report.groups import Group

CURVE_POINTS = 60  # of a long training that are drawn, at most


def training(group: Group, histories: dict[str, list[list[dict[str, Any]]]]) -> Figure | None:
    """Loss and errors over epochs; `histories` has each label's runs, each a list of lines."""
    sets = Datasets()
    rows: Rows = []
    for series in group.series:
        for seed, history in enumerate(histories.get(series.label, [])):
            step = max(1, -(-len(history) // CURVE_POINTS))
            for line in [*history[:-1:step], *history[-1:]]:
                kept = {key: line.get(key) for key in ("epoch", "loss", "error", "clean_error", "lr")}
                rows.append({"row": series.label, "run": f"{series.label}/{seed}", **kept})
    if not rows:
        return None
    panels = [
        Panel(title, _curve(sets, group, rows, key, axis, zero))
        for key, title, axis, zero in (
            ("loss", "training loss", "cross-entropy", True),
            ("error", "training error", "error (%)", True),
            ("clean_error", "clean training error, eval mode", "error (%)", True),
            ("lr", "learning rate", "learning rate", True),
        )
    ]
    caption = (
        "Loss and error of the batches that were trained on: adversarial ones, but for the rows called NORMAL. The"
        " clean error is that of 1,000 training images after each epoch. One line a seed."
    )
    return Figure(
        "training", "Training curves", caption, tuple(panels), group.series, wide=True, height=200, datasets=sets
    )


def _curve(sets: Datasets, group: Group, rows: Rows, key: str, axis: str, zero: bool) -> alt.Chart:
    kept = [{name: row[name] for name in ("row", "run", "epoch", key)} for row in rows if row[key] is not None]
    return (
        alt.Chart(sets.add(kept))
        .mark_line()
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(nice=False)),
            y=alt.Y(f"{key}:Q", title=axis, scale=alt.Scale(zero=zero)),
            color=colour(group.series),
            strokeDash=dash(group.series),
            detail="run:N",
            tooltip=[ROW, "epoch:Q", alt.Tooltip(f"{key}:Q", format=".4g")],
        )
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
            y=alt.Y("row:N", title=None, sort=order, axis=alt.Axis(labelLimit=240)),
            x=alt.X("sum(seconds):Q", title="seconds a run"),
            color=alt.Color(
                "part:N",
                sort=["training", "evaluation"],
                scale=alt.Scale(domain=["training", "evaluation"], range=["#0072B2", "#C77C00"]),
                legend=alt.Legend(title=None, orient="bottom"),
            ),
            tooltip=[ROW, "part:N", alt.Tooltip("sum(seconds):Q", format=".1f")],
        )
    )
    caption = "Mean over seeds, without what a run's base cost. Blue: training, orange: evaluation."
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
