"""An evaluation shared out over processes comes to what one process comes to."""

import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
import torch
from support.evaluating import EPS, Watched

from bnft.common.stopping import Stopped
from bnft.data.dataset import Dataset
from bnft.evaluation import processes
from bnft.evaluation.evaluate import evaluate
from bnft.evaluation.settings import Evaluation

QUICK = Evaluation(
    attack="autoattack",
    version="custom",
    attacks=["apgd-ce", "apgd-dlr"],
    norm="Linf",
    eps=EPS,
    n_images=24,
    batch_size=8,
    seed=3,
)
PGD = Evaluation(attack="pgd", norm="Linf", eps=EPS, n_images=24, batch_size=8, iterations=1)


@pytest.fixture(autouse=True)
def _two_threads_for_any_evaluation(monkeypatch):
    monkeypatch.setattr(processes, "SHARED_FROM", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Started(Watched):
    """Knows the helpers, and does something to them at the first pulse after a batch."""

    def __init__(self, monkeypatch, then=None):
        super().__init__()
        self.processes, self.then = [], then
        context = multiprocessing.get_context("spawn")
        start = context.Process.start

        def noted(process):
            start(process)
            self.processes.append(process)

        monkeypatch.setattr(context.Process, "start", noted)

    def pulse(self):
        if self.then is not None and self.states:
            self.then(self)


@pytest.mark.long
def test_shared_evaluation_equals_that_of_one_process(model, digits: Dataset, monkeypatch):
    expected, alone = evaluate(model, *digits.test, QUICK, Watched())
    watcher = Started(monkeypatch)
    outcomes, summary = evaluate(model, *digits.test, QUICK, watcher, processes=2)
    assert len(watcher.processes) == 2 and not any(process.is_alive() for process in watcher.processes)
    assert torch.equal(outcomes.fallen_at, expected.fallen_at)
    torch.testing.assert_close(outcomes.adversarial, expected.adversarial, atol=1e-4, rtol=0)
    assert summary.warnings == alone.warnings


@pytest.mark.long
def test_stopping_ends_helpers_and_loses_no_batch(model, digits: Dataset, monkeypatch):
    def stop(watcher):
        raise Stopped("enough")

    watcher = Started(monkeypatch, stop)
    with pytest.raises(Stopped):
        evaluate(model, *digits.test, QUICK, watcher, processes=2)
    assert not any(process.is_alive() for process in watcher.processes)
    expected, _ = evaluate(model, *digits.test, QUICK, Watched())
    outcomes, _ = evaluate(model, *digits.test, QUICK, Watched(), watcher.states[-1])
    assert torch.equal(outcomes.fallen_at, expected.fallen_at)


@pytest.mark.long
def test_a_helper_that_dies_is_said(model, digits: Dataset, monkeypatch):
    def kill(watcher):
        for process in watcher.processes:
            os.kill(process.pid, signal.SIGKILL)
        watcher.then = None

    with pytest.raises(RuntimeError, match="a helper process of the evaluation ended"):
        evaluate(model, *digits.test, QUICK, Started(monkeypatch, kill), processes=2)


class Local(torch.nn.Sequential):
    """Cannot be sent to another process."""

    def __reduce__(self):
        raise TypeError("no")


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 24}, {"model": Local}, {"processes": 1}, {"size": 5e11}],
    ids=["batch", "model", "1", "small"],
)
def test_what_cannot_or_need_not_be_shared_is_not(model, digits: Dataset, monkeypatch, change):
    watcher = Started(monkeypatch)
    monkeypatch.setattr(processes, "SHARED_FROM", change.get("size", 0))
    chosen = Local(*model).eval() if "model" in change else model
    config = replace(PGD, batch_size=change.get("batch_size", 8))
    evaluate(chosen, *digits.test, config, watcher, processes=change.get("processes", 2))
    assert not watcher.processes
