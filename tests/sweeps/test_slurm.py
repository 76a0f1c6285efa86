"""Sweeps on SLURM, on a real cluster: what is submitted, what runs when, and what is said of it."""

import signal
import sys
import time
from pathlib import Path

import pytest
from support.command import TINY
from support.on_slurm import HELD, Site, until
from support.programs import assert_same, finish, start, work

DIVERGES = "base_overrides=[schedule.epochs=1,schedule.batch_size=256,schedule.lr=1e30]"


def test_a_sweep_ends_with_its_table_and_the_local_numbers_and_asking_again_submits_nothing(site: Site):
    line = ("policy=normal,bn_params", *TINY)
    calm = site.folder / "calm"
    calm.mkdir()
    local = start(calm, "-m", *line)
    out, err = finish(site.follow(*line))
    finish(local)
    assert "Runs on digits" in out and "NORMAL" in out and "BN PARAMS" in out
    assert "submitted 3 of 3 tasks in 2 job arrays\n" in err
    assert "warn" not in err.lower() and "traceback" not in err.lower()
    assert_same(calm, site.folder)
    assert sorted(work(site.folder).replace("j", "")) == sorted(work(calm)), "nothing is done twice"

    bases, rest = (array["job"] for array in site.arrays())
    assert site.about(rest)["StartTime"] >= site.about(bases)["EndTime"]
    assert set(site.states().values()) == {"done"}
    assert "submitted 0 of 3 tasks in 0 job arrays (3 done already)" in site.submit(*line)
    assert site.arrays() == []


def test_what_is_queued_is_shown_not_submitted_again_and_waited_for(site: Site):
    began = time.monotonic()
    err = site.submit("policy=bn_stats", *TINY, HELD)
    assert time.monotonic() - began < 20, "it does not wait for the jobs"
    assert "submitted 2 of 2 tasks in 2 job arrays\n" in err and f"bnft wait {site.sweeps()[0]}" in err
    standing = site.status()
    assert {policy: found["state"] for policy, found in standing.items()} == {"normal": "queued", "bn_stats": "queued"}
    assert {found["job"] for found in standing.values()} == set(site.queue())
    text = site.bnft("status")
    assert "2 runs: 2 queued" in text and standing["normal"]["run"] in text

    err = site.submit("policy=bn_stats,bn_params", *TINY, HELD)
    assert "submitted 1 of 3 tasks in 1 job arrays (2 queued or running already)" in err
    base = standing["normal"]["job"]
    assert site.about(site.job("bn_params"))["Dependency"].startswith(f"afterok:{base}")
    first, second = site.sweeps()
    assert site.bnft("cancel") == (
        f"sweep {second}: 1 job cancelled; some of its runs continue as jobs of {first}; cancel them by that name\n"
    )


@pytest.mark.long
def test_a_base_that_fails_blocks_its_children_and_nothing_else(site: Site):
    line = [argument for argument in TINY if not argument.startswith("base_overrides")]
    _, err = finish(site.follow("policy=bn_stats,normal_bn_only", *line, DIVERGES), code=1)
    base, child = (site.status()[policy] for policy in ("normal", "bn_stats"))
    assert (base["state"], child["state"]) == ("failed", "blocked")
    assert "the loss became nan" in base["detail"] and child["detail"] == f"its base {base['run']} failed"
    assert site.states()["normal_bn_only"] == "done"
    assert f"failed: {base['run']}: RuntimeError: the loss became nan" in err
    assert f"blocked: {child['run']}: its base {base['run']} failed" in err
    (log,) = {line.split("log: ")[1] for line in err.splitlines() if "log: " in line}
    assert "Traceback (most recent call last)" in (site.folder / log).read_text()
    assert err.splitlines()[-1].startswith("2 of 3 runs failed")
    assert "2 of" not in site.bnft("wait", code=1)


def test_cancelling_a_sweep_ends_its_jobs_and_no_others(site: Site):
    site.submit("policy=bn_stats", *TINY, HELD)
    site.submit("policy=bn_stats", "seed=1", *TINY, HELD)
    ours, other = site.sweeps()
    foreign = site.cluster.run("sbatch", "--hold", "--parsable", "--wrap=true").strip()
    assert site.bnft("cancel", ours) == f"sweep {ours}: 2 jobs cancelled\n"
    assert set(site.states(ours).values()) == {"not begun"}
    assert site.states(other) == {"normal": "queued", "bn_stats": "queued"}
    assert len(site.queue()) == 3 and site.queue()[foreign] == "PENDING"
    assert site.bnft("cancel", ours) == f"sweep {ours}: none of its own jobs is queued or running\n"
    assert "2 not begun" in site.bnft("wait", ours, code=1)
    assert "submitted 2 of 2 tasks" in site.submit("policy=bn_stats", *TINY, HELD)


def test_interrupting_the_launcher_leaves_the_jobs(site: Site):
    process = site.follow("policy=normal_bn_only", *TINY, HELD)
    until(site.queue)
    process.send_signal(signal.SIGINT)
    _, err = finish(process, code=130)
    assert f"the jobs continue; `bnft wait {site.sweeps()[0]}` waits for them" in err and "Traceback" not in err
    assert set(site.queue().values()) == {"PENDING"}


def test_options_reach_the_jobs(site: Site):
    options = ("time=1:30:00", "cpus_per_task=2", "mem=100M", "nice=7", "array_parallelism=1", "partition=urgent")
    site.submit("policy=normal_bn_only", *TINY, HELD, *(f"hydra.launcher.{option}" for option in options))
    (array,) = site.arrays()
    found = site.about(array["job"])
    assert found["TimeLimit"] == "01:30:00" and found["CPUs/Task"] == "2" and found["MinMemoryNode"] == "100M"
    assert found["Nice"] == "7" and found["ArrayTaskThrottle"] == "1" and found["Partition"] == "urgent"
    assert found["Requeue"] == "1" and found["JobName"] == array["name"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("hydra.launcher.partition=nonsense", "invalid partition specified: nonsense"),
        ("hydra.launcher.time=soon", "hydra.launcher.time=soon: must be minutes"),
        ("hydra.launcher.additional_parameters={nonsense: 1}", "--nonsense"),
        ("hydra.launcher.additional_parameters=nonsense", "must be a mapping"),
        ("hydra.launcher.nonsense=1", "no such key"),
        ("hydra.launcher.cpus_per_task=1000", "the cluster would refuse the jobs"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line_before_anything_is_written(site: Site, option: str, said: str):
    err = site.submit("policy=bn_stats", *TINY, option, code=2)
    assert said in err and err.count("\n") == 1
    assert not site.store.exists()


def test_without_slurm_it_is_refused_in_one_line(site: Site, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(Path(sys.executable).parent))
        err = site.submit("policy=bn_stats", *TINY, code=2)
    assert "must be used on a machine with SLURM" in err and err.count("\n") == 1
    assert not site.store.exists()
