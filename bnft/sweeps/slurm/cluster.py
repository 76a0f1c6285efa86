"""SLURM's commands: look at the queue, test options, cancel and requeue jobs."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bnft.common.errors import InputError

COMMAND_SECONDS = 120.0  # a controller that restarts takes long to answer
ENDED = ("DependencyNeverSatisfied",)  # reasons why a job will never start
IMPOSSIBLE = ("PartitionConfig", "BadConstraints", "PartitionNodeLimit", "PartitionTimeLimit")  # no node can run it
INHERITED = ("SLURM_", "SLURMD_", "SRUN_")  # variables that a job would pass to jobs that it submits
KEPT = ("SLURM_CONF",)  # selects the cluster
UNKNOWN = -1  # the index of a job that is not part of an array


class UnreachableError(InputError):
    """SLURM's controller does not answer, for example because it restarts."""


@dataclass(frozen=True)
class Job:
    """A job in the queue. `id` is its name for `scancel`: `123_4` for a task of an array."""

    id: str
    name: str
    index: int
    state: str
    reason: str

    @property
    def is_pending(self) -> bool:
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")

    @property
    def never_starts(self) -> bool:
        return self.is_pending and self.reason in ENDED


def is_there() -> bool:
    """Return whether this machine can submit jobs."""
    return shutil.which("sbatch") is not None


def require() -> None:
    """Raise InputError if this machine cannot submit jobs."""
    if not is_there():
        raise InputError("hydra/launcher=slurm: must be used on a machine with SLURM; this one has no sbatch")


@contextmanager
def outside_any_job() -> Iterator[None]:
    """Hide the environment variables of the job that this process itself may run in."""
    hidden = {
        name: os.environ.pop(name) for name in list(os.environ) if name.startswith(INHERITED) and name not in KEPT
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def queue() -> list[Job]:
    """Return this user's jobs, with one job per task of an array. Raises UnreachableError if SLURM does not answer."""
    if not is_there():
        return []
    jobs = []
    for line in call(["squeue", _mine(), "--noheader", "--array", "--format=%F|%K|%T|%j|%r"]).splitlines():
        number, index, state, name, reason = line.strip().split("|", 4)
        place = int(index) if index.isdigit() else UNKNOWN
        jobs.append(Job(f"{number}_{place}" if place != UNKNOWN else number, name, place, state, reason))
    return jobs


def would_queue(flags: Sequence[str]) -> bool:
    """Return whether a job with these options of sbatch can start later, for example once nodes are no longer drained.

    `sbatch --test-only` does not distinguish this from a job that no node can ever run. Therefore a job that does
    nothing is submitted, and is cancelled once SLURM has said why it waits.
    """
    looked_at = [flag for flag in flags if flag != "--hold"]  # SLURM gives no reason for held jobs
    quiet = ("--output=/dev/null", "--mail-type=NONE", "--job-name=bnft-test")
    try:
        job = call(["sbatch", "--parsable", "--wrap=true", *looked_at, *quiet]).strip().partition(";")[0]
    except UnreachableError:
        raise
    except InputError:
        return False
    try:
        return call(["squeue", f"--jobs={job}", "--noheader", "--format=%r"]).strip() not in IMPOSSIBLE
    finally:
        call(["scancel", job])


def max_array_size() -> int:
    """Return the maximal number of tasks of an array on this cluster."""
    for line in call(["scontrol", "show", "config"]).splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "MaxArraySize":
            return int(value)
    return 1001  # SLURM's default


def cancel(names: Sequence[str]) -> None:
    """Cancel this user's jobs with these names."""
    for name in names:
        call(["scancel", _mine(), f"--name={name}"])


def requeue(job: str) -> None:
    """End a job and queue it again under the same number. Raises InputError if SLURM refuses."""
    call(["scontrol", "requeue", job])


def _mine() -> str:
    return f"--user={os.getuid()}"  # by number, because $USER can be wrong, and containers can lack names


def call(command: Sequence[str]) -> str:
    """Call a command of SLURM, and return its output. Raises InputError with its message if it fails."""
    try:
        with outside_any_job():
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    except FileNotFoundError:
        raise InputError(f"{command[0]}: must be installed, like sbatch") from None
    except subprocess.TimeoutExpired:
        raise UnreachableError(f"{command[0]}: did not answer within {COMMAND_SECONDS:.0f} s") from None
    if done.returncode:
        lines = [line.removeprefix(f"{command[0]}: ") for line in done.stderr.splitlines()]
        message = " ".join(" ".join(lines).split()) or f"exit code {done.returncode}"
        unreachable = "Unable to contact" in message or "Connection refused" in message or "Socket timed out" in message
        raise (UnreachableError if unreachable else InputError)(f"{command[0]}: {message}")
    return done.stdout
