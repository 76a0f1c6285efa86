"""What is written down of a sweep when it is launched: what was asked for together, how, and from which commit."""

import os
import subprocess
from pathlib import Path

from bnft.common import files, program
from bnft.config import folders
from bnft.runs.plan import Plan, Run

GIT_SECONDS = 5.0
NAME_FILE = "BNFT_SWEEP_FILE"  # the environment variable with the file that a sweep's name is written to


def record(planned: Plan, command: str | None = None) -> str:
    """Record what was asked for together; returns the sweep's name, which BNFT_SWEEP_FILE tells to the caller.

    `command` asks for the same on the command line; without it, that is this process's own.
    """
    entries = [{"run": run.name, "evaluation": run.evaluation_id, **_base(run)} for run in planned.runs]
    bases = [{"run": run.name, **_base(run)} for run in planned.bases]
    name = planned.store.save_sweep(entries, bases, command or program.command(), commit())
    if NAME_FILE in os.environ:
        files.write(Path(os.environ[NAME_FILE]), f"{name}\n".encode())
    return name


def commit() -> str | None:
    """The git commit of the code that was asked, with "-dirty" where files differ from it; None outside git.

    That is what lies beside the script, or in the current folder, which have the components and settings of a person's
    own. If bnft is imported from a checkout elsewhere, the commit of that follows: "COMMIT, bnft COMMIT".
    """
    found = _commit(program.folder())
    bnft = _commit(checkout) if (checkout := folders.checkout()) is not None else None
    return ", bnft ".join(dict.fromkeys(filter(None, [found, bnft]))) or None


def _commit(where: Path) -> str | None:
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
