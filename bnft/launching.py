"""Plan, record and launch a sweep, and print its table."""

import textwrap
import traceback
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from bnft.common.console import notice
from bnft.common.errors import Failure, InputError, OutOfTimeError, UnwritableError, show
from bnft.config.compat import error_of
from bnft.report.table import print_planned, print_sweep
from bnft.runs.bases import Member, unequal
from bnft.runs.plan import Plan, plan
from bnft.sweeps.backend import Backend
from bnft.sweeps.pool import Outcomes
from bnft.sweeps.record import record
from bnft.sweeps.tasks import tasks, undone
from bnft.tracking.background import tracked

SHOWN_FAILURES = 20
MAX_RUNS = 100_000  # in one sweep


def sweep(
    jobs: Sequence[Sequence[str]], launcher: Backend | Launcher, study: tuple[str, Mapping[str, Any]] | None = None
) -> None:
    """Plan all jobs, record the sweep, launch it, and print its table.

    If a run fails, the other runs continue. The sweep then lists the failed runs and raises SystemExit(1).

    Args:
        jobs: the overrides of each run.
        launcher: a backend of bnft, or another launcher of Hydra.
        study: the name and the contents of a study, whose rows are combined with each job.

    Raises:
        InputError: if a job, the study or a setting of the launcher is invalid.
        OutOfTimeError: if the time of the launcher is over, after the table was printed.
    """
    planned = plan(jobs, isinstance(launcher, Launcher) or launcher.here, study)
    if not isinstance(launcher, Launcher):
        launcher.check()
    try:
        name = record(planned)
    except UnwritableError as error:
        if undone(tasks(planned), planned.store):
            raise
        notice(f"bnft: all runs are done already; nothing was written ({error})")
        print_planned(planned)
        return
    for run in (*planned.bases, *planned.runs):  # runs that are done are not opened later
        planned.store.remove_outdated(run.name)
    asked, bases = len(planned.runs), len(planned.bases)
    extra = f" and {bases} base{'s' if bases > 1 else ''}" if bases else ""
    notice(f"sweep {name}: {asked} run{'s' if asked > 1 else ''}{extra} in {planned.store.root}")
    for text in unequal(
        Member(run.row or str(run.config["title"]), run.name, run.base_name, run.identity) for run in planned.runs
    ):
        notice(f"bnft: {text}")
    late: OutOfTimeError | None = None
    try:
        if isinstance(launcher, Launcher):  # not one of bnft: it cannot carry out a plan
            outcomes: Outcomes | None = _launched([run.line for run in planned.runs] if study else jobs, launcher)
        else:
            outcomes = launcher.carry_out(planned, name, tracked)
    except OutOfTimeError as error:
        late, outcomes = error, error.outcomes
    if outcomes is None:
        return
    print_sweep(planned.store, name)
    notice(f"figures: `bnft report {name}`")
    failed = {task: failure for task, failure in outcomes.items() if failure and not (late and failure.stopped)}
    differences = _differences(planned)
    for task, failure in list(failed.items())[:SHOWN_FAILURES]:
        _explain(task, failure, differences.get(task.partition("/")[0], ""))
    if failed:
        hidden = len(failed) - SHOWN_FAILURES
        if hidden > 0:
            notice(f"... and {hidden} more; `bnft status {name}` lists them")
    if late:
        raise late
    if failed:
        runs = {task.partition("/")[0] for task in failed}
        notice(f"{len(runs)} of {asked + bases} runs failed; the same command tries them again")
        raise SystemExit(1)


def launch(jobs: Sequence[Sequence[str]], backend: Backend) -> list[JobReturn]:
    """Carry out jobs (lists of overrides) for a sweeper other than bnft's, as Hydra's launchers do."""
    planned = plan(jobs, backend.here)
    backend.check()
    outcomes = backend.carry_out(planned, record(planned), tracked) or {}
    failures = {name: failure for name, failure in outcomes.items() if failure is not None}
    status = JobStatus.FAILED if failures else JobStatus.COMPLETED
    returns = [JobReturn(overrides=list(line), status=status) for line in jobs]
    for job in returns:
        job.return_value = failures
    return returns


def expanded(arguments: Sequence[str], loader: ConfigLoader) -> list[Override]:
    """Parse the overrides of a sweep. Raises InputError if one matches no option or makes too many runs."""
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
    runs = 1
    for override in overrides:
        if override.is_sweep_override():
            count = sum(1 for _ in islice(override.sweep_string_iterator(), MAX_RUNS + 1))
            if not count:
                raise InputError(f"{override.input_line}: must match at least one option; --help lists them")
            runs *= count
            if runs > MAX_RUNS:
                raise InputError(f"{override.input_line}: must expand to at most {MAX_RUNS:,} runs in one sweep")
    return overrides


def _launched(jobs: Sequence[Sequence[str]], launcher: Launcher) -> Outcomes:
    """Launch jobs with a launcher other than bnft's, and return their outcomes."""
    outcomes: Outcomes = {}
    for job in launcher.launch([list(line) for line in jobs], initial_job_idx=0):
        error = error_of(job)
        outcomes[" ".join(job.overrides or [])] = None if error is None else _failure(error)
    return outcomes


def _failure(error: BaseException) -> Failure:
    """Return a failure with the whole traceback, which no log contains."""
    if isinstance(error, InputError):
        return Failure(str(error))
    return Failure(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)).rstrip())


def _differences(planned: Plan) -> dict[str, str]:
    """Return the overrides in which each run differs from the other runs of its policy in this sweep."""
    written = [
        (run, {key: show(value) for key, value in {"seed": run.config["seed"], **run.overrides}.items()})
        for run in (*planned.bases, *planned.runs)
    ]
    texts: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for run, values in written:
        for key, text in values.items():
            texts[run.policy, key].add(text)
    return {
        run.name: ", ".join(f"{key}={text}" for key, text in values.items() if len(texts[run.policy, key]) > 1)
        for run, values in written
    }


def _explain(task: str, failure: Failure, difference: str) -> None:
    """Print the run that failed, how it differs from others, the last lines of the error, and the path of the log."""
    notice(f"{failure.state}: {task.partition('/')[0]}: {failure}")
    if difference:
        notice(f"    {difference}")
    if failure.details:
        notice(textwrap.indent(failure.details, "    "))
    if failure.log is not None:
        notice(f"    log: {failure.log}")
