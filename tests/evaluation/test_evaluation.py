"""Evaluation equals the official AutoAttack image by image, resumes where it was, and cannot quietly lie."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from pyautoattack import AutoAttack
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from support.evaluating import EPS, Watched, cascaded
from torch import nn

from bnft.data.dataset import Arrays, Dataset, prepare
from bnft.evaluation import autoattack, query_cache
from bnft.evaluation.cascade import Attack, Cascade, EvaluationError
from bnft.evaluation.evaluate import Outcomes, confirm, evaluate
from bnft.evaluation.query_cache import cached
from bnft.evaluation.settings import CLEAN, STANDS, Evaluation
from bnft.evaluation.summary import Summary

STANDARD = Evaluation(attack="autoattack", version="standard", norm="Linf", eps=EPS, n_images=24, batch_size=10, seed=3)
PGD = Evaluation(attack="pgd", norm="Linf", eps=EPS, n_images=24, batch_size=10, iterations=5, restarts=2)


@pytest.fixture(autouse=True, scope="module")
def _short_attacks() -> Iterator[None]:
    """Fewer iterations of the attacks, in the official run and in ours alike."""
    initialise = AutoAttack.__init__

    def short(self: AutoAttack, *arguments: object, **keywords: object) -> None:
        initialise(self, *arguments, **keywords)
        self.fab.n_iter, self.square.n_queries = 5, 100
        for attack in (self.apgd, self.apgd_targeted):
            attack.n_iter = attack.n_iter_orig = 12

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AutoAttack, "__init__", short)
        yield


@pytest.fixture(scope="module")
def standard(_short_attacks: None, model: nn.Module, digits: Dataset) -> tuple[Outcomes, Summary]:
    """The standard evaluation, undisturbed."""
    torch.set_num_threads(1)
    return evaluate(model, *digits.test, STANDARD, Watched())


def official_verdicts(model: nn.Module, digits: Dataset, names: list[str]) -> torch.Tensor:
    """Which images stand after these attacks, according to `run_standard_evaluation`."""
    official = AutoAttack(model, norm="Linf", eps=EPS, seed=STANDARD.seed)
    official.attacks_to_run = names
    official.verbose = False
    x, y = digits.pixels(digits.x_test[:24]), digits.y_test[:24]
    adversarial, _ = official.run_standard_evaluation(x, y, batch_size=STANDARD.batch_size)
    with torch.no_grad():
        return model(adversarial).argmax(1) == y


def test_verdicts_after_each_attack_equal_the_official_ones(model, digits: Dataset, standard):
    outcomes, summary = standard
    names = [step.attack for step in summary.cascade]
    assert names == ["apgd-ce", "apgd-t", "fab-t", "square"]
    fell = outcomes.fallen_at
    assert len(set(fell.tolist())) >= 3, "the model must be such that several attacks matter"
    for number in range(1, len(names) + 1):
        ours = (fell == STANDS) | (fell > number)
        assert torch.equal(ours, official_verdicts(model, digits, names[:number])), names[number - 1]


@pytest.mark.parametrize("attacks", [["apgd-ce", "square"], ["fab", "apgd-dlr"]])
def test_adversarial_images_equal_the_official_ones(model, digits: Dataset, attacks):
    official = AutoAttack(model, norm="Linf", eps=EPS, version="custom", attacks=attacks, seed=3)
    official.verbose = False
    x, y = digits.pixels(digits.x_test[:24]), digits.y_test[:24]
    expected, _ = official.run_standard_evaluation(x, y, batch_size=10)
    config = replace(STANDARD, version="custom", attacks=attacks)
    outcomes, _ = evaluate(model, *digits.test, config, Watched())
    torch.testing.assert_close(outcomes.adversarial, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("attacks", [["fab"], ["fab-t"], ["fab", "fab-t"], ["fab-t", "fab"]], ids="+".join)
def test_fab_is_targeted_when_the_official_one_is(model, digits: Dataset, attacks, monkeypatch: pytest.MonkeyPatch):
    """On many models, both find the same images, so that verdicts do not tell them apart."""
    seen: list[tuple[bool, int, int]] = []
    perturb = FABAttack_PT.perturb

    def watched(self: FABAttack_PT, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen.append((self.targeted, self.n_restarts, len(x)))
        return perturb(self, x, y)

    monkeypatch.setattr(FABAttack_PT, "perturb", watched)
    official = AutoAttack(model, norm="Linf", eps=EPS, version="custom", attacks=attacks, seed=3)
    official.verbose = False
    official.run_standard_evaluation(digits.pixels(digits.x_test[:24]), digits.y_test[:24], batch_size=10)
    expected = seen.copy()
    seen.clear()
    evaluate(model, *digits.test, replace(STANDARD, version="custom", attacks=attacks), Watched())
    assert seen == expected
    assert {targeted for targeted, *_ in seen} == {name == "fab-t" for name in attacks}


def test_interrupted_evaluation_goes_on_to_the_same_outcomes(model, digits: Dataset):
    config = replace(STANDARD, version="custom", attacks=["apgd-ce", "square", "fab-t"])
    undisturbed = Watched()
    expected, _ = evaluate(model, *digits.test, config, undisturbed)
    for stop_after in (1, 3, 4):
        first = Watched(stop_after)
        with pytest.raises(KeyboardInterrupt):
            evaluate(model, *digits.test, config, first)
        second = Watched()
        outcomes, _ = evaluate(model, *digits.test, config, second, first.states[-1])
        assert torch.equal(outcomes.fallen_at, expected.fallen_at)
        assert torch.equal(outcomes.adversarial, expected.adversarial)
        assert len(first.states) + len(second.states) == len(undisturbed.states), "no batch is attacked twice"


def test_clean_error_counts_the_whole_test_split_and_robust_error_the_first_images(model, digits: Dataset):
    _, summary = evaluate(model, *digits.test, PGD, Watched())
    with torch.no_grad():
        wrong = model(digits.pixels(digits.x_test)).argmax(1) != digits.y_test
    assert summary.clean.images == 500
    assert summary.clean.errors == int(wrong.sum())
    assert summary.robust.images == 24
    low, high = summary.robust.interval
    assert low < summary.robust.error < high


def test_misclassified_images_count_as_robust_errors_and_are_not_attacked(digits: Dataset):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(torch.zeros(len(x), dtype=torch.long), 10).float() + 0 * x.sum()

    outcomes, summary = evaluate(Constant().eval(), *digits.test, PGD, Watched())
    zeros = digits.y_test[:24] == 0
    assert torch.equal(outcomes.fallen_at == CLEAN, ~zeros)
    assert torch.equal(outcomes.fallen_at == STANDS, zeros)
    assert summary.robust.errors == int((~zeros).sum())


def test_a_model_in_train_mode_is_refused(model, digits: Dataset):
    broken = copy.deepcopy(model)
    broken[1].train()
    with pytest.raises(EvaluationError, match=r"eval mode.*: 1"):
        evaluate(broken, *digits.test, PGD, Watched())


def test_half_precision_weights_are_refused(model, digits: Dataset):
    with pytest.raises(EvaluationError, match=r"fp32.*bfloat16"):
        evaluate(copy.deepcopy(model).to(torch.bfloat16), *digits.test, PGD, Watched())


def test_inputs_outside_the_unit_interval_are_refused(model, digits: Dataset):
    with pytest.raises(EvaluationError, match=r"must be in \[0, 1\]"):
        evaluate(model, *replace(digits, levels=8).test, PGD, Watched())


def test_logits_that_are_not_finite_are_refused(digits: Dataset):
    class Broken(nn.Module):
        def forward(self, x):
            return x.new_full((len(x), 10), float("nan"))

    with pytest.raises(EvaluationError, match="not finite"):
        evaluate(Broken().eval(), *digits.test, PGD, Watched())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x + 2 * EPS * (0.5 - x).sign(), "exceeded its budget: Linf 0.2"),
        (lambda x: x - 0.05, r"must be in \[0, 1\]"),
        (lambda x: x * float("nan"), "not finite"),
    ],
    ids=["budget", "range", "nan"],
)
def test_an_attack_that_cheats_is_caught(digits: Dataset, change, message):
    class Fooled(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 10)

    x, y = digits.pixels(digits.x_test[:5]), torch.ones(5, dtype=torch.long)
    cheat = Attack("cheat", lambda images, labels, batch: change(images))
    with pytest.raises(EvaluationError, match=message):
        cascaded(Fooled(), x, y, [cheat], batch_size=5)


def test_rounding_at_the_budget_is_no_cheating(digits: Dataset):
    x = digits.pixels(digits.x_test[:5])
    edge = Attack("edge", lambda images, labels, batch: torch.where(images < 0.5, images + EPS, images - EPS))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    cascade = cascaded(model, x, torch.full((5,), -1), [edge], batch_size=5)
    assert (cascade.fallen_at == 1).all()


def test_an_image_that_does_not_fool_when_scored_again_stands(digits: Dataset):
    x = digits.pixels(digits.x_test[:3])
    cascade = Cascade.start(x, torch.ones(3, dtype=torch.bool))
    cascade.fallen_at[:2] = 1
    assert confirm(cascade, x, torch.tensor([True, False, False]), [], PGD) == 1
    assert cascade.fallen_at.tolist() == [1, STANDS, STANDS]


def test_the_model_is_left_without_a_trace(model, digits: Dataset):
    model.zero_grad()
    before = copy.deepcopy(model.state_dict())
    evaluate(model, *digits.test, replace(STANDARD, version="custom", attacks=["fab-t"], n_images=4), Watched())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (2, ["apgd-ce", "fab-t", "square"]),
        (3, ["apgd-ce", "fab-t", "square"]),
        (4, ["apgd-ce", "apgd-t", "fab-t", "square"]),
    ],
)
def test_fewer_classes_than_autoattack_expects(classes, expected):
    random = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (30, 4, 4, 1), generator=random).to(torch.uint8).numpy()
    y = (torch.arange(30) % classes).numpy()
    data = prepare(Arrays(x, y, x, y), classes)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, classes)).eval()
    config = replace(STANDARD, n_images=6, eps=0.02)
    attacks, notes = autoattack.attacks(net, config, classes, torch.device("cpu"))
    assert [attack.name for attack in attacks] == expected
    assert any(f"{classes - 1} target classes instead of 9" in note for note in notes)
    assert any("apgd-t was left out" in note for note in notes) == (classes < 4)
    _, summary = evaluate(net, *data.test, replace(config, version="custom", attacks=["apgd-ce", "fab-t"]), Watched())
    assert any("target classes" in warning for warning in summary.warnings)


def test_autoattacks_own_warnings_are_kept(digits: Dataset):
    class Random(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 10)

        def forward(self, x):
            return self.linear(x.flatten(1)) + torch.randn(len(x), 10)

    config = replace(STANDARD, version="custom", attacks=["apgd-ce"], n_images=10)
    _, summary = evaluate(Random().eval(), *digits.test, config, Watched())
    assert any("randomized defense" in warning for warning in summary.warnings)


def test_pgd_restarts_attack_only_what_stands(model, digits: Dataset):
    watched = Watched()
    outcomes, summary = evaluate(model, *digits.test, PGD, watched)
    assert [step.attack for step in summary.cascade] == ["pgd-5 (1)", "pgd-5 (2)"]
    assert summary.cascade[0].errors <= summary.cascade[1].errors
    again, _ = evaluate(model, *digits.test, PGD, Watched())
    assert torch.equal(outcomes.adversarial, again.adversarial)


def test_square_attack_asks_for_an_image_once_and_finds_what_it_found(digits: Dataset):
    """CachedModel answers change no adversarial image, though most queries on small images are repeats."""
    calls: list[int] = []

    class Counting(nn.Linear):
        def forward(self, x):
            calls.append(len(x))
            return super().forward(x.flatten(1))

    torch.manual_seed(0)
    model = Counting(64, 10).requires_grad_(False)
    images = digits.pixels(digits.x_test[:40])
    labels = model(images).argmax(1)
    found, asked = [], []
    for predict in (model, cached(model, images)):
        calls.clear()
        square = SquareAttack(predict, eps=0.02, n_queries=1500, seed=0, resc_schedule=False)
        found.append(square.perturb(images, labels))
        asked.append(sum(calls))
    assert torch.equal(*found)
    assert asked[1] < asked[0] / 2


def test_memory_of_answers_is_bounded(digits: Dataset, monkeypatch):
    images = digits.pixels(digits.x_test[:40])
    monkeypatch.setattr(query_cache, "MEMORY", 50 * images[0].numel() * 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    memory: Any = cached(model, images)
    for part in (images[:30], images[10:40], images[:3], images):
        torch.testing.assert_close(memory(part), model(part).detach())
        assert len(memory._places) <= 50


def test_images_on_which_queries_do_not_repeat_are_not_remembered():
    model = nn.Flatten()
    assert cached(model, torch.zeros(2, 3, 32, 32)) is model
