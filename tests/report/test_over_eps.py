"""Robust error over eps as it is stored, tabulated and drawn."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import made_up
from support.made_up import rate

from bnft.common.errors import DamagedError
from bnft.report.figures.base import Figure
from bnft.report.figures.errors import over_eps
from bnft.report.rows import select
from bnft.report.table import render
from bnft.runs.store import Store

EPS = 8 / 255
BUDGETS = [4 / 255, EPS, 16 / 255]
CURVE = {**made_up.EVALUATION, "attack": "quick", "version": None, "eps": EPS, "budgets": BUDGETS}
LABELS, LOGITS = np.array([0, 0, 1, 1]), np.eye(2, dtype=np.float32)[[1, 0, 1, 1]]  # the first is misclassified


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "multirun")


def add(store: Store, policy: str = "bn_params", within: tuple[int, ...] = (0, 1, 3, -1), **changes: Any) -> Any:
    """Write a run whose images are broken within the budgets of these numbers."""
    fallen_within = np.array(within, np.int8)
    fallen_at = np.where(fallen_within > 2, -1, fallen_within).astype(np.int8)
    errors = [int(((fallen_within >= 0) & (fallen_within <= number)).sum()) for number in range(4)]
    curve = [{"eps": eps, **rate(count, 4)} for eps, count in zip([0.0, *BUDGETS], errors, strict=True)]
    outcomes = {"fallen_at": fallen_at, "fallen_within": fallen_within, "labels": LABELS, "clean_logits": LOGITS}
    return made_up.run(store, policy, evaluation=CURVE, outcomes=outcomes, **{"curve": curve, **changes})


def test_json_has_the_curve_with_means_over_seeds_and_csv_leaves_it_out(store: Store) -> None:
    add(store, seed=0)
    add(store, seed=1, within=(0, 1, 1, -1))
    made_up.run(store, "normal")
    selection = select(store, ["all"])
    by_policy = {row["policy"]: row for row in json.loads(render(selection, "json"))["rows"]}
    curve = by_policy["bn_params"]["curve"]
    assert [point["eps"] for point in curve] == [0.0, *BUDGETS]
    assert [point["error"] for point in curve] == [25.0, 62.5, 62.5, 75.0]
    assert curve[1]["sd"] == pytest.approx(17.678, abs=1e-3) and curve[1]["images"] == 4
    assert curve[1]["interval"][0] < 62.5 < curve[1]["interval"][1]
    assert by_policy["bn_params"]["robust_error"] == curve[2]["error"], "the number in tables is that within eps"
    assert by_policy["normal"]["curve"] is None
    assert "curve" not in next(csv.reader(io.StringIO(render(selection, "csv"))))


def test_a_curve_that_differs_from_its_outcomes_is_damaged(store: Store) -> None:
    wrong = [{"eps": eps, **rate(count, 4)} for eps, count in zip([0.0, *BUDGETS], (1, 2, 2, 4), strict=True)]
    (folder,) = add(store, curve=wrong).evaluations()
    with pytest.raises(DamagedError, match="its error within 16/255 differs from the result"):
        folder.outcomes()


def test_a_curve_that_differs_from_the_robust_error_is_damaged(store: Store) -> None:
    outcomes = {"fallen_at": np.array([0, -1, -1, -1], np.int8), "fallen_within": np.array([0, 1, 3, -1], np.int8)}
    curve = [{"eps": eps, **rate(count, 4)} for eps, count in zip([0.0, *BUDGETS], (1, 2, 2, 3), strict=True)]
    (folder,) = made_up.run(store, "adv", evaluation=CURVE, outcomes=outcomes, curve=curve).evaluations()
    with pytest.raises(DamagedError, match="its robust error differs from the result"):
        folder.outcomes()


def drawn(store: Store) -> tuple[Figure, list[dict[str, Any]]]:
    """Return the figure, and what its lines show."""
    figure = over_eps(made_up.study(store))
    assert figure is not None
    (specification,) = figure.screen()
    return figure, next(iter(specification["datasets"].values()))


def test_the_figure_draws_each_curve_with_its_intervals_and_the_constant_classifier(store: Store) -> None:
    add(store, "bn_params")
    add(store, "adv", within=(0, 3, 3, -1))
    figure, points = drawn(store)
    shown = [(point["row"], point["budget"], point["robust"]) for point in points]
    names = ("0", "4/255", "8/255", "16/255")
    errors = {"ADV": (25, 25, 25, 75), "BN PARAMS": (25, 50, 50, 75)}
    assert shown == [(row, *point) for row, of_row in errors.items() for point in zip(names, of_row, strict=True)]
    assert all(point["robust_low"] < point["robust"] < point["robust_high"] for point in points)
    text = json.dumps(figure.screen())
    assert '"floor": 50.0' in text and "constant classifier" in figure.caption
    assert "['0', '4/255', '8/255', '16/255'][indexof(" in text
    assert "At eps 0" in figure.caption


def test_rows_of_the_same_model_at_several_eps_are_one_line_whatever_attacked_them(store: Store) -> None:
    for eps in (0.1, 0.15):
        changes = {"attack": "pgd", "version": None, "iterations": 40, "step_size": eps / 4, "eps": eps}
        evaluation = {**made_up.EVALUATION, **changes}
        made_up.run(store, "adv", evaluation=evaluation, overrides={"evaluation.attack": "pgd"})
    made_up.run(store, "normal")
    figure, points = drawn(store)
    assert [(point["row"], point["budget"]) for point in points] == [("ADV", "0.1"), ("ADV", "0.15")]
    assert "At eps 0" not in figure.caption


def test_each_norm_has_a_panel(store: Store) -> None:
    add(store)
    for eps in (0.5, 128 / 255):
        made_up.run(store, "adv", evaluation={**made_up.EVALUATION, "norm": "L2", "eps": eps})
    figure = over_eps(made_up.study(store))
    assert figure is not None
    assert {panel.title for panel in figure.panels} == {"robust error, Linf", "robust error, L2"}
    assert "'128/255'" in json.dumps(figure.screen())


def test_there_is_no_figure_of_one_budget(store: Store) -> None:
    made_up.run(store, "adv")
    assert over_eps(made_up.study(store)) is None
