"""A SLURM job with its work counted, as in counted.py, for `hydra.launcher.python`. It takes the arguments of Python.

`j` in $WORK is a job that has begun. $PACE is the minimum number of seconds of each further unit, and $BEFORE is the
number of seconds before the first unit, so that tests have time to act meanwhile.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from bnft.cli import main
from bnft.sweeps.slurm import job

carry_out = job._carry_out


def counted(root: Path, tasks: Path, index: int, requests: Any, track: Any) -> int:
    """Count the work of a task. From here on, the job handles signals."""
    import counted as counting  # type: ignore[import-not-found]  # here, because it loads PyTorch

    os.write(counting.WORK, b"j")
    time.sleep(float(os.environ.get("BEFORE", 0)))
    for module, name in ((counting.TrainingStep, "update"), (counting.cascade, "check_adversarial")):
        setattr(module, name, paced(getattr(module, name), float(os.environ.get("PACE", 0))))
    return carry_out(root, tasks, index, requests, track)


def paced(function, seconds: float):
    def slow(*arguments, **keywords):
        time.sleep(seconds)
        return function(*arguments, **keywords)

    return slow


job._carry_out = counted
main(sys.argv[sys.argv.index("bnft") + 1 :])  # `... -m bnft job STORE TASKS`
