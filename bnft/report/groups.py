"""Which rows are drawn together: those of different policies that are alike in all else, and not too many."""

from dataclasses import dataclass

from bnft.report.rows import Row, Study
from bnft.report.style import Look, looks

DRAWN_TOGETHER = 12  # rows in one figure, at most


@dataclass(frozen=True)
class Series:
    """One row, with its name and its look."""

    label: str
    row: Row
    look: Look


@dataclass(frozen=True)
class Group:
    """Rows that figures set side by side; `title` says what they have in common that others in the study have not."""

    title: str
    series: tuple[Series, ...]

    @property
    def by_policy(self) -> dict[str, Series]:
        """The first row of each policy, which is the paper's if that is there."""
        found: dict[str, Series] = {}
        for series in self.series:
            found.setdefault(series.row.policy, series)
        return found

    def of(self, *policies: str) -> list[Series]:
        """The rows of these policies, in that order."""
        return [series for policy in policies for series in self.series if series.row.policy == policy]


def groups(study: Study) -> list[Group]:
    """The study's rows in groups; first the one with the most rows of the paper, then by size."""
    named = list(zip(study.rows, study.labels(), strict=True))
    if len({row.policy for row, _ in named}) == 1:  # variants of one policy: they are what is compared
        usual = study.paper_row(study.rows[0].policy)
        keys = [row.policy if row is usual or len(named) == 1 else label for row, label in named]
        colours = looks(keys)
        return _parts("", [Series(label, row, colours[key]) for (row, label), key in zip(named, keys, strict=True)])
    colours = looks(row.policy for row, _ in named)
    alike: dict[str, list[Series]] = {}
    for row, label in named:
        title = row.first["run"]["title"]
        rest = label.removeprefix(title).strip(" []")
        alike.setdefault(rest, []).append(Series(title, row, colours[row.policy]))
    found = [group for rest, series in alike.items() for group in _parts(rest, series)]
    return sorted(
        found, key=lambda group: (-sum(one.row.paper is not None for one in group.series), -len(group.series))
    )


def _parts(title: str, series: list[Series]) -> list[Group]:
    """One group, or several where there is too much for one."""
    starts = range(0, len(series), DRAWN_TOGETHER)
    parts = [Group(title, tuple(series[start : start + DRAWN_TOGETHER])) for start in starts]
    if len(parts) == 1:
        return parts
    return [
        Group(", ".join(filter(None, (title, f"part {number} of {len(parts)}"))), part.series)
        for number, part in enumerate(parts, start=1)
    ]
