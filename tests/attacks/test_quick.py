"""The quick attack: what it finds on models whose answer is known, what it costs, and where it waits."""

from functools import partial

import pytest
import torch
from support.waiting import NoWaiting
from torch import nn

from bnft.attacks import apgd, quick
from bnft.attacks.apgd import apgd_search
from bnft.attacks.ball import Norm
from bnft.attacks.found import Found
from bnft.attacks.losses import cross_entropy, dlr, targeted_margin
from bnft.attacks.quick import quick_attack, random_stripes
from bnft.evaluation.passes import counted

EPS = 0.1
CLASSES = 10


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int) -> torch.Tensor:
    """Images so far from 0 and 1 that only eps bounds a perturbation."""
    return 0.3 + 0.4 * torch.rand(count, 1, 8, 8, generator=draws(1))


class Linear(nn.Module):
    """Ten logits that are linear in the image."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(scale * torch.randn(CLASSES, 64, generator=draws(2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight.T

    def breakable(self, x: torch.Tensor, norm: str) -> torch.Tensor:
        """The smallest budget that breaks each image, which is known for a linear model."""
        logits = self(x).detach()
        own = logits.argmax(1)
        gaps = logits.gather(1, own[:, None]) - logits
        differences = self.weight.detach()[None] - self.weight.detach()[own][:, None]
        sizes = differences.abs().sum(2) if norm == "Linf" else differences.norm(dim=2)
        return (gaps / sizes).scatter(1, own[:, None], torch.inf).amin(1)


class Unbreakable(nn.Module):
    """Always class 0, by a margin that depends on the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        others = -1 - 20 * x.flatten(1)[:, : CLASSES - 1]
        return torch.cat([0 * x.flatten(1)[:, :1], others], 1)


def attacked(model: nn.Module, x: torch.Tensor, norm: Norm = "Linf", eps: float = EPS, seed: int = 0, **kind) -> Found:
    labels = model(x).argmax(1)
    return quick_attack(model, x, labels, generator=draws(seed), eps=eps, norm=norm, **kind).found


@pytest.mark.parametrize(("norm", "factor"), [("Linf", 1.0), ("L2", 8.0)])
def test_on_a_linear_model_it_breaks_exactly_what_can_be_broken(norm, factor):
    model, x, eps = Linear(), images(200), 0.01 * factor
    smallest = model.breakable(x, norm)
    found = attacked(model, x, norm, eps)
    assert 40 < int(found.broken.sum()) < 160, "the budget must divide the images"
    assert not bool((found.broken & (smallest > eps * 1.0001)).any()), "impossible ones are not broken"
    assert not bool((~found.broken & (smallest < eps * 0.999)).any()), "possible ones are"


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_points_stay_within_the_budget_and_are_what_they_claim(norm):
    model, x = Linear(), torch.rand(60, 1, 8, 8, generator=draws(3))
    found = attacked(model, x, norm)
    difference = (found.points - x).flatten(1)
    size = difference.abs().amax(1) if norm == "Linf" else difference.norm(dim=1)
    assert float(size.max()) <= EPS * (1 + 1e-5) + 1e-7
    assert float(found.points.min()) >= 0 and float(found.points.max()) <= 1
    labels = model(x).argmax(1)
    assert torch.equal(model(found.points).argmax(1) != labels, found.broken)
    torch.testing.assert_close(found.margins, Found.at(found.points, model(found.points), labels).margins)


def test_the_same_seed_gives_the_same_points():
    model, x = Linear(), images(40)
    first, second, other = (attacked(model, x, eps=0.01, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.points, second.points) and not torch.equal(first.points, other.points)


def test_the_scale_of_the_logits_does_not_hide_adversarial_images():
    """The gradient of the cross-entropy vanishes in fp32 for the large logits."""
    x, eps = images(100), 0.01
    small, large = (attacked(Linear(scale), x, eps=eps) for scale in (1.0, 1e4))
    assert torch.equal(small.broken, large.broken)


def test_passes_are_those_of_the_plan_and_no_more():
    """All images take part at first, then the closest ones only, each in full, since none can be broken."""
    count = 200
    per_image = {
        "clean": (1, 0),
        "cross-entropy": (quick.FIRST_ITERATIONS + 1, quick.FIRST_ITERATIONS),
        "dlr": (quick.SECOND_ITERATIONS + 1, quick.SECOND_ITERATIONS),
        "stripes": (quick.STRIPES, 0),
    }
    forward, backward = (count * sum(part[way] for part in per_image.values()) for way in (0, 1))
    for part in quick.ROUNDS:
        copies = quick.FEW * part.targets  # a quarter of their margin is used up, so that no more count as close
        forward, backward = forward + copies * (part.iterations + 1), backward + copies * part.iterations
    model, x = Unbreakable(), images(count)
    with counted(model) as counter:
        attacked(model, x)
        passes = counter.take()
    assert (passes.forward - count, passes.backward) == (forward, backward), "count is the pass of the labels"
    assert forward + 2 * backward <= 450 * count, "this decides what quick costs; see docs/performance.md"


def test_rounds_attack_what_is_close_and_what_is_stuck():
    margins = torch.tensor([0.5, 0.02, 0.99, 0.3, 0.1, 1.0, *[0.6] * 20])
    images_ = 100 + torch.arange(len(margins))
    few = quick._worthwhile(images_, margins, 0.2)
    assert few[:4].tolist() == [101, 104, 103, 100] and len(few) == quick.FEW + 2
    assert few[-2:].tolist() == [102, 105]
    assert quick._worthwhile(images_, margins, 0.7).tolist()[:-2] == images_[margins.argsort(stable=True)][:-2].tolist()
    assert sorted(quick._worthwhile(images_, margins, 2.0).tolist()) == images_.tolist()


def test_each_part_has_its_loss_and_the_closest_classes_are_the_first_targets(monkeypatch):
    class Ordered(nn.Module):
        """Class k is the k-th closest, whatever the image is."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0 * x.flatten(1)[:, :CLASSES] - torch.arange(float(CLASSES))

    made = []

    def listening(*arguments, **settings) -> Found:
        made.append(settings)
        return apgd_search(*arguments, **settings)

    monkeypatch.setattr(quick, "apgd_search", listening)
    attacked(Ordered(), images(6))
    losses = list(dict.fromkeys(settings["loss"] for settings in made))
    assert losses == [cross_entropy, dlr, targeted_margin]
    aimed = [targets for settings in made if "targets" in settings for targets in settings["targets"].tolist()]
    assert aimed[:6] == [[1, 2, 3]] * 6 and all(targets == [*range(1, CLASSES)] for targets in aimed[6:])


class Hill(nn.Module):
    """Two classes. The margin of the other one is highest at one image within the budget, where it is nearly 0."""

    def __init__(self, top: torch.Tensor) -> None:
        super().__init__()
        self.top = top

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        away = (x - self.top).flatten(1).square().sum(1)
        return torch.stack([0 * away, -away - 1e-6], 1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_steps_become_smaller_on_the_way_to_a_point_within_the_budget(norm: Norm):
    """Steps of the first size jump over it in each pixel. Images that make no progress go back to their best point."""
    x = images(20)
    size = EPS if norm == "Linf" else EPS / 8
    top = x + size * (1.6 * torch.rand(x.shape, generator=draws(4)) - 0.8)
    search = partial(apgd_search, eps=EPS, norm=norm, iterations=100, loss=cross_entropy)
    found = search(Hill(top), x, torch.zeros(20, dtype=torch.long), generator=draws())
    before, after = ((points - top).flatten(1).norm(dim=1) for points in (x, found.points))
    assert float((after / before).max()) < 0.03


def test_what_is_broken_stays_broken():
    labels, logits = torch.zeros(2, dtype=torch.long), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    found = Found.at(torch.tensor([0.1, 0.2]).view(2, 1, 1, 1), logits, labels)
    found.take(torch.arange(2), Found.at(torch.tensor([0.3, 0.4]).view(2, 1, 1, 1), logits.flip(0), labels))
    assert found.broken.tolist() == [True, True]
    assert torch.equal(found.points.flatten(), torch.tensor([0.1, 0.4])), "the first broken point is kept"


def test_images_leave_the_batch_on_a_cpu_only():
    assert apgd._leaves(torch.device("cpu")) and not apgd._leaves(torch.device("cuda"))


def test_broken_images_cost_no_more_passes():
    model, x = Linear(), images(100)
    with counted(model) as counter:
        found = attacked(model, x, eps=0.2)
        passes = counter.take()
    assert bool(found.broken.all()) and passes.forward < 5 * len(x) and passes.backward < 4 * len(x)


def test_thorough_attacks_all_images_towards_all_classes():
    class Far(nn.Module):
        """Only the ninth target can be reached. The gradients of untargeted losses do not lead there."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = -torch.arange(0.0, CLASSES).expand(len(x), CLASSES)
            last = 3000 * (x.flatten(1).mean(1) - 0.5 - 0.9 * EPS)
            return logits + torch.eye(CLASSES)[-1] * last[:, None]

    x = torch.full((60, 1, 8, 8), 0.5)
    with counted(Unbreakable()) as none, counted(model := Unbreakable()) as every:
        attacked(model, images(60), thorough=True)
    assert none.take().forward == 0
    expected = sum(60 * (CLASSES - 1) * part.iterations for part in quick.ROUNDS)
    assert every.take().backward == 60 * (quick.FIRST_ITERATIONS + quick.SECOND_ITERATIONS) + expected
    assert bool(attacked(Far(), x, thorough=True).broken.all())
    assert bool(attacked(Far(), x).broken.all()), "images that are stuck are tried towards all classes too"


class Masked(nn.Module):
    """A linear model of rounded images: it can be broken, but its gradients are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x + ((20 * x).round() / 20 - x).detach() - x + x.detach())


def test_it_notices_gradients_that_show_nothing():
    for model, expected in ((Linear(), 0.0), (Masked(), 0.5)):
        x = images(100)
        labels = model(x).argmax(1)
        outcome = quick_attack(model, x, labels, generator=draws(), eps=0.01, norm="Linf")
        assert float(outcome.hidden.float().mean()) >= expected
        assert expected or not bool(outcome.hidden.any())


@pytest.mark.parametrize("loss", [cross_entropy, dlr])
def test_without_leaving_the_same_images_are_broken_and_nothing_waits(monkeypatch, loss):
    """This is how it runs on a GPU."""
    model, x = Linear(), images(60)
    labels = model(x).argmax(1)
    search = partial(apgd_search, model, x, labels, eps=0.01, norm="Linf", iterations=12, loss=loss)
    leaving = search(generator=draws())
    monkeypatch.setattr(apgd, "_leaves", lambda device: False)
    with NoWaiting():
        staying = search(generator=draws())
    assert torch.equal(leaving.broken, staying.broken) and 5 < int(leaving.broken.sum()) < 55
    torch.testing.assert_close(leaving.points, staying.points)
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        leaving.standing()


def test_targets_are_tried_side_by_side_and_one_is_enough():
    model, x = Linear(), images(50)
    labels = model(x).argmax(1)
    targets = Found.at(x, model(x).detach(), labels).margins.argsort(dim=1, descending=True)[:, :3]
    search = partial(apgd_search, model, x, labels, eps=0.012, norm="Linf", iterations=10, loss=targeted_margin)
    together = search(generator=draws(), targets=targets)
    apart = [search(generator=draws(), targets=targets[:, [place]]) for place in range(3)]
    assert torch.equal(together.broken, torch.stack([found.broken for found in apart]).any(0))
    assert int(together.broken.sum()) > max(int(found.broken.sum()) for found in apart) - 1
    assert len(together.points) == 50


def test_stripes_are_vertical_and_have_the_size_of_the_budget():
    norms: tuple[Norm, ...] = ("Linf", "L2")
    for norm in norms:
        x = images(3)
        points = random_stripes(
            Unbreakable(), x, torch.zeros(3, dtype=torch.long), generator=draws(), eps=EPS, norm=norm, queries=3
        ).points
        difference = points - x
        assert torch.allclose(difference, difference[:, :, :1].expand_as(difference), atol=1e-6)
        flat = difference.flatten(1)
        measured = flat.abs().amax(1) if norm == "Linf" else flat.norm(dim=1)
        torch.testing.assert_close(measured, torch.full((3,), EPS), rtol=1e-4, atol=1e-6)


def test_step_sizes_are_checked_at_the_published_places():
    """The first period is 22 % of the iterations, each is 3 % shorter than the last, and none is below 6 %."""
    assert list(apgd._checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sum(apgd._checkpoints(100).values()) == 99
