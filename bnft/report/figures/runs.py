"""Figures of the training and the cost of runs."""

from collections.abc import Callable, Mapping
from typing import Any

import altair as alt

from bnft.report.figures.base import ROW, Datasets, Figure, Panel, Rows, by_seed, over_epochs, seed_control, seeds_of
from bnft.report.groups import Group
from bnft.report.rows import Row
from bnft.report.style import PART_COLOURS

Histories = Mapping[int, list[dict[str, Any]]]  # the training histories of a row's runs, by seed

CURVE_POINTS = 60  # drawn epochs of a long training, at most


def training(group: Group, histories: Mapping[str, Histories]) -> Figure | None:
    """Draw loss and errors over epochs. `histories` is by label."""
    sets = Datasets()
    rows: Rows = []
    measured: Rows = []
    for series in group.series:
        for seed, history in histories.get(series.label, {}).items():
            place = {"row": series.label, "seed": seed}
            rows += _points(place, history)
            measured += _points(place, [line for line in history if "monitor_robust_error" in line])
    if not rows:
        return None
    panels = [
        Panel(title, over_epochs(sets, group.series, rows, key, axis))
        for key, title, axis in (
            ("loss", "training loss", "cross-entropy"),
            ("error", "training error", "error (%)"),
            ("clean_error", "clean training error, in eval mode", "error (%)"),
            ("lr", "learning rate", "learning rate"),
        )
    ]
    if measured:
        panels += [
            Panel(title, over_epochs(sets, group.series, measured, key, "error (%)"))
            for key, title in (
                ("monitor_clean_error", "clean error, held-out images"),
                ("monitor_robust_error", "robust error (quick), held-out images"),
            )
        ]
    caption = (
        "Loss and error are those of the training batches, which are adversarial unless a row trains on clean images."
        " The clean error is measured on 1,000 training images after each epoch. Rows with the same schedule have the"
        " same learning rates."
    )
    if measured:
        caption += (
            " The errors on held-out images are those of the model in eval mode on training images that are not"
            " trained on. The robust error is by the quick attack, which can miss adversarial images. It is therefore"
            " not the robust error of the table, and no test image enters it."
        )
    if any(len(found) > 1 for found in histories.values()):
        caption += " Lines are means over seeds. Bands extend from the lowest to the highest seed."
    return Figure(
        "training",
        "Training curves",
        caption,
        tuple(panels),
        group.series,
        controls=seed_control((seed for found in histories.values() for seed in found), "mean over all seeds"),
        wide=True,
        height=200,
        datasets=sets,
    )


def _points(place: dict[str, Any], history: list[dict[str, Any]]) -> Rows:
    """Return at most about CURVE_POINTS lines of a history, the last one included."""
    step = max(1, -(-len(history) // CURVE_POINTS))
    keys = ("epoch", "loss", "error", "clean_error", "lr", "monitor_clean_error", "monitor_robust_error")
    return [{**place, **{key: line.get(key) for key in keys}} for line in [*history[:-1:step], *history[-1:]]]


def costs(group: Group, seconds: Callable[[Row], dict[str, float | None]]) -> Figure | None:
    """Draw the seconds per run of each row. `seconds` returns those of the parts of a row's runs."""
    sets = Datasets()
    rows = [
        {"row": series.label, "seed": seed, "part": part, "seconds": value}
        for series in group.series
        for seed, row in by_seed(series.row).items()
        for part, value in seconds(row).items()
        if value is not None
    ]
    if not rows:
        return None
    order = [series.label for series in group.series]
    parts = list(dict.fromkeys(str(row["part"]) for row in rows))
    chart = (
        alt.Chart(sets.add(rows))
        .mark_bar()
        .encode(
            y=alt.Y("row:N", title=None, sort=order),
            x=alt.X("sum(seconds):Q", title="seconds per run"),
            color=alt.Color(
                "part:N",
                sort=parts,
                scale=alt.Scale(domain=parts, range=PART_COLOURS[: len(parts)]),
                legend=alt.Legend(title=None, orient="bottom", columns=1),
            ),
            tooltip=[ROW, "part:N", alt.Tooltip("sum(seconds):Q", format=".1f")],
        )
    )
    return Figure(
        "cost",
        "Cost: time of each run",
        "Mean over seeds, without the cost of a run's base.",
        (Panel("seconds", chart),),
        group.series,
        symbols="none",
        controls=seeds_of(group, "mean over all seeds"),
        height=26 * len(order) + 40,
        tall=True,
        datasets=sets,
    )
