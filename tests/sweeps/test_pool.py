"""Where runs go side by side, and what a launcher refuses to begin."""

import subprocess
import sys

import pytest
from support import mischief
from support.command import ROOT, TINY

from bnft.runs.execution import execute
from bnft.runs.plan import plan
from bnft.sweeps.pool import PRELOADED, Pool, Slot, slots
from bnft.sweeps.tasks import tasks
from bnft.sweeps.terminal import Terminal


def test_slots_share_the_threads(monkeypatch):
    monkeypatch.setattr("bnft.sweeps.pool.available_threads", lambda: 8)
    assert slots(20, []) == [Slot({}, 1)] * 8
    assert slots(20, [], workers=2) == [Slot({}, 4)] * 2
    assert slots(3, []) == [Slot({}, 2)] * 3


def test_each_gpu_is_a_slot_of_its_own(monkeypatch):
    monkeypatch.setattr("bnft.sweeps.pool.available_threads", lambda: 8)
    places = slots(20, ["0", "3"])
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places] == ["0", "3"]
    assert {place.threads for place in places} == {4}
    assert len(slots(1, ["0", "3"])) == 1
    shared = slots(20, ["0", "3"], runs_per_gpu=2)
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in shared] == ["0", "3", "0", "3"]
    assert {place.threads for place in shared} == {2}
    assert len(slots(2, ["0", "3"], runs_per_gpu=2)) == 2, "a GPU each, while there are enough"


def test_a_slot_is_one_warm_process_that_sees_its_own_gpu_only(hydra, tmp_path):
    seen = tmp_path / "seen"
    mischief.make(tmp_path, "tell", f"tell {seen}")
    line = ["policy=adv", *TINY, f"store={tmp_path}/store", "device=cpu", "schedule.epochs=2"]
    line += ["attack._target_=mischief.attack", f"+attack.name={tmp_path}/mischief/tell"]
    planned = plan([[*line, f"seed={seed}"] for seed in range(4)])
    places = slots(4, ["7", "8"])
    outcomes = Pool(tasks(planned), places, planned.store, Terminal()).run()
    assert list(outcomes.values()) == [None] * 4
    told = {tuple(text.split()) for text in seen.read_text().splitlines()}
    assert sorted(gpu for gpu, _ in told) == ["7", "8"]
    assert len({pid for _, pid in told}) == 2


def test_two_evaluations_of_a_run_follow_each_other(hydra, tmp_path):
    told: list[tuple[str, ...]] = []

    class Listening(Terminal):
        def begins(self, *what):
            told.append(what)

    line = ["policy=normal", *TINY, f"store={tmp_path}", "device=cpu"]
    planned = plan([[*line, f"evaluation.n_images={count}"] for count in (10, 11, 12)])
    outcomes = Pool(tasks(planned), slots(3, []), planned.store, Listening()).run()
    assert list(outcomes.values()) == [None] * 4, "one training, three evaluations"
    assert [stage for _, stage, _ in told] == ["training"] + ["evaluating"] * 3, "none was sent to wait"


def test_a_run_reads_its_base_while_that_is_evaluated(hydra, tmp_path):
    planned = plan([["policy=bn_stats", *TINY, f"store={tmp_path}", "device=cpu"]])
    (base,), (child,) = planned.bases, planned.runs
    execute(base, planned.store, Terminal(), evaluated=False)

    def refuse():
        raise AssertionError("it waits")

    with planned.store.locked(base.name, refuse, refuse):
        execute(child, planned.store, Terminal(), patient=False)
    assert planned.store.run(child.name).trained


@pytest.mark.parametrize(
    ("setting", "must"),
    [
        ("gpus=1", "this machine has none"),
        ("gpus=[0]", "this machine has none"),
        ("gpus=many", "the number of GPUs or a list of GPUs"),
        ("gpus=-1", "the number of GPUs or a list of GPUs"),
        ("gpus=true", "the number of GPUs or a list of GPUs"),
        ("runs_per_gpu=0", "a whole number, at least 1"),
        ("runs_per_gpu=two", "runs_per_gpu"),
        ("workers=0", "a whole number, at least 1"),
        ("workers=1.5", "workers"),
        ("hang_minutes=0", "a number, above 0"),
        ("hang_minutes=nan", "a number, above 0"),
        ("minutes=0", "a number, above 0"),
        ("minutes=nan", "a number, above 0"),
        ("minutes=soon", "minutes"),
        ("order=shortest", "one of longest, given"),
        ("hang_minutes=soon", "hang_minutes"),
        ("fail_fast=perhaps", "fail_fast"),
    ],
)
def test_what_a_launcher_cannot_do_is_refused_in_one_line(launch, monkeypatch, tmp_path, setting, must):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("bnft.sweeps.pool.warm_up", lambda: None)
    said = launch("-m", "policy=normal", f"hydra.launcher.{setting}")
    assert said.code == 2
    assert len(said.err.splitlines()) == 1 and must in said.err
    assert not list(tmp_path.iterdir()), "nothing was written"


@pytest.mark.long
def test_what_workers_are_forked_from_touches_no_gpu():
    """A process that has asked CUDA for anything cannot be forked into one that uses it."""
    program = (
        "import importlib, torch\n"
        "def refuse(*_): raise SystemExit('CUDA was asked')\n"
        "for name in dir(torch._C):\n"
        "    if name.startswith('_cuda_'): setattr(torch._C, name, refuse)\n"
        "torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = refuse\n"
        f"for name in {PRELOADED!r}: importlib.import_module(name)\n"
        "import launch\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
