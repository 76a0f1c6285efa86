"""The paper's statements about distributions in the formats for programs and for LaTeX, beside claims about errors."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from support import made_up, table2
from support.made_store import MadeStore

from bnft.report.rows import select
from bnft.report.statements import of_study
from bnft.report.table import render
from bnft.runs.store import Store

KEYS = {"text", "verdict", "qualification", "difference", "interval", "seeds", "images", "margin", "adjusted_p"}
KEYS |= {"paper", "measure", "measured", "study"}
BELOW_ADV = "Mean m is lower for BN PARAMS than for ADV in most layers"
BELOW_NORMAL = "Mean m is on average lower for BN PARAMS than for NORMAL"
GAMMA = "gamma is more concentrated around zero in BN PARAMS than in NORMAL, in most layers"
LOSS = "The cross-entropy on PGD examples hardly changes from NORMAL to BN STATS (reset)"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """NORMAL, ADV, BN PARAMS and BN STATS with gamma 1, 2, 0.5 and 1 in all of three layers, over two seeds."""
    store = Store(tmp_path / "multirun")
    for seed in (0, 1):
        fill(store, seed)
    return store


def fill(store: Store, seed: int, **tuned: Any) -> None:
    def layers(*gammas: float) -> made_up.Layers:
        return {f"bn{layer}": {"gamma": [[gamma] for gamma in gammas]} for layer in range(3)}

    base = made_up.run(store, "normal", seed=seed, layers=layers(1.0), pgd_loss=5.0)
    made_up.run(store, "adv", seed=seed, layers=layers(1.0, 2.0))
    made_up.run(store, "bn_params", seed=seed, layers=layers(1.0, 0.5), base=base, **tuned)
    made_up.run(store, "bn_stats", seed=seed, layers=layers(1.0, 1.0), base=base, pgd_loss=5.4)


def claimed(store: Store) -> dict[str, dict[str, Any]]:
    table2.record(store)
    found = json.loads(render(select(store, ["all"]), "json"))["claims"]
    assert all(claim.keys() == KEYS for claim in found)
    return {claim["text"]: claim for claim in found}


def test_statements_are_records_like_claims(store: Store) -> None:
    found = claimed(store)
    below = found[BELOW_ADV]
    assert (below["verdict"], below["difference"], below["interval"]) == ("holds", -1.5, [-1.5, -1.5])
    assert (below["seeds"], below["images"], below["margin"], below["adjusted_p"]) == (2, None, None, None)
    assert below["paper"] == -0.177 and "BN PARAMS minus ADV is -1.500" in below["measured"]
    gamma = found[GAMMA]
    assert gamma["difference"] == pytest.approx(-50) and gamma["measure"].endswith("%")
    assert [gamma[key] for key in ("interval", "images", "margin", "paper")] == [None] * 4
    loss = found[LOSS]
    assert (loss["verdict"], loss["margin"], loss["images"]) == ("holds", 10.0, 4)
    assert loss["difference"] == pytest.approx(8.0)
    assert found["BN PARAMS is less robust than ADV"]["measured"] is None
    texts = list(found)
    assert texts.index(GAMMA) > texts.index("BN PARAMS is less robust than ADV")


def test_statements_change_no_p_value_of_a_claim(store: Store) -> None:
    """They belong to no family, so claims are what they are without any record of BN layers."""
    tested = {claim.text for claim in table2.study().claims if claim.is_error}
    before = {text: claim for text, claim in claimed(store).items() if text in tested}
    for file in store.root.glob("*/batchnorm.safetensors"):
        file.unlink()
    after = claimed(store)
    assert after[BELOW_ADV]["verdict"] == "not measured" and after[BELOW_ADV]["difference"] is None
    assert {text: claim for text, claim in after.items() if text in tested} == before
    assert any(claim["adjusted_p"] is not None for claim in before.values())


def test_csv_and_tex_have_them_and_the_terminal_does_not(store: Store) -> None:
    table2.record(store)
    lines = list(csv.DictReader(io.StringIO(render(select(store, ["all"]), "csv"))))
    (below,) = [line for line in lines if line["label"] == BELOW_ADV]
    assert (below["kind"], below["verdict"], below["policy"]) == ("claim", "holds", "")
    assert [float(below[key]) for key in ("difference", "difference_low", "difference_high")] == [-1.5] * 3
    assert float(below["paper_difference"]) == -0.177 and below["measure"].startswith("difference of mean m")
    tex = render(select(store, ["all"]), "tex")
    assert rf"{BELOW_ADV} & difference of mean m, mean over layers & -1.500 [-1.500, -1.500] & -0.177 & holds \\" in tex
    assert "no tests of significance" in tex
    for form in ("terminal", "md"):
        assert BELOW_ADV not in render(select(store, ["all"]), form)


def test_nothing_published_stands_beside_a_row_with_changed_values(tmp_path: Path) -> None:
    store = Store(tmp_path / "multirun")
    fill(store, 0, overrides={"attack.eps": 0.3})
    found = claimed(store)
    assert found[BELOW_NORMAL]["verdict"] == "holds" and found[BELOW_NORMAL]["paper"] is None
    assert "-0.177" not in render(select(store, ["all"]), "tex")


def test_a_sweep_without_a_study_has_no_statements(store: Store) -> None:
    assert json.loads(render(select(store, ["all"]), "json"))["claims"] == []


def test_statements_are_those_of_the_page(tmp_path: Path) -> None:
    from bnft.report.content import StudyDrawings

    made = MadeStore(Store(tmp_path / "multirun")).add(("normal", "adv", "bn_stats", "bn_params"), seeds=(0, 1))
    made.sweep()
    (study,) = select(made.store, ["all"]).studies()
    found = of_study(study)
    assert found == StudyDrawings(study).groups[0].statements and len(found) == 9
    assert "not measured" not in [one.verdict for one in found if one.claim.measure != "pgd_loss"]
