"""What is written down of a sweep when it is launched: what was asked for together, how, and from which commit."""

import shlex
import subprocess
import sys
from pathlib import Path

from bnft.runs.plan import Plan, Run

GIT_SECONDS = 5.0


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
