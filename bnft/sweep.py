"""A sweep: a set of runs asked for together."""

import sys
import traceback
from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from bnft.errors import InputError
from bnft.plan import Plan, plan
from bnft.pool import RunFailedError
from bnft.progress import complain
from bnft.report.table import print_sweep
from hydra_plugins.bnft_launcher import LocalLauncher


def sweep(jobs: Sequence[Sequence[str]], launcher: Launcher) -> Sequence[JobReturn]:
    """Plan all jobs (lists of overrides), write down the sweep, launch it, and end with its table.

    A run that fails is nobody else's trouble; the sweep goes on, lists what failed, and exits with 1.
    """
    planned = plan(jobs)
    if isinstance(launcher, LocalLauncher):
        launcher.check()
    name = record(planned)
    asked, bases = len(planned.runs), len(planned.bases)
    extra = f" and {bases} base{'s' if bases > 1 else ''}" if bases else ""
    complain(f"sweep {name}: {asked} run{'s' if asked > 1 else ''}{extra} in {planned.store.root}")
    if isinstance(launcher, LocalLauncher):
        returns = launcher.carry_out(planned)
    else:
        returns = launcher.launch([list(job) for job in jobs], initial_job_idx=0)
    failed = [job for job in returns if job.status == JobStatus.FAILED]
    print_sweep(planned.store, name)
    for job in failed:
        _explain(job)
    if failed:
        complain(f"{len(failed)} of {len(returns)} runs failed; the same command tries them again")
        raise SystemExit(1)
    return returns


def record(planned: Plan) -> str:
    """Write down what was asked for together; returns the sweep's name."""
    entries = [{"run": run.name, "evaluation": run.evaluation_id} for run in planned.runs]
    return planned.store.save_sweep(entries, [base.name for base in planned.bases], " ".join(sys.argv))


def _explain(job: JobReturn) -> None:
    error = job._return_value
    if isinstance(error, RunFailedError):
        sys.stderr.write(error.details)
    elif not isinstance(error, InputError):
        traceback.print_exception(error)
    complain(f"failed: {' '.join(job.overrides or [])}: {error}")
