"""AutoAttack and then a further attack: AutoAttack's part is taken from its own evaluation if that is done."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bnft.common import files
from bnft.evaluation import autoattack
from bnft.evaluation.evaluate import UNCONFIRMED, after_autoattack
from bnft.evaluation.summary import AttackSummary, ErrorRate, Passes, Summary
from bnft.runs.store import Store

RUN = (
    "policy=normal",
    "schedule.epochs=2",
    "schedule.batch_size=128",
    "model.width=2",
    "evaluation.version=custom",
    "evaluation.attacks=[apgd-ce]",
    "evaluation.eps=0.15",
    "evaluation.n_images=8",
    "evaluation.batch_size=4",
    "preview=null",
    "device=cpu",
    "threads=1",
)
STRONGEST = ("evaluation=strongest", "evaluation.restarts=2")


@pytest.fixture
def attacked(monkeypatch):
    """The attacks of AutoAttack that have been run, one entry per batch. They miss all but the first two images."""
    names = []
    stage = autoattack._stage

    def watched(official, name):
        run = stage(official, name)

        def weak(images, labels, batch):
            names.append(name)
            found = run(images, labels, batch)
            found[2:] = images[2:]
            return found

        return weak

    monkeypatch.setattr(autoattack, "_stage", watched)
    return names


def evaluation(store, further):
    """The result, without what differs between any two computations, and the outcomes."""
    (run,) = Store(store).runs()
    (folder,) = [one for one in run.evaluations() if bool(one.result().evaluation.then) == further]
    result = files.read_json(folder.path / "result.json")
    found = {key: result[key] for key in ("clean", "robust", "warnings", "passes", "pgd_loss")}
    found["strongest"] = {**(result["strongest"] or {}), "seconds": 0}
    found["cascade"] = [{**step, "seconds": 0} for step in result["cascade"]]
    return found, folder.tensors()


def test_only_the_further_attack_is_computed_and_the_verdicts_are_the_same(launch, attacked, tmp_path):
    assert launch(*RUN, "store=reused").code == 0
    alone = len(attacked)
    assert alone
    shutil.copytree(tmp_path / "reused", tmp_path / "scratch")
    shutil.rmtree(next((tmp_path / "scratch").glob("*/evaluation")))
    said = launch(*RUN, *STRONGEST, "store=reused")
    assert said.code == 0 and "AutoAttack is done already" in said.err
    assert len(attacked) == alone, "AutoAttack was computed again"
    assert launch(*RUN, *STRONGEST, "store=scratch").code == 0
    assert len(attacked) == 2 * alone
    (numbers, outcomes), (expected, from_scratch) = (evaluation(store, True) for store in ("reused", "scratch"))
    assert numbers == expected
    assert outcomes.keys() == from_scratch.keys()
    for name, values in from_scratch.items():
        assert torch.equal(outcomes[name], values), name
    only = int(outcomes["beyond"].sum())
    assert only and numbers["strongest"]["errors"] == numbers["robust"]["errors"] + only
    assert (outcomes["fallen_at"] > 0).any()


def test_an_evaluation_that_differs_in_more_is_not_reused(launch, attacked):
    assert launch(*RUN, "store=s").code == 0
    alone = len(attacked)
    said = launch(*RUN, *STRONGEST, "evaluation.seed=1", "store=s")
    assert said.code == 0 and "is done already" not in said.err
    assert len(attacked) == 2 * alone


def test_a_damaged_evaluation_is_not_reused(launch, attacked):
    assert launch(*RUN, "store=s").code == 0
    alone = len(attacked)
    (folder,) = Path("s").glob("*/evaluation/*")
    (folder / "outcomes.safetensors").write_bytes(b"damaged")
    said = launch(*RUN, *STRONGEST, "store=s")
    assert said.code == 0 and "evaluating from the first attack" in said.err
    assert len(attacked) == 2 * alone


def state(**changes):
    """The outcomes and the numbers of three images: misclassified, broken and robust."""
    step = AttackSummary(attack="apgd-ce", **vars(ErrorRate.of(2, 3)), seconds=1.5)
    numbers: dict[str, Any] = {
        "clean": ErrorRate.of(1, 3),
        "robust": ErrorRate.of(2, 3),
        "cascade": (step,),
        "seconds": 1.5,
    }
    numbers |= {"warnings": ("a warning",), "passes": Passes(forward=7, backward=3), **changes}
    outcomes = {"fallen_at": torch.tensor([0, 1, -1], dtype=torch.int8), "adversarial": torch.zeros(3, 1, 2, 2)}
    return outcomes, Summary(**numbers)


def test_the_state_after_autoattack_is_that_of_its_cascade():
    found = after_autoattack(*state())
    assert (found.members.tolist(), found.attack, found.batch, found.seconds) == ([2], 1, 0, [1.5])
    assert (found.warnings, found.passes) == (["a warning"], {"forward": 7, "backward": 3})


def test_what_cannot_be_restored_exactly_is_computed_again():
    outcomes, numbers = state()
    del outcomes["adversarial"]  # an exported result
    assert after_autoattack(outcomes, numbers) is None
    assert after_autoattack(*state(passes=None)) is None
    assert after_autoattack(*state(warnings=(f"2 {UNCONFIRMED}",))) is None


def test_the_check_of_the_result_does_not_warn_twice():
    steps = [
        AttackSummary(attack=name, **vars(ErrorRate.of(errors, 100))) for name, errors in (("a", 5), ("square", 50))
    ]
    outcomes = {"fallen_at": torch.tensor([0] * 5 + [2] * 45 + [-1] * 50), "adversarial": torch.zeros(100, 1, 1, 1)}
    _, numbers = state(cascade=tuple(steps))
    (warning,) = autoattack.warnings_after({"clean": 0.95, "a": 0.95, "square": 0.5})
    found = after_autoattack(outcomes, replace(numbers, warnings=("a warning", warning)))
    assert found.warnings == ["a warning"]
