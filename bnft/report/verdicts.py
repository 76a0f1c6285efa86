"""The verdict on a claim, which follows from an interval and a p-value."""

from math import inf
from typing import Literal, get_args

from bnft.common.paired import ALPHA
from bnft.studies.study import Claim

Verdict = Literal["holds", "does not hold", "differs by less than the margin", "not enough data", "not measured"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

LARGE = 10.0  # points; a slight difference is smaller, a large one (much, far) is larger

RANGES = {  # the differences for which a claim is true; that of `same` is given by the margin
    "lower": (-inf, 0.0),
    "far lower": (-inf, -LARGE),
    "nearly the same": (-LARGE, LARGE),
    "slightly higher": (0.0, LARGE),
    "higher": (0.0, inf),
    "much higher": (LARGE, inf),
}


def true_range(claim: Claim) -> tuple[float, float]:
    """Return the differences for which a claim about errors is true, in points."""
    margin = claim.equal_below
    return RANGES[claim.relation] if margin is None else (-margin, margin)


def bounds(claim: Claim) -> list[float]:
    """Return the differences at which a claim turns from true to false. A verdict needs an interval without them."""
    return [bound for bound in true_range(claim) if abs(bound) < inf]


def verdict(claim: Claim, interval: tuple[float, float], p_value: float) -> Verdict:
    """Return the verdict on a claim.

    A claim holds if the interval lies within the range in which the claim is true. It does not hold if the interval
    lies outside this range. Both require a p-value below 5 %. If two rows are claimed to be the same, and the interval
    lies within the margin but leaves out zero, they differ by less than the margin.

    Args:
        claim: the claim.
        interval: the interval of the difference in points, not adjusted.
        p_value: the p-value for `bounds`, adjusted for the number of claims.
    """
    (low, high), (least, most) = interval, true_range(claim)
    if p_value >= ALPHA or not (high < least or low > most or least < low <= high < most):
        return "not enough data"
    if not least < low <= high < most:
        return "does not hold"
    return "holds" if claim.relation != "same" or low <= 0 <= high else "differs by less than the margin"
