"""The training curves: errors on held-out images have panels of their own if they were measured."""

from typing import Any

from support.histories import history

from bnft.report.figures.base import Figure
from bnft.report.figures.runs import CURVE_POINTS, training
from bnft.report.groups import Group

History = list[dict[str, Any]]


def drawn(group: Group, *histories: History) -> Figure:
    labels = [series.label for series in group.series]
    figure = training(group, {label: {0: lines} for label, lines in zip(labels, histories, strict=True)})
    assert figure is not None
    return figure


def test_without_measurements_the_figure_is_as_before(group: Group) -> None:
    figure = drawn(group, history(5, None), history(5, None))
    assert len(figure.panels) == 4 and "held-out" not in figure.caption


def test_all_measured_epochs_are_drawn_in_a_long_training(group: Group) -> None:
    """Epochs are thinned to a third here, which would leave out most of every fifth."""
    figure = drawn(group, history(3 * CURVE_POINTS, 5), history(3 * CURVE_POINTS, None))
    titles = [panel.title for panel in figure.panels]
    assert titles[4:] == ["clean error, held-out images", "robust error (quick), held-out images"]
    assert "quick attack" in figure.caption and "no test image" in figure.caption
    (points,) = figure.screen()[5]["datasets"].values()
    assert [point["epoch"] for point in points] == list(range(5, 3 * CURVE_POINTS + 1, 5))
    assert all(point["mean"] == point["epoch"] and point["row"] == group.series[0].label for point in points)
