"""Talking to SLURM through its own commands: what is queued, what fits, what is to be cancelled."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bnft.common.errors import InputError

COMMAND_SECONDS = 120.0  # a controller that is restarted answers late
ENDED = ("DependencyNeverSatisfied",)  # reasons for which a job pends for ever
IMPOSSIBLE = ("PartitionConfig", "BadConstraints", "PartitionNodeLimit", "PartitionTimeLimit")  # no node ever could
INHERITED = ("SLURM_", "SLURMD_", "SRUN_")  # what a job's environment would pass on to jobs that it submits
KEPT = ("SLURM_CONF",)  # which cluster it is
UNKNOWN = -1  # the index of a job that is no task of an array


class UnreachableError(InputError):
    """SLURM's controller does not answer, as while it is restarted."""


@dataclass(frozen=True)
class Job:
    """A job in the queue. `id` is what `scancel` takes: `123_4` for a task of an array."""

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
    """Whether this machine can submit jobs."""
    return shutil.which("sbatch") is not None


def require() -> None:
    """Raise InputError where no jobs can be submitted."""
    if not is_there():
        raise InputError("hydra/launcher=slurm: must be used where SLURM is; there is no sbatch here")


@contextmanager
def outside_any_job() -> Iterator[None]:
    """Without the variables that belong to the job that this process may itself run in."""
    hidden = {
        name: os.environ.pop(name) for name in list(os.environ) if name.startswith(INHERITED) and name not in KEPT
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def queue() -> list[Job]:
    """This user's jobs, each task of an array for itself. Raises UnreachableError if there is no answer."""
    if not is_there():
        return []
    jobs = []
    for line in call(["squeue", _mine(), "--noheader", "--array", "--format=%F|%K|%T|%j|%r"]).splitlines():
        number, index, state, name, reason = line.strip().split("|", 4)
        place = int(index) if index.isdigit() else UNKNOWN
        jobs.append(Job(f"{number}_{place}" if place != UNKNOWN else number, name, place, state, reason))
    return jobs


def would_queue(flags: Sequence[str]) -> bool:
    """Whether a job with these options of sbatch can start some day, as when drained nodes are in service again.

    `sbatch --test-only` does not tell that from what no node can ever take. So a job is submitted, which does nothing,
    and cancelled once SLURM has said why it waits.
    """
    looked_at = [flag for flag in flags if flag != "--hold"]  # what is held is not looked at
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
    """How many tasks an array may have on this cluster."""
    for line in call(["scontrol", "show", "config"]).splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "MaxArraySize":
            return int(value)
    return 1001  # SLURM's own default


def cancel(names: Sequence[str]) -> None:
    """Cancel this user's jobs of these names."""
    for name in names:
        call(["scancel", _mine(), f"--name={name}"])


def requeue(job: str) -> None:
    """Have a job ended and started again later, under the same number. Raises InputError if it may not be."""
    call(["scontrol", "requeue", job])


def _mine() -> str:
    return f"--user={os.getuid()}"  # by number, since $USER can be another's, and a container may know no names


def call(command: Sequence[str]) -> str:
    """What a command of SLURM prints. Raises InputError with what it says if it fails."""
    try:
        with outside_any_job():
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    except FileNotFoundError:
        raise InputError(f"{command[0]}: is not there, though sbatch is") from None
    except subprocess.TimeoutExpired:
        raise UnreachableError(f"{command[0]} gave no answer within {COMMAND_SECONDS:.0f} s") from None
    if done.returncode:
        lines = [line.removeprefix(f"{command[0]}: ") for line in done.stderr.splitlines()]
        said = " ".join(" ".join(lines).split()) or f"exit code {done.returncode}"
        unreachable = "Unable to contact" in said or "Connection refused" in said or "Socket timed out" in said
        raise (UnreachableError if unreachable else InputError)(f"{command[0]}: {said}")
    return done.stdout
