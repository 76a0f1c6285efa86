"""`bnft compare`: a paired test of two rows, with a figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnft.common.errors import InputError, did_you_mean, show
from bnft.common.paired import ALPHA, PairedDifference
from bnft.report import claims, layer_statements, recorded, score_statements
from bnft.report.rows import Row, Study, select
from bnft.report.statement import Statement
from bnft.runs import layout
from bnft.runs.selection import newest
from bnft.runs.store import Store
from bnft.studies.measures import DISTRIBUTIONS, MARGIN, MEASURES
from bnft.studies.study import Claim

ATTACKS = ("autoattack", "quick", "pgd")  # a run that is named is compared with the first of these that it has
MEASURED = tuple(name for name in MEASURES if name != "scores")  # that compares three rows

Named = tuple[str, Row]  # a row and its label


@dataclass(frozen=True)
class Compared:
    """Two rows and their paired difference.

    Attributes:
        first: the first row.
        second: the row that it is compared with.
        measure: what is compared.
        pairs: the results of both rows, by seed, if errors are compared.
        difference: the difference of errors in points; None if it cannot be tested.
        statement: the outcome if distributions are compared.
        reason: why there is no difference.
    """

    first: Named
    second: Named
    measure: str
    pairs: claims.Sides
    difference: PairedDifference | None = None
    statement: Statement | None = None
    reason: str = ""

    @property
    def per_seed(self) -> list[tuple[int, PairedDifference]]:
        """The difference of each seed alone."""
        each = [(pair[0].seed, claims.difference([pair], self.measure, self.measure)) for pair in self.pairs]
        return [(seed, found) for seed, found in each if found is not None]

    @property
    def verdict(self) -> str:
        """What the difference shows, in words."""
        if self.difference is None:
            return f"cannot be tested: {self.reason}"
        low, high = self.difference.interval
        if self.difference.p_value(0.0) < ALPHA and not low <= 0 <= high:
            return f"{self.first[0]} is {'lower' if self.difference.value < 0 else 'higher'}"
        return f"equal within {MARGIN:g} points" if low > -MARGIN and high < MARGIN else "no difference is shown"

    def fields(self) -> dict[str, Any]:
        """Return the comparison as plain data."""
        found, stated = self.difference, self.statement
        return {
            "first": self.first[0],
            "second": self.second[0],
            "measure": self.measure,
            "difference": found.value if found else stated.difference if stated else None,
            "interval": list(found.interval)
            if found
            else list(stated.interval)
            if stated and stated.interval
            else None,
            "p": found.p_value(0.0) if found else None,
            "seeds": found.seeds if found else stated.seeds if stated else 0,
            "images": found.images if found else stated.images if stated else None,
            "verdict": self.verdict if stated is None else stated.measured,
        }


def compare(store: Store, first: str, second: str, measure: str = "robust_error", sweep: str = "") -> list[Compared]:
    """Compare two rows, two runs, or the rows of two sweeps that have the same title.

    Args:
        store: the store.
        first: the title of a row, or the name of a run or a sweep.
        second: the one to compare it with.
        measure: one of MEASURED.
        sweep: the sweep that has the rows; the newest if "".

    Raises:
        InputError: if a name is not known, or the measure does not exist.
    """
    if measure not in MEASURED:
        raise InputError(f"--measure {measure}: must be one of {', '.join(MEASURED)}")
    ours, theirs = (_found(store, name, sweep) for name in (first, second))
    if len(ours) == len(theirs) == 1:
        return [_compared(ours[0], theirs[0], measure)]
    by_label = dict(theirs)
    common = [(name, row) for name, row in ours if name in by_label]
    if not common:
        raise InputError(f"{first}, {second}: must have rows of the same title; compare rows by title instead")
    pairs = [((f"{name} ({first})", row), (f"{name} ({second})", by_label[name])) for name, row in common]
    return [_compared(one, other, measure) for one, other in pairs]


def _found(store: Store, name: str, sweep: str) -> list[Named]:
    """Return the rows that a name means."""
    if store.has_sweep(name):
        return _labelled(select(store, [name]).studies())
    if store.run(name).evaluations():
        rows = [row for study in select(store, [name]).studies() for row in study.rows]
        return [(name, min(rows, key=lambda row: ATTACKS.index(row.attack)))]
    chosen = sweep or newest(store)
    if chosen is None:
        raise InputError(f"{name}: must be a run or a sweep in {store.root}, which has no sweep with rows")
    rows_of_sweep = _labelled(select(store, [chosen]).studies())
    wanted = name.casefold()
    exact = [(label, row) for label, row in rows_of_sweep if wanted == label.casefold()]
    titled = [(label, row) for label, row in rows_of_sweep if wanted == row.plain_title.casefold()]
    found = exact or titled
    if len(found) == 1:
        return found
    labels = [label for label, _ in found or rows_of_sweep]
    hint = "" if found else did_you_mean(name, labels)
    raise InputError(f"{show(name)}: must be one of the rows of sweep {chosen}{hint}: {', '.join(labels)}")


def _labelled(studies: Sequence[Study]) -> list[Named]:
    return [pair for study in studies for pair in zip(study.labels(), study.rows, strict=True)]


def _compared(first: Named, second: Named, measure: str) -> Compared:
    if measure in DISTRIBUTIONS:
        plain = first[1].plain_title, second[1].plain_title  # the attack on images says nothing about BN layers
        if plain[0] != plain[1]:
            first, second = (plain[0], first[1]), (plain[1], second[1])
        return Compared(first, second, measure, [], statement=_stated(first, second, measure))
    pairs = claims.sides(first[1], second[1], measure == "robust_error")
    found = claims.difference(pairs, measure, measure)
    return Compared(first, second, measure, pairs, found, reason="" if found else _reason(first[1], second[1], pairs))


def _stated(first: Named, second: Named, measure: str) -> Statement:
    claim = Claim(f"{first[0]} and {second[0]}", first[0], MEASURES[measure].relations[0], second[0], measure)
    if measure == "pgd_loss":
        return score_statements.unchanged_loss(claim, first[1], second[1])
    ours, theirs = (recorded.read(row, most=2).ends for _, row in (first, second))
    return layer_statements.compared(claim, ours, theirs)


def _reason(first: Row, second: Row, pairs: claims.Sides) -> str:
    if pairs:
        return "the results have no errors per image"
    if first.attack != second.attack:
        return f"the attacks differ ({first.attack} and {second.attack})"
    if first.budget != second.budget:
        return "the budgets differ ({} eps {} and {} eps {})".format(*map(show, (*first.budget, *second.budget)))
    if not set(first.seeds) & set(second.seeds):
        return f"they share no seed ({first.seeds} and {second.seeds})"
    return "the test images differ"


def text(one: Compared) -> str:
    """Return a comparison as lines of text."""
    title = f"{one.first[0]} minus {one.second[0]}: {MEASURES[one.measure].text}"
    if one.statement is not None:
        return f"{title}\n    {one.statement.measured}"
    found = one.difference
    if found is None:
        return f"{title}\n    {one.verdict}"
    low, high = found.interval
    lines = [
        title,
        f"    {found.value:+.1f} points [{low:+.1f}, {high:+.1f}], p = {found.p_value(0.0):.2g}: {one.verdict}",
        f"    {found.images} images, {found.seeds} seed{'s' if found.seeds > 1 else ''};"
        f" {_rate(one.first[1], one.measure)} and {_rate(one.second[1], one.measure)}; {_counts(one)}",
    ]
    if found.seeds == 1:
        lines.append("    The interval of one seed covers images only. Another seed can give another difference.")
    return "\n".join(lines)


def _rate(row: Row, measure: str) -> str:
    return f"{(row.clean if measure == 'clean_error' else row.robust).error:.1f} %"


def _counts(one: Compared) -> str:
    """Return how many images are errors of one row only, over all seeds."""
    name = one.measure.removesuffix("_error")
    errors = [(getattr(a.per_image, name), getattr(b.per_image, name)) for a, b in one.pairs]
    cut = [(a[: len(b)], b[: len(a)]) for a, b in errors]
    ours, theirs = (int(sum(np.sum(x & ~y) for x, y in sides)) for sides in (cut, [(b, a) for a, b in cut]))
    return f"errors of the first only: {ours}, of the second only: {theirs}"


def file_of(store: Store, first: str, second: str, measure: str) -> Path:
    """Return where the figure of a comparison is written, without a suffix."""
    name = "".join(
        letter if letter.isalnum() or letter in "._+-" else "_" for letter in f"{first}--{second}--{measure}"
    )
    return store.root / layout.REPORTS / "compare" / name[:150]
