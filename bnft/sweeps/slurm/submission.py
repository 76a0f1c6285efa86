"""From tasks to jobs: submitit writes the batch scripts, each job finds its task in a file of the store.

What belongs to a sweep lies in `.slurm/<sweep>/` of the store: `tasks-<n>.jsonl` for its n-th array, `log/` for scripts
and output. `.slurm/code/` holds the code that sweeps were submitted with.
"""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from bnft.common import files, program
from bnft.common.console import notice
from bnft.common.errors import InputError
from bnft.runs import layout
from bnft.runs.plan import Run
from bnft.runs.store import Store
from bnft.sweeps.slurm import cluster
from bnft.sweeps.slurm.arrays import Array
from bnft.sweeps.slurm.snapshot import snapshot
from bnft.sweeps.tasks import Task

SIGNAL_SHARE = 0.25  # of a job's time limit: no more of it is left for saving and starting again


@dataclass(frozen=True)
class Request:
    """What each job asks of the cluster: `options` by sbatch's own names, and what surrounds them."""

    options: Mapping[str, Any] = field(default_factory=dict)
    setup: Sequence[str] = ()
    array_parallelism: int | None = None
    signal_seconds: int = 90
    python: str | None = None

    @property
    def warning(self) -> int:
        """How many seconds before its time limit a job is told."""
        limit = seconds(self.options.get("time"))
        return max(1, min(self.signal_seconds, int(SIGNAL_SHARE * limit))) if limit else self.signal_seconds


def seconds(limit: Any) -> int | None:
    """A time limit in seconds, as sbatch reads it: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S; None if it is none."""
    if limit is None:
        return None
    days, dash, rest = str(limit).rpartition("-")
    try:
        parts = [int(part) for part in rest.split(":")]
        whole = int(days) if dash else 0
    except ValueError:
        return None
    if dash:
        hours, minutes, rest_seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, rest_seconds = parts
    else:
        hours, (minutes, rest_seconds) = 0, (*parts, 0)[:2]
    return ((24 * whole + hours) * 60 + minutes) * 60 + rest_seconds


class Executor(SlurmExecutor):
    """Submits one array at a time, with a command of ours instead of a pickled function.

    For this, it uses a private method of submitit 1.5, `_submit_command`, since the public ones pickle a function. It
    also sets `parameters`, the undocumented arguments of submitit's `_make_sbatch_string`, since the public
    `update_parameters` takes no `map_count`. See `bnft.common.compat`.
    """

    def __init__(self, folder: Path, request: Request) -> None:
        super().__init__(folder=folder)
        self.request = request

    def submit_tasks(self, name: str, array: Array, command: str, setup: Sequence[str]) -> str:
        """Returns the number that SLURM gives it. Raises InputError with what sbatch says if it refuses."""
        parallel = f"%{self.request.array_parallelism}" if self.request.array_parallelism else ""
        options = {**_usual(self.request), "job_name": name, "array": array.spec + parallel}
        if array.dependency:
            options |= {"dependency": array.dependency, "kill_on_invalid_dep": "yes"}
        self.parameters = {
            "additional_parameters": options,
            "setup": [*(f"{{ {command}\n}} || exit 1" for command in self.request.setup), *setup],
            "signal_delay_s": self.request.warning,
            "stderr_to_stdout": True,
            "wckey": None,
            "time": None,
            "map_count": len(array.tasks),
        }
        try:
            with cluster.outside_any_job():
                return str(self._submit_command(command).job_id)
        except (FailedJobError, FailedSubmissionError) as error:
            raise InputError(f"the cluster refused the jobs: {_said(error)}") from None


def _usual(request: Request) -> dict[str, Any]:
    """The options of every job, named as submitit names those that it sets itself."""
    given = {name.replace("-", "_"): value for name, value in request.options.items() if value is not None}
    return {"requeue": True, **given}


def _said(error: Exception) -> str:
    """What sbatch complains of, without the trace that submitit puts around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line.removeprefix("sbatch: ") for line in lines if line.startswith("sbatch:")]
    return " ".join(told or [line for line in lines if line][-1:])


def test(request: Request) -> None:
    """Have sbatch look at the options before anything is submitted. Raises InputError with what it says.

    Options that no node can take now, but that the cluster would queue, are noted only.
    """
    cluster.require()
    usual = {name.replace("_", "-"): value for name, value in _usual(request).items()}
    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in usual.items()]
    try:
        cluster.call(["sbatch", "--test-only", "--wrap=true", *flags])
    except cluster.UnreachableError:
        raise
    except InputError as error:
        if not cluster.would_queue(flags):
            raise InputError(f"the cluster would refuse the jobs: {error}") from None
        notice("bnft: the cluster cannot start such jobs now, as where nodes are drained; they wait in its queue")


class Submission:
    """The jobs of one sweep."""

    def __init__(self, store: Store, sweep: str, request: Request) -> None:
        self.store, self.sweep, self.request = store, sweep, request
        self.folder = store.root.absolute() / layout.SLURM / sweep
        self._submitted: list[dict[str, Any]] = []

    def submit(self, arrays: Sequence[Array]) -> None:
        """Submit the arrays in order; what is submitted is written down before the next one goes out."""
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "log").mkdir(parents=True, exist_ok=True)
        everything = [task for array in arrays for task in array.tasks.values()]
        code = snapshot(self.folder.parent / "code", everything)
        executor = Executor(self.folder / "log", self.request)
        for number, array in enumerate(arrays):
            name = f"bnft-{self.sweep}-{number}"
            self._submitted.append(
                {"name": name, "tasks": {str(index): task.name for index, task in array.tasks.items()}}
            )
            self.store.extend_sweep(self.sweep, arrays=self._submitted)  # first, so that no job is ever unaccounted for
            tasks = self.folder / f"tasks-{number}.jsonl"
            files.write_lines(tasks, [{"index": index, **encoded(task)} for index, task in array.tasks.items()])
            try:
                array.job = executor.submit_tasks(name, array, self._command(tasks), self._setup(code))
            except InputError as error:
                raise InputError(f"{error}{_so_far(arrays[:number])}") from None
            self._submitted[-1]["job"] = array.job
        self.store.extend_sweep(self.sweep, arrays=self._submitted)

    def _command(self, tasks: Path) -> str:
        python = self.request.python or shlex.quote(sys.executable)
        store = shlex.quote(str(self.store.root.absolute()))
        return f"{python} -u -P -m bnft job {store} {shlex.quote(str(tasks))}"

    def _setup(self, code: Path) -> list[str]:
        """Commands before the task: -P above and this path keep Python from the code in the working directory."""
        own = dict.fromkeys([Path.cwd(), program.folder()])  # where a person's own models and data sets lie
        path = ":".join(shlex.quote(str(folder)) for folder in (code, *own))
        lines = [f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}"]
        if self.request.options.get("cpus_per_task"):
            lines.append(
                "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"
            )  # since SLURM 22.05, srun does not inherit it
        return lines


def _so_far(arrays: Sequence[Array]) -> str:
    """What a refusal leaves behind, as where there are more jobs than one person may have."""
    count = sum(len(array.tasks) for array in arrays)
    return f"; {count} tasks are submitted, and the same command submits the rest later" if count else ""


def encoded(task: Task) -> dict[str, Any]:
    """A task as JSON; `decoded` gives it back."""
    return {"run": task.run.encoded(), "evaluated": task.evaluated}


def decoded(value: Mapping[str, Any]) -> Task:
    return Task(Run.decoded(value["run"]), value["evaluated"], None)


def task_at(tasks: Path, index: int) -> Task:
    """The task of one index in a file of tasks."""
    with tasks.open() as lines:
        for line in lines:
            if line.startswith(f'{{"index": {index},'):
                return decoded(json.loads(line))
    raise InputError(f"{tasks}: has no task {index}")
