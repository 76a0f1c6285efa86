"""launch.py with its work counted: one byte is appended to $WORK for each unit, so that a kill cannot lose the count.

`t` is a training step, `a` a batch of an attack in evaluation, `e` a finished epoch. See `mischief` for what can be
made to happen before a run trains or evaluates: it looks for it under `POLICY-SEED-training` or `-evaluating`.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

import mischief

import launch
from bnft import hydra_app
from bnft.evaluation import cascade
from bnft.runs import execution
from bnft.training import loop

WORK = os.open(os.environ["WORK"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def count(module: object, name: str, unit: bytes) -> None:
    """Write `unit` each time that `module.name` has been called."""
    original = getattr(module, name)

    def counted(*arguments: object, **keywords: object) -> object:
        result = original(*arguments, **keywords)
        os.write(WORK, unit)
        return result

    setattr(module, name, counted)


count(loop, "_update", b"t")
count(loop, "_end_epoch", b"e")
count(cascade, "check_adversarial", b"a")


def preceded_by_mischief(name: str, stage: str) -> None:
    """Let mischief happen before `run.name`, one of whose arguments is the run's worker."""
    original = getattr(execution, name)

    def troubled(*arguments: object, **options: object) -> object:
        (run_at_work,) = (argument.run for argument in arguments if isinstance(argument, execution._Worker))
        mischief.happens(f"{run_at_work.policy}-{run_at_work.config['seed']}-{stage}")
        return original(*arguments, **options)

    setattr(execution, name, troubled)


preceded_by_mischief("train", "training")
preceded_by_mischief("evaluate", "evaluating")

if __name__ == "__main__":
    hydra_app.guarded(launch.main)
