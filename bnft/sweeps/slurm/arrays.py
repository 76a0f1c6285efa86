"""Tasks as job arrays in waves, each waiting for exactly what its tasks need."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bnft.sweeps.tasks import Task, waves


@dataclass(eq=False)
class Array:
    """Tasks that are submitted together, by their index in the array.

    They wait for `after`: a job under way by its number, or an array; of that, each one for the task with its own
    index if `index` is None, else all for the one task with that index. `job` is the number that SLURM gives it.
    """

    tasks: Mapping[int, Task]
    after: "str | Array | None" = None
    index: int | None = None
    job: str | None = field(default=None)

    @property
    def dependency(self) -> str | None:
        """As `sbatch --dependency` takes it. What it waits for must have been submitted."""
        if self.after is None:
            return None
        if isinstance(self.after, str):
            return f"afterok:{self.after}"
        return f"aftercorr:{self.after.job}" if self.index is None else f"afterok:{self.after.job}_{self.index}"

    @property
    def spec(self) -> str:
        """Its indices, as `sbatch --array` takes them: `0-3,7`."""
        return ",".join(
            f"{first}-{last}" if last > first else f"{first}" for first, last in _ranges(sorted(self.tasks))
        )


def arrays(todo: Sequence[Task], under_way: Mapping[str, str], size: int) -> list[Array]:
    """The tasks as arrays of up to `size`, in the order in which they are to be submitted.

    `under_way` are tasks of earlier sweeps that are queued or running, with their jobs' numbers.
    """
    left = [task for task in todo if task.name not in under_way]
    found: list[Array] = []
    place: dict[str, tuple[Array, int]] = {}
    for wave in waves(left):
        groups: defaultdict[str | Array | None, list[Task]] = defaultdict(list)
        for task in wave:
            after = place[task.needs][0] if task.needs in place else under_way.get(task.needs or "")
            groups[after].append(task)
        for after, tasks in groups.items():
            new = _following(after, tasks, place, size) if isinstance(after, Array) else _chunks(tasks, size, after)
            found += new
            place |= {task.name: (array, index) for array in new for index, task in array.tasks.items()}
    return found


def _chunks(tasks: Sequence[Task], size: int, after: "str | Array | None", index: int | None = None) -> list[Array]:
    return [Array(dict(enumerate(tasks[start : start + size])), after, index) for start in range(0, len(tasks), size)]


def _following(parent: Array, tasks: Sequence[Task], place: Mapping[str, tuple[Array, int]], size: int) -> list[Array]:
    """The tasks that need a task of `parent`, in as few arrays as possible.

    Where few tasks are needed by many, an array for all that wait for the same one; where many are needed by few each,
    an array for the first one that waits for each, another for the second, and so on, index by index.
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
