"""Job arrays of tasks, in waves. Each job waits only for the task that its own task needs."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bnft.sweeps.tasks import Task, waves


@dataclass(eq=False)
class Array:
    """Tasks that are submitted together.

    Attributes:
        tasks: the tasks, by their index in the array.
        after: what the tasks wait for: the number of a queued or running job, another array, or nothing.
        index: the task of the other array that all tasks wait for. If None, each task waits for the task with its own
            index.
        job: the number that SLURM gives to the array.
    """

    tasks: Mapping[int, Task]
    after: "str | Array | None" = None
    index: int | None = None
    job: str | None = field(default=None)

    @property
    def dependency(self) -> str | None:
        """The value of `sbatch --dependency`. The array that it waits for must have been submitted."""
        if self.after is None:
            return None
        if isinstance(self.after, str):
            return f"afterok:{self.after}"
        return f"aftercorr:{self.after.job}" if self.index is None else f"afterok:{self.after.job}_{self.index}"

    @property
    def spec(self) -> str:
        """The value of `sbatch --array`: the indices, such as `0-3,7`."""
        return ",".join(
            f"{first}-{last}" if last > first else f"{first}" for first, last in _ranges(sorted(self.tasks))
        )


def arrays(todo: Sequence[Task], under_way: Mapping[str, str], size: int) -> list[Array]:
    """Make arrays of tasks, in the order of their submission.

    Args:
        todo: the tasks that are not done.
        under_way: the numbers of the jobs of queued or running tasks, by the names of the tasks.
        size: the maximal size of an array.
    """
    left = [task for task in todo if task.name not in under_way]
    result: list[Array] = []
    place: dict[str, tuple[Array, int]] = {}
    for wave in waves(left):
        groups: defaultdict[str | Array | None, list[Task]] = defaultdict(list)
        for task in wave:
            after = place[task.needs][0] if task.needs in place else under_way.get(task.needs or "")
            groups[after].append(task)
        for after, tasks in groups.items():
            new = _following(after, tasks, place, size) if isinstance(after, Array) else _chunks(tasks, size, after)
            result += new
            place |= {task.name: (array, index) for array in new for index, task in array.tasks.items()}
    return result


def _chunks(tasks: Sequence[Task], size: int, after: "str | Array | None", index: int | None = None) -> list[Array]:
    return [Array(dict(enumerate(tasks[start : start + size])), after, index) for start in range(0, len(tasks), size)]


def _following(parent: Array, tasks: Sequence[Task], place: Mapping[str, tuple[Array, int]], size: int) -> list[Array]:
    """Make arrays of the tasks that need a task of `parent`, as few as possible.

    If few tasks of `parent` are needed by many, all tasks that need the same one form an array. If many are needed by
    few tasks each, the first task that needs each of them goes into one array, the second into another, and so on.
    """
    followers: defaultdict[int, list[Task]] = defaultdict(list)
    for task in tasks:
        followers[place[task.needs or ""][1]].append(task)
    most = max(map(len, followers.values()))
    if len(followers) <= most:
        return [array for index, group in followers.items() for array in _chunks(group, size, parent, index)]
    return [
        Array({index: group[rank] for index, group in followers.items() if rank < len(group)}, parent)
        for rank in range(most)
    ]


def _ranges(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = last = indices[0]
    for index in indices[1:]:
        if index > last + 1:
            yield first, last
            first = index
        last = index
    yield first, last
