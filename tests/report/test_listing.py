"""`bnft list`: the sweeps of a store and their states."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.command import TINY, Outcome, refusal, tree
from support.made_store import MadeStore

from bnft.common import files
from bnft.common.stopping import steady
from bnft.report.listing import age, listed
from bnft.runs.store import Store

Bnft = Callable[..., Outcome]
EVALUATED = ("evaluation", "autoattack-0123456789")


def test_sweeps_come_newest_first_with_what_they_asked_for(tmp_path: Path, bnft: Bnft) -> None:
    made = MadeStore(Store(tmp_path / "multirun"))
    first = made.add(["normal", "adv"]).sweep("/home/me/launch.py -m policy=normal,adv")
    second = (
        made.add(["adv"], seeds=(0, 1, 2, 3)).add(["bn_only"], done=False).sweep("bnft run -m +sweep=table2 seed=0,1")
    )
    before = tree(made.store.root)
    done = bnft("list", "--format", "json")
    assert done.code == 0 and done.err == ""
    newest, oldest = json.loads(done.out)
    assert (newest["name"], newest["state"], newest["runs"], newest["done"]) == (second, "interrupted", 5, 4)
    assert newest["policies"] == ["adv", "bn_only"] and newest["study"] == "table2" and newest["seeds"] == [0, 1]
    assert (oldest["name"], oldest["state"], oldest["runs"], oldest["done"]) == (first, "done", 2, 2)
    assert oldest["command"] == "python launch.py -m policy=normal,adv" and oldest["seeds"] == [0]
    lines = bnft("list").out.splitlines()
    assert lines[0].split() == ["sweep", "age", "state", "runs", "of", "seeds", "command"]
    assert lines[1].startswith(second) and "4 of 5" in lines[1] and lines[2].startswith(first)
    assert tree(made.store.root) == before


def test_the_state_of_a_sweep_is_that_of_its_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entries = [{"run": f"adv-{number:010}", "evaluation": EVALUATED[1]} for number in range(2)]
    name = store.save_sweep(entries, [], "bnft run", None)
    done, other = (store.run(entry["run"]).path for entry in entries)

    def state() -> str:
        (sweep,) = listed(store)
        return sweep.state

    assert state() == "interrupted"
    files.write_json(done.joinpath(*EVALUATED, "result.json"), {})
    for status, expected in (("failed", "failed"), ("interrupted", "interrupted"), ("running", "failed")):
        files.write_json(other / "status.json", {"state": status, "stage": "training"})
        assert state() == expected, "a running run whose process is gone was killed"
    with store.locked(other.name, steady, steady):
        assert state() == "running"
    with store.locked(f"sweep-{name}", steady, steady):
        assert state() == "running"
    files.write_json(other.joinpath(*EVALUATED, "result.json"), {})
    assert state() == "done"


def test_ten_thousand_runs_are_listed_in_a_moment(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = MadeStore(store).add(["adv"])
    (entry,) = made.entries
    (result,) = store.run(entry["run"]).path.rglob("result.json")
    for sweep in range(300):
        entries = [{**entry, "run": f"adv-{sweep:05}{number:05}"} for number in range(34)]
        for run in entries[sweep % 3 == 0 :]:  # one run of every third sweep is not begun
            folder = store.root / run["run"] / "evaluation" / run["evaluation"]
            folder.mkdir(parents=True)
            os.link(result, folder / "result.json")
        store.save_sweep(entries, [], "bnft run -m policy=adv", None)
    program = (
        "import sys\nfrom bnft.cli import main\nmain(sys.argv[1:])\n"
        "print(sorted({'torch', 'hydra', 'altair'} & sys.modules.keys()), file=sys.stderr)\n"
    )
    before = os.times()
    command = [sys.executable, "-c", program, "list", "--store", str(store.root), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    after = os.times()
    assert done.stderr == "[]\n"
    states = [sweep["state"] for sweep in json.loads(done.stdout)]
    assert len(states) == 300 and states.count("interrupted") == 100 and states.count("done") == 200
    took = after.children_user + after.children_system - before.children_user - before.children_system
    assert took < 2, "of the processor's time, however busy the machine is"


def test_a_recorded_sweep_keeps_its_seeds(tmp_path: Path, launch: Bnft) -> None:
    line = ("-m", "policy=normal", "seed=range(0,2)", *TINY, "wandb.mode=disabled", "hydra/launcher=basic")
    assert launch(*line).code == 0
    (sweep,) = listed(Store(tmp_path / "multirun"))
    assert (sweep.seeds, sweep.state, sweep.runs) == ([0, 1], "done", 2)


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("2026-01-01T00:00:00+00:00", "1 d"),
        ("2026-01-02T08:59:00+00:00", "3 h"),
        ("2026-01-02T11:59:30+00:00", "30 s"),
        ("2027-01-01T00:00:00+00:00", "0 s"),
        ("", ""),
        ("2026-01-01T00:00:00", ""),
    ],
)
def test_ages(time: str, shown: str) -> None:
    assert age(time, datetime(2026, 1, 2, 12, tzinfo=UTC)) == shown


def test_a_store_without_sweeps_is_refused(bnft: Bnft) -> None:
    assert "must be a folder with sweeps" in refusal(bnft("list"))
