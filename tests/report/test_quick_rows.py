"""Rows by the quick attack: when they are shown, how they are labelled, and what they are not compared with."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support import table2
from support.written import EVALUATION, outcomes, rows, study, sweep, write

from bnft.common.errors import DamagedError
from bnft.evaluation.settings import STANDS, quick_instead
from bnft.report.content import _strongest
from bnft.report.flat import records
from bnft.report.groups import groups
from bnft.report.rows import select
from bnft.report.table import FORMATS, render
from bnft.report.write import report
from bnft.runs.result import Result, plain, read
from bnft.runs.store import Store
from bnft.sweeps.status import StoreStatus

AUTOATTACK = {**EVALUATION, "seed": 0}
QUICK = {key: value for key, value in quick_instead(AUTOATTACK).items() if value is not None}
STRONGEST = {**AUTOATTACK, "then": "quick", "restarts": 5}
PGD = {**{key: QUICK[key] for key in ("norm", "eps", "n_images", "batch_size")}, "attack": "pgd", "iterations": 40}
OVERRIDES = {"evaluation.attack": "quick", "evaluation.version": None}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "multirun")


def made(store: Store, policy: str, seed: int = 0, quick=None, autoattack=None, **more):
    """Write the preview of a run and its evaluation, unless they are None. Return its entry in a sweep."""
    entry = {}
    for evaluation, fallen, overrides in ((QUICK, quick, OVERRIDES), (AUTOATTACK, autoattack, {})):
        done = fallen is not None
        entry[evaluation["attack"]] = write(
            store, policy, fallen or 0, seed=seed, evaluation=evaluation, overrides=overrides, done=done, **more
        )
    return {**entry["autoattack"], "preview": entry["quick"]["evaluation"]}


def told(store: Store, sweep: str) -> list[tuple[str, str, list[int], float]]:
    return [(row["label"], row["attack"], row["seeds"], row["robust_error"]) for row in rows(store, sweep)]


def test_quick_is_shown_until_autoattack_is_done(store: Store) -> None:
    before = sweep(store, made(store, "adv", quick=100), made(store, "normal", quick=180, autoattack=190))
    assert told(store, before) == [("NORMAL", "autoattack", [0], 95.0), ("ADV (quick)", "quick", [0], 50.0)]
    selection = select(store, [before])
    assert selection.missing == () and len(selection.previewed) == 1
    made(store, "adv", quick=100, autoattack=110)
    assert told(store, before) == [("NORMAL", "autoattack", [0], 95.0), ("ADV", "autoattack", [0], 55.0)]
    assert select(store, [before]).previewed == ()


def test_a_row_shows_autoattack_only_if_all_of_its_seeds_have_it(store: Store) -> None:
    first, second = made(store, "adv", 0, quick=100, autoattack=120), made(store, "adv", 1, quick=110)
    waiting = made(store, "adv", 2)
    name = sweep(store, first, second, waiting)
    assert told(store, name) == [("ADV (quick)", "quick", [0, 1], 52.5)]
    selection = select(store, [name])
    assert (selection.missing, selection.previewed) == ((waiting["run"],), (second["run"],))
    made(store, "adv", 1, quick=110, autoattack=130)
    assert told(store, name) == [("ADV", "autoattack", [0, 1], 62.5)], "a seed without any number is missing, as before"


def test_seeds_without_a_preview_are_a_row_of_their_own(store: Store) -> None:
    name = sweep(store, made(store, "adv", 0, autoattack=120), made(store, "adv", 1, quick=110))
    assert told(store, name) == [("ADV", "autoattack", [0], 60.0), ("ADV (quick)", "quick", [1], 55.0)]


def test_a_preview_that_several_evaluations_show_counts_once(store: Store) -> None:
    first, second = made(store, "adv", 0, quick=100), made(store, "adv", 1, quick=110)
    further = [
        {**entry, "evaluation": write(store, "adv", seed=seed, evaluation=STRONGEST, done=False)["evaluation"]}
        for seed, entry in enumerate((first, second))
    ]
    name = sweep(store, first, second, *further)
    assert told(store, name) == [("ADV (quick)", "quick", [0, 1], 52.5)]
    assert select(store, [name]).previewed == (first["run"], second["run"])


def test_an_entry_without_a_preview_does_not_hide_that_of_another(store: Store) -> None:
    entry = made(store, "adv", quick=100)
    alone = {key: value for key, value in entry.items() if key != "preview"}
    first, second = sweep(store, entry, alone), sweep(store, alone)
    for names in ([first], [first, second]):
        assert [result.result.evaluation.attack for result in select(store, names).results] == ["quick"]


def test_a_run_whose_evaluations_are_all_missing_is_named_once(store: Store) -> None:
    entries = [write(store, "adv", evaluation=evaluation, done=False) for evaluation in (AUTOATTACK, STRONGEST)]
    assert select(store, [sweep(store, *entries)]).missing == (entries[0]["run"],)


def test_a_preview_in_the_place_of_a_result_that_is_done_counts_once(store: Store) -> None:
    first, second = made(store, "adv", 0, quick=100, autoattack=120), made(store, "adv", 1, quick=110)
    asked = {"run": first["run"], "evaluation": first["preview"]}
    assert told(store, sweep(store, asked, first, second)) == [("ADV (quick)", "quick", [0, 1], 52.5)]


def test_nothing_published_stands_beside_quick(store: Store) -> None:
    name = sweep(store, made(store, "adv", quick=100), made(store, "normal", quick=190, autoattack=199))
    found = json.loads(render(select(store, [name]), "json"))
    assert [row["paper"] is None for row in found["rows"]] == [False, True]
    claims = {claim["text"]: claim for claim in found["claims"]}
    assert claims["Adversarial training lowers robust error"]["verdict"] == "not measured", "by two attacks"


def test_claims_are_tested_on_quick_alone_and_say_so(store: Store) -> None:
    predictions: dict[str, Any] = {"predictions": ([0] * 500, [0] * 475 + [1] * 25)}
    for policy, quick in (("adv", 100), ("normal", 190), ("bn_params", 150)):
        made(store, policy, quick=quick, **predictions)
    name = sweep(store, *(made(store, policy, **predictions) for policy in ("adv", "normal", "bn_params")))
    claims = {claim["text"]: claim for claim in json.loads(render(select(store, [name]), "json"))["claims"]}
    robust = claims["Adversarial training lowers robust error"]
    assert (robust["verdict"], robust["difference"], robust["paper"]) == ("holds", -45.0, None)
    assert robust["qualification"] == "for these two networks (quick)"
    clean = claims["Clean error rises much with BN PARAMS"]
    assert clean["qualification"] == "for these two networks" and clean["paper"] == pytest.approx(25.56)
    for form in ("terminal", "md", "tex"):
        text = " ".join(render(select(store, [name]), form).split())
        assert "holds for these two networks (quick)" in text and "-41.4" not in text


def test_results_of_a_search_that_does_not_exist_any_more_keep_their_label(store: Store) -> None:
    fast = write(store, "adv", 99, evaluation={**AUTOATTACK, "search": "fast"}, overrides={"evaluation.search": "fast"})
    usual = write(store, "adv", 100, evaluation={**AUTOATTACK, "search": None})
    table2.sweep(store, [table2.placed(fast, {"evaluation.search": "fast"}), table2.placed(usual, {})])
    found = json.loads(render(select(store, ["all"]), "json"))["rows"]
    told = [(row["label"], row["robust_error"], row["paper"] is None) for row in found]
    assert told == [("ADV", 50.0, False), ("ADV [evaluation.search=fast]", 49.5, True)]


def test_a_policy_whose_own_evaluation_is_quick_is_no_row_of_the_paper(store: Store) -> None:
    write(store, "adv", evaluation=QUICK)
    assert study(store).rows[0].published is None


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_that_a_number_is_by_quick(store: Store, form: str) -> None:
    name = sweep(store, made(store, "adv", quick=100))
    text = render(select(store, [name]), form)
    assert "ADV (quick)" in text and "evaluation.attack" not in text.replace('"evaluation.attack"', "")
    if form in ("terminal", "md", "tex"):
        assert "marks robust errors by the quick attack" in " ".join(text.split())
    if form == "csv":
        assert next(csv.DictReader(io.StringIO(text)))["attack"] == "quick"


def test_robust_error_over_eps_is_told_from_quick(store: Store) -> None:
    curve = {**QUICK, "budgets": [0.1, 0.15]}
    made(store, "adv", quick=100, autoattack=110)
    made(store, "bn_params", quick=120)
    for policy in ("adv", "bn_params"):
        write(store, policy, 90, evaluation=curve, overrides=OVERRIDES)
    labels = ["ADV", "ADV (quick, curve)", "BN PARAMS (quick)", "BN PARAMS (quick, curve)"]
    assert sorted(study(store).labels()) == labels, "the preview of ADV is not shown any more"
    text = " ".join(render(select(store, ["all"]), "terminal").split())
    assert "(quick, curve) marks robust errors" in text and "(quick) marks robust errors by" in text
    assert sorted(status.line().robust for status in StoreStatus(store, jobs=()).statuses()) == [
        "55.0",
        "≥ 45.0 (quick, curve)",
        "≥ 45.0 (quick, curve)",
        "≥ 50.0 (quick)",
        "≥ 60.0 (quick)",
    ]


def test_other_evaluations_have_names_too(store: Store) -> None:
    write(store, "adv", evaluation=PGD, overrides={"evaluation.attack": "pgd", "evaluation.version": None})
    write(store, "adv", evaluation={**PGD, "iterations": 10}, overrides={"evaluation.attack": "pgd"})
    write(store, "adv")
    write(store, "normal")
    one = study(store)
    assert one.labels() == [
        "NORMAL",
        "ADV",
        "ADV (PGD) [evaluation.iterations=10]",
        "ADV (PGD) [evaluation.iterations=40]",
    ]
    assert {group.title for group in groups(one)} == {
        "AutoAttack",
        "PGD, evaluation.iterations=10",
        "PGD, evaluation.iterations=40",
    }


def test_the_labels_of_figures_say_quick(store: Store) -> None:
    name = sweep(
        store, made(store, "normal", quick=190), made(store, "adv", quick=100), made(store, "bn_params", autoattack=150)
    )
    (one,) = select(store, [name]).studies()
    labels = {group.title: [series.label for series in group.series] for group in groups(one)}
    assert labels == {"AutoAttack": ["BN PARAMS"], "quick attack": ["NORMAL (quick)", "ADV (quick)"]}


def test_a_quick_evaluation_is_left_out_of_all_runs_once_autoattack_is_done(store: Store) -> None:
    made(store, "adv", quick=100, autoattack=120)
    made(store, "normal", quick=190)
    other = write(store, "adv", 90, evaluation={**QUICK, "eps": 0.1}, overrides={**OVERRIDES, "evaluation.eps": 0.1})
    found = [(row["title"], row["attack"], row["evaluation"]["eps"]) for row in rows(store, "all")]
    assert sorted(found) == [("ADV", "autoattack", 0.15), ("ADV", "quick", 0.1), ("NORMAL", "quick", 0.15)]
    assert len(rows(store, other["run"])) == 2


# the strongest evaluation


def strongest(store: Store, entry: dict[str, str], beyond: int, broken: int | None = None) -> None:
    """Let a further attack break `beyond` more images of a written run. Its outcomes have `broken`, or as many."""
    folder = store.run(entry["run"]).evaluation(entry["evaluation"])
    stored = folder.result()
    assert stored is not None
    result = plain(stored)
    rate = {"errors": result["robust"]["errors"] + beyond, "images": 200}
    rate |= {"error": rate["errors"] / 2, "interval": (0.0, 100.0), "attack": "quick"}
    result["strongest"] = rate
    outcomes = {name: torch.from_numpy(values) for name, values in folder.outcomes().items()}
    left = outcomes["fallen_at"] == STANDS
    outcomes["beyond"] = left & (left.cumsum(0) <= (beyond if broken is None else broken))
    folder.save(outcomes, read(Result, result, folder.path))


def test_the_bound_after_both_attacks_stands_beside_autoattacks_number(store: Store) -> None:
    entry = write(store, "adv", 120)
    name = sweep(store, entry, write(store, "normal", 190))
    for form in FORMATS:
        assert "≥ 61.5" not in render(select(store, [name]), form)
    assert "strongest %" not in render(select(store, [name]), "terminal")
    strongest(store, entry, 3)
    selection = select(store, [name])
    by_policy = {row["policy"]: row for row in rows(store, name)}
    assert by_policy["adv"]["strongest_error"] == 61.5 and by_policy["normal"]["strongest_error"] is None
    assert by_policy["adv"]["robust_error"] == 60.0 and by_policy["adv"]["paper"], "the paper's is beside AutoAttack's"
    for form in ("terminal", "md", "tex"):
        text = render(selection, form)
        assert "strongest" in text and "61.5" in text
    assert [line["strongest_error"] for line in csv.DictReader(io.StringIO(render(selection, "csv")))][:2] == [
        "",
        "61.5",
    ]
    assert {record["policy"]: record["strongest_error"] for record in records(selection)} == {
        "adv": 61.5,
        "normal": None,
    }
    assert [_strongest(row) for row in selection.studies()[0].rows] == ["", "≥ 61.5 (+3 images)"]


def test_a_note_says_what_quick_broke_and_autoattack_did_not(store: Store) -> None:
    further = "The quick attack broke further images, which AutoAttack did not break: 4 of ADV, 1 of BN PARAMS."
    name = sweep(store, made(store, "normal", quick=180, autoattack=190))
    assert "further images" not in render(select(store, [name]), "terminal")
    entries = [made(store, "adv", seed, quick=outcomes(102), autoattack=outcomes(110, shift=2)) for seed in (0, 1)]
    entries.append(made(store, "bn_params", quick=101, autoattack=100))
    name = sweep(store, made(store, "normal", quick=180, autoattack=190), *entries)
    for form in ("terminal", "md", "tex"):
        text = " ".join(render(select(store, [name]), form).split())
        assert f"{further} evaluation=strongest reports both numbers." in text
    for entry in entries:
        strongest(store, entry, 3)
    assert "further images" not in render(select(store, [name]), "terminal"), "it has the column strongest"


def test_a_bound_that_its_outcomes_do_not_have_is_refused(store: Store) -> None:
    entry = write(store, "adv", 120)
    strongest(store, entry, 3, broken=2)
    with pytest.raises(DamagedError, match="its error after the further attack differs from the result"):
        select(store, [sweep(store, entry)])


def test_the_page_says_what_is_by_quick_and_what_only_the_further_attack_broke(store: Store) -> None:
    entry = made(store, "normal", quick=190, autoattack=197)
    strongest(store, {key: entry[key] for key in ("run", "evaluation")}, 1)
    page = report(store, [sweep(store, entry, made(store, "adv", quick=100))]).read_text()
    assert "AutoAttack is not done yet: 1 of 2 runs" in page and "ADV (quick)" in page
    assert "<th>strongest %</th>" in page and "≥ 99.0 (+1 image)" in page
