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

    def of(self, *policies: str) -> list[Series]:
        """The rows of these policies, in that order."""
        return [series for policy in policies for series in self.series if series.row.policy == policy]


def groups(study: Study) -> list[Group]:
    """The study's rows in groups; the largest first."""
    named = list(zip(study.rows, study.labels(), strict=True))
    if len({row.policy for row, _ in named}) == 1:  # variants of one policy: they are what is compared
        colours = looks(label for _, label in named) if len(named) > 1 else looks([named[0][0].policy])
        keyed = colours if len(named) > 1 else {named[0][1]: colours[named[0][0].policy]}
        return _parts("", [Series(label, row, keyed[label]) for row, label in named])
    colours = looks(row.policy for row, _ in named)
    alike: dict[str, list[Series]] = {}
    for row, label in named:
        title = row.first["run"]["title"]
        rest = label.removeprefix(title).strip(" []")
        alike.setdefault(rest, []).append(Series(title, row, colours[row.policy]))
    found = [group for rest, series in alike.items() for group in _parts(rest, series)]
    return sorted(found, key=lambda group: -len(group.series))


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
