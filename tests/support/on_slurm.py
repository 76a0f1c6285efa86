"""Helpers for the tests of sweeps on SLURM: a cluster, a folder to launch from, and the state of its sweeps."""

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

from support import warm
from support.command import ROOT, Outcome
from support.programs import work
from support.slurm_cluster import Cluster

BIN = Path(sys.executable).parent
COUNTED_JOB = Path(__file__).with_name("counted_job.py")
QUEUE_SECONDS = 30.0  # time for cancelled jobs to leave the queue
HELD = "hydra.launcher.additional_parameters={hold: true}"


class Site:
    """A folder to launch sweeps from, on a cluster. Commands run in the environment of this process."""

    def __init__(self, folder: Path, cluster: Cluster, launch: Callable[..., Outcome]) -> None:
        self.folder, self.cluster, self._launch = folder, cluster, launch
        self.store = folder / "multirun"

    def line(self, *arguments: str, counted: bool = True) -> list[str]:
        """Return the command line of a sweep, whose jobs count their work."""
        python = [f"hydra.launcher.python={sys.executable} {COUNTED_JOB}"] if counted else []
        return ["-m", "threads=1", "hydra/launcher=slurm", *python, *arguments]

    def submit(self, *arguments: str, code: int = 0) -> str:
        """Submit a sweep with `launch.py`, which does not wait for it. Return its messages."""
        outcome = self._launch(*self.line("hydra.launcher.detach=true", *arguments))
        assert outcome.code == code, outcome
        return outcome.err

    def follow(self, *arguments: str) -> subprocess.Popen:
        """Start `launch.py` in its own process, which follows the sweep until it ends."""
        return self.start(sys.executable, str(ROOT / "launch.py"), *self.line(*arguments))

    def start(self, *command: str) -> subprocess.Popen:
        return warm.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def bnft(self, *arguments: str, code: int = 0, seconds: float = 60) -> str:
        """Return the output of `bnft`. It must print no error, only the name of the default sweep."""
        command = [str(BIN / "bnft"), *arguments]
        done = warm.run(command, cwd=self.folder, capture_output=True, text=True, timeout=seconds)
        assert done.returncode == code and re.fullmatch(r"(bnft: sweep \S+ \(the newest.*\)\n)?", done.stderr), done
        return done.stdout

    def status(self, *sweeps: str) -> dict[str, dict[str, Any]]:
        """Return the output of `bnft status --json` for each run, by policy."""
        statuses = json.loads(self.bnft("status", "--json", *sweeps))
        return {status["run"].rpartition("-")[0]: status for status in statuses}

    def states(self, *sweeps: str) -> dict[str, str]:
        return {policy: status["state"] for policy, status in self.status(*sweeps).items()}

    def sweeps(self) -> list[str]:
        """Return the names of all sweeps, oldest first."""
        return sorted(file.stem for file in (self.store / "sweeps").glob("*.json"))

    def arrays(self) -> list[dict[str, Any]]:
        """Return the job arrays of the newest sweep."""
        return json.loads((self.store / "sweeps" / f"{self.sweeps()[-1]}.json").read_text())["arrays"]

    def job(self, policy: str) -> str:
        """Return the number of a run's job that is queued or running."""
        number = self.status()[policy]["job"]
        assert number, f"{policy} has no job"
        return number

    def queue(self) -> dict[str, str]:
        """Return the state of every job in the queue."""
        lines = self.cluster.run("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def about(self, job: str) -> dict[str, str]:
        """Return SLURM's description of a job, which may have ended recently."""
        words = self.cluster.run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def release(self, *jobs: str) -> None:
        self.cluster.run("scontrol", "release", *jobs)

    def done(self, unit: str) -> int:
        """Return how many units of work jobs have done; see counted_job.py."""
        return work(self.folder).count(unit)


def until(condition: Callable[[], Any], seconds: float = 90) -> Any:
    """Wait until a condition holds, and return its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"the condition does not hold after {seconds:g} s"
        time.sleep(0.1)
    return value


def visiting(
    cluster: Cluster, folder: Path, monkeypatch: pytest.MonkeyPatch, launch: Callable[..., Outcome]
) -> Iterator[Site]:
    for name in os.environ.keys() - cluster.environment.keys():  # for example if the tests run in a job
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
