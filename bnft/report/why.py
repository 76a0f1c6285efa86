"""`bnft why`: for each run that a command line asks for, what is there already, and what would run and why.

Unlike the rest of the report, this module needs PyTorch, because planning loads the data.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from bnft.common.console import show_columns
from bnft.common.errors import InputError
from bnft.report.comparison import in_words, leaves
from bnft.runs import layout
from bnft.runs.plan import Plan, Run
from bnft.runs.reporter import duration
from bnft.runs.run_folder import RunFolder
from bnft.runs.store import Store, task_name
from bnft.sweeps.status import StoreStatus
from bnft.sweeps.tasks import tasks, undone

NOTHING = "nothing"
LEAVES_SHOWN = 12
COMPARABLE = ("model", "data", "attack", "precision")  # parts of the identity that determine the cost of an epoch


@dataclass(frozen=True)
class Reason:
    """What would be done for one evaluation of a run, or for a base.

    Attributes:
        run: the name of the run.
        evaluation: the id of the evaluation; None for a base, which is only trained.
        there: what the store has of it.
        would: what would run: `training`, `evaluation`, both, or `nothing`.
        nearest: the run of the same policy that differs in the fewest leaves, if the run does not exist.
        differences: these leaves, with the value of this run and that of the nearest.
        seconds: how long it would take at most, as similar runs took; None if there is no similar run.
    """

    run: str
    evaluation: str | None
    there: str
    would: str
    nearest: str | None
    differences: dict[str, tuple[Any, Any]]
    seconds: float | None


@dataclass(frozen=True)
class Known:
    """A run of the store: its identity, and the seconds of its training and of each of its evaluations."""

    name: str
    identity: dict[str, Any]
    training: float | None
    evaluations: dict[str, float]

    @cached_property
    def items(self) -> frozenset[tuple[str, str]]:
        """The leaves of the identity with their values as text, to compare it quickly with many others."""
        return _items(self.identity)


class KnownRuns:
    """The runs of a store by policy. Each is read once, from a result if there is one, which is the fastest."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, list[Known]] = {}

    @cached_property
    def _folders(self) -> list[RunFolder]:
        return self._store.folders()

    def of(self, policy: str) -> list[Known]:
        """Return the runs of a policy, apart from those that cannot be read."""
        if policy not in self._read:
            alike = [folder for folder in self._folders if folder.name.rpartition("-")[0] == policy]
            self._read[policy] = [known for known in map(_known, alike) if known is not None]
        return self._read[policy]

    def nearest(self, run: Run) -> tuple[Known, dict[str, tuple[Any, Any]]] | None:
        """Return the run of the same policy that differs from a run in the fewest leaves, and these leaves."""
        items = _items(run.identity)
        others = (known for known in self.of(run.policy) if known.name != run.name)
        nearest = min(others, key=lambda known: _distance(items, known.items), default=None)
        return None if nearest is None else (nearest, leaves(run.identity, nearest.identity))

    def seconds(self, run: Run, trained: bool, evaluated: bool) -> float | None:
        """Estimate the seconds of a run's training and evaluation from the most similar run that was timed.

        Args:
            run: the run.
            trained: whether it would be trained.
            evaluated: whether it would be evaluated.
        """
        parts: list[float | None] = []
        items = _items(run.identity)
        alike = [known for known in self.of(run.policy) if _is_comparable(run.identity, known.identity)]
        alike.sort(key=lambda known: _distance(items, known.items))
        if trained:
            parts.append(next((cost for known in alike if (cost := _training(run, known)) is not None), None))
        if evaluated:
            ids = (known.evaluations.get(run.evaluation_id) for known in alike)
            parts.append(next((cost for cost in ids if cost is not None), None))
        return None if None in parts else sum(part for part in parts if part is not None)


def reasons(planned: Plan, view: StoreStatus) -> list[Reason]:
    """Return what would be done for every base and run of a plan."""
    left = {task.name for task in undone(tasks(planned), planned.store)}
    known, found, trained = KnownRuns(planned.store), [], set[str]()
    wanted: list[tuple[Run, str | None]] = [(run, None) for run in planned.bases]
    wanted += [(run, run.evaluation_id) for run in planned.runs]
    for run, evaluation in wanted:
        is_left, folder = task_name(run.name, evaluation) in left, planned.store.run(run.name)
        trains = is_left and not folder.trained and run.name not in trained  # once, however often it is evaluated
        evaluates = is_left and evaluation is not None
        trained |= {run.name} if trains else set()
        nearest = known.nearest(run) if trains and not folder.begun else None
        reason = Reason(
            run=run.name,
            evaluation=evaluation,
            there=_there(folder, evaluation, is_left, view),
            would=" and ".join(["training"] * trains + ["evaluation"] * evaluates) or NOTHING,
            nearest=nearest[0].name if nearest is not None else None,
            differences=nearest[1] if nearest is not None else {},
            seconds=known.seconds(run, trains, evaluates) if trains or evaluates else None,
        )
        found.append(reason)
    return found


def show(found: list[Reason]) -> None:
    """Print what would be done, one line per run, with the nearest run below it."""
    for reason in found:
        took = f", at most about {duration(max(1, reason.seconds))}" if reason.seconds else ""
        name = reason.run if reason.evaluation is None else f"{reason.run}/{reason.evaluation}"
        print(f"{name}: {reason.there}; would run: {reason.would}{took}")
        if reason.nearest is not None:
            print(f"    the nearest run is {reason.nearest}, from which it differs in")
            rows = [(f"      {key}", *(in_words(key, value) for value in pair)) for key, pair in _few(reason).items()]
            show_columns(("      key", "this run", "nearest"), rows)
            hidden = len(reason.differences) - len(rows)
            if hidden:
                print(f"      and {hidden} more")
    print(_summary(found))


def fields(found: list[Reason]) -> list[dict[str, Any]]:
    """Return what would be done as plain data."""
    return [asdict(reason) for reason in found]


def _few(reason: Reason) -> dict[str, tuple[Any, Any]]:
    return dict(list(reason.differences.items())[:LEAVES_SHOWN])


def _summary(found: list[Reason]) -> str:
    runs = [reason for reason in found if reason.evaluation is not None]
    working = [reason for reason in found if reason.would != NOTHING]
    done = sum(reason.would == NOTHING for reason in runs)
    text = f"{len(runs)} run{'s' * (len(runs) != 1)} asked for, {done} done"
    if not working:
        return f"{text}; nothing would run"
    trainings = sum("training" in reason.would for reason in working)
    evaluations = sum("evaluation" in reason.would for reason in working)
    text += f"; {trainings} training{'s' * (trainings != 1)} and {evaluations} evaluation{'s' * (evaluations != 1)}"
    timed = [reason.seconds for reason in working if reason.seconds is not None]
    text += " would run"
    if timed:
        text += f", at most about {duration(max(1, sum(timed)))} in sequence, as similar runs took"
    missing = len(working) - len(timed)
    return f"{text}; no similar run shows how long {missing} of them would take" if missing else text


def _there(folder: RunFolder, evaluation: str | None, is_left: bool, view: StoreStatus) -> str:
    """Return what the store has of a run, in words."""
    if not is_left:
        if evaluation is not None:
            return "it is done"
        return "it is trained" if folder.trained else "it is not needed, because all runs that start from it are done"
    if folder.trained:
        return "it is trained, but not evaluated in this way"
    if not folder.begun:
        return "it does not exist"
    status = view.of(folder.name, evaluation)
    return f"it is {status.state}{f' ({status.detail})' if status.detail else ''}"


def _known(folder: RunFolder) -> Known | None:
    identity: dict[str, Any] | None = None
    training: float | None = None
    evaluations: dict[str, float] = {}
    for file in folder.path.glob(f"{layout.EVALUATION}/*/{layout.RESULT}"):
        try:
            result: Mapping[str, Any] = json.loads(file.read_text())
            identity, training = result["run"]["identity"], result["training"].get("seconds")
            evaluations[file.parent.name] = result["seconds"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # it is damaged
            continue
    if identity is None:
        try:
            identity = folder.record().identity
            training = folder.training().seconds if folder.trained else None
        except InputError:
            return None
    return Known(folder.name, identity, training, evaluations)


def _items(value: Any, key: str = "") -> frozenset[tuple[str, str]]:
    if not isinstance(value, Mapping):
        return frozenset([(key, repr(value))])
    return frozenset(item for name, inner in value.items() for item in _items(inner, f"{key}.{name}"))


def _distance(ours: frozenset[tuple[str, str]], theirs: frozenset[tuple[str, str]]) -> int:
    """Return the number of leaves that differ."""
    return len({key for key, _ in ours ^ theirs})


def _is_comparable(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    return all(ours.get(part) == theirs.get(part) for part in COMPARABLE)


def _training(run: Run, known: Known) -> float | None:
    """Scale the seconds of a known training to the number of epochs of a run."""
    ours, theirs = run.identity["schedule"], known.identity.get("schedule", {})
    if known.training is None or not theirs.get("epochs") or ours["batch_size"] != theirs.get("batch_size"):
        return None
    return float(known.training) * float(ours["epochs"]) / float(theirs["epochs"])
