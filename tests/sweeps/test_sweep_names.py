"""Names that users give to sweeps."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.command import TINY, Outcome, refusal, tree

from bnft.common.errors import InputError
from bnft.common.stopping import steady
from bnft.runs.store import Store
from bnft.sweeps.slurm import submission
from bnft.sweeps.slurm.arrays import Array
from bnft.sweeps.tasks import Task

Bnft = Callable[..., Outcome]
LINE = ("-m", "policy=normal", "sweep_name=my_question", *TINY, "wandb.mode=disabled", "hydra/launcher=basic")
ENTRY = {"run": "adv-0123456789", "evaluation": "pgd-0123456789"}


def test_commands_accept_the_name_and_the_same_command_continues_it(
    tmp_path: Path, launch: Bnft, bnft: Bnft, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNFT_SWEEP_FILE", str(tmp_path / "name"))
    assert launch(*LINE).code == 0
    assert (tmp_path / "name").read_text() == "my_question\n"
    store = Store(tmp_path / "multirun")
    assert store.sweeps() == ["my_question"]
    (run,) = store.runs()
    assert "sweep_name" not in " ".join(run.record().line or []), "it is not part of the run"
    for command in ("table", "status", "wait", "cancel"):
        assert bnft(command, "my_question").code == 0
    assert "NORMAL" in bnft("table", "my_question").out
    assert launch("-m", "policy=normal", *TINY, "wandb.mode=disabled", "hydra/launcher=basic").code == 0
    assert store.sweeps()[0] == "my_question" and [run.name for run in store.runs()] == [run.name]
    assert launch(*LINE).code == 0
    assert store.sweeps()[-1] == "my_question" and len(store.sweeps()) == 2, "it is the newest again"
    newest, _ = json.loads(bnft("list", "--format", "json").out)
    assert newest["name"] == "my_question" and newest["time"] == store.sweep("my_question")["time"] != ""
    before = tree(store.root)
    line = refusal(launch(*LINE, "seed=1"))
    assert "sweep_name=my_question: must be a new name; the sweep of this name has other runs" in line
    after = {name: value for name, value in tree(store.root).items() if name != "../multirun.yaml"}
    assert after.keys() - before.keys() <= {"multirun.yaml"} and all(after[name] == before[name] for name in before)


@pytest.mark.parametrize("name", ["all", "a/b", "..", "adv-0123456789", "''", "-x", "a b", "x" * 101])
def test_what_is_not_a_plain_name_is_refused(launch: Bnft, tmp_path: Path, name: str) -> None:
    assert "sweep_name=" in refusal(launch("-m", "policy=normal", f"sweep_name='{name}'"))
    assert not (tmp_path / "multirun" / "sweeps").exists()


def test_one_sweep_has_one_name(launch: Bnft) -> None:
    line = ("-m", "policy=normal", "sweep_name=a,b", *TINY, "wandb.mode=disabled")
    assert "must be the same for all runs of a sweep" in refusal(launch(*line, "seed=0"))


def test_a_single_run_has_no_sweep_to_name(launch: Bnft) -> None:
    assert "sweep_name=a: must be given with -m" in refusal(launch("policy=normal", "sweep_name=a"))


def test_a_sweep_that_is_running_is_not_continued(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save_sweep([ENTRY], [], "bnft run", None, "mine")
    with (
        store.locked("sweep-mine", steady, steady),
        pytest.raises(InputError, match=r"sweep_name=mine: must be .* not running; `bnft cancel mine` ends it"),
    ):
        store.save_sweep([ENTRY], [], "bnft run", None, "mine")
    assert store.save_sweep([ENTRY], [], "bnft run", None, "mine") == "mine"


def test_jobs_of_a_continued_sweep_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SLURM: only the call of sbatch, the copy of the code and the encoding of tasks are replaced."""
    store = Store(tmp_path)
    monkeypatch.setattr(submission, "snapshot", lambda *_: tmp_path)
    monkeypatch.setattr(submission, "encoded", lambda task: {"run": task.name})
    calls: list[str] = []

    def sbatch(self: Any, name: str, *_: Any) -> str:
        calls.append(name)
        return str(len(calls))

    monkeypatch.setattr(submission.Executor, "submit_tasks", sbatch)
    monkeypatch.setattr(submission.Executor, "__init__", lambda *_: None)
    for run in ("adv-0123456789", "normal-0123456789"):
        store.save_sweep([ENTRY], [], "bnft run", None, "mine")
        job: Any = SimpleNamespace(name=run)
        submission.Submission(store, "mine", submission.Request()).submit([Array({0: Task(job, False, None)}, None)])
    arrays = store.sweep("mine")["arrays"]
    assert calls == ["bnft-mine-0", "bnft-mine-1"] == [array["name"] for array in arrays]
    assert [array["tasks"] for array in arrays] == [{"0": "adv-0123456789"}, {"0": "normal-0123456789"}]
    assert [array["job"] for array in arrays] == ["1", "2"]
    assert sorted(os.listdir(tmp_path / ".slurm" / "mine")) == ["log", "tasks-0.jsonl", "tasks-1.jsonl"]
