"""`bnft compare`: two rows on the same images and seeds."""

import json
from pathlib import Path

import pytest
from support.written import EVALUATION, outcomes, sweep, write

from bnft.cli import main
from bnft.common.errors import InputError
from bnft.report.compared import Compared, compare
from bnft.runs.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "multirun")


def one(store: Store, first: str, second: str, measure: str = "robust_error") -> Compared:
    (found,) = compare(store, first, second, measure)
    return found


def test_the_difference_is_that_of_the_same_images_and_seeds(store: Store) -> None:
    """NORMAL is broken on 100 images of each seed, ADV on 40 of them and on 20 others; ADV has a third seed."""
    entries = [write(store, "normal", outcomes(100), seed=seed) for seed in (0, 1)]
    entries += [write(store, "adv", outcomes(60, shift=60), seed=seed) for seed in (0, 1, 2)]
    sweep(store, *entries)
    found = one(store, "adv", "Normal")
    assert found.difference is not None
    assert (found.difference.value, found.difference.seeds, found.difference.images) == (-20.0, 2, 200)
    assert found.verdict == "ADV is lower" and [seed for seed, _ in found.per_seed] == [0, 1]
    assert one(store, "NORMAL", "ADV").difference.value == 20.0


def test_runs_and_sweeps_are_compared_by_name(store: Store) -> None:
    first = sweep(store, write(store, "normal", outcomes(100)), write(store, "adv", outcomes(50)))
    entry = write(store, "adv", outcomes(90), seed=0, schedule={"epochs": 3, "lr": 0.1})
    second = sweep(store, entry)
    by_title = compare(store, first, second)
    assert [pair.first[0] for pair in by_title] == [f"ADV ({first})"] and by_title[0].difference.value == -20.0
    assert one(store, entry["run"], entry["run"]).difference.value == 0.0
    assert one(store, "adv", entry["run"]).verdict == "equal within 3 points", "ADV is a row of the newest sweep"


def test_what_cannot_be_tested_says_why(store: Store) -> None:
    entries = [write(store, "normal"), write(store, "adv", seed=1)]
    entries += [write(store, "bn_params", evaluation={**EVALUATION, "eps": 0.1})]
    sweep(store, *entries)
    assert one(store, "NORMAL", "ADV").verdict == "cannot be tested: they share no seed ([0] and [1])"
    assert "the budgets differ (Linf eps 0.15 and Linf eps 0.1)" in one(store, "NORMAL", "BN PARAMS").verdict
    quick = write(store, "bn_stats", evaluation={**EVALUATION, "attack": "quick"})
    sweep(store, entries[0], quick)
    assert "the attacks differ (autoattack and quick)" in one(store, "NORMAL", "BN STATS (reset)").verdict


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("AVD", "NORMAL"), "AVD: must be one of the rows of sweep "),
        (("AVD", "NORMAL"), "(did you mean ADV?): NORMAL, ADV"),
        (("ADV", "NORMAL", "robust"), "--measure robust: must be one of clean_error, robust_error, mean_abs_gamma"),
        (("ADV", "NORMAL", "scores"), "--measure scores: must be one of"),
    ],
)
def test_a_wrong_name_gets_one_line(store: Store, names: tuple[str, ...], line: str) -> None:
    sweep(store, write(store, "normal"), write(store, "adv"))
    with pytest.raises(InputError) as error:
        compare(store, *names)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_without_a_sweep_rows_have_no_titles(store: Store) -> None:
    write(store, "normal")
    with pytest.raises(InputError, match="must be a run or a sweep in"):
        compare(store, "NORMAL", "NORMAL")


def test_the_command_prints_the_difference_and_draws_it(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(store, write(store, "normal", outcomes(100)), write(store, "adv", outcomes(60)))
    main(["compare", "adv", "normal", "--store", str(store.root)])
    shown = capsys.readouterr()
    assert "ADV minus NORMAL: robust error in percent\n    -20.0 points [" in shown.out
    assert (
        "errors of the first only: 0, of the second only: 40" in shown.out
        and "one seed covers images only" in shown.out
    )
    stem = Path(shown.err.split("figure: ")[1].split(".pdf")[0])
    assert stem.with_suffix(".pdf").read_bytes()[:4] == b"%PDF" and stem.with_suffix(".png").stat().st_size > 1000
    main(["compare", "adv", "normal", "--store", str(store.root), "--format", "json"])
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["difference"], found["seeds"], found["verdict"]) == (-20.0, 1, "ADV is lower")
