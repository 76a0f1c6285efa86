"""Evaluation by the quick attack, alone and after AutoAttack: numbers, warnings, passes, and continuing."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from pyautoattack import AutoAttack
from support.evaluating import EPS, Watched
from torch import nn

import bnft
from bnft.attacks.folding import Folded
from bnft.common.randomness import generator
from bnft.data.dataset import Dataset
from bnft.evaluation import quick
from bnft.evaluation.cascade import Cascade
from bnft.evaluation.evaluate import Outcomes, evaluate
from bnft.evaluation.passes import counted
from bnft.evaluation.settings import CLEAN, STANDS, Evaluation
from bnft.evaluation.summary import Passes

QUICK = Evaluation(attack="quick", norm="Linf", eps=EPS, n_images=24, batch_size=10, seed=3, restarts=2)
WEAK = Evaluation("autoattack", "Linf", EPS, 24, 10, seed=3, version="custom", attacks=["square"])


@pytest.fixture(scope="module", autouse=True)
def _few_queries():
    """Make AutoAttack weak, so that the quick attack finds what it misses."""
    initialise = AutoAttack.__init__

    def short(self, *arguments, **keywords):
        initialise(self, *arguments, **keywords)
        self.square.n_queries = 3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoAttack, "__init__", short)
        yield


def same(ours: Outcomes, theirs: Outcomes) -> bool:
    return all(torch.equal(value, theirs.tensors()[name]) for name, value in ours.tensors().items())


def test_the_further_attack_leaves_the_numbers_of_autoattack_and_counts_beyond_them(model, digits: Dataset):
    alone, usual = evaluate(model, *digits.test, WEAK, Watched())
    both, summary = evaluate(model, *digits.test, replace(WEAK, then="quick", restarts=2), Watched())
    assert torch.equal(both.fallen_at, alone.fallen_at) and summary.robust == usual.robust
    assert [step.attack for step in summary.cascade] == ["square"] and summary.cascade[0].errors == usual.robust.errors
    beyond = int(both.beyond.sum())
    assert beyond >= 2 and not alone.beyond.any() and usual.strongest is None
    assert summary.strongest is not None and summary.strongest.errors == usual.robust.errors + beyond
    assert bool((both.fallen_at[both.beyond] == STANDS).all())
    with torch.no_grad():
        fooled = model(both.adversarial).argmax(1) != digits.test[1][:24]
    assert bool(fooled[both.beyond].all()), "their adversarial images are kept"


def test_the_api_returns_the_error_after_the_further_attack(model, digits: Dataset):
    outcomes, summary = evaluate(model, *digits.test, replace(WEAK, then="quick", restarts=1), Watched())
    images, labels = (part[:24] for part in digits.test)
    settings: dict[str, Any] = {"version": "custom", "attacks": ["square"], "batch_size": 10, "seed": 3}
    found = bnft.evaluate(model, images, labels, EPS, attack="autoattack", then="quick", **settings)
    assert summary.strongest is not None
    assert (found.strongest_error, found.strongest_interval) == (summary.strongest.error, summary.strongest.interval)
    assert summary.strongest.error > found.robust_error and found.beyond.tolist() == outcomes.beyond.tolist()
    assert f"error after a further attack: {found.strongest_error:.2f} %" in repr(found)
    assert bnft.evaluate(model, images, labels, EPS, batch_size=10).strongest_error is None


def test_interrupted_anywhere_it_continues_to_the_same_outcomes(model, digits: Dataset):
    config = replace(WEAK, then="quick", restarts=1, batch_size=12)
    watched = Watched()
    whole, expected = evaluate(model, *digits.test, config, watched)
    assert len(watched.states) == 4
    for state in watched.states[1:3]:
        outcomes, summary = evaluate(model, *digits.test, config, Watched(), state)
        assert same(outcomes, whole) and summary.passes == expected.passes


def test_passes_are_unknown_if_the_saved_state_did_not_count_them(model, digits: Dataset):
    watched = Watched()
    evaluate(model, *digits.test, QUICK, watched)
    saved = {name: value for name, value in vars(watched.states[0]).items() if name != "passes"}
    earlier = Cascade(**saved)
    assert evaluate(model, *digits.test, QUICK, Watched(), earlier)[1].passes is None


def test_quick_warns_of_hidden_gradients_and_only_then(model, digits: Dataset):
    class Rounded(nn.Module):
        """The same network for images of few grey values. Rounding has no gradient."""

        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network((8 * x).round() / 8)

    _, honest = evaluate(model, *digits.test, QUICK, Watched())
    assert honest.warnings == ()
    _, masked = evaluate(Rounded().eval(), *digits.test, replace(QUICK, batch_size=24), Watched())
    assert quick.HIDDEN in masked.warnings


def test_each_restart_and_batch_has_draws_of_its_own(model, digits: Dataset, monkeypatch):
    """Points do not tell, because different starts can lead to the same corner of the budget."""
    states: list[tuple[int, ...]] = []

    def watched(*arguments, **keywords) -> torch.Generator:
        draws = generator(*arguments, **keywords)
        states.append(tuple(draws.get_state().tolist()))
        return draws

    monkeypatch.setattr(quick, "generator", watched)
    images, labels = digits.test[0][:4], digits.test[1][:4]
    attacks = quick.attacks(model, QUICK, torch.device("cpu"))
    points = [attack.run(images, labels, batch) for attack in attacks for batch in (0, 1)]
    assert len(set(states)) == 4
    assert torch.equal(points[3], attacks[1].run(images, labels, 1)) and states[4] == states[3]


def test_passes_are_those_of_the_official_run(model, digits: Dataset):
    """The official run also checks the model in 7 passes, and scores the images at its start and after each attack."""
    config = replace(WEAK, attacks=["apgd-ce", "fab-t"], n_images=10)
    outcomes, summary = evaluate(model, *digits.test, config, Watched())
    view = Folded(model, digits.test[0][:2]).view
    official = AutoAttack(view, norm="Linf", eps=EPS, seed=3, version="custom", attacks=config.attacks)
    official.verbose = False
    correct = (outcomes.fallen_at != CLEAN).nonzero().squeeze(1)
    with counted(view) as counter:
        official.run_standard_evaluation(digits.test[0][correct], digits.test[1][correct], batch_size=10)
        passes = counter.take()
    left = int(((outcomes.fallen_at == STANDS) | (outcomes.fallen_at > 1)).sum())
    assert summary.passes is not None and summary.passes.backward == passes.backward > 0
    assert summary.passes.forward == passes.forward - (7 + 2) * len(correct) - left


def test_helpers_count_the_same_passes(model, digits: Dataset, monkeypatch):
    monkeypatch.setattr("bnft.evaluation.processes.SHARED_FROM", 0)
    alone, apart = (evaluate(model, *digits.test, QUICK, Watched(), processes=count) for count in (1, 2))
    assert same(alone[0], apart[0]) and alone[1].passes == apart[1].passes != Passes()
