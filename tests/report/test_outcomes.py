"""Confidences, logits, the cascade and the gallery, on outcomes whose answers are known."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support import made_up

from bnft.report import gallery, outcomes
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import Store

STANDS, WRONG = -1, 0
LABELS = [0, 1, 0, 2]  # of the attacked images; two more test images are not attacked
CLEAN = np.linspace(0.2, 0.8, 4 * 3 * 2 * 2).reshape(4, 3, 2, 2).astype(np.float32)  # the images themselves


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "multirun")


def logits(classes: list[int], height: float = 2.0) -> NDArray[np.float32]:
    """Logits that are `height` for the given class of each image, and 0 for the two others."""
    return np.where(np.arange(3) == np.array(classes)[:, None], height, 0.0).astype(np.float32)


def attacked(fallen_at: list[int], shift: float = 0.1, height: float = 2.0) -> dict[str, NDArray[Any]]:
    """Outcomes of four images: those that fell to an attack are brighter by `shift` and taken for the next class."""
    fell = np.array(fallen_at) > 0
    next_class = (np.array(LABELS) + 1) % 3
    clean = [
        other if fallen == WRONG else label for label, other, fallen in zip(LABELS, next_class, fallen_at, strict=True)
    ]
    return {
        "clean_logits": np.concatenate([logits(clean, height), logits([0, 0], 9.0)]),
        "pgd_logits": logits(next_class.tolist(), height),
        "labels": np.array([*LABELS, 0, 0]),
        "fallen_at": np.array(fallen_at, np.int8),
        "adversarial": CLEAN + np.where(fell, np.float32(shift), np.float32(0))[:, None, None, None],
        "adversarial_logits": logits(
            [int(c) if f else k for c, f, k in zip(next_class, fell, clean, strict=True)], height
        ),
    }


def steps(*errors: int) -> list[dict[str, Any]]:
    return [
        {"attack": name, **made_up.rate(e, 4), "seconds": 2.0}
        for name, e in zip(("apgd-ce", "square"), errors, strict=True)
    ]


# scores and histograms


def confident(height: float) -> float:
    return float(np.exp(height) / (np.exp(height) + 2))


def test_confidence_is_the_probability_of_the_prediction() -> None:
    values = outcomes.confidence(np.array([[0.0, 0.0], [np.log(3), 0.0], [1000.0, -1000.0]]))
    assert values.tolist() == pytest.approx([0.5, 0.75, 1.0])
    assert outcomes.confidence(np.zeros((0, 3))).tolist() == []
    assert outcomes.softmax(np.array([[1.0, 2.0, 3.0]])).sum() == pytest.approx(1)


def test_odds_tell_confidences_apart_that_round_to_1() -> None:
    close = np.array([[0.0, 0.0], [np.log(9), 0.0], [40.0, 0.0], [80.0, 0.0]])
    assert outcomes.odds(close).tolist() == pytest.approx([0, np.log10(9), 40 / np.log(10), 80 / np.log(10)])
    assert np.isfinite(outcomes.odds(np.array([[5000.0, 0.0]]))).all() and len(outcomes.odds(close[:0])) == 0


def test_scores_are_of_the_attacked_images(store: Store) -> None:
    made_up.run(store, "adv", outcomes=attacked([STANDS, WRONG, 1, 2]))
    (found,) = outcomes.read(made_up.rows(store)["adv"]).scores.values()
    assert found.clean.shape == found.adversarial.shape == (4, 3)  # not the two images of height 9 beside them
    assert found.labels.tolist() == LABELS
    assert len(found.logits("fooled")) == 2 and len(found.logits("adversarial")) == 4
    assert found.logits("fooled").argmax(1).tolist() == [1, 0]
    assert found.logits("adversarial").argmax(1).tolist() == [1, 2, 1, 0], "PGD examples of all images"


def test_histograms_of_confidences_and_logits(store: Store) -> None:
    made_up.run(store, "normal", outcomes=attacked([1, 1, 1, 1], height=4.0))
    for seed in (0, 1):
        made_up.run(store, "adv", seed=seed, outcomes=attacked([STANDS, WRONG, 1, 2], height=1.0))
    rows = {policy: outcomes.read(row) for policy, row in made_up.rows(store).items()}
    odds, logit = outcomes.score_histograms(rows, bins=10)
    assert (odds.quantity, logit.quantity) == ("odds", "logit")
    low, high = (np.log10(confident(height) / (1 - confident(height))) for height in (1.0, 4.0))
    assert odds.edges == pytest.approx(np.linspace(low, high, 11)) and len(logit.edges) == 11
    shown = {(of.row, of.kind): of for of in odds.histograms}
    assert {key: of.values for key, of in shown.items()} == {
        ("normal", "clean"): 4,
        ("normal", "adversarial"): 4,
        ("normal", "fooled"): 4,
        ("adv", "clean"): 8,  # two seeds
        ("adv", "adversarial"): 8,
        ("adv", "fooled"): 4,
    }
    assert shown["adv", "clean"].counts == (8, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert shown["normal", "clean"].counts == (0, 0, 0, 0, 0, 0, 0, 0, 0, 4)
    for of in logit.histograms:
        assert of.values == 3 * shown[of.row, of.kind].values == sum(of.counts)
    json.dumps([asdict(odds), asdict(logit)])
    (few, _) = outcomes.score_histograms(rows, bins=10, within=[rows["adv"]])
    assert few.edges[-1] < odds.edges[-1] and {sum(of.counts) for of in few.histograms} == {4, 8}, (
        "values beyond count too"
    )


def test_histograms_of_rows_that_nothing_fooled(store: Store) -> None:
    made_up.run(store, "adv", outcomes=attacked([STANDS] * 4))
    found = outcomes.score_histograms({"adv": outcomes.read(made_up.rows(store)["adv"])})
    none = [of for of in found[0].histograms if of.kind == "fooled"]
    assert [(of.values, sum(of.counts)) for of in none] == [(0, 0)]
    assert outcomes.score_histograms({}) == []


def test_outcomes_without_logits_or_with_those_of_other_images_leave_a_note(store: Store) -> None:
    lacking = made_up.run(store, "adv")
    uneven = {**attacked([1] * 4), "adversarial_logits": logits([0, 1])}
    made_up.run(store, "bn_stats", outcomes=uneven)
    rows = made_up.rows(store)
    found = {policy: outcomes.read(row) for policy, row in rows.items()}
    assert found["adv"].notes[0].startswith(f"{lacking.name}: no outcomes of images") and found["adv"].scores == {}
    assert "adversarial_logits is missing" in found["adv"].notes[0] and "different images" in found["bn_stats"].notes[0]
    assert outcomes.score_histograms(found) == []
    pairs, notes = gallery.gallery(rows, gallery.pairs_of(list(rows)))
    assert pairs == [] and len(notes) == 2
    assert outcomes.cascade(rows["adv"]) == []


def test_older_results_without_pgd_examples_leave_a_note_and_no_adversarial_histogram(store: Store) -> None:
    kept = attacked([1] * 4)
    del kept["pgd_logits"]
    made_up.run(store, "adv", outcomes=kept)
    found = outcomes.read(made_up.rows(store)["adv"])
    assert found.notes == ("ADV: older results have no PGD examples, so Figure 3 shows none",)
    assert {of.kind: of.values for of in outcomes.score_histograms({"ADV": found})[0].histograms}["adversarial"] == 0


def test_one_seed_without_logits_leaves_the_others(store: Store) -> None:
    made_up.run(store, "adv", seed=0)
    made_up.run(store, "adv", seed=1, outcomes=attacked([1] * 4))
    found = outcomes.read(made_up.rows(store)["adv"])
    assert list(found.scores) == [1] and len(found.notes) == 1


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], 0.0),
        ([1, 2], [3, 4], 1.0),
        ([1, 2, 3, 4], [3, 4], 0.5),
        ([1, 1, 1, 2], [1, 2, 2, 2], 0.5),
        ([], [1], None),
    ],
)
def test_distance_between_distributions(first: list[float], second: list[float], expected: float | None) -> None:
    for one, other in ((first, second), (second, first)):
        found = outcomes.distance(np.array(one, float), np.array(other, float))
        assert found == (None if expected is None else pytest.approx(expected))


RESEMBLANCE = "scores: BN PARAMS, NORMAL"


@pytest.mark.parametrize(("height", "verdict", "true"), [(1.1, "holds", 4), (3.9, "does not hold", 0)])
def test_whether_scores_resemble_those_of_adv(store: Store, height: float, verdict: str, true: int) -> None:
    """Images of which two have scores of their own, so that distances are neither 0 nor 1."""
    for policy, own in (("normal", 4.0), ("adv", 1.0), ("bn_params", height)):
        kept = attacked([1] * 4)
        near = 4.0 if own > 3 else 1.0
        heights = np.array([near, near, near, own], np.float32)[:, None]
        kept["clean_logits"][:4] *= heights
        kept["pgd_logits"] *= heights
        made_up.run(store, policy, outcomes=kept)
    found = made_up.statements(store)[RESEMBLANCE]
    assert (found.verdict, found.true, found.of) == (verdict, true, 4)
    for line in found.details:
        assert (line["to"] < line["than"]) == (true == 4)


def test_resemblance_takes_one_budget(store: Store) -> None:
    for policy in ("normal", "adv"):
        made_up.run(store, policy, outcomes=attacked([1] * 4))
    assert made_up.statements(store) == {}
    made_up.run(store, "bn_params", outcomes=attacked([1] * 4), evaluation={**made_up.EVALUATION, "eps": 0.2})
    assert made_up.statements(store) == {}
    made_up.run(store, "bn_params", outcomes=attacked([1] * 4), seed=1)
    for policy in ("normal", "adv"):
        made_up.run(store, policy, outcomes=attacked([1] * 4), seed=1)
    assert made_up.statements(store)[RESEMBLANCE].verdict != "not measured"


# the cascade


def test_robust_error_after_each_attack(store: Store) -> None:
    made_up.run(store, "adv", seed=0, outcomes=attacked([STANDS, WRONG, 1, 2]), cascade=steps(2, 3))
    made_up.run(store, "adv", seed=1, outcomes=attacked([STANDS, STANDS, 1, STANDS]), cascade=steps(1, 1))
    found = outcomes.cascade(made_up.rows(store)["adv"])
    assert [(step["step"], step["attack"]) for step in found] == [(0, "no attack"), (1, "apgd-ce"), (2, "square")]
    assert [step["error"] for step in found] == pytest.approx([12.5, 37.5, 50.0])
    assert found[1]["deviation"] == pytest.approx(25 / 2**0.5) and found[1]["seconds"] == 2.0
    for step in found:
        assert step["low"] < step["error"] < step["high"] and step["images"] == 4
    json.dumps(found)


def test_cascade_of_one_seed_and_of_none(store: Store) -> None:
    made_up.run(store, "adv", cascade=steps(4, 4))  # outcomes without logits: step 0 is not known
    assert [(step["step"], step["deviation"]) for step in outcomes.cascade(made_up.rows(store)["adv"])] == [
        (1, None),
        (2, None),
    ]


# the gallery

PAIR = (("bn_params", "normal"),)


def shown(store: Store, pairs: Any = PAIR, **options: Any) -> gallery.Pair:
    (pair,), notes = gallery.gallery(made_up.rows(store), pairs, **options)
    assert notes == []
    return pair


def test_images_that_fool_one_and_not_the_other(store: Store) -> None:
    made_up.run(store, "bn_params", outcomes=attacked([STANDS, STANDS, 1, STANDS]), cascade=steps(1, 1))
    made_up.run(store, "normal", outcomes=attacked([2, WRONG, 1, 1], shift=0.1), cascade=steps(3, 4))
    pair = shown(store)
    assert (pair.stands, pair.falls, pair.count, pair.images) == ("bn_params", "normal", 2, 4)
    first, last = pair.pictures  # image 1 is misclassified without an attack, image 2 fools both
    assert (first.index, last.index) == (0, 3) and (first.label, last.label) == (0, 2)
    assert first.clean.shape == (2, 2, 3) and first.clean.dtype == np.uint8
    assert np.array_equal(first.clean, np.rint(255 * CLEAN[0]).transpose(1, 2, 0).astype(np.uint8))
    assert np.array_equal(first.adversarial, np.rint(255 * (CLEAN[0] + np.float32(0.1))).transpose(1, 2, 0))
    assert first.largest == pytest.approx(0.1) and (first.perturbation >= 254).all()
    ours, theirs = first.views
    assert (ours.policy, ours.fell_to, ours.clean_prediction) == ("bn_params", None, 0)
    assert ours.adversarial_prediction is None and ours.adversarial_confidence is None
    assert (theirs.policy, theirs.fell_to, theirs.adversarial_prediction) == ("normal", "square", 1)
    assert theirs.clean_confidence == theirs.adversarial_confidence == pytest.approx(confident(2.0))
    assert last.views[1].fell_to == "apgd-ce"


def test_perturbations_keep_their_sign(store: Store) -> None:
    made_up.run(store, "bn_params", outcomes=attacked([STANDS] * 4))
    kept = attacked([1] * 4, shift=0.1)
    kept["adversarial"][0, 0, 0, 0] = CLEAN[0, 0, 0, 0] - 0.1
    kept["adversarial"][0, 1, 0, 0] = CLEAN[0, 1, 0, 0]
    made_up.run(store, "normal", outcomes=kept)
    perturbation = shown(store).pictures[0].perturbation
    assert perturbation[0, 0].tolist() == [0, 128, 255]  # darker, the same, brighter


def test_others_are_seen_too(store: Store) -> None:
    made_up.run(store, "bn_params", outcomes=attacked([STANDS] * 4))
    made_up.run(store, "normal", outcomes=attacked([1] * 4), cascade=steps(4, 4))
    made_up.run(store, "adv", outcomes=attacked([WRONG] * 4))
    rows = made_up.rows(store)
    pairs, _ = gallery.gallery(rows, gallery.pairs_of(list(rows)))
    by_name = {(pair.stands, pair.falls): pair for pair in pairs}
    assert by_name["bn_params", "adv"].count == by_name["normal", "bn_params"].count == 0
    assert by_name["bn_params", "adv"].pictures == ()
    views = by_name["bn_params", "normal"].pictures[0].views
    assert [(view.policy, view.fell_to) for view in views] == [
        ("bn_params", None),
        ("normal", "apgd-ce"),
        ("adv", "no attack"),
    ]
    assert not {"bn_stats"} & {name for pair in by_name for name in pair}


def test_classes_take_turns_in_the_order_of_images(store: Store) -> None:
    made_up.run(store, "bn_params", outcomes=attacked([STANDS] * 4))
    made_up.run(store, "normal", outcomes=attacked([1] * 4))
    assert [picture.index for picture in shown(store).pictures] == [0, 1, 3, 2]  # labels 0, 1, 2, then 0 again
    assert [picture.index for picture in shown(store, shown=2).pictures] == [0, 1]
    assert shown(store, shown=2).count == 4


def test_an_image_whose_own_pixels_were_not_kept_is_left_out(store: Store) -> None:
    """One that stands since its adversarial image did not fool when scored again: that image is what is kept."""
    unconfirmed = attacked([STANDS] * 4)
    unconfirmed["adversarial"][0] += np.float32(0.1)
    unconfirmed["adversarial_logits"][0] = [1.0, 0.999, 0.0]
    made_up.run(store, "bn_params", outcomes=unconfirmed)
    made_up.run(store, "normal", outcomes=attacked([1] * 4))
    pair = shown(store)
    assert [picture.index for picture in pair.pictures] == [1, 2, 3] and pair.count == 3


def test_one_seed_that_all_rows_have(store: Store) -> None:
    fell = {
        ("bn_params", 0): [1, 1, 1, 1],
        ("bn_params", 1): [STANDS, 1, 1, 1],
        ("normal", 1): [1] * 4,
        ("normal", 2): [1] * 4,
    }
    for (policy, seed), fallen_at in fell.items():
        made_up.run(store, policy, seed=seed, outcomes=attacked(fallen_at))
    assert shown(store).count == 1  # with seed 1; with seed 0 it would be none


def test_rows_attacked_within_different_budgets_or_on_fewer_images(store: Store) -> None:
    made_up.run(store, "bn_params", outcomes=attacked([STANDS] * 4))
    made_up.run(store, "normal", outcomes=attacked([1] * 4), evaluation={**made_up.EVALUATION, "eps": 0.3})
    assert gallery.gallery(made_up.rows(store), PAIR) == ([], [])
    fewer = {name: values[:2] for name, values in attacked([1] * 4).items()}
    made_up.run(store, "adv", outcomes=fewer)
    pair = shown(store, (("bn_params", "adv"),))
    assert (pair.count, pair.images) == (2, 2)


def test_gallery_of_a_real_run(store: Store, launch: Any) -> None:
    """The clean images that the gallery finds in the store are the data set's own."""
    tiny = ["data.test_images=40", "model.width=2", "schedule.epochs=1", "schedule.batch_size=256", "evaluation=pgd"]
    tiny += ["evaluation.n_images=40", "evaluation.iterations=3", "threads=1", f"store={store.root}"]
    for policy in ("normal", "adv"):
        assert launch(f"policy={policy}", *tiny).code == 0
    from bnft.data.dataset import prepare
    from bnft.data.digits import load

    data = prepare(load(test_images=40), 10)
    folders = [RunFolder(file.parent) for file in store.root.glob("*/config.yaml")]
    assert len(folders) == 2
    rows = made_up.rows(store)
    pairs, notes = gallery.gallery(rows, (("adv", "normal"), ("normal", "adv")), shown=40)
    assert notes == [] and len(pairs) == 2
    for policy, row in rows.items():
        (scores,) = outcomes.read(row).scores.values()
        steps = outcomes.cascade(row)
        assert steps[-1]["error"] == pytest.approx(100 * (scores.fallen_at != STANDS).mean()), policy
    originals = data.pixels(data.x_test).numpy()
    eps = rows["adv"].first.evaluation.eps
    for pair in pairs:
        assert pair.count == len(pair.pictures)
        for picture in pair.pictures:
            assert np.array_equal(picture.clean, np.rint(255 * originals[picture.index]).transpose(1, 2, 0))
            assert picture.views[0].clean_prediction == picture.label == data.y_test[picture.index]
            assert picture.views[1].adversarial_prediction != picture.label
            assert 0 < picture.largest <= eps * 1.0001
