"""The claims of a study about errors, tested on the per-image outcomes of our own runs.

A claim compares two rows on the same images and the same seeds. `bnft.common.paired` computes the interval and the
p-value, and `bnft.report.verdicts` derives the verdict from them. The p-values of all claims of a study that can be
tested are adjusted together by Holm's method.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnft.common.canonical import canonical
from bnft.common.paired import PairedDifference, holm
from bnft.evaluation.settings import by
from bnft.report.per_image import Errors
from bnft.report.rows import Row, Study
from bnft.report.stored import StoredResult
from bnft.report.verdicts import LARGE, Verdict, bounds, verdict
from bnft.studies.measures import CONSTANT
from bnft.studies.study import Claim


@dataclass(frozen=True)
class Tested:
    """A claim with its verdict.

    Attributes:
        claim: the tested claim.
        verdict: one of `VERDICTS`.
        difference: our difference, in points. None if a row is missing, or if the rows share no seed or were attacked
            within different budgets.
        adjusted_p: the p-value of the claim, adjusted for the number of claims.
        qualification: what the verdict is restricted to, such as "for these two networks"; empty if nothing.
    """

    claim: Claim
    verdict: Verdict
    difference: PairedDifference | None = None
    adjusted_p: float | None = None
    qualification: str = ""


def tested(study: Study) -> list[Tested]:
    """Test all claims about errors for which the study has at least one row."""
    if study.definition is None:
        return []
    present = {row.place.title for row in study.rows if row.place}
    claims = [claim for claim in study.definition.claims if claim.is_error and present & {claim.row, claim.than}]
    every = [_sides(claim, study) for claim in claims]
    differences = [_difference(claim, pairs) for claim, pairs in zip(claims, every, strict=True)]
    p_values = [
        found.p_value(*bounds(claim)) for claim, found in zip(claims, differences, strict=True) if found is not None
    ]
    adjusted = iter(holm(p_values))
    items = []
    for claim, pairs, found in zip(claims, every, differences, strict=True):
        if found is None:
            items.append(Tested(claim, "not measured"))
            continue
        p_value = next(adjusted)
        qualification = " ".join(filter(None, (_qualification(claim, pairs), _attack(claim, study))))
        items.append(Tested(claim, verdict(claim, found.interval, p_value), found, p_value, qualification))
    return items


def published(claim: Claim, study: Study) -> float | None:
    """Return the published difference that a claim is about, in points or in the unit of its measure.

    It is None if there is none, or if our numbers are not compared with it: those of rows with changed values, and
    robust errors that are not by AutoAttack.
    """
    if _attack(claim, study) or any(row is not None and row.overrides for row in map(study.titled, claim.titles)):
        return None
    if claim.published is not None or study.definition is None or not claim.is_error:
        return claim.published
    ours = _published(claim.row, claim.measure, study)
    theirs = _published(claim.than, claim.other_measure, study)
    return None if ours is None or theirs is None else ours - theirs


def _published(title: str, measure: str, study: Study) -> float | None:
    assert study.definition is not None
    if title == CONSTANT:
        return study.definition.setting.constant_error if study.definition.setting else None
    row = study.definition.by_title[title].published
    return None if row is None else float(getattr(row, measure))


Sides = list[tuple[StoredResult, StoredResult]]  # the results of both rows of a claim, by seed


def _rows(claim: Claim, study: Study) -> tuple[Row | None, Row | None]:
    first = study.titled(claim.row)
    return first, first if claim.than == CONSTANT else study.titled(claim.than)


def sides(first: Row, second: Row, robust: bool) -> Sides:
    """Return the results of equal seeds and test images of two rows.

    There are none if robust errors are compared, and the rows were attacked in different ways. Budgets may differ if
    the study is about this difference.
    """
    if robust and _how(first) != _how(second):
        return []
    theirs = {result.seed: result for result in second.results}
    ours = sorted(first.results, key=lambda result: result.seed)
    pairs = [(result, theirs[result.seed]) for result in ours if result.seed in theirs]
    return [pair for pair in pairs if len({one.run.identity["data"]["sha256"] for one in pair}) == 1]


def _sides(claim: Claim, study: Study) -> Sides:
    first, second = _rows(claim, study)
    return sides(first, second, "robust_error" in (claim.measure, claim.other_measure)) if first and second else []


def _how(row: Row) -> tuple[object, ...]:
    """Return how a row was attacked."""
    return row.attack, None if row.sets_budget else row.budget


def _attack(claim: Claim, study: Study) -> str:
    """Return the label of an attack weaker than AutoAttack, if the robust error of a claim is by it."""
    row, _ = _rows(claim, study)
    return by(row.attack).strip() if row is not None and "robust_error" in (claim.measure, claim.other_measure) else ""


def difference(pairs: Sides, measure: str, other: str) -> PairedDifference | None:
    """Return the difference over the seeds and images that two rows have; None if per-image errors are not known.

    Args:
        pairs: the results of both rows, by seed.
        measure: the error of the first row.
        other: that of the second one, or `constant`.
    """
    ours = [_errors(first, measure) for first, _ in pairs]
    theirs = [_errors(second, other) for _, second in pairs]
    known = [errors for errors in (*ours, *theirs) if errors is not None]
    if not pairs or len(known) < 2 * len(pairs):
        return None
    images = min(map(len, known))
    table = np.array([errors[:images] for errors in known], np.int8)
    return PairedDifference.of(table[: len(pairs)] - table[len(pairs) :])


def _difference(claim: Claim, pairs: Sides) -> PairedDifference | None:
    return difference(pairs, claim.measure, CONSTANT if claim.than == CONSTANT else claim.other_measure)


def _errors(result: StoredResult, measure: str) -> Errors | None:
    errors: Errors | None = getattr(result.per_image, measure.removesuffix("_error"))
    return errors


def _qualification(claim: Claim, pairs: Sides) -> str:
    """Return what a verdict is restricted to: single networks, or a base that several seeds share."""
    if len(pairs) == 1:
        return "for this network" if claim.than in (claim.row, CONSTANT) else "for these two networks"
    for results in zip(*pairs, strict=True):
        bases = [canonical(base) for result in results if (base := result.run.identity.get("base"))]
        if len(set(bases)) < len(bases):
            return "for this base"
    return ""


def notes(items: Sequence[Tested]) -> list[str]:
    """Return the notes below the table of claims, which explain how they were tested."""
    measured = [item for item in items if item.difference is not None]
    if not measured:
        return []
    adjusted = f", adjusted for {len(measured)} claims (Holm)" if len(measured) > 1 else ""
    lines = [
        "Brackets contain 95 % intervals of the paired difference in percentage points, not adjusted for the number of"
        f" claims. Verdicts are at the 5 % level{adjusted}.{_equal(measured)}"
        f" Slightly and near mean by less than {LARGE:g} points, much and far by more."
    ]
    seeds = [item.difference.seeds for item in measured if item.difference is not None]
    if max(seeds) > 1:
        lines.append(
            "Intervals of several seeds cover seeds and images. Each is the widest of a hierarchical bootstrap,"
            " Student's t over seeds and the interval over images. Rows of one seed that start from the same base are"
            " compared within this seed, because they are not independent."
        )
    if min(seeds) == 1:
        lines.append("Intervals of one seed cover images only. Another seed can give another verdict.")
    return lines


def _equal(measured: Sequence[Tested]) -> str:
    """Return what counts as equal, if a claim is about it."""
    margins = sorted({item.claim.equal_below for item in measured if item.claim.equal_below is not None})
    if not margins:
        return ""
    return f" Errors that differ by less than {' or '.join(f'{margin:g}' for margin in margins)} points count as equal."


def verdict_text(item: Tested) -> str:
    """Return the verdict with its qualification."""
    return f"{item.verdict} {item.qualification}".strip()
