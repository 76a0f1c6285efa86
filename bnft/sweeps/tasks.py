"""Tasks: the parts of a plan that one process carries out, and the tasks that they wait for."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from bnft.common import files
from bnft.common.errors import DamagedError
from bnft.config import build
from bnft.evaluation.settings import passes_per_image
from bnft.runs.plan import Plan, Run, ancestors
from bnft.runs.store import Store, task_name

STANDING, STANDING_UNDEFENDED = 0.5, 0.1  # approximate share of robust images with and without adversarial training

LONGEST, GIVEN = ORDERS = ("longest", "given")


@dataclass(frozen=True)
class Task:
    """A run's training, and its evaluation unless `evaluated` is false.

    A run that is the base of others consists of two tasks, so that the others wait for its training only. `needs` is
    the name of the task that must be done first. A task that is `previewed` trains and makes the preview of the run.
    """

    run: Run
    evaluated: bool
    needs: str | None
    previewed: bool = False

    @property
    def shown(self) -> Run | None:
        """The run with the evaluation of this task; None for a training."""
        return self.run if self.evaluated else self.run.preview if self.previewed else None

    @property
    def name(self) -> str:
        return task_name(self.run.name, self.shown.evaluation_id if self.shown is not None else None)


def tasks(planned: Plan, order: str = LONGEST) -> list[Task]:
    """Return the tasks of a plan.

    Args:
        planned: the plan.
        order: `longest` for the tasks of bases first, then the longest first. `given` for the order of the plan, with
            the tasks of bases just before the first run that needs them.
    """
    everything = (*planned.bases, *planned.runs)
    asked = Counter(run.name for run in planned.runs)
    shared = {run.base_name for run in everything} | {name for name, evaluations in asked.items() if evaluations > 1}
    trainings = {run.name: Task(run, False, run.base_name) for run in everything if run.name in shared}
    evaluations = [Task(run, True, run.name if run.name in shared else run.base_name) for run in planned.runs]
    if order == GIVEN:
        found: dict[str, Task] = {}
        for evaluation in evaluations:
            needed = [trainings.get(run.name) for run in (*ancestors(evaluation.run), evaluation.run)]
            found |= {task.name: task for task in (*needed, evaluation) if task is not None and task.name not in found}
        return list(found.values())
    return sorted([*trainings.values(), *evaluations], key=lambda task: (task.evaluated, -_cost(task)))


def undone(everything: Sequence[Task], store: Store) -> list[Task]:
    """Return the tasks that are not done, without trainings that no other task waits for.

    Their `needs` name other tasks in the result only. A run that is trained does not wait for its base.
    """
    trained = {name for name in {task.run.name for task in everything} if store.run(name).trained}
    everything = [replace(task, needs=None) if task.run.name in trained else task for task in everything]
    by_name = {task.name: task for task in everything}
    left: set[str] = set()
    for evaluation in [task for task in everything if task.evaluated]:
        task: Task | None = evaluation
        while task is not None and task.name not in left and not is_done(task, store):
            left.add(task.name)
            task = by_name.get(task.needs or "")
    return [replace(task, needs=task.needs if task.needs in left else None) for task in everything if task.name in left]


def with_previews(todo: Sequence[Task], store: Store, order: str = LONGEST) -> list[Task]:
    """Add a task for the preview of each evaluation that waits for it.

    With `longest`, trainings come first, then previews and evaluations without a preview, then the others, each the
    longest first. All rows of a sweep therefore have quick numbers before a process begins to attack with AutoAttack,
    unless it would have nothing else to do. With `given`, each preview comes just before its evaluation.

    A preview that is done, or was asked for as an evaluation, is not added.

    Args:
        todo: the tasks that are not done; see `undone`.
        store: the store.
        order: as for `tasks`.
    """
    asked = {task.name for task in todo}
    names, found = set(asked), list[Task]()
    for task in todo:
        if not task.evaluated or task.run.preview is None:
            found.append(task)
            continue
        preview = replace(task, evaluated=False, previewed=True)
        made = is_done(preview, store)
        if not made and preview.name not in names:
            names.add(preview.name)
            found.append(preview)
        found.append(task if made or preview.name in asked else replace(task, needs=preview.name))
    return found if order == GIVEN else sorted(found, key=_rank_with_previews)


def _rank_with_previews(task: Task) -> tuple[int, float]:
    """Return a key to sort tasks by, if there are previews among them; see `with_previews`."""
    if task.shown is None:
        return 0, 0.0  # trainings are sorted already
    if task.previewed or task.run.preview is None:
        return 1, -_cost(task)
    return 2, -_evaluation_cost(task.run)


@files.reachable()
def is_done(task: Task, store: Store) -> bool:
    """Return whether the files of a task exist and are undamaged. Models and images are not loaded for this.

    A result is valid even if its model was removed or not exported.
    """
    folder, shown = store.run(task.run.name), task.shown
    if shown is None:
        return folder.trained
    evaluation = folder.evaluation(shown.evaluation_id)
    with suppress(DamagedError):
        if evaluation.result() is not None:
            evaluation.outcomes(images=False)
            return True
    return False


def waves(everything: Sequence[Task]) -> list[list[Task]]:
    """Return the tasks in waves. Each task waits for a task of the previous wave. Those of the first do not wait."""
    by_name = {task.name: task for task in everything}
    result: list[list[Task]] = []
    for task in everything:
        depth, needs = 0, task.needs
        while needs in by_name:
            depth, needs = depth + 1, by_name[needs].needs
        result += [[] for _ in range(depth + 1 - len(result))]
        result[depth].append(task)
    return result


def _cost(task: Task) -> float:
    """Estimate the length of a task in passes of one image, to start the longest task first."""
    config, run = task.run.config, task.run.name
    attack, schedule = config["attack"], config["schedule"]
    passes = 1 + (attack.get("iterations", 10) if attack else 0)
    training = schedule["epochs"] * passes * len(build.dataset(config).x_train) if task.needs != run else 0
    shown = task.shown
    return float(training) + (_evaluation_cost(shown) if shown is not None else 0.0)


def _evaluation_cost(run: Run) -> float:
    """Estimate the length of an evaluation in passes of one image."""
    evaluation = run.config["evaluation"]
    standing = STANDING if run.config["attack"] else STANDING_UNDEFENDED
    on_each = passes_per_image(*(evaluation[name] for name in ("attack", "iterations", "restarts", "budgets")))
    return float(evaluation["n_images"] * standing * on_each)
