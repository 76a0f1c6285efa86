"""Claims about the scores of images: confidences and logits, and the cross-entropy on PGD examples."""

import math
from statistics import fmean
from typing import Any

from bnft.report.outcomes import QUANTITIES, Kind, RowScores, distance
from bnft.report.rows import Row
from bnft.report.statement import Statement, Verdict, not_measured
from bnft.studies.study import Claim


def resemblance(claim: Claim, ours: RowScores | None, near: RowScores | None, far: RowScores | None) -> Statement:
    """Compare the distances of confidences and logits to those of two other rows.

    Args:
        claim: the claim.
        ours: the scores of its row.
        near: those of `to`.
        far: those of `than`. All are attacked within one budget; None if they are not, or have no scores.
    """
    measure = f"Kolmogorov-Smirnov distance to {claim.to} minus that to {claim.than}, mean over histograms"
    details: list[dict[str, Any]] = []
    if ours is not None and near is not None and far is not None:
        kinds: tuple[Kind, ...] = ("clean", "adversarial")
        for quantity, kind in ((quantity, kind) for quantity in QUANTITIES for kind in kinds):
            values = ours.values(quantity, kind)
            to, than = (distance(values, row.values(quantity, kind)) for row in (near, far))
            if to is not None and than is not None:
                details.append({"quantity": quantity, "kind": kind, "to": to, "than": than})
    if ours is None or near is None or far is None or not details:
        whose = f"{claim.row}, {claim.to} and {claim.than}, attacked within one budget"
        return not_measured(claim, measure, whose, "scores of images")
    true = sum(line["to"] < line["than"] for line in details)
    distances = ", ".join(
        f"{line['to']:.2f} and {line['than']:.2f} ({line['quantity']}s, {line['kind']} images)" for line in details
    )
    told = (
        f"Kolmogorov-Smirnov distances to {claim.to} and to {claim.than}: {distances};"
        f" {claim.row} is closer to {claim.to} in {true} of {len(details)} cases"
    )
    verdict: Verdict = "holds" if true == len(details) else "holds in part" if true else "does not hold"
    return Statement(
        claim,
        told,
        verdict,
        measure,
        fmean(line["to"] - line["than"] for line in details),
        images=min(len(one.clean) for row in (ours, near, far) for one in row.scores.values()),
        details=tuple(details),
        true=true,
        of=len(details),
        seeds=len(ours.scores),
    )


def unchanged_loss(claim: Claim, ours: Row | None, theirs: Row | None) -> Statement:
    """Compare the cross-entropy on PGD examples. It hardly changes if it changes by at most the margin, in percent."""
    measure, whose = "change of the cross-entropy, %", f"{claim.row} and {claim.than}"
    if ours is None or theirs is None or ours.budget != theirs.budget:
        return not_measured(claim, measure, f"{whose}, attacked within one budget", "results")
    after, start = pgd_losses(ours), pgd_losses(theirs)
    common = after.keys() & start.keys()
    if not after or not start:
        return not_measured(claim, measure, whose, "cross-entropy on PGD examples")
    loss, base = (fmean(x[seed] for seed in common or x) for x in (after, start))
    change = 100 * (loss - base) / base if base else math.inf
    told = f"{base:.3f} for {claim.than}, {loss:.3f} for {claim.row}, a change of {change:+.1f} %"
    margin = claim.equal_below
    assert margin is not None
    return Statement(
        claim,
        told,
        "holds" if abs(change) <= margin else "does not hold",
        measure,
        change if math.isfinite(change) else None,
        margin=margin,
        images=min(ours.robust.images, theirs.robust.images),
        details=({"before": base, "after": loss},),
        seeds=len(common) or len(after),
    )


def pgd_losses(row: Row) -> dict[int, float]:
    """Return the mean cross-entropy on PGD examples by seed, for the results that have it."""
    kept = {stored.seed: stored.result.pgd_loss for stored in row.results}
    return {seed: loss for seed, loss in kept.items() if loss is not None and math.isfinite(loss)}
