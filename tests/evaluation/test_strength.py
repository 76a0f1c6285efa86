"""How hard evaluation attacks: all nine targets, all iterations, and draws of their own, on models that show it."""

import math

import pytest
import torch
from support.evaluating import EPS, Watched, cascaded
from torch import nn
from torch.nn import functional

from bnft.evaluation import pgd
from bnft.evaluation.cascade import Attack
from bnft.evaluation.evaluate import evaluate
from bnft.evaluation.settings import STANDS, Evaluation

GREY = 0.5 + 0.002 * torch.arange(64.0).view(1, 1, 8, 8)  # so far from 0 and 1 that only eps bounds a perturbation
CPU = torch.device("cpu")


class Ninth(nn.Module):
    """Predicts class 0. Only the least likely of the other classes depends on the image, and can become likely."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = torch.cat([torch.tensor([5.0]), -torch.arange(9.0)]).expand(len(x), 10)
        change = 40 * (x - GREY).flatten(1).mean(1) / EPS - 20
        return logits + functional.one_hot(torch.tensor(9), 10) * change[:, None]


@pytest.mark.parametrize("name", ["apgd-t", "fab-t"])
def test_the_ninth_target_is_tried(name):
    config = Evaluation(
        attack="autoattack", version="custom", attacks=[name], norm="Linf", eps=EPS, n_images=2, batch_size=2
    )
    images, labels = GREY.repeat(2, 1, 1, 1), torch.zeros(2, dtype=torch.long)
    outcomes, summary = evaluate(Ninth().eval(), images, labels, config, Watched())
    assert outcomes.fallen_at.tolist() == [1, 1]
    assert [step.errors for step in summary.cascade] == [2], "the errors after the attack"
    assert not any("target classes" in note for note in summary.warnings), "all nine is what AutoAttack does"


class Linear(nn.Module):
    """Two logits, u.x and -u.x."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.u = nn.Parameter(torch.randn(64, generator=random) / 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = x.flatten(1) @ self.u
        return torch.stack([score, -score], 1)


def pgd_config(**changes) -> Evaluation:
    return Evaluation(**{"attack": "pgd", "norm": "Linf", "eps": EPS, "n_images": 4, "batch_size": 2, **changes})


def test_the_loss_on_pgd_examples_of_a_linear_model_is_known():
    """The largest loss within the budget is log(1 + exp(-2 (u.x - eps |u|_1)))."""
    model, images, labels = Linear().eval(), GREY.repeat(4, 1, 1, 1), torch.zeros(4, dtype=torch.long)
    _, summary = evaluate(model, images, labels, pgd_config(iterations=1), Watched())
    margin = float(GREY.flatten() @ model.u.detach() - EPS * model.u.detach().abs().sum())
    assert summary.pgd_loss == pytest.approx(math.log1p(math.exp(-2 * margin)), rel=1e-5)


class Flat(nn.Module):
    """Its logits have no gradient, so that PGD stays where it starts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([1.0, 0.0]) + 0 * x.flatten(1)[:, :2]


def test_each_restart_and_batch_starts_elsewhere():
    images, labels = GREY.repeat(2, 1, 1, 1), torch.zeros(2, dtype=torch.long)
    attacks = pgd.attacks(Flat(), pgd_config(iterations=2, restarts=3), CPU)
    starts = [attack.run(images, labels, batch) for attack in attacks for batch in (0, 1)]
    assert len({tuple(start.flatten().tolist()) for start in starts}) == 6
    assert torch.equal(starts[-1], attacks[2].run(images, labels, 1))
    (other,) = pgd.attacks(Flat(), pgd_config(iterations=2, seed=1), CPU)
    assert not torch.equal(starts[0], other.run(images, labels, 0))


class Shown(nn.Module):
    """Its logits tell where an image is, without a gradient, so that PGD stays where it starts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach().flatten(1)[:, :2] + 0 * x.flatten(1)[:, :2]


def test_the_loss_is_measured_from_a_start_of_its_own_for_each_batch():
    images, labels, model = GREY.repeat(4, 1, 1, 1), torch.zeros(4, dtype=torch.long), Shown()
    first, second = pgd.logits(model, model, images, labels, pgd_config()).split(2)
    (attack,) = pgd.attacks(model, pgd_config(iterations=2), CPU)
    (other,) = pgd.logits(model, model, images[:2], labels[:2], pgd_config(seed=1)).split(2)
    starts = [first, second, other, model(attack.run(images[:2], labels[:2], 0))]
    assert len({tuple(start.flatten().tolist()) for start in starts}) == 4


def test_autoattack_keeps_to_an_l2_budget():
    model, images = Linear().eval(), GREY.repeat(4, 1, 1, 1)
    margin = float(GREY.flatten() @ model.u.detach()) / float(model.u.detach().norm())  # the distance to the boundary
    for factor, fallen_at in ((1.1, 1), (0.9, STANDS)):
        config = Evaluation(
            attack="autoattack",
            version="custom",
            attacks=["apgd-ce"],
            norm="L2",
            n_images=4,
            batch_size=4,
            eps=factor * abs(margin),
        )
        outcomes, _ = evaluate(model, images, model(images).argmax(1), config, Watched())
        assert outcomes.fallen_at.tolist() == [fallen_at] * 4


def test_pgd_keeps_to_an_l2_budget():
    """The step of size 1 along the gradient is cut to eps; both are known for a linear model."""
    model, images, labels = Linear().eval(), GREY.repeat(2, 1, 1, 1), torch.zeros(2, dtype=torch.long)
    (attack,) = pgd.attacks(model, pgd_config(norm="L2", iterations=1, step_size=100.0), CPU)
    direction = (model.u / model.u.norm()).detach().view(1, 1, 8, 8)
    torch.testing.assert_close(attack.run(images, labels, 0), images - EPS * direction, atol=1e-3, rtol=0)


def test_pgd_uses_its_iterations_and_its_step_size():
    """From any start, 8 steps of a quarter of eps reach the worst corner, and 2 steps of a tenth do not."""
    model, images, labels = Linear().eval(), GREY.repeat(2, 1, 1, 1), torch.zeros(2, dtype=torch.long)
    (strong,) = pgd.attacks(model, pgd_config(iterations=8), CPU)
    torch.testing.assert_close(strong.run(images, labels, 0), images - EPS * model.u.detach().sign().view(1, 1, 8, 8))
    (weak,) = pgd.attacks(model, pgd_config(iterations=2, step_size=EPS / 10), CPU)
    assert (weak.run(images, labels, 0) - strong.run(images, labels, 0)).abs().max() > EPS / 2


def test_an_image_that_withstands_all_attacks_stands():
    config = pgd_config(iterations=2)
    outcomes, summary = evaluate(
        Flat().eval(), GREY.repeat(4, 1, 1, 1), torch.zeros(4, dtype=torch.long), config, Watched()
    )
    assert outcomes.fallen_at.tolist() == [STANDS] * 4 and summary.robust.errors == 0


def test_each_attack_gets_all_images_that_stand_in_batches_counted_from_0():
    """Attack k breaks image 2k alone, of five images in batches of two."""
    images, seen = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 2, []

    def attack(number: int) -> Attack:
        def change(x: torch.Tensor, labels: torch.Tensor, batch: int) -> torch.Tensor:
            places = [int((images == one).all((1, 2, 3)).nonzero()) for one in x]
            seen.append((number, batch, places))
            return torch.stack([one + EPS / 2 * (place == 2 * number) for one, place in zip(x, places, strict=True)])

        return Attack(f"{number}", change)

    class Moved(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            still = (x[:, None] == images[None]).all((2, 3, 4)).any(1)
            return torch.stack([still, ~still], 1).float()

    attacks = [attack(number) for number in range(3)]
    cascade = cascaded(Moved(), images, torch.zeros(5, dtype=torch.long), attacks, batch_size=2)
    assert cascade.fallen_at.tolist() == [1, STANDS, 2, STANDS, 3]
    assert seen == [
        *((0, 0, [0, 1]), (0, 1, [2, 3]), (0, 2, [4])),
        *((1, 0, [1, 2]), (1, 1, [3, 4])),
        *((2, 0, [1, 3]), (2, 1, [4])),
    ]
