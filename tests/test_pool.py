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
    assert err.count("Traceback (most recent call last)") == 2, "both runs diverge, and both tracebacks are shown"
    assert err.splitlines()[-1].startswith("2 of 2 runs failed")
    assert states(tmp_path)["normal"]["state"] == "failed"
    assert "lower schedule.lr" in states(tmp_path)["normal"]["error"]
    assert "Not done yet" in out


def test_what_starts_from_a_failed_base_is_blocked_and_the_rest_goes_on(tmp_path):
    line = [argument for argument in TINY if not argument.startswith("base_overrides")]
    base = f"base_overrides=[schedule.epochs=1,schedule.batch_size=256,{DIVERGES}]"
    _, err = finish(start(tmp_path, "-m", "policy=bn_stats,normal_bn_only", *line, base), code=1)
    assert "blocked: its base normal-" in err
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
    assert "failed: its process ended with code -9" in err
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
    assert slots(None, [], runs=20) == [Slot({}, 1)] * 8
    assert slots(2, [], runs=20) == [Slot({}, 4)] * 2
    assert slots(None, [], runs=3) == [Slot({}, 2)] * 3


def test_each_gpu_is_a_slot_of_its_own(monkeypatch):
    monkeypatch.setattr("bnft.pool.available_threads", lambda: 8)
    places = slots(None, ["0", "3"], runs=20)
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places] == ["0", "3"]
    assert {place.threads for place in places} == {4}
    assert len(slots(None, ["0", "3"], runs=1)) == 1
