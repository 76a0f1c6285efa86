"""The claims of a study about distributions, measured on our runs."""

from collections.abc import Callable
from dataclasses import replace

from bnft.report import claims, layer_statements, outcomes, recorded, score_statements
from bnft.report.outcomes import RowScores
from bnft.report.recorded import Moments, RowRecords
from bnft.report.rows import Row, Study
from bnft.report.statement import Statement
from bnft.studies.study import Claim

RecordsOf = Callable[[Row], RowRecords]
ScoresOf = Callable[[Row], RowScores]


def _few(row: Row) -> RowRecords:
    return recorded.read(row, most=2)


def of_study(study: Study, records: RecordsOf = _few, scores: ScoresOf = outcomes.read) -> list[Statement]:
    """Return the claims of a study about distributions; empty if none of them can be measured.

    Args:
        study: the study.
        records: returns the BN records of a row.
        scores: returns the scores of a row.
    """
    if study.definition is None:
        return []
    found = [_measured(claim, study, records, scores) for claim in study.definition.claims if not claim.is_error]
    return found if any(one.verdict != "not measured" for one in found) else []


def _measured(claim: Claim, study: Study, records: RecordsOf, scores: ScoresOf) -> Statement:
    row, than = study.titled(claim.row), study.titled(claim.than)
    claim = replace(claim, published=claims.published(claim, study))
    if claim.measure == "pgd_loss":
        return score_statements.unchanged_loss(claim, row, than)
    if claim.measure == "scores":
        asked = [row, study.titled(claim.to or ""), than]
        rows = [one for one in asked if one is not None]
        alike = len(rows) == len(asked) and len({one.budget for one in rows}) == 1
        return score_statements.resemblance(claim, *(scores(one) if alike and one else None for one in asked))
    ours = records(row) if row is not None else None
    return layer_statements.compared(claim, ours.ends if ours else {}, _others(claim, study, row, than, records))


def _others(claim: Claim, study: Study, row: Row | None, than: Row | None, records: RecordsOf) -> Moments:
    """Return the BN layers to compare with.

    If our row starts from the policy of the other row, those that it started from count for the seeds that the other
    row lacks.
    """
    assert study.definition is not None
    other = study.definition.by_title[claim.than]
    theirs = records(than).ends if than is not None else {}
    if row is None or other.overrides or not str(row.first.run.base).startswith(f"{other.policy}-"):
        return theirs
    return {**records(row).bases, **theirs}
