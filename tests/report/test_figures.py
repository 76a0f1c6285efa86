"""Details of figures that a reader notices: ticks, markers, scales, and what stands for a row in the legend."""

import json
from typing import Any

import pytest
from support.histories import history

from bnft.report.figures.base import Figure, epoch_axis
from bnft.report.figures.errors import _eps
from bnft.report.figures.runs import training
from bnft.report.groups import Group
from bnft.report.page import legend


@pytest.mark.parametrize(
    ("epochs", "ticks"),
    [
        ([1], [1]),
        ([1, 2], [1, 2]),
        ([0, 1, 2], [0, 1, 2]),
        (range(1, 16), [1, 2, 4, 6, 8, 10, 12, 14]),
        (range(1, 151), [1, 20, 40, 60, 80, 100, 120, 140]),
        ([0, 10, 30], [0, 5, 10, 15, 20, 25, 30]),
        ([], [0]),
    ],
)
def test_ticks_of_epochs_are_whole_numbers_and_none_is_there_twice(epochs: Any, ticks: list[int]) -> None:
    axis: Any = epoch_axis(epochs).to_dict()
    assert axis["axis"]["values"] == ticks
    low, high = axis["scale"]["domain"]
    assert low < high, "a single epoch has room on both sides"


def test_a_row_with_one_epoch_has_a_marker(group: Group) -> None:
    """A line of one point is invisible, also beside rows with several epochs."""
    figure = training(group, {"NORMAL": {0: history(1)}, "ADV": {0: history(3)}})
    assert figure is not None
    line, points = figure.screen()[0]["layer"]
    assert line["mark"]["type"] == "line" and points["mark"]["type"] == "point"
    assert points["transform"][1:] == [{"filter": "datum.last"}]
    (rows,) = figure.screen()[0]["datasets"].values()
    assert [(row["row"], row["epoch"]) for row in rows if row.get("last")] == [("NORMAL", 1), ("ADV", 3)]


def test_legends_have_the_symbols_of_the_charts(group: Group) -> None:
    figure = training(group, {"NORMAL": {0: history(1)}, "ADV": {0: history(3)}})
    assert figure is not None
    assert all("<line" in entry["symbol"] and "<circle" in entry["symbol"] for entry in legend(figure))
    marks = {"line": ("<line", "<circle"), "point": ("<circle",), "area": ("<rect",), "none": ()}
    for symbols, expected in marks.items():
        plain = Figure("key", "title", "", (), group.series, None, symbols, datasets=figure.datasets)  # type: ignore[arg-type]
        for entry in legend(plain):
            assert [mark for mark in ("<line", "<circle", "<rect") if mark in entry["symbol"]] == [*expected]


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (8 / 255, "8/255"),
        (2 / 255, "2/255"),
        (0.00784, "2/255"),
        (0.0314, "8/255"),
        (128 / 255, "128/255"),
        (0.5, "0.5"),
        (0.15, "0.15"),
        (0.031, "0.031"),
        (0.12345, "0.123"),
        (0.0, "0"),
    ],
)
def test_eps_is_a_short_number_or_a_fraction_of_255(eps: float, text: str) -> None:
    assert _eps(eps) == text


def test_print_has_the_rows_and_the_choices_that_are_shown_at_first(group: Group) -> None:
    figure = training(group, {"NORMAL": {0: history(1)}, "ADV": {0: history(3)}})
    assert figure is not None
    some = Figure("key", "title", "", figure.panels, group.series, ("ADV",), datasets=figure.datasets)
    printed = some.printed()
    assert {"name": "hidden", "value": ["NORMAL"]} in printed["params"]
    assert '"values": ["ADV"]' in json.dumps(printed), "the legend has no other row"
    assert '"values": ["ADV"]' not in json.dumps(some.screen())
