"""Errors on held-out images while training: what they are, that they change nothing, and which model is kept."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.recipes import CPU, RECIPE
from torch import nn

from bnft.attacks.base import no_trace
from bnft.attacks.folding import Folded
from bnft.attacks.quick import quick_attack
from bnft.batchnorm.freezing import Freezing
from bnft.common.randomness import generator
from bnft.common.stopping import Stopped, steady
from bnft.data.augmentation import none
from bnft.data.dataset import Dataset, prepare
from bnft.data.digits import load
from bnft.models.resnet import ResNet
from bnft.training import monitor
from bnft.training.loop import train
from bnft.training.monitor import Monitor, Monitoring, best_of, monitored
from bnft.training.recipe import Recipe
from bnft.training.state import TrainingState

GOOD = replace(RECIPE, epochs=4, batch_size=16, lr=0.1, augmentation=none)  # the model learns something
EACH = Monitoring(every=1, keep="last", norm="Linf", eps=0.05)
BEST = replace(EACH, keep="best")


class Alarm:
    """Test images: whoever looks at them fails."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the test images are used ({name})")

    __getitem__ = __len__ = __iter__ = __getattr__


class Kept:
    """Keeps the state at the end of each epoch."""

    def __init__(self) -> None:
        self.ends: dict[int, dict[str, torch.Tensor]] = {}

    def save(self, model: nn.Module, state: TrainingState) -> None:
        if state.step == 0:
            self.ends[state.epoch] = copy.deepcopy(model.state_dict())

    def stepped(self, state: TrainingState, steps: int) -> None:
        pass

    def pulse(self) -> None:
        pass


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = prepare(load(), 10)
    few = replace(data, x_train=data.x_train[:300], y_train=data.y_train[:300])
    alarm: Any = Alarm()
    return replace(few.hold_out(40), x_test=alarm, y_test=alarm)


def trained(
    data: Dataset, recipe: Recipe, keeper: Kept | None = None, parameters: str = "all"
) -> tuple[nn.Module, TrainingState]:
    torch.manual_seed(0)
    model = ResNet(1, 10, 16, [1])
    return model, train(model, Freezing(model, [parameters], "update"), data, recipe, CPU, keeper or Kept())


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    return [name for name, value in second.items() if not torch.equal(first[name], value)]


@pytest.mark.parametrize("attacked", [True, False], ids=["attacked", "clean"])
def test_the_numbers_are_those_of_the_quick_attack_on_the_saved_models(digits: Dataset, attacked: bool) -> None:
    keeper = Kept()
    recipe = GOOD if attacked else replace(GOOD, attack=None)
    model, state = trained(digits, replace(recipe, monitoring=replace(EACH, every=3)), keeper)
    assert [line["epoch"] for line in monitored(state.history)] == [3, 4], "every third, and the last"
    assert digits.held_out is not None
    images, labels = digits.pixels(digits.held_out[0]), digits.held_out[1]
    for line in monitored(state.history):
        model.load_state_dict(keeper.ends[line["epoch"]])
        with no_trace(model):
            draws = generator(CPU.device, recipe.seed, "monitor")
            view = Folded(model, images[:2]).view
            broken = quick_attack(view, images, labels, generator=draws, eps=0.05, norm="Linf").found.broken
            wrong = model(images).argmax(1) != labels
        assert line["monitor_robust_error"] == 100 * int(broken.sum()) / 40
        assert line["monitor_clean_error"] == 100 * int(wrong.sum()) / 40
        assert 0 < line["monitor_clean_error"] < line["monitor_robust_error"]


def test_batches_draw_apart_and_count_together(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """With eps near zero, the robust error is the clean error, over all batches."""
    model, _ = trained(digits, RECIPE)
    settings = replace(EACH, eps=1e-9)
    whole = Monitor(model, digits, settings, 1, seed=0).errors()
    monkeypatch.setattr(monitor, "BATCH", 16)  # the last batch has 8 images
    assert Monitor(model, digits, settings, 1, seed=0).errors() == whole
    assert whole["monitor_robust_error"] == whole["monitor_clean_error"] > 0


def test_batches_and_seeds_have_draws_of_their_own(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model, drawn = trained(digits, RECIPE)[0], []

    def listening(device: torch.device, seed: int, purpose: str, *, step: int) -> torch.Generator:
        drawn.append((seed, purpose, step))
        return generator(device, seed, purpose, step=step)

    monkeypatch.setattr(monitor, "BATCH", 16)
    monkeypatch.setattr(monitor, "generator", listening)
    norms = []

    def attack(*arguments: Any, **settings: Any) -> Any:
        norms.append(settings["norm"])
        return quick_attack(*arguments, **settings)

    monkeypatch.setattr(monitor, "quick_attack", attack)
    Monitor(model, digits, replace(EACH, norm="L2"), 1, seed=7).errors()
    assert drawn == [(7, "monitor", 0), (7, "monitor", 1), (7, "monitor", 2)] and norms == ["L2"] * 3


def test_an_attack_on_the_whole_cube_breaks_everything(digits: Dataset) -> None:
    model, _ = trained(digits, replace(GOOD, attack=None))
    found = Monitor(model, digits, replace(EACH, eps=1.0), 1, seed=0).errors()
    assert found["monitor_robust_error"] == 100 > found["monitor_clean_error"]


@pytest.mark.parametrize("parameters", ["all", "none", "batchnorm"])
@pytest.mark.parametrize("attacked", [True, False], ids=["attacked", "clean"])
def test_measuring_changes_no_number_of_training(digits: Dataset, parameters: str, attacked: bool) -> None:
    recipe = replace(RECIPE, epochs=3, attack=RECIPE.attack if attacked else None)
    expected, plain = trained(digits, recipe, parameters=parameters)
    for every in (1, 3):
        model, state = trained(digits, replace(recipe, monitoring=replace(EACH, every=every)), parameters=parameters)
        assert differing(model.state_dict(), expected.state_dict()) == []
        assert differing(state.batchnorm.stacked(), plain.batchnorm.stacked()) == []
        for line, usual in zip(state.history, plain.history, strict=True):
            assert {key: line[key] for key in usual if key != "seconds"} == {
                key: value for key, value in usual.items() if key != "seconds"
            }


def test_modes_and_gradients_are_as_before_a_measurement(digits: Dataset) -> None:
    model, _ = trained(digits, RECIPE, parameters="batchnorm")
    model.train()
    model.bn.eval()
    before = {name: module.training for name, module in model.named_modules()}
    learning = [parameter.requires_grad for parameter in model.parameters()]
    measuring = Monitor(model, digits, EACH, 1, seed=0)
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Stopped

    with pytest.raises(Stopped):
        measuring.errors(stop)
    measuring.errors(steady)
    assert {name: module.training for name, module in model.named_modules()} == before
    assert [parameter.requires_grad for parameter in model.parameters()] == learning


def too_high(progress: float) -> float:
    """A learning rate that spoils the model in the last of four epochs."""
    return 1.0 if progress < 0.75 else 60.0


def test_the_best_model_is_kept(digits: Dataset) -> None:
    keeper = Kept()
    recipe = replace(GOOD, shape=too_high, attack=None)
    model, state = trained(digits, replace(recipe, monitoring=BEST), keeper)
    robust = [line["monitor_robust_error"] for line in state.history]
    best = 1 + robust.index(min(robust))
    assert best < 4 and robust.count(min(robust)) == 1, "else this test shows nothing"
    assert differing(model.state_dict(), keeper.ends[best]) == []
    assert differing(model.state_dict(), keeper.ends[4]) != []
    assert state.batchnorm.epochs == [0, 1, 2, 3, 4], "the logs have all epochs"
    last, _ = trained(digits, replace(recipe, monitoring=EACH))
    assert differing(last.state_dict(), keeper.ends[4]) == []


def test_only_measured_epochs_can_be_the_best(digits: Dataset) -> None:
    keeper = Kept()
    model, state = trained(
        digits, replace(GOOD, shape=too_high, attack=None, monitoring=replace(BEST, every=2)), keeper
    )
    assert [line["epoch"] for line in monitored(state.history)] == [2, 4]
    assert differing(model.state_dict(), keeper.ends[best_of(state.history)["epoch"]]) == []


@pytest.mark.parametrize(
    ("errors", "best"),
    [
        ([(5, 60), (5, 50), (5, 55)], 2),
        ([(5, 50), (4, 50), (6, 50)], 2),
        ([(5, 50), (5, 50)], 1),
        ([None, (9, 90), None, (1, 80)], 4),
    ],
    ids=["robust", "then clean", "then the first", "measured"],
)
def test_which_epoch_is_the_best(errors: list[tuple[int, int] | None], best: int) -> None:
    history = [
        {"epoch": epoch, **({"monitor_clean_error": pair[0], "monitor_robust_error": pair[1]} if pair else {})}
        for epoch, pair in enumerate(errors, start=1)
    ]
    assert best_of(history)["epoch"] == best
