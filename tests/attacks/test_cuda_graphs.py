"""Attacks as CUDA graphs, and steps that never wait for the device: as far as a machine without one can tell."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from support import recipes
from support.command import ROOT
from support.waiting import NoWaiting

from bnft.attacks import cuda_graphs
from bnft.attacks.folding import Folded
from bnft.attacks.pgd import pgd
from bnft.batchnorm.freezing import Freezing
from bnft.common.devices import Hardware
from bnft.common.stopping import Stopped
from bnft.config import components
from bnft.data.dataset import Dataset, prepare
from bnft.data.digits import load
from bnft.models.resnet import ResNet
from bnft.training import loop, step
from bnft.training.loop import train
from bnft.training.state import TrainingState
from bnft.training.step import TrainingStep

CPU = Hardware(torch.device("cpu"), "fp32", 1)
OPTIONS: dict[str, Any] = {"eps": 0.1, "iterations": 2, "step_size": 0.05}
RECIPE = replace(
    recipes.RECIPE,
    epochs=3,
    attack=components.build("attack", {"_target_": "bnft.attacks.pgd.pgd", **OPTIONS}),
)


class Kept:
    """Keeps what training shows and saves."""

    def __init__(self, stop_at_pulse: int | None = None) -> None:
        self.shown: list[TrainingState] = []
        self.saved: list[tuple[dict, TrainingState]] = []
        self.pulses, self.stop_at_pulse = 0, stop_at_pulse

    def save(self, model, progress):
        self.saved.append((copy.deepcopy(model.state_dict()), copy.deepcopy(progress)))

    def stepped(self, progress, steps):
        self.shown.append(copy.deepcopy(progress))

    def pulse(self):
        self.pulses += 1
        if self.pulses == self.stop_at_pulse:
            raise Stopped


class Recorded:
    """Stands in for a device's graphs: a replay calls the function once more, into the same output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: bool = False) -> None:
        self.captured = self.replayed = 0
        self.fails = fails
        monkeypatch.setattr(cuda_graphs, "_possible", lambda device: True)
        monkeypatch.setattr(cuda_graphs, "_record", self.record)

    def record(
        self, function: Callable[[], torch.Tensor], device: torch.device
    ) -> tuple[torch.Tensor, Callable[[], None]]:
        for _ in range(cuda_graphs.WARM_UP):
            output = function()
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            output.copy_(function())

        return output, replay


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = prepare(load(), 10)
    return replace(data, x_train=data.x_train[:300], y_train=data.y_train[:300])


def fresh(parameters=("all",), statistics="update") -> tuple[ResNet, Freezing]:
    torch.manual_seed(0)
    model = ResNet(1, 10, 4, [1])
    model.stages.append(torch.nn.Dropout(0.3))
    return model, Freezing(model, list(parameters), statistics)


def trained(digits, recipe=RECIPE, keeper=None, hardware=CPU, **policy):
    model, freezing = fresh(**policy)
    progress = train(model, freezing, digits, recipe, hardware, keeper or Kept())
    return model, progress


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def lines(progress: TrainingState) -> list[dict]:
    return [{**line, "seconds": 0} for line in progress.history]


# the attack as a graph


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("policy", [{}, {"statistics": "reset"}, {"parameters": ("none",)}])
def test_training_with_a_graph_gives_the_same_bits(digits, monkeypatch, policy, precision):
    hardware = replace(CPU, precision=precision)
    expected, plain = trained(digits, hardware=hardware, **policy)
    recorded = Recorded(monkeypatch)
    model, progress = trained(digits, hardware=hardware, **policy)
    assert (recorded.captured, recorded.replayed) == (1, 12)
    assert same(model, expected) and lines(progress) == lines(plain)


@pytest.mark.parametrize("options", [{"norm": "L2", "random_start": False}, {"keep": "last"}])
def test_all_options_of_the_attack_reach_the_graph(digits, monkeypatch, options):
    recipe = replace(RECIPE, epochs=1, attack=partial(pgd, **OPTIONS, **options))
    expected, _ = trained(digits, recipe)
    recorded = Recorded(monkeypatch)
    assert same(trained(digits, recipe)[0], expected) and recorded.replayed == 4


def test_where_capturing_fails_training_goes_on_to_the_same_bits(digits, monkeypatch):
    expected, _ = trained(digits)
    recorded = Recorded(monkeypatch, fails=True)
    with pytest.warns(RuntimeWarning, match=r"when stream is capturing$"):
        model, _ = trained(digits)
    assert same(model, expected) and recorded.replayed == 0


def test_only_our_own_attack_on_a_traced_model_in_eval_mode_is_captured(digits, monkeypatch):
    recorded = Recorded(monkeypatch)

    def another(model, inputs, labels, *, generator, **options):
        return pgd(model, inputs, labels, generator=generator, **options)

    trained(digits, replace(RECIPE, epochs=1, attack=partial(another, **OPTIONS)))
    trained(digits, replace(RECIPE, epochs=1, attack_mode="train"))
    trained(digits, replace(RECIPE, epochs=1, attack=None))
    monkeypatch.setattr(Folded, "_fold", lambda self, example: None)  # as where it cannot be traced
    trained(digits, replace(RECIPE, epochs=1))
    assert recorded.captured == 0


def test_without_a_device_nothing_is_captured(digits, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_record", lambda *_: pytest.fail("there is no device"))
    trained(digits, replace(RECIPE, epochs=1))


def test_pulses_come_before_batches_only_and_stopping_loses_nothing(digits, monkeypatch):
    expected, _ = trained(digits)
    Recorded(monkeypatch)
    keeper = Kept(stop_at_pulse=7)
    with pytest.raises(Stopped):
        trained(digits, keeper=keeper)
    state, progress = keeper.saved[-1]
    assert (progress.epoch, progress.step) == (1, 2)
    model, freezing = fresh()
    model.load_state_dict(state)
    rest = Kept()
    train(model, freezing, digits, RECIPE, CPU, rest, progress)
    assert same(model, expected) and rest.pulses == 6


def test_training_moves_no_tensor_that_a_graph_reads(digits, monkeypatch):
    """A graph knows addresses: weights, statistics and folded weights must stay where they are."""
    views: list[Folded] = []
    before: list[list[int]] = []

    class Seen(Folded):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            views.append(self)
            before.append(addresses(self))

    def addresses(folded):
        return [value.data_ptr() for part in (folded.model, folded.view) for value in part.state_dict().values()]

    monkeypatch.setattr(step, "Folded", Seen)
    trained(digits)
    assert addresses(views[0]) == before[0]


def test_a_result_is_overwritten_by_the_next_call(monkeypatch):
    Recorded(monkeypatch)
    doubled = cuda_graphs.captured(lambda x: 2 * x, torch.zeros(3))
    assert doubled is not None
    first = doubled(torch.ones(3))
    assert torch.equal(first, torch.full((3,), 2.0))
    assert doubled(torch.full((3,), 5.0)) is first and torch.equal(first, torch.full((3,), 10.0))


# no waiting


def test_no_step_waits_for_the_device(digits):
    model, freezing = fresh()
    progress = TrainingState()
    sums = loop._Sums(progress, CPU.device, learning=True)
    inputs, labels = digits.pixels(digits.x_train[:64]), digits.y_train[:64]
    training_step = TrainingStep(model, freezing, RECIPE, CPU, inputs, labels)
    for number in range(2):
        with NoWaiting():
            sums.add(*training_step(inputs, labels, 0, number, 0.1), 64)
    sums.read()
    assert progress.images == 128 and progress.losses > 0
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        sums.read()
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        inputs[labels > 3]


@pytest.fixture
def unread(monkeypatch) -> None:
    """Sums are read as on a GPU, where that takes time."""

    class Distant(loop._Sums):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self._device = torch.device("cuda")

    monkeypatch.setattr(loop, "_Sums", Distant)


def test_on_a_gpu_sums_are_read_about_once_a_second(digits, unread):
    model, freezing = fresh()
    keeper = Kept()
    now = iter(range(10**6))
    progress = train(
        model, freezing, digits, replace(RECIPE, epochs=1), CPU, keeper, clock=lambda: 0.12 * next(now)
    )  # some 0.4 seconds a batch
    assert [shown.images for shown in keeper.shown] == [64, 64, 64, 256]
    assert all((shown.losses > 0) == (shown.images > 0) for shown in keeper.shown)
    assert lines(progress) == lines(trained(digits, replace(RECIPE, epochs=1))[1])


@pytest.mark.parametrize("moment", [2, 7, 9])
def test_what_is_saved_has_all_its_batches(digits, unread, monkeypatch, moment):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    recipe = replace(RECIPE, epochs=1)
    keeper = Kept(stop_at_pulse=moment)
    with pytest.raises(Stopped):
        trained(digits, recipe, keeper)
    assert all(progress.images == 64 * progress.step for _, progress in keeper.saved)
    model, freezing = fresh()
    state, progress = keeper.saved[-1]
    model.load_state_dict(state)
    resumed = train(model, freezing, digits, recipe, CPU, Kept(), progress)
    assert lines(resumed) == lines(trained(digits, recipe)[1])


@pytest.mark.parametrize("moment", [None, 9])
def test_a_diverging_loss_is_an_error_before_anything_is_saved(digits, unread, monkeypatch, moment):
    Recorded(monkeypatch)
    recipe = replace(RECIPE, lr=1e30, shape=lambda progress: 1.0, nesterov=False, momentum=0.0)
    keeper = Kept(stop_at_pulse=moment)
    with pytest.raises(RuntimeError, match=r"^the loss became (nan|inf) in epoch 1: lower schedule\.lr$"):
        trained(digits, recipe, keeper)
    assert not keeper.saved


# with a device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_the_graph_gives_the_bits_of_the_plain_attack(digits, monkeypatch, precision):
    hardware = Hardware(torch.device("cuda"), precision, 1)
    hardware.settle()
    data = digits.to(hardware.device)

    def run():
        model, freezing = fresh()
        train(hardware.place(model), freezing, data, RECIPE, hardware, Kept())
        return model

    found = run()
    monkeypatch.setattr(cuda_graphs, "_possible", lambda device: False)
    assert same(found, run())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_failed_capture_leaves_no_trace():
    with pytest.warns(RuntimeWarning, match="no CUDA graph"):
        assert cuda_graphs.captured(lambda x: x * float(x.sum()), torch.ones(3, device="cuda")) is None
    assert torch.rand(3, device="cuda").shape == (3,)
    doubled = cuda_graphs.captured(lambda x: 2 * x, torch.zeros(3, device="cuda"))
    assert doubled is not None
    assert doubled(torch.ones(3, device="cuda")).tolist() == [2.0, 2.0, 2.0]


@pytest.mark.long
def test_the_benchmark_runs_at_toy_size_without_a_gpu(tmp_path):
    script, out = ROOT / "benchmarks" / "gpu.py", tmp_path / "gpu.json"
    command = [sys.executable, script, "--cpu", "--quick", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(out.read_text())
    assert "failed" not in done.stdout and not [
        name for name, part in found.items() if "error" in part and len(part) < 2
    ]
    assert {"roofline", "eager loop, 16", "ours, 16", "adversarial epoch", "AutoAttack", "Table 2"} <= set(found)
    assert "| 16 | eager loop |" in done.stdout
