"""The cost and hardware of each run, and the command that reproduces it."""

import re
import shlex
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnft.common.errors import DamagedError, InputError, show
from bnft.config.names import BEFORE_RECIPES, RECIPES_SINCE, current
from bnft.evaluation.settings import autoattack_alone
from bnft.report.rows import Row, Study
from bnft.report.stored import StoredResult
from bnft.runs import identity
from bnft.runs.result import RunRecord
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import Store

PROGRAM = ("bnft", "run")


@dataclass(frozen=True)
class Cost:
    """The cost of one run. Values that were not recorded are None.

    Attributes:
        run: the name of the run.
        label: the label of its row; None for a base that is not a row itself.
        seed: its seed; None for such a base.
        training: seconds of training, over all parts if the run was interrupted.
        evaluation: seconds of evaluation, of its preview too; None for such a base.
        hardware: the hardware of the training.
        epochs: the number of epochs of the training.
        attacks: seconds of each attack of the evaluation, by name.
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
    """Return the costs of the runs of a study, in its order, then those of bases that are not rows themselves.

    A run that was evaluated in several ways is listed once for each. `training_seconds` counts it once. The seconds of
    a preview, and of an AutoAttack that a further attack continues, count once for each run.
    """
    counted = {result.folder.path for row in study.rows for result in row.results}
    items = [
        _cost(result, label, counted)
        for row, label in zip(study.rows, study.labels(), strict=True)
        for result in _by_seed(row)
    ]
    known = {cost.run for cost in items}
    for row in study.rows:
        for result in _by_seed(row):
            base = result.run.base
            if base and base not in known:
                known.add(base)
                items += _base_cost(result.run_folder.path.parent / base)
    return items


def training_seconds(items: Iterable[Cost]) -> float:
    """Return the seconds of training. Each run counts once."""
    return sum({cost.run: cost.training or 0.0 for cost in items}.values())


def evaluation_seconds(items: Iterable[Cost]) -> float:
    """Return the seconds of all evaluations."""
    return sum(cost.evaluation or 0.0 for cost in items)


def _by_seed(row: Row) -> list[StoredResult]:
    return sorted(row.results, key=lambda result: result.seed)


def _cost(result: StoredResult, label: str, counted: set[Path]) -> Cost:
    """Return the cost of a run, without evaluations that are counted. A preview is added to those."""
    training = result.result.training
    attacks = {step.attack: step.seconds for step in result.result.cascade}
    seconds, further, preview = result.result.seconds, result.result.strongest, result.preview
    if further is not None:
        if _autoattack_alone(result) in counted:
            seconds, attacks = further.seconds, {}
        attacks[f"{further.attack} (further)"] = further.seconds
    if preview is not None and preview.folder.path not in counted:
        counted.add(preview.folder.path)
        seconds += preview.result.seconds
        attacks[f"{preview.result.evaluation.attack} (preview)"] = preview.result.seconds
    return Cost(
        result.run_folder.name,
        label,
        result.seed,
        training.seconds,
        seconds,
        training.hardware.name if training.hardware else None,
        result.run.identity.get("schedule", {}).get("epochs"),
        attacks,
    )


def _autoattack_alone(result: StoredResult) -> Path | None:
    """Return the folder of the AutoAttack that a further attack continued; None if it was not taken from another."""
    settings = autoattack_alone(result.result.evaluation.settings)
    alone = result.folder.beside(identity.evaluation_id(settings))
    with suppress(DamagedError):
        found = alone.result()
        if found is not None and found.cascade == result.result.cascade:  # their seconds are equal
            return alone.path
    return None


def _base_cost(folder: Path) -> list[Cost]:
    try:
        record = RunFolder(folder).training()
    except DamagedError:  # it is missing or damaged
        return []
    hardware = record.hardware.name if record.hardware else None
    return [Cost(folder.name, None, None, record.seconds, None, hardware, None)]


@dataclass(frozen=True)
class Reproduction:
    """How to reproduce a run.

    Attributes:
        run: the name of the run.
        label: the label of its row.
        seed: its seed.
        command: the command.
        exact: whether this is the run's own command. If not, it was derived from the policy, the seed and the
            overrides, and lacks changes of the schedule, the model and the data set.
        data: the SHA-256 of the data.
        versions: the versions of the libraries.
    """

    run: str
    label: str
    seed: int
    command: str
    exact: bool
    data: str
    versions: dict[str, str]


def reproductions(study: Study) -> list[Reproduction]:
    """Return how to reproduce each run of a study, in its order."""
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
    """Return the command line of a run, quoted for a shell."""
    return command_of(result.run, result.seed)


def command_of(run: RunRecord, seed: int) -> str:
    """Return the command line of a run from its record, quoted for a shell."""
    line = run.line
    if line is None:
        values = {"policy": run.policy, "seed": seed, **run.overrides}
        line = [f"{key}={show(value)}" for key, value in values.items()]
    if run.identity.get("protocol", 1) < RECIPES_SINCE:
        line = [*line, *BEFORE_RECIPES]
    return shlex.join([*PROGRAM, *(_plain(current(part)) for part in line)])


def _plain(argument: str) -> str:
    """Remove the quotes in `base_overrides=['a=1','b=2']`, which the program adds by itself."""
    return (
        re.sub(r"'([^',\[\]{}()]+=[^',\[\]{}()]*)'", r"\1", argument)
        if argument.startswith("base_overrides=")
        else argument
    )


@dataclass(frozen=True)
class Sweep:
    """A sweep that requested `asked` runs of a study. `commit` is the commit of the code, if known."""

    name: str
    command: str
    commit: str | None
    time: str
    asked: int


def sweeps(study: Study) -> tuple[list[Sweep], list[str]]:
    """Return the sweeps that requested runs of a study, newest first, and notes on those that cannot be read."""
    runs = {result.run_folder.name for row in study.rows for result in row.results}
    store = Store(study.rows[0].results[0].run_folder.path.parent)
    readable, notes = [], []
    for name in reversed(store.sweeps()):
        try:
            record: dict[str, Any] = store.sweep(name)
            asked = len(runs & {entry["run"] for entry in record["runs"]})
            typed = as_typed(str(record["command"]))
            sweep = Sweep(name, typed, record.get("commit"), str(record.get("time", "")), asked)
        except InputError as error:
            notes.append(f"sweep {name}: cannot be read: {error}")
            continue
        if asked:
            readable.append(sweep)
    return readable, notes


def as_typed(command: str) -> str:
    """Return a recorded command as it is typed: without the folder of the program, and with `python` before a script.

    The record has no quotes, so an argument with spaces appears as several.
    """
    program, _, rest = command.partition(" ")
    name = Path(program).name
    return f"{'python ' if name.endswith('.py') else ''}{name} {rest}".rstrip()
