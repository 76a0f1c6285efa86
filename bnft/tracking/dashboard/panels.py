"""The panels of a dashboard. The workspace and the report have the same. See `tracking/keys.py` for the metrics."""

import re
from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr

from bnft.batchnorm.record import QUANTITIES
from bnft.tracking import keys

SHOWN_RUNS = 100  # W&B draws 10 runs per panel by default, and Table 2 has 11
Panels = list[Any]  # wandb-workspaces has no common type for its panels


def errors() -> Panels:
    """Return bar plots of clean and robust error, with one bar per policy."""
    return [
        wr.BarPlot(
            title=title, metrics=[key], range_x=(0, 100), max_runs_to_show=SHOWN_RUNS, max_bars_to_show=SHOWN_RUNS
        )
        for title, key in (("Clean error %", keys.TEST_CLEAN_ERROR), ("Robust error %", keys.TEST_ROBUST_ERROR))
    ]


def trade_off() -> Panels:
    """Return a scatter plot of robust against clean error, with one point per run."""
    return [
        wr.ScatterPlot(
            title="Robust against clean error %",
            x=wr.SummaryMetric(keys.TEST_CLEAN_ERROR),
            y=wr.SummaryMetric(keys.TEST_ROBUST_ERROR),
            range_x=(0, 100),
            range_y=(0, 100),
        )
    ]


def curves(monitored: bool) -> Panels:
    """Return training curves by epoch, with one line per policy: the mean over its seeds, and their range.

    Errors on held-out images are among them if any run is `monitored`.
    """
    drawn = (
        ("Training loss", keys.TRAIN_LOSS),
        ("Training error %", keys.TRAIN_ERROR),
        ("Clean training error %", keys.TRAIN_CLEAN_ERROR),
        ("Adversarial training error %", keys.TRAIN_ADVERSARIAL_ERROR),
        ("Training loss of PGD", keys.TRAIN_PGD_LOSS),
        ("Learning rate", keys.TRAIN_LR),
    )
    measured = (
        ("Clean error % on held-out training images", keys.MONITOR_CLEAN_ERROR),
        ("Robust error % on held-out training images, quick attack", keys.MONITOR_ROBUST_ERROR),
    )
    return [_by_epoch(title, [key]) for title, key in (*drawn, *(measured if monitored else ()))]


def mean_m(layers: Sequence[str]) -> Panels:
    """Return Figure 2: the mean of m of all layers after training, and that of each layer by epoch."""
    if not layers:
        return [_by_epoch("Mean m, all layers", [], metric_regex=f"^{re.escape(keys.MEAN_M_PREFIX)}.*")]
    depth = [
        wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(keys.mean_m(layer)), display_name=layer)
        for layer in layers
    ]
    overview = wr.ParallelCoordinatesPlot(
        title="Mean m after training, from the first layer to the last", columns=depth
    )
    return [overview, *(_by_epoch(f"Mean m of {layer}", [keys.mean_m(layer)]) for layer in layers)]


def histograms(layer: str) -> Panels:
    """Return histograms of the six quantities of a layer over its channels, by epoch.

    W&B draws those of one run, the first visible one.
    """
    return [
        wr.LinePlot(title=f"{quantity} of {layer}", title_x="epoch", y=[keys.bn(layer, quantity)])
        for quantity in QUANTITIES
    ]


def evaluation() -> Panels:
    """Return the table of the cascade, and examples."""
    return [
        wr.WeavePanelSummaryTable(table_name=keys.CASCADE),
        wr.MediaBrowser(title="Images, clean and adversarial", media_keys=[keys.EXAMPLES], gallery_axis="run"),
    ]


def arranged(panels: Panels, width: int, height: int = 7) -> Panels:
    """Arrange panels in rows. `width` is the width of a panel, in columns of a report, which has 24."""
    for place, panel in enumerate(panels):
        row, column = divmod(place, 24 // width)
        panel.layout = wr.Layout(x=column * width, y=row * height, w=width, h=height)
    return panels


def _by_epoch(title: str, metrics: list[str], **more: Any) -> Any:
    return wr.LinePlot(
        title=title,
        title_x="epoch",  # the step of everything that a run logs
        y=metrics,
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        smoothing_type="none",
        max_runs_to_show=SHOWN_RUNS,
        **more,
    )
