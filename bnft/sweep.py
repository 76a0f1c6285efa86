"""A sweep: a set of runs asked for together."""

import shlex
import subprocess
import sys
import textwrap
import traceback
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher

from bnft.errors import Failure, InputError, show
from bnft.plan import Plan, Run, plan
from bnft.pool import Outcomes
from bnft.progress import complain
from bnft.report.table import print_sweep
from hydra_plugins.bnft_launcher import PlanLauncher

SHOWN_FAILURES = 20
GIT_SECONDS = 5.0


def sweep(jobs: Sequence[Sequence[str]], launcher: Launcher) -> None:
    """Plan all jobs (lists of overrides), write down the sweep, launch it, and end with its table.

    A run that fails is nobody else's trouble; the sweep goes on, lists what failed, and exits with 1.
    """
    planned = plan(jobs, here=launcher.here if isinstance(launcher, PlanLauncher) else True)
    if isinstance(launcher, PlanLauncher):
        launcher.check()
    name = record(planned)
    asked, bases = len(planned.runs), len(planned.bases)
    extra = f" and {bases} base{'s' if bases > 1 else ''}" if bases else ""
    complain(f"sweep {name}: {asked} run{'s' if asked > 1 else ''}{extra} in {planned.store.root}")
    outcomes = launcher.carry_out(planned, name) if isinstance(launcher, PlanLauncher) else _launched(jobs, launcher)
    if outcomes is None:
        return
    print_sweep(planned.store, name)
    complain(f"figures: `bnft report {name}`")
    failed = {task: failure for task, failure in outcomes.items() if failure is not None}
    telling = _telling(planned)
    for task, failure in list(failed.items())[:SHOWN_FAILURES]:
        _explain(task, failure, telling.get(task.partition("/")[0], ""))
    if failed:
        hidden = len(failed) - SHOWN_FAILURES
        if hidden > 0:
            complain(f"... and {hidden} more; `bnft status {name}` lists them")
        runs = {task.partition("/")[0] for task in failed}
        complain(f"{len(runs)} of {asked + bases} runs failed; the same command tries them again")
        raise SystemExit(1)


def record(planned: Plan) -> str:
    """Write down what was asked for together; returns the sweep's name."""
    entries = [{"run": run.name, "evaluation": run.evaluation_id, **_base(run)} for run in planned.runs]
    bases = [{"run": run.name, **_base(run)} for run in planned.bases]
    return planned.store.save_sweep(entries, bases, shlex.join(sys.argv), commit())


def commit() -> str | None:
    """The git commit of the code that was asked, with "-dirty" where files differ from it; None outside git."""
    where = Path(sys.argv[0]).resolve().parent
    try:
        said = subprocess.run(
            ["git", "-C", str(where), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):  # there is no git, or it does not answer
        return None
    return said.stdout.strip() or None


def _base(run: Run) -> dict[str, str]:
    return {"base": run.base_name} if run.base_name is not None else {}


def _launched(jobs: Sequence[Sequence[str]], launcher: Launcher) -> Outcomes:
    """What comes of a launcher that is not ours and knows nothing of plans."""
    outcomes: Outcomes = {}
    for job in launcher.launch([list(line) for line in jobs], initial_job_idx=0):
        error = job._return_value if job.status == JobStatus.FAILED else None
        outcomes[" ".join(job.overrides or [])] = None if error is None else _failure(error)
    return outcomes


def _failure(error: BaseException) -> Failure:
    """With its whole traceback, since it stands nowhere else."""
    if isinstance(error, InputError):
        return Failure(str(error))
    return Failure(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)).rstrip())


def _telling(planned: Plan) -> dict[str, str]:
    """In what each run differs from the others of its policy that were asked for with it."""
    written = [
        (run, {key: show(value) for key, value in {"seed": run.config["seed"], **run.overrides}.items()})
        for run in (*planned.bases, *planned.runs)
    ]
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for run, values in written:
        for key, text in values.items():
            found[run.policy, key].add(text)
    return {
        run.name: ", ".join(f"{key}={text}" for key, text in values.items() if len(found[run.policy, key]) > 1)
        for run, values in written
    }


def _explain(task: str, failure: Failure, telling: str) -> None:
    """What failed and why: which run that is, the error's last lines, and where the rest is."""
    complain(f"{failure.state}: {task.partition('/')[0]}: {failure}")
    if telling:
        complain(f"    {telling}")
    if failure.details:
        complain(textwrap.indent(failure.details, "    "))
    if failure.log is not None:
        complain(f"    log: {failure.log}")
