"""What each run cost, on which hardware, and the command that gives its numbers again."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnft.common.errors import DamagedError, InputError, show
from bnft.config.names import current
from bnft.report.rows import Row, StoredResult, Study
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import Store

PROGRAM = ("bnft", "run")


@dataclass(frozen=True)
class Cost:
    """One run: seconds of its training and of its evaluation, and where it ran.

    What was not kept is None. A run that others start from, and that was not evaluated, has no `label` and no
    evaluation. A run that went on after an interruption counts the seconds of all of its parts. `epochs` is how many it
    was trained for, `attacks` the seconds of each attack by name.
    """

    run: str
    label: str | None
    seed: int | None
    training: float | None
    evaluation: float | None
    hardware: str | None
    epochs: int | None
    attacks: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return (self.training or 0.0) + (self.evaluation or 0.0)


def costs(study: Study) -> list[Cost]:
    """The cost of every run of a study, in its order, then of bases that are no row of it but whose model is there.

    A run that was evaluated in several ways stands there once for each; `training_seconds` counts it once.
    """
    found = [
        _cost(result, label) for row, label in zip(study.rows, study.labels(), strict=True) for result in _by_seed(row)
    ]
    known = {cost.run for cost in found}
    for row in study.rows:
        for result in _by_seed(row):
            base = result.run.base
            if base and base not in known:
                known.add(base)
                found += _base_cost(result.run_folder.path.parent / base)
    return found


def training_seconds(found: Iterable[Cost]) -> float:
    """Seconds of training, each run once."""
    return sum({cost.run: cost.training or 0.0 for cost in found}.values())


def evaluation_seconds(found: Iterable[Cost]) -> float:
    """Seconds of all evaluations."""
    return sum(cost.evaluation or 0.0 for cost in found)


def _by_seed(row: Row) -> list[StoredResult]:
    return sorted(row.results, key=lambda result: result.seed)


def _cost(result: StoredResult, label: str) -> Cost:
    training = result.result.training
    attacks = {step.attack: step.seconds for step in result.result.cascade}
    return Cost(
        result.run_folder.name,
        label,
        result.seed,
        training.seconds,
        result.result.seconds,
        training.hardware.name if training.hardware else None,
        result.run.identity.get("schedule", {}).get("epochs"),
        attacks,
    )


def _base_cost(folder: Path) -> list[Cost]:
    try:
        record = RunFolder(folder).training()
    except DamagedError:  # it is not there, or not whole
        return []
    hardware = record.hardware.name if record.hardware else None
    return [Cost(folder.name, None, None, record.seconds, None, hardware, None)]


@dataclass(frozen=True)
class Reproduction:
    """How to get the numbers of a run again: `command`, with its `versions` installed.

    The command is `exact` if it is the run's own; else it was put together from the policy, the seed and what is
    overridden, which says nothing of a changed schedule, model or data set. `data` is the hash of the data.
    """

    run: str
    label: str
    seed: int
    command: str
    exact: bool
    data: str
    versions: dict[str, str]


def reproductions(study: Study) -> list[Reproduction]:
    """How to reproduce each run of a study, in its order."""
    return [
        Reproduction(
            result.run_folder.name,
            label,
            result.seed,
            command(result),
            result.run.line is not None,
            result.result.data.sha256,
            result.result.training.versions,
        )
        for row, label in zip(study.rows, study.labels(), strict=True)
        for result in _by_seed(row)
    ]


def command(result: StoredResult) -> str:
    """The command line that makes this run, for a shell."""
    run = result.run
    line = run.line
    if line is None:
        given = {"policy": run.policy, "seed": result.seed, **run.overrides}
        line = [f"{key}={show(value)}" for key, value in given.items()]
    return shlex.join([*PROGRAM, *(_plain(current(part)) for part in line)])


def _plain(argument: str) -> str:
    """`base_overrides=['a=1','b=2']` without the quotes that the program puts around simple items by itself."""
    return (
        re.sub(r"'([^',\[\]{}()]+=[^',\[\]{}()]*)'", r"\1", argument)
        if argument.startswith("base_overrides=")
        else argument
    )


@dataclass(frozen=True)
class Sweep:
    """A sweep that asked for runs of a study, for `asked` of them; `commit` is that of the code, if it is known."""

    name: str
    command: str
    commit: str | None
    time: str
    asked: int


def sweeps(study: Study) -> tuple[list[Sweep], list[str]]:
    """The sweeps that asked for runs of a study, newest first, and notes on those that cannot be read."""
    runs = {result.run_folder.name for row in study.rows for result in row.results}
    store = Store(study.rows[0].results[0].run_folder.path.parent)
    found, notes = [], []
    for name in reversed(store.sweeps()):
        try:
            record: dict[str, Any] = store.sweep(name)
            asked = len(runs & {entry["run"] for entry in record["runs"]})
            said = _as_typed(str(record["command"]))
            sweep = Sweep(name, said, record.get("commit"), str(record.get("time", "")), asked)
        except InputError as error:
            notes.append(f"sweep {name}: cannot be read: {error}")
            continue
        if asked:
            found.append(sweep)
    return found, notes


def _as_typed(said: str) -> str:
    """The command as it is typed, without the folder of the program; `python` stands before a script.

    What was kept of it has lost its quotes, so that arguments with spaces come back as several.
    """
    program, _, rest = said.partition(" ")
    name = Path(program).name
    return f"{'python ' if name.endswith('.py') else ''}{name} {rest}".rstrip()
