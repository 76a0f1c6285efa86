"""The record of a sweep, which is written when it is launched: its runs, its command and the commit of the code."""

import os
import subprocess
from pathlib import Path
from typing import Any

from bnft.common import files, program
from bnft.config import folders
from bnft.runs.plan import Plan, Run
from bnft.runs.store import SWEEP_NAME

GIT_SECONDS = 5.0
NAME_FILE = "BNFT_SWEEP_FILE"  # an environment variable; the name of the sweep is written to the file that it names


def record(planned: Plan, command: str | None = None) -> str:
    """Record a sweep.

    Args:
        planned: its plan.
        command: the command that asks for it. The default is the command line of this process.

    Returns:
        The name of the sweep. It is also written to the file that BNFT_SWEEP_FILE names.

    Raises:
        InputError: if the plan names the sweep like one that has other runs or is running.
    """
    entries = [
        {"run": run.name, "evaluation": run.evaluation_id, **_base(run), **_preview(run), **_row(run)}
        for run in planned.runs
    ]
    bases = [{"run": run.name, **_base(run)} for run in planned.bases]
    seeds = sorted({run.config["seed"] for run in planned.runs})
    command, given = command or program.command(), planned.runs[0].config[SWEEP_NAME]
    more = {"study": planned.study.encoded()} if planned.study is not None else {}
    name = planned.store.save_sweep(entries, bases, command, commit(), given, seeds=seeds, **more)
    if NAME_FILE in os.environ:
        files.write(Path(os.environ[NAME_FILE]), f"{name}\n".encode())
    return name


def commit() -> str | None:
    """Return the git commit of a user's own code, with "-dirty" if files differ from it; None outside of git.

    This code is in the folder of the script, or for `bnft run` in the current folder. If bnft is imported from a
    checkout elsewhere, the commit of bnft follows: "COMMIT, bnft COMMIT".
    """
    own = _commit(program.folder())
    bnft = _commit(checkout) if (checkout := folders.checkout()) is not None else None
    return ", bnft ".join(dict.fromkeys(filter(None, [own, bnft]))) or None


def _commit(where: Path) -> str | None:
    try:
        described = subprocess.run(
            ["git", "-C", str(where), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):  # git is not installed, or does not answer
        return None
    return described.stdout.strip() or None


def _base(run: Run) -> dict[str, str]:
    return {"base": run.base_name} if run.base_name is not None else {}


def _row(run: Run) -> dict[str, Any]:
    """Return the row of the study that a run belongs to, and how the run differs from it."""
    if run.row is None:
        return {}
    return {"row": run.row, "changed": run.changed} if run.changed else {"row": run.row}


def _preview(run: Run) -> dict[str, str]:
    return {"preview": run.preview.evaluation_id} if run.preview is not None else {}
