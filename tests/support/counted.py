"""launch.py with its work counted. One byte per unit is appended to $WORK, so that a kill cannot lose the count.

`t` is a training step, `a` a batch of an attack in evaluation, `e` a finished epoch. `mischief` can disturb a run
before it trains or evaluates, with a file named `POLICY-SEED-training` or `POLICY-SEED-evaluating`.
"""

import functools
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

import mischief  # type: ignore[import-not-found]

from bnft import hydra_app
from bnft.evaluation import cascade
from bnft.runs import run_evaluation, run_training
from bnft.runs.run_evaluation import RunEvaluation
from bnft.runs.run_training import RunTraining
from bnft.sweeps import pool
from bnft.training import loop
from bnft.training.step import TrainingStep

WORK = os.open(os.environ["WORK"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def count(module: object, name: str, unit: bytes) -> None:
    """Write `unit` each time that `module.name` has been called."""
    original = inspect.unwrap(getattr(module, name))  # it is counted already in a copy of a process; see warm.py

    @functools.wraps(original)
    def counted(*arguments: object, **keywords: object) -> object:
        result = original(*arguments, **keywords)
        os.write(WORK, unit)
        return result

    setattr(module, name, counted)


count(TrainingStep, "update", b"t")
count(loop, "_end_epoch", b"e")
count(cascade, "check_adversarial", b"a")


def preceded_by_mischief(module: ModuleType, name: str, stage: str) -> None:
    """Call `mischief.happens` before `module.name`. One of its arguments has the run as an attribute."""
    original = inspect.unwrap(getattr(module, name))

    @functools.wraps(original)
    def troubled(*arguments: object, **options: object) -> object:
        (run,) = (argument.run for argument in arguments if isinstance(argument, (RunTraining, RunEvaluation)))
        mischief.happens(f"{run.policy}-{run.config['seed']}-{stage}")
        return original(*arguments, **options)

    setattr(module, name, troubled)


preceded_by_mischief(run_training, "train", "training")
preceded_by_mischief(run_evaluation, "evaluate", "evaluating")

if __name__ == "__main__":
    pool.PRELOADED += ("counted",)  # worker processes do not import this script
    hydra_app.main()
