"""`hydra.launcher.minutes`: a sweep saves everything and ends before its time is over; the same command continues."""

import math
import time

import pytest
from support import mischief
from support.command import TINY

from bnft.common import files
from bnft.common.errors import OutOfTimeError
from bnft.runs.plan import plan
from bnft.sweeps.local import SAVING_SECONDS, Local
from bnft.sweeps.pool import Pool, slots
from bnft.sweeps.tasks import tasks, undone
from bnft.sweeps.terminal import Terminal

NO_TIME = "hydra.launcher.minutes=0.00001"


def test_a_little_is_left_for_saving():
    before = time.monotonic()
    assert 540 - SAVING_SECONDS <= Local(minutes=9).until - before < 541 - SAVING_SECONDS
    assert 9 <= Local(minutes=0.2).until - before < 10, "a quarter of a short time"
    assert Local().until == math.inf


def pooled(asked, fail_fast=False):
    return Pool(undone(tasks(asked), asked.store), slots(1, []), asked.store, Terminal(), fail_fast).run()


def test_what_is_at_work_is_saved_and_continues_to_the_same_numbers(hydra, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["policy=adv", *TINY, "device=cpu", "attack._target_=mischief.attack", "+attack.name=ADV"]
    late, calm = (plan([[*line, f"store={name}", f"seed={seed}"] for seed in (0, 1)]) for name in ("late", "calm"))
    mischief.make(tmp_path, "ADV", "sleep 0.2")
    over = property(lambda _: (tmp_path / "mischief" / "ADV-sleeps").exists())
    with monkeypatch.context() as patch:
        patch.setattr("bnft.common.stopping.Requests.out_of_time", over)
        with pytest.raises(OutOfTimeError) as raised:
            pooled(late, fail_fast=True)
    assert "2 runs are not done yet; the same command continues" in str(raised.value)
    assert {failure is not None and failure.state for failure in raised.value.outcomes.values()} == {"interrupted"}
    begun = [run for run in late.runs if late.store.run(run.name).begun]
    assert [late.store.run(run.name).status()["state"] for run in begun] == ["interrupted"]
    mischief.unmake(tmp_path)
    assert set(pooled(late).values()) == set(pooled(calm).values()) == {None}
    for run in calm.runs:
        models = [
            files.read_tensors(planned.store.run(run.name).path / "model.safetensors") for planned in (late, calm)
        ]
        assert all((models[0][0][name] == value).all() for name, value in models[1][0].items())


def test_all_done_in_time_is_an_ordinary_end(hydra, tmp_path, monkeypatch):
    asked = plan([["policy=normal", *TINY, "device=cpu", f"store={tmp_path}"]])

    class Late(Terminal):
        """The time is over just when the last run ends."""

        def ends(self, *what):
            monkeypatch.setattr("bnft.common.stopping.Requests.out_of_time", True)

    assert list(Pool(tasks(asked), slots(1, []), asked.store, Late()).run().values()) == [None]


def test_the_command_prints_its_table_and_ends_with_a_code_of_its_own(launch):
    line = ("-m", "policy=bn_stats", "seed=0,1", *TINY)
    said = launch(*line, NO_TIME)
    assert said.code == 75
    assert "Not done yet: bn_stats-" in said.err + said.out
    assert said.err.endswith(
        "hydra.launcher.minutes is over, and 4 runs are not done yet; the same command continues\n"
    )
    assert "failed" not in said.err and "Traceback" not in said.err
    assert launch(*line, "hydra.launcher.minutes=100").code == 0
    assert launch(*line, NO_TIME).code == 0, "nothing is left to do"


def test_a_single_run_has_a_limit_too(launch, tmp_path):
    said = launch("policy=normal", *TINY, NO_TIME)
    assert said.code == 75 and said.out == ""
    assert said.err.endswith("hydra.launcher.minutes is over, and 1 run is not done yet; the same command continues\n")
    (folder,) = (tmp_path / "multirun").glob("normal-*")
    assert files.read_json(folder / "status.json")["state"] == "interrupted"
    assert launch("policy=normal", *TINY).code == 0
    refused = launch("policy=normal", *TINY, "hydra.launcher.minutes=-1")
    assert refused.code == 2 and "hydra.launcher.minutes=-1: must be a number, above 0, or null" in refused.err
