"""What the tests of sweeps on SLURM share: a cluster, a folder to launch from, and what is to be seen from there."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.command import ROOT, Outcome
from support.programs import heeding_signals, work
from support.slurm_cluster import Cluster

BIN = Path(sys.executable).parent
COUNTED_JOB = Path(__file__).with_name("counted_job.py")
QUEUE_SECONDS = 30.0  # for what was cancelled to leave the queue
HELD = "hydra.launcher.additional_parameters={hold: true}"


class Site:
    """A folder to launch sweeps from, on a cluster. Commands run in the environment of this process."""

    def __init__(self, folder: Path, cluster: Cluster, launch: Callable[..., Outcome]) -> None:
        self.folder, self.cluster, self._launch = folder, cluster, launch
        self.store = folder / "multirun"

    def line(self, *arguments: str, counted: bool = True) -> list[str]:
        """A sweep's command line, its jobs counting their work."""
        python = [f"hydra.launcher.python={sys.executable} {COUNTED_JOB}"] if counted else []
        return ["-m", "threads=1", "hydra/launcher=slurm", *python, *arguments]

    def submit(self, *arguments: str, code: int = 0) -> str:
        """What `launch.py` says of a sweep that it submits and leaves to go on."""
        outcome = self._launch(*self.line("hydra.launcher.detach=true", *arguments))
        assert outcome.code == code, outcome
        return outcome.err

    def follow(self, *arguments: str) -> subprocess.Popen:
        """`launch.py` in a process of its own, which follows its sweep to the end."""
        return self.start(sys.executable, str(ROOT / "launch.py"), *self.line(*arguments))

    def start(self, *command: str) -> subprocess.Popen:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=heeding_signals,
        )

    def bnft(self, *arguments: str, code: int = 0, seconds: float = 60) -> str:
        """What `bnft` prints; it complains of nothing, and says which sweep is meant if none is named."""
        command = [str(BIN / "bnft"), *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=seconds)
        assert done.returncode == code and re.fullmatch(r"(bnft: sweep \S+ \(the newest.*\)\n)?", done.stderr), done
        return done.stdout

    def status(self, *sweeps: str) -> dict[str, dict[str, Any]]:
        """What `bnft status --json` says of each run, by policy."""
        found = json.loads(self.bnft("status", "--json", *sweeps))
        return {standing["run"].rpartition("-")[0]: standing for standing in found}

    def states(self, *sweeps: str) -> dict[str, str]:
        return {policy: standing["state"] for policy, standing in self.status(*sweeps).items()}

    def sweeps(self) -> list[str]:
        """The names of all sweeps, oldest first."""
        return sorted(file.stem for file in (self.store / "sweeps").glob("*.json"))

    def arrays(self) -> list[dict[str, Any]]:
        """The job arrays of the newest sweep."""
        return json.loads((self.store / "sweeps" / f"{self.sweeps()[-1]}.json").read_text())["arrays"]

    def job(self, policy: str) -> str:
        """The number of a run's job that is queued or running."""
        found = self.status()[policy]["job"]
        assert found, f"{policy} has no job"
        return found

    def queue(self) -> dict[str, str]:
        """The state of every job in the queue."""
        lines = self.cluster.run("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def about(self, job: str) -> dict[str, str]:
        """What SLURM knows of a job, also of one that ended a moment ago."""
        words = self.cluster.run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def release(self, *jobs: str) -> None:
        self.cluster.run("scontrol", "release", *jobs)

    def done(self, unit: str) -> int:
        """How many units of work jobs have done; see counted_job.py."""
        return work(self.folder).count(unit)


def until(condition: Callable[[], Any], seconds: float = 90) -> Any:
    """Wait until a condition holds; returns what it is then."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not so after {seconds:g} s"
        time.sleep(0.1)
    return found


def visiting(
    cluster: Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch, launch: Callable[..., Outcome]
) -> Iterator[Site]:
    for name in os.environ.keys() - cluster.environment.keys():  # as where the tests themselves run in a job
        monkeypatch.delenv(name)
    sacct = folder / "bin" / "sacct"
    sacct.parent.mkdir()
    sacct.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\nexit 1\n')
    sacct.chmod(0o755)
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setenv("PATH", f"{sacct.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("WORK", str(folder / "work"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    place = Site(folder, cluster, launch)
    yield place
    jobs = {job.partition("_")[0] for job in place.queue()}
    if jobs:
        cluster.run("scancel", "--quiet", *jobs)
    until(lambda: not place.queue(), QUEUE_SECONDS)
    assert not (folder / "asked").exists(), "sacct was called"
