"""The paper's claims on synthetic stores: what is compared with what, and what an interval says of a claim."""

import csv
import io
import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from support import table2
from support.written import EVALUATION, outcomes, parsed, study, sweep, write

from bnft.common.intervals import paired
from bnft.report import claims
from bnft.report.rows import select
from bnft.report.table import FORMATS, render
from bnft.report.verdicts import LARGE, RANGES, VERDICTS, Verdict, bounds, true_range, verdict
from bnft.runs.store import Store
from bnft.studies.measures import CONSTANT, ERROR_RELATIONS, MARGIN
from bnft.studies.study import Claim

LOWER, SAME, HIGHER = ("adv", "normal"), ("bn_stats", "normal"), ("bn_params", "adv")
MORE = ("bn_params", "bn_only_params")  # "BN PARAMS is more robust than BN ONLY PARAMS"
DIGITS_SEEDS = (-6.5, -18.0, -6.0, -1.5, -3.0)  # of it, measured on the digits, in points


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "multirun")


def claimed(store: Store, pair: tuple[str, str], measure: str = "robust_error") -> claims.Tested:
    """The claim about the rows of two policies, or of one policy and `constant`."""
    titles = [CONSTANT if policy == CONSTANT else table2.title(policy) for policy in pair]
    found = [item for item in claims.tested(study(store)) if [item.claim.row, item.claim.than] == titles]
    (only,) = [item for item in found if item.claim.measure == measure]
    return only


def stating(relation: str, margin: float | None = None) -> Claim:
    return Claim("text", "A", relation, "B", margin=margin)


def shown(store: Store, form: str) -> str:
    """All runs in the store as a sweep of Table 2."""
    table2.record(store)
    return render(select(store, ["all"]), form)


def predicting(wrong: int, images: int = 1000) -> tuple[list[int], list[int]]:
    """Predictions and labels of so many images, of which the first `wrong` are misclassified."""
    labels = [image % 10 for image in range(images)]
    return [(label + 1) % 10 if image < wrong else label for image, label in enumerate(labels)], labels


# what an interval says of a claim


@pytest.mark.parametrize(
    ("relation", "low", "high", "expected"),
    [
        ("lower", -5.0, -0.1, "holds"),
        ("lower", 0.1, 5.0, "does not hold"),
        ("lower", -5.0, 0.0, "not enough data"),
        ("lower", -0.2, -0.1, "holds"),  # a margin is for claims of sameness alone
        ("higher", 0.1, 5.0, "holds"),
        ("higher", -5.0, -0.1, "does not hold"),
        ("higher", 0.0, 5.0, "not enough data"),
        ("same", -2.9, 2.9, "holds"),
        ("same", 1.0, 2.9, "differs by less than the margin"),
        ("same", -2.0, -0.1, "differs by less than the margin"),
        ("same", -3.1, 0.0, "not enough data"),
        ("same", 2.0, 5.0, "not enough data"),
        ("same", 3.1, 30.0, "does not hold"),
        ("same", -30.0, -3.1, "does not hold"),
        ("slightly higher", 0.1, 9.9, "holds"),
        ("slightly higher", -0.1, 5.0, "not enough data"),
        ("slightly higher", 10.1, 12.0, "does not hold"),
        ("slightly higher", -3.0, -0.1, "does not hold"),
        ("much higher", 10.1, 30.0, "holds"),
        ("much higher", 5.0, 30.0, "not enough data"),
        ("much higher", 0.1, 9.9, "does not hold"),
        ("far lower", -50.0, -10.1, "holds"),
        ("far lower", -9.9, -5.0, "does not hold"),
        ("nearly the same", -9.9, -1.0, "holds"),
        ("nearly the same", -30.0, -10.1, "does not hold"),
    ],
)
def test_sides_of_the_interval(relation: str, low: float, high: float, expected: Verdict) -> None:
    assert verdict(stating(relation), (low, high), 0.01) == expected
    assert verdict(stating(relation), (low, high), 0.05) == "not enough data"


def test_a_claim_of_a_difference_never_holds_beside_an_interval_with_zero() -> None:
    for relation, low, high in itertools.product(ERROR_RELATIONS, np.linspace(-20, 0, 9), np.linspace(0, 20, 9)):
        if relation not in ("same", "nearly the same"):
            assert verdict(stating(relation), (low, high), 0.0) != "holds"


def test_there_are_five_verdicts_and_one_margin() -> None:
    assert VERDICTS == (
        "holds",
        "does not hold",
        "differs by less than the margin",
        "not enough data",
        "not measured",
    )
    assert MARGIN == 3.0 and bounds(stating("same")) == [-3.0, 3.0] and bounds(stating("lower")) == [0.0]
    assert {*ERROR_RELATIONS} == {*RANGES, "same"}


def test_a_claim_can_have_a_margin_of_its_own() -> None:
    assert bounds(stating("same", margin=7.5)) == [-7.5, 7.5]
    assert verdict(stating("same", margin=7.5), (-6.0, 5.0), 0.01) == "holds"
    assert verdict(stating("same", margin=0.5), (0.6, 2.0), 0.01) == "does not hold"


def test_every_claim_is_true_in_the_paper(store: Store) -> None:
    sweep(store, *(write(store, row.policy) for row in table2.study().rows))
    about_errors = [claim for claim in table2.study().claims if claim.is_error]
    for claim in about_errors:
        low, high = true_range(claim)
        assert low < published(store, claim) < high, claim.text
    assert len({claim.text for claim in table2.study().claims}) == len(table2.study().claims)
    measures = [claim.measure for claim in about_errors]
    assert measures.count("robust_error") == 10 and measures.count("clean_error") == 5


def published(store: Store, claim: Claim) -> float:
    difference = claims.published(claim, study(store))
    assert difference is not None
    return difference


def published_or_none(store: Store, pair: tuple[str, str]) -> float | None:
    return claims.published(claimed(store, pair).claim, study(store))


# one seed


@pytest.mark.parametrize(
    ("pair", "first", "second", "expected"),
    [
        (LOWER, outcomes(60), outcomes(200), "holds"),
        (LOWER, outcomes(200), outcomes(60), "does not hold"),
        (LOWER, outcomes(100), outcomes(100), "not enough data"),
        (LOWER, outcomes(99), outcomes(100), "not enough data"),
        (HIGHER, outcomes(150), outcomes(60), "holds"),
        (HIGHER, outcomes(60), outcomes(150), "does not hold"),
        (SAME, outcomes(199), outcomes(200), "holds"),
        (SAME, outcomes(200), outcomes(200), "holds"),
        (SAME, outcomes(196), outcomes(200), "not enough data"),
        (SAME, outcomes(180), outcomes(200), "does not hold"),
        (SAME, outcomes(200), outcomes(150), "does not hold"),
        (SAME, outcomes(1980, 2000), outcomes(2000, 2000), "differs by less than the margin"),
        (SAME, outcomes(10, 10), outcomes(10, 10), "not enough data"),
    ],
)
def test_verdicts(
    store: Store, pair: tuple[str, str], first: list[bool], second: list[bool], expected: Verdict
) -> None:
    for policy, fallen in zip(pair, (first, second), strict=True):
        write(store, policy, fallen)
    found = claimed(store, pair)
    assert found.verdict == expected and found.difference is not None
    assert (found.difference.seeds, found.difference.images) == (1, len(first))
    errors = [int(one) - int(other) for one, other in zip(first, second, strict=True)]
    assert (found.difference.value, *found.difference.interval) == pytest.approx(paired(errors))


def test_one_seed_speaks_of_two_networks_alone(store: Store) -> None:
    write(store, "adv", outcomes(60))
    write(store, "normal", outcomes(200))
    assert claimed(store, LOWER).qualification == "for these two networks"
    for form in ("terminal", "md", "tex"):
        text = " ".join(shown(store, form).split())
        assert "holds for these two networks" in text and "Another seed can give another verdict" in text
    (claim, *_) = parsed(store, "all")["claims"]
    assert (claim["verdict"], claim["qualification"]) == ("holds", "for these two networks")
    write(store, "adv", outcomes(62), seed=1)
    write(store, "normal", outcomes(200), seed=1)
    assert claimed(store, LOWER).qualification == ""


def test_rows_are_compared_image_by_image(store: Store) -> None:
    """Half of the images fall in both rows: the same half says that they are alike, two halves say nothing."""
    write(store, "normal", outcomes(100))
    same = write(store, "bn_stats", outcomes(100))
    assert claimed(store, SAME).verdict == "holds"
    for file in (store.root / same["run"]).rglob("*"):
        if file.is_file():
            file.unlink()
    write(store, "bn_stats", outcomes(100, shift=100))
    assert claimed(store, SAME).verdict == "not enough data"


def test_only_images_that_both_rows_have_are_compared(store: Store) -> None:
    write(store, "normal", outcomes(200))
    write(store, "adv", outcomes(10, 50), evaluation={**EVALUATION, "n_images": 50})
    found = claimed(store, LOWER)
    assert found.difference is not None and found.verdict == "holds"
    assert found.difference.images == 50 and found.difference.value == pytest.approx(-80.0)


# several seeds


def over_seeds(store: Store, pair: tuple[str, str], theirs: int, points: tuple[float, ...]) -> None:
    """A row of each seed with `theirs` errors of 200, and one whose error differs by that many points."""
    for seed, difference in enumerate(points):
        write(store, pair[0], outcomes(theirs + round(2 * difference)), seed=seed)
        write(store, pair[1], outcomes(theirs), seed=seed)


def test_seeds_that_differ_widely_decide_nothing(store: Store) -> None:
    """Of five seeds on the digits, all errors are lower; but by anything from 1.5 to 18 points."""
    over_seeds(store, MORE, 160, DIGITS_SEEDS)
    found = claimed(store, MORE)
    assert found.difference is not None and found.difference.value == pytest.approx(-7.0)
    low, high = found.difference.interval
    assert low < -15 and high > 0 and found.verdict == "not enough data"
    assert (found.difference.seeds, found.difference.images) == (5, 200)


def test_seeds_that_agree_decide(store: Store) -> None:
    over_seeds(store, MORE, 160, (-20.0, -21.0, -19.5, -20.5, -20.0))
    found = claimed(store, MORE)
    assert found.verdict == "holds" and found.qualification == ""
    assert "Intervals of several seeds cover seeds and images" in shown(store, "md")


def test_only_seeds_that_both_rows_have_are_compared(store: Store) -> None:
    for seed in (0, 1, 2):
        write(store, "normal", outcomes(200), seed=seed)
    for seed, errors in ((1, 60), (2, 62), (3, 0)):
        write(store, "adv", outcomes(errors), seed=seed)
    found = claimed(store, LOWER)
    assert found.difference is not None and found.difference.seeds == 2
    assert found.difference.value == pytest.approx(-69.5)


def test_rows_without_a_common_seed_are_not_compared(store: Store) -> None:
    write(store, "normal", outcomes(200), seed=0)
    write(store, "adv", outcomes(0), seed=1)
    assert (claimed(store, LOWER).verdict, claimed(store, LOWER).difference) == ("not measured", None)


def test_seeds_that_share_a_base_speak_of_this_base(store: Store) -> None:
    for seed in range(3):
        write(store, "adv", outcomes(50), seed=seed)
        write(store, "bn_params", outcomes(150 + seed), seed=seed, base={"seed": 7})
    found = claimed(store, HIGHER)
    assert (found.verdict, found.qualification) == ("holds", "for this base")


# the family of claims


def test_the_number_of_claims_changes_a_verdict(store: Store) -> None:
    """Five images of 200 that differ to one side: below 5 % for one claim alone, and not for three."""
    write(store, "normal", outcomes(100))
    write(store, "adv", outcomes(95))
    alone = claimed(store, LOWER)
    assert alone.verdict == "holds" and alone.adjusted_p is not None and 0.03 < alone.adjusted_p < 0.05
    for policy in ("bn_stats", "bn_stats_no_reset"):
        write(store, policy, outcomes(90))
    among = claimed(store, LOWER)
    assert among.difference == alone.difference and among.verdict == "not enough data"
    assert among.adjusted_p is not None and among.adjusted_p > 0.05
    text = shown(store, "md")
    assert "adjusted for 3 claims (Holm)" in text and "less than 3 points" in text and "not adjusted" in text


# rows that are missing


def test_a_claim_without_one_of_its_rows_is_not_measured(store: Store) -> None:
    write(store, "normal", outcomes(200))
    write(store, "bn_params", outcomes(0))
    found = claimed(store, LOWER)
    assert (found.verdict, found.difference, found.adjusted_p) == ("not measured", None, None)
    assert "| - | -41.4 | not measured |" in shown(store, "md")


def test_a_row_with_changed_values_is_tested_if_it_is_the_only_one_of_its_title(store: Store) -> None:
    write(store, "normal", outcomes(200))
    write(store, "adv", outcomes(0), overrides={"attack.eps": 0.3})
    assert claimed(store, LOWER).verdict == "holds"
    assert published_or_none(store, LOWER) is None, "the published difference is about the row as it is in the study"
    assert "-41.4" not in shown(store, "md")
    write(store, "adv", outcomes(200), overrides={"attack.eps": 0.1})
    assert claimed(store, LOWER).verdict == "not measured", "which of the two is meant?"
    write(store, "adv", outcomes(60))
    found = claimed(store, LOWER)
    assert found.difference is not None and found.difference.value == -70.0, "the row as it is in the study counts"
    assert published_or_none(store, LOWER) == pytest.approx(-41.4)


def test_rows_attacked_within_different_budgets_are_not_compared(store: Store) -> None:
    write(store, "normal", outcomes(200))
    write(store, "adv", outcomes(0), evaluation={**EVALUATION, "eps": 0.01})
    assert claimed(store, LOWER).verdict == "not measured"


def test_claims_without_their_rows_are_left_out(store: Store) -> None:
    sweep(store, write(store, "bn_params_logits_conv1"))
    texts = [item.claim.text for item in claims.tested(study(store))]
    assert texts == ["Logits and first conv add little to BN PARAMS"]


def test_a_sweep_without_a_study_has_no_claims(store: Store) -> None:
    write(store, "adv")
    write(store, "normal")
    assert "claims" not in render(select(store, ["all"]), "terminal")
    (without,) = select(store, ["all"]).studies()
    assert claims.tested(without) == []


# clean error


def test_claims_on_clean_error(store: Store) -> None:
    """Clean errors as in the paper on 1,000 images: all decided, and as the paper has them."""
    for row in table2.study().rows:
        write(
            store,
            row.policy,
            outcomes(round(10 * row.published.robust_error), 1000),
            predictions=predicting(round(10 * row.published.clean_error)),
        )
    found = [item for item in claims.tested(study(store)) if item.claim.measure == "clean_error"]
    assert len(found) == 5
    for item in found:
        assert item.difference is not None and item.difference.images == 1000
        assert item.difference.value == pytest.approx(published(store, item.claim), abs=0.11)
    verdicts = {item.claim.row: item.verdict for item in found}
    assert verdicts.pop("BN ONLY PARAMS") == "not enough data"  # 8.2 points are too near to the 10 that nearly means
    assert set(verdicts.values()) == {"holds"}


def test_far_from_guessing_is_measured_against_the_most_frequent_class(store: Store) -> None:
    labels = [0] * 400 + [1] * 100
    write(store, "bn_only", predictions=([0] * 500, labels))
    found = claimed(store, ("bn_only", CONSTANT), "clean_error")
    assert found.difference is not None and found.difference.value == 0 and found.verdict == "does not hold"
    assert found.qualification == "for this network"


def test_clean_errors_of_old_results_are_not_measured(store: Store) -> None:
    write(store, "normal")
    write(store, "bn_params")
    assert claimed(store, ("bn_params", "normal"), "clean_error").verdict == "not measured"
    assert claimed(store, ("bn_params", "normal")).difference is not None


# formats


def test_the_papers_pattern_contradicts_no_claim(store: Store) -> None:
    """With the paper's own robust errors as ours, on 200 images, none fails, and those of large differences hold."""
    sweep(
        store,
        *(write(store, row.policy, round(2 * row.published.robust_error)) for row in reversed(table2.study().rows)),
    )
    found = [item for item in claims.tested(study(store)) if item.claim.measure == "robust_error"]
    assert {item.verdict for item in found} <= {"holds", "differs by less than the margin", "not enough data"}
    for item in found:
        assert item.difference is not None
        assert item.difference.value == pytest.approx(published(store, item.claim), abs=0.5)
        assert item.verdict == "holds" or abs(published(store, item.claim)) < LARGE
    text = render(select(store), "terminal")
    assert all(claim.text in text for claim in table2.study().claims if claim.is_error)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_carries_the_claims(store: Store, form: str) -> None:
    sweep(store, write(store, "normal", 200), write(store, "adv", 60), write(store, "bn_params", 130))
    text = render(select(store), form)
    assert "Adversarial training lowers robust error" in text and "not measured" in text


def test_json(store: Store) -> None:
    write(store, "normal", outcomes(200))
    write(store, "adv", outcomes(60))
    write(store, "bn_stats", outcomes(200))
    found = {claim["text"]: claim for claim in parsed(store, "all")["claims"]}
    lower, same = (
        found["Adversarial training lowers robust error"],
        found["BN STATS (reset) does not change robust error"],
    )
    assert (lower["verdict"], lower["difference"], lower["seeds"], lower["images"]) == ("holds", -70.0, 1, 200)
    assert lower["interval"] == pytest.approx(paired([0] * 60 + [-1] * 140)[1:]) and lower["adjusted_p"] < 1e-9
    assert lower["paper"] == pytest.approx(-41.4) and lower["margin"] is None and same["margin"] == 3.0
    missing = found["BN PARAMS lowers robust error"]
    assert missing["verdict"] == "not measured"
    assert [missing[key] for key in ("difference", "interval", "adjusted_p")] == [None] * 3
    assert (missing["seeds"], missing["images"]) == (0, 0)


def test_csv(store: Store) -> None:
    write(store, "normal", outcomes(200))
    write(store, "adv", outcomes(60))
    lines = list(csv.DictReader(io.StringIO(shown(store, "csv"))))
    assert [line["policy"] for line in lines if line["kind"] == "row"] == ["normal", "adv"]
    first, *_ = [line for line in lines if line["kind"] == "claim"]
    assert first["label"] == "Adversarial training lowers robust error" and first["verdict"] == "holds"
    assert float(first["difference"]) == -70.0 and float(first["difference_low"]) < -70 < float(
        first["difference_high"]
    )
    assert first["policy"] == "" and first["margin"] == ""


def test_fifty_five_runs_take_a_blink(store: Store) -> None:
    random = np.random.default_rng(0)
    for row, seed in itertools.product(table2.study().rows, range(5)):
        fallen = (random.random(1000) < row.published.robust_error / 100).tolist()
        write(store, row.policy, fallen, seed=seed, predictions=predicting(round(10 * row.published.clean_error)))
    began = time.process_time()
    shown(store, "json")
    assert time.process_time() - began < 1.0
