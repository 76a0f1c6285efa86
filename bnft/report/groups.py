"""Groups of rows that are drawn together: rows of different policies that are otherwise equal."""

from dataclasses import dataclass
from typing import Any

from bnft.common.errors import show
from bnft.evaluation.settings import COMMON
from bnft.report.rows import Row, Study
from bnft.report.style import Look, looks
from bnft.studies.study import Published

NAMES = {"autoattack": "AutoAttack", "quick": "quick attack", "pgd": "PGD"}  # of evaluations, in titles
DETAILED = 6  # rows in detailed figures, if the study highlights none
DRAWN_TOGETHER = 12  # maximum number of rows in one figure


@dataclass(frozen=True)
class Series:
    """A row with its label, its look, and the published errors that it is compared with, if any."""

    label: str
    row: Row
    look: Look
    published: Published | None = None


@dataclass(frozen=True)
class Group:
    """Rows that are drawn together. `title` names what distinguishes them from other groups of the study."""

    title: str
    series: tuple[Series, ...]

    def highlighted(self, study: Study) -> list[Series]:
        """Return the rows that detailed figures show: those of `highlight` in the study, or the first ones."""
        titles = study.definition.highlight if study.definition else []
        chosen = [series for title in titles for series in self.series if series.row.plain_title == title]
        return chosen if len(chosen) > 1 or len(chosen) == len(self.series) else [*self.series[:DETAILED]]


def groups(study: Study) -> list[Group]:
    """Return the study's rows in groups: first the one with the most rows as they are in the study, then by size."""
    named = list(zip(study.rows, study.labels(), strict=True))
    if len(set(map(_title, study.rows))) == 1:  # variants of one row are compared with each other
        keys = [_title(row) if place == 0 else label for place, (row, label) in enumerate(named)]
        colours = looks(keys, study.definition)
        return _parts(
            "",
            [
                Series(label, row, colours[key], study.published(row))
                for (row, label), key in zip(named, keys, strict=True)
            ],
        )
    colours = looks(map(_title, study.rows), study.definition)
    by_evaluation = study.by_evaluation()
    titles = _titles([rows[0].first.evaluation.settings for rows in by_evaluation])
    all_groups = []
    for rows, title in zip(by_evaluation, titles, strict=True):
        all_groups += _of_one_evaluation(study, rows, title, colours)
    return all_groups


def _title(row: Row) -> str:
    """Return what rows of one look share: the title in the study, or the policy."""
    return row.place.title if row.place else row.policy


def _titles(evaluations: list[dict[str, Any]]) -> list[str]:
    """Return a title for each kind of evaluation, which names its differences from the others."""
    titles = []
    for evaluation in evaluations:
        alike = [one for one in evaluations if one["attack"] == evaluation["attack"]]
        parts = [NAMES[evaluation["attack"]]] if len(alike) < len(evaluations) else []
        for key, value in evaluation.items():
            others = evaluations if key in COMMON else alike  # other attacks do not have the other settings
            if value is not None and len({show(one.get(key)) for one in others}) > 1:
                parts.append(f"evaluation.{key}={show(value)}")
        titles.append(", ".join(parts))
    return titles


def _of_one_evaluation(study: Study, rows: tuple[Row, ...], title: str, colours: dict[str, Look]) -> list[Group]:
    """Return a group with one row per title, then groups of the other rows by their overrides.

    The row of a title is one without overrides, and with the most seeds.
    """
    part = Study(rows, study.definition)
    named = sorted(
        zip(part.rows, part.labels(), strict=True), key=lambda one: (bool(one[0].overrides), -len(one[0].seeds))
    )
    main: dict[str, tuple[Row, str]] = {}
    others: dict[str, list[tuple[Row, str]]] = {}
    for row, label in named:
        if _title(row) not in main:
            main[_title(row)] = row, label
        else:
            others.setdefault(_rest(row, label), []).append((row, label))
    position = {id(row): number for number, row in enumerate(part.rows)}
    parts = []
    for alike in ([*main.values()], *others.values()):
        alike.sort(key=lambda one: position[id(one[0])])
        rests = {_rest(row, label) for row, label in alike}
        common = rests.pop() if len(rests) == 1 else ""
        series = [
            Series(
                row.title if common or not _rest(row, label) else label,
                row,
                colours[_title(row)],
                study.published(row),
            )
            for row, label in alike
        ]
        title_parts = [*title.split(", "), *(part for part in common.split(", ") if part not in title)]
        parts += _parts(", ".join(filter(None, title_parts)), series)
    return parts


def _rest(row: Row, label: str) -> str:
    """Return a label without the row's title."""
    return label.removeprefix(row.title).strip(" []")


def _parts(title: str, series: list[Series]) -> list[Group]:
    """Return one group, or several if there are too many rows for one."""
    starts = range(0, len(series), DRAWN_TOGETHER)
    parts = [Group(title, tuple(series[start : start + DRAWN_TOGETHER])) for start in starts]
    if len(parts) == 1:
        return parts
    return [
        Group(", ".join(filter(None, (title, f"part {number} of {len(parts)}"))), part.series)
        for number, part in enumerate(parts, start=1)
    ]
