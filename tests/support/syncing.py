"""Run `bnft sync` with the tests' own server."""

import os
import subprocess
import sys

import pytest

from bnft.common import files
from bnft.tracking import keys
from bnft.tracking.rows import Records
from support import warm

SYNC = (sys.executable, "-c", "from bnft.cli import main; main()", "sync")


def sync(store, server, *arguments, **environment):
    """Start `bnft sync`."""
    home = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    return warm.Popen(
        [*SYNC, *arguments],
        cwd=store.root.parent,
        env={**home, "HOME": str(store.root.parent), **server.environment, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def assert_whole(store, server):
    """Assert that the server has every row of every run once, with the store's values, and all files of the rows."""
    assert sorted(server.runs) == sorted(run.name for run in store.runs())
    for run in store.runs():
        kept = server.runs[run.name]
        order = files.read_json(run.path / "tracking.json")["evaluations"]
        records = Records(run, order)
        assert len(kept.lines) == len(records) == len(run.history()) + 1 + len(run.evaluations())
        for step, line in enumerate(kept.lines):
            row = records.row(step)
            assert line["_step"] == step
            assert {key: line[key] for key in row.values} == pytest.approx(row.values)
            for key, histogram in row.histograms.items():
                assert tuple(line[key]["values"]) == histogram.counts
            for key in row.pictures:
                assert set(line[key]["filenames"]) <= kept.files.keys()
            for key in row.tables:
                assert line[key]["path"] in kept.files
        assert kept.summary[keys.TEST_ROBUST_ERROR] == row.values[keys.TEST_ROBUST_ERROR] if order else True
        assert not any(key.startswith("bn/") for key in kept.summary)
