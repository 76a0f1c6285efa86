"""Runs side by side: one run's trouble is its own, bases come first, and what failed is said."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from conftest import TINY
from test_end_to_end import finish, start, work

from bnft.pool import Slot, slots

DIVERGES = "schedule.lr=1e30"


def states(folder: Path) -> dict[str, dict]:
    """The status of every run, by policy."""
    files = (folder / "multirun").glob("*/status.json")
    return {file.parent.name.rpartition("-")[0]: json.loads(file.read_text()) for file in files}


def test_a_run_that_fails_is_listed_and_the_others_are_done(tmp_path):
    line = [argument for argument in TINY if not argument.startswith("schedule.epochs")]
    out, err = finish(start(tmp_path, "-m", "policy=normal", "schedule.epochs=1,2", DIVERGES, *line), code=1)
    assert err.count("RuntimeError: the loss became") >= 2, "both runs diverge, and it is said of both"
    logs = [Path(tmp_path, line.split("log: ")[1]) for line in err.splitlines() if "log: " in line]
    assert ["Traceback (most recent call last)" in log.read_text() for log in logs] == [True, True]
    assert err.splitlines()[-1].startswith("2 of 2 runs failed")
    assert states(tmp_path)["normal"]["state"] == "failed"
    assert "lower schedule.lr" in states(tmp_path)["normal"]["error"]
    assert "Not done yet" in out


def test_what_starts_from_a_failed_base_is_blocked_and_the_rest_goes_on(tmp_path):
    line = [argument for argument in TINY if not argument.startswith("base_overrides")]
    base = f"base_overrides=[schedule.epochs=1,schedule.batch_size=256,{DIVERGES}]"
    _, err = finish(start(tmp_path, "-m", "policy=bn_stats,normal_bn_only", *line, base), code=1)
    assert "blocked: bn_stats-" in err and "its base normal-" in err
    assert states(tmp_path)["normal_bn_only"]["state"] == "done"
    assert "bn_stats" not in states(tmp_path), "it was never begun"


def test_a_killed_worker_costs_its_own_run_only_and_nothing_is_lost(tmp_path):
    line = ("-m", "policy=normal,normal_bn_only", *TINY[1:], "schedule.epochs=25", "hydra.launcher.workers=2")
    process = start(tmp_path, *line)
    while states(tmp_path).get("normal", {}).get("state") != "running":
        time.sleep(0.02)
        assert process.poll() is None
    victim = states(tmp_path)["normal"]["pid"]
    assert victim != process.pid
    os.kill(victim, signal.SIGKILL)
    _, err = finish(process, code=1)
    assert "its process was ended by SIGKILL, as when memory runs out" in err
    assert states(tmp_path)["normal"]["state"] == "failed"
    assert states(tmp_path)["normal_bn_only"]["state"] == "done"
    finish(start(tmp_path, *line))
    assert states(tmp_path)["normal"]["state"] == "done"
    assert work(tmp_path).count("t") <= 2 * 25 * 5 + 5, "at most one epoch is trained again"


def test_interrupting_the_sweep_leaves_it_resumable_and_no_process_behind(tmp_path):
    line = ("-m", "policy=normal,normal_bn_only", *TINY[1:], "schedule.epochs=25")
    process = start(tmp_path, *line)
    while states(tmp_path).get("normal", {}).get("state") != "running":
        time.sleep(0.02)
    pid = states(tmp_path)["normal"]["pid"]
    process.send_signal(signal.SIGINT)
    _, err = finish(process, code=130)
    assert "the same command goes on from here" in err and "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    finish(start(tmp_path, *line))
    assert {state["state"] for state in states(tmp_path).values()} == {"done"}


def test_slots_share_the_threads(monkeypatch):
    monkeypatch.setattr("bnft.pool.available_threads", lambda: 8)
    assert slots(20, []) == [Slot({}, 1)] * 8
    assert slots(20, [], workers=2) == [Slot({}, 4)] * 2
    assert slots(3, []) == [Slot({}, 2)] * 3


def test_each_gpu_is_a_slot_of_its_own(monkeypatch):
    monkeypatch.setattr("bnft.pool.available_threads", lambda: 8)
    places = slots(20, ["0", "3"])
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places] == ["0", "3"]
    assert {place.threads for place in places} == {4}
    assert len(slots(1, ["0", "3"])) == 1
    shared = slots(20, ["0", "3"], runs_per_gpu=2)
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in shared] == ["0", "3", "0", "3"]
    assert {place.threads for place in shared} == {2}
    assert len(slots(2, ["0", "3"], runs_per_gpu=2)) == 2, "a GPU each, while there are enough"
