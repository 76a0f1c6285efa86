"""The further numbers from single images, and the mark of rows that may be no better than guessing."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from support.written import outcomes, rows, study, write

import bnft
from bnft.report.per_image import PerImage
from bnft.report.rows import select
from bnft.report.table import render
from bnft.runs.store import Store

LABELS = [image % 4 for image in range(1000)]  # four classes, equally frequent


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "multirun")


def test_counts_of_four_attacked_images() -> None:
    logits = np.eye(3)[[0, 0, 1, 2, 2]]
    found = PerImage.of(
        {"fallen_at": np.array([-1, 0, 2, -1]), "clean_logits": logits, "labels": np.array([0, 1, 1, 2, 0])}
    )
    assert found.robust.tolist() == [False, True, True, False]
    assert found.clean is not None and found.clean.tolist() == [False, True, False, False, True]
    assert found.constant is not None and found.constant.tolist() == [True, False, False, True, True]  # class 1
    assert found.constant_error == 50.0 and found.largest_class == 50.0
    assert found.robust_error_correct == pytest.approx(100 / 3)  # one of the three that are right without an attack
    assert found.clean_error_900 is None


def test_what_older_results_lack_is_not_counted() -> None:
    found = PerImage.of({"fallen_at": np.array([-1, 1])})
    assert found.robust.tolist() == [False, True]
    assert {found.constant_error, found.largest_class, found.clean_error_900, found.robust_error_correct} == {None}


def test_without_a_correct_image_there_is_no_error_among_them() -> None:
    found = PerImage.of({"fallen_at": np.zeros(2), "clean_logits": np.eye(2), "labels": np.array([1, 0])})
    assert found.robust_error_correct is None and found.constant_error == 50.0


def test_the_first_900_images(store: Store) -> None:
    predicted = [*LABELS[:890], *(label + 1 for label in LABELS[890:])]
    write(store, "adv", predictions=(predicted, LABELS))
    (row,) = rows(store, "all")
    assert row["clean_error"] == 11.0 and row["clean_error_900"] == pytest.approx(100 * 10 / 900)


def test_a_collapsed_model_is_marked(store: Store) -> None:
    """It takes every image for one class, which no attack changes: a robust error of 75 % is no robustness."""
    fallen = [label != 2 for label in LABELS[:200]]
    write(store, "bn_only", fallen, predictions=([2] * 1000, LABELS))
    write(store, "adv", outcomes(80), predictions=(LABELS, LABELS))
    adv, collapsed = rows(store, "all")
    assert collapsed["robust_error"] == collapsed["constant_error"] == 75.0
    assert collapsed["largest_class"] == 100.0 and collapsed["robust_error_correct"] == 0.0 and collapsed["at_floor"]
    assert (adv["robust_error"], adv["constant_error"], adv["largest_class"]) == (40.0, 75.0, 25.0)
    assert not adv["at_floor"]
    shown = render(select(store, ["all"]), "terminal")
    (line,) = [line for line in shown.splitlines() if re.match(r"│ADV \+BN ONLY +│", line)]
    assert "† 75.0 [" in line and shown.count("†") == 2
    assert "error on the attacked images is 75.0 %" in " ".join(shown.split())
    assert r"$\dagger$ 75.0" in render(select(store, ["all"]), "tex")


def test_the_mark_is_for_intervals_that_reach_the_constant_classifier(store: Store) -> None:
    write(store, "adv", outcomes(137), predictions=(LABELS, LABELS))  # 68.5 [61.8, 74.5]
    write(store, "bn_params", outcomes(139), predictions=(LABELS, LABELS))  # 69.5 [62.8, 75.5]
    assert [row.at_floor for row in study(store).rows] == [False, True]
    assert "†" not in render(select(store, [study(store).rows[0].results[0].run_folder.name]), "md")


def test_means_over_seeds(store: Store) -> None:
    for seed, fallen in enumerate((20, 60)):
        write(store, "adv", outcomes(fallen), seed=seed, predictions=(LABELS, LABELS))
    (row,) = rows(store, "all")
    assert row["robust_error_correct"] == pytest.approx(20.0) and row["constant_error"] == 75.0


def test_they_stand_in_csv_and_in_python(store: Store) -> None:
    write(store, "adv", outcomes(80), predictions=(LABELS, LABELS))
    (line, *_) = csv.DictReader(io.StringIO(render(select(store, ["all"]), "csv")))
    (record,) = bnft.results(store.root, "all")
    for key, value in {"constant_error": 75.0, "largest_class": 25.0, "robust_error_correct": 40.0}.items():
        assert float(line[key]) == record[key] == value
    assert float(line["clean_error_900"]) == record["clean_error_900"] == 0.0
    assert line["title"] == "ADV"
