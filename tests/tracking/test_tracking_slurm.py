"""Tracking on SLURM: beside each job, from within it."""

import pytest
from support.command import TINY
from support.on_slurm import Site
from support.programs import finish
from support.wandb_server import read_back

from bnft.runs.store import Store

pytestmark = pytest.mark.long


def test_jobs_are_tracked_from_where_they_run(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PACE", "1")  # tracking has little time after a job, and W&B takes seconds to import
    finish(site.follow("policy=bn_stats", *TINY, "wandb.mode=offline"))
    store = Store(site.store)
    (sweep,) = store.sweeps()
    assert len(store.runs()) == 2
    for run in store.runs():
        rows = 0
        for folder in (site.store / "wandb").glob(f"offline-run-*-{run.name}*"):
            records = read_back(folder)
            rows += sum(record["type"] == "history" for record in records)
            (told,) = [record["run"] for record in records if record["type"] == "run"]
            assert told["run_group"] == sweep and told["git"]["commit"] == store.sweep(sweep)["commit"]
        assert rows == len(run.history()) + 1 + len(run.evaluations())
