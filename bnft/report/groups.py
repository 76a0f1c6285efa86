"""Which rows are drawn together: those of different policies that are alike in all else, and not too many."""

from dataclasses import dataclass
from typing import Any

from bnft.common.errors import show
from bnft.report.rows import Row, Study
from bnft.report.style import Look, looks
from bnft.studies.paper import PaperRow

DRAWN_TOGETHER = 12  # rows in one figure, at most


@dataclass(frozen=True)
class Series:
    """One row, with its name and its look."""

    label: str
    row: Row
    look: Look
    published: PaperRow | None = None  # beside which it is set


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
        return _parts(
            "",
            [
                Series(label, row, colours[key], study.published(row))
                for (row, label), key in zip(named, keys, strict=True)
            ],
        )
    colours = looks(row.policy for row, _ in named)
    alike = study.by_evaluation()
    titles = _titles([rows[0].first.evaluation.settings for rows in alike])
    found = []
    for rows, title in zip(alike, titles, strict=True):
        found += _of_one_evaluation(study, rows, title, colours)
    return found


def _titles(evaluations: list[dict[str, Any]]) -> list[str]:
    """What tells each way of evaluating from the others."""
    keys = [key for key in evaluations[0] if len({show(one.get(key)) for one in evaluations}) > 1]
    told = [[f"evaluation.{key}={show(one[key])}" for key in keys if one.get(key) is not None] for one in evaluations]
    return [", ".join(parts) for parts in told]


def _of_one_evaluation(study: Study, rows: tuple[Row, ...], title: str, colours: dict[str, Look]) -> list[Group]:
    """First a row of each policy, without overrides and with the most seeds; then the others, by what tells them."""
    part = Study(rows)
    named = sorted(
        zip(part.rows, part.labels(), strict=True), key=lambda one: (bool(one[0].overrides), -len(one[0].seeds))
    )
    main: dict[str, tuple[Row, str]] = {}
    others: dict[str, list[tuple[Row, str]]] = {}
    for row, label in named:
        if row.policy not in main:
            main[row.policy] = row, label
        else:
            others.setdefault(_rest(row, label), []).append((row, label))
    position = {id(row): number for number, row in enumerate(part.rows)}
    found = []
    for alike in ([*main.values()], *others.values()):
        alike.sort(key=lambda one: position[id(one[0])])
        rests = {_rest(row, label) for row, label in alike}
        common = rests.pop() if len(rests) == 1 else ""
        series = [
            Series(
                row.first.run.title if common or not _rest(row, label) else label,
                row,
                colours[row.policy],
                study.published(row),
            )
            for row, label in alike
        ]
        told = [*title.split(", "), *(part for part in common.split(", ") if part not in title)]
        found += _parts(", ".join(filter(None, told)), series)
    return found


def _rest(row: Row, label: str) -> str:
    """What a label says beside the row's title."""
    return label.removeprefix(row.first.run.title).strip(" []")


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
