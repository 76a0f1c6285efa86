"""From an interval and a p-value to what is said of a claim, in one of five strings."""

from math import inf
from typing import Literal, get_args

from bnft.common.paired import ALPHA

Verdict = Literal["holds", "does not hold", "differs by less than the margin", "not enough data", "not measured"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Relation = Literal["lower", "far lower", "same", "nearly the same", "slightly higher", "higher", "much higher"]

MARGIN = 3.0  # points; what differs by less counts as the same
LARGE = 10.0  # points; what the paper calls slight is below it, what it calls much or far is above it

RANGES: dict[Relation, tuple[float, float]] = {  # within which a claim is true of a difference
    "lower": (-inf, 0.0),
    "far lower": (-inf, -LARGE),
    "same": (-MARGIN, MARGIN),
    "nearly the same": (-LARGE, LARGE),
    "slightly higher": (0.0, LARGE),
    "higher": (0.0, inf),
    "much higher": (LARGE, inf),
}


def bounds(relation: Relation) -> list[float]:
    """The differences at which a claim turns from true to false; a verdict needs an interval that has none of them."""
    return [bound for bound in RANGES[relation] if abs(bound) < inf]


def verdict(relation: Relation, interval: tuple[float, float], p_value: float) -> Verdict:
    """What an interval of a difference, in points, says of a claim.

    A claim holds if the interval lies within the range in which it is true, and does not hold if it lies outside of it.
    Either takes a `p_value`, that of `bounds` adjusted for the number of claims, below 5 %. Where two rows are claimed
    to be the same and the interval leaves out zero, they differ by less than the margin. The interval that decides this
    is the unadjusted one, which is shown.
    """
    (low, high), (least, most) = interval, RANGES[relation]
    if p_value >= ALPHA or not (high < least or low > most or least < low <= high < most):
        return "not enough data"
    if not least < low <= high < most:
        return "does not hold"
    return "holds" if relation != "same" or low <= 0 <= high else "differs by less than the margin"
