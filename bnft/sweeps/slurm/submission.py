"""Submit tasks as jobs. submitit writes the batch scripts. Each job finds its task in a file of the store.

The files of a sweep are in `.slurm/<sweep>/` of the store: `tasks-<n>.jsonl` has the tasks of its n-th array, and
`log/` has scripts and output. `.slurm/code/` has copies of the code.
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

SIGNAL_SHARE = 0.25  # the maximal share of a job's time limit that is left for saving and requeuing


@dataclass(frozen=True)
class Request:
    """The settings of all jobs. `options` are those of sbatch; for the others, see `launch.Slurm`."""

    options: Mapping[str, Any] = field(default_factory=dict)
    setup: Sequence[str] = ()
    array_parallelism: int | None = None
    signal_seconds: int = 90
    python: str | None = None

    @property
    def warning(self) -> int:
        """How many seconds before its time limit a job is signalled."""
        limit = seconds(self.options.get("time"))
        return max(1, min(self.signal_seconds, int(SIGNAL_SHARE * limit))) if limit else self.signal_seconds


def seconds(limit: Any) -> int | None:
    """Convert a time limit of sbatch to seconds: minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S; None if it is invalid."""
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
    """Submits an array of jobs that execute a command instead of a pickled function.

    For this, it uses a private method of submitit 1.5, `_submit_command`, because the public methods pickle a function.
    It also sets `parameters`, the undocumented arguments of submitit's `_make_sbatch_string`, because the public
    `update_parameters` does not support `map_count`. See `bnft.common.compat`.
    """

    def __init__(self, folder: Path, request: Request) -> None:
        super().__init__(folder=folder)
        self.request = request

    def submit_tasks(self, name: str, array: Array, command: str, setup: Sequence[str]) -> str:
        """Submit an array, and return its job number. Raises InputError with sbatch's message if sbatch refuses."""
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
            raise InputError(f"the cluster refused the jobs: {_message(error)}") from None


def _usual(request: Request) -> dict[str, Any]:
    """Return the options of every job, with the names that submitit uses."""
    given = {name.replace("-", "_"): value for name, value in request.options.items() if value is not None}
    return {"requeue": True, **given}


def _message(error: Exception) -> str:
    """Return the message of sbatch, without the traceback that submitit adds."""
    lines = [line.strip() for line in str(error).splitlines()]
    messages = [line.removeprefix("sbatch: ") for line in lines if line.startswith("sbatch:")]
    return " ".join(messages or [line for line in lines if line][-1:])


def test(request: Request) -> None:
    """Test the options with sbatch, before anything is submitted.

    If no node can run such a job now, but the cluster would queue it, only a note is printed.

    Raises:
        InputError: if sbatch refuses the options, with its message.
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
        notice("bnft: the cluster cannot start such jobs now, for example if nodes are drained; they wait in its queue")


class Submission:
    """The jobs of one sweep."""

    def __init__(self, store: Store, sweep: str, request: Request) -> None:
        self.store, self.sweep, self.request = store, sweep, request
        self.folder = store.root.absolute() / layout.SLURM / sweep
        self._submitted: list[dict[str, Any]] = []  # all arrays of the sweep, the earlier ones first

    def submit(self, arrays: Sequence[Array]) -> None:
        """Submit arrays in order. Each array is recorded before it is submitted."""
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "log").mkdir(parents=True, exist_ok=True)
        everything = [task for array in arrays for task in array.tasks.values()]
        code = snapshot(self.folder.parent / "code", everything)
        executor = Executor(self.folder / "log", self.request)
        self._submitted = [*self.store.sweep(self.sweep).get("arrays", ())]  # of a sweep that is continued
        for place, array in enumerate(arrays):
            number = len(self._submitted)
            name = f"bnft-{self.sweep}-{number}"
            self._submitted.append(
                {"name": name, "tasks": {str(index): task.name for index, task in array.tasks.items()}}
            )
            self.store.extend_sweep(self.sweep, arrays=self._submitted)  # first, so that every job is recorded
            tasks = self.folder / f"tasks-{number}.jsonl"
            files.write_lines(tasks, [{"index": index, **encoded(task)} for index, task in array.tasks.items()])
            try:
                array.job = executor.submit_tasks(name, array, self._command(tasks), self._setup(code))
            except InputError as error:
                raise InputError(f"{error}{_so_far(arrays[:place])}") from None
            self._submitted[-1]["job"] = array.job
        self.store.extend_sweep(self.sweep, arrays=self._submitted)

    def _command(self, tasks: Path) -> str:
        python = self.request.python or shlex.quote(sys.executable)
        store = shlex.quote(str(self.store.root.absolute()))
        return f"{python} -u -P -m bnft job {store} {shlex.quote(str(tasks))}"

    def _setup(self, code: Path) -> list[str]:
        """Return commands before the task. Together with -P, they make Python import the copy of the code first."""
        own = dict.fromkeys([Path.cwd(), program.folder()])  # the folders of a user's own components
        path = ":".join(shlex.quote(str(folder)) for folder in (code, *own))
        lines = [f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}"]
        if self.request.options.get("cpus_per_task"):
            lines.append("export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK")  # srun does not inherit it since SLURM 22.05
        return lines


def _so_far(arrays: Sequence[Array]) -> str:
    """Return a message about the arrays that were submitted before an error, such as a limit of jobs per user."""
    count = sum(len(array.tasks) for array in arrays)
    return f"; {count} tasks are submitted, and the same command submits the others later" if count else ""


def encoded(task: Task) -> dict[str, Any]:
    """Return a task as JSON; see `decoded`."""
    return {"run": task.run.encoded(), "evaluated": task.evaluated}


def decoded(value: Mapping[str, Any]) -> Task:
    """Restore a task from JSON; see `encoded`."""
    return Task(Run.decoded(value["run"]), value["evaluated"], None)


def task_at(tasks: Path, index: int) -> Task:
    """Read the task with an index from a file of tasks."""
    with tasks.open() as lines:
        for line in lines:
            if line.startswith(f'{{"index": {index},'):
                return decoded(json.loads(line))
    raise InputError(f"{tasks}: has no task {index}")
