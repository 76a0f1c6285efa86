"""The paper's claims (abstract and section 3.3), each tested on per-image outcomes of our own runs.

Two rows are compared on the same images. A claim that one robust error is lower or higher holds if the paired 95 %
interval of the difference lies on that side of zero. A claim that nothing changes holds if the interval lies within
10 points of zero, and does not hold if it lies wholly outside. Otherwise there is not enough data.
"""

from dataclasses import dataclass
from typing import Literal

from bnft.common.intervals import paired
from bnft.report.rows import Study
from bnft.studies import paper

SAME = 10.0  # percentage points

Verdict = Literal["holds", "does not hold", "not enough data"]


@dataclass(frozen=True)
class Claim:
    """That the robust error of `policy` is lower than, higher than, or the same as that of `other`."""

    text: str
    policy: str
    relation: Literal["lower", "higher", "same"]
    other: str


CLAIMS = (
    Claim("Adversarial training lowers robust error", "adv", "lower", "normal"),
    Claim("BN statistics alone do not (reset)", "bn_stats", "same", "normal"),
    Claim("BN statistics alone do not (no reset)", "bn_stats_no_reset", "same", "normal"),
    Claim("BN parameters with statistics do", "bn_params", "lower", "normal"),
    Claim("... without matching adversarial training", "bn_params", "higher", "adv"),
    Claim("... and more than BN parameters alone", "bn_params", "lower", "bn_only_params"),
    Claim("BN only, from scratch, does not", "bn_only", "same", "normal_bn_only"),
    Claim("Fragile features give more than random ones", "bn_params", "lower", "bn_only"),
    Claim("Logits and first conv add little to BN PARAMS", "bn_params_logits_conv1", "same", "bn_params"),
    Claim("Logits and first conv add little from scratch", "bn_only_logits_conv1", "same", "bn_only"),
)


@dataclass(frozen=True)
class Tested:
    """A claim with its verdict; `difference` is ours, in points, with its 95 % interval.

    There is none unless both rows are there and were attacked within the same budget.
    """

    claim: Claim
    verdict: Verdict
    difference: tuple[float, float, float] | None
    images: int

    @property
    def paper_difference(self) -> float:
        rows = paper.BY_POLICY
        return rows[self.claim.policy].robust_error - rows[self.claim.other].robust_error


def test(claim: Claim, study: Study) -> Tested:
    """Test one claim on the study's paper rows."""
    first, second = study.paper_row(claim.policy), study.paper_row(claim.other)
    if first is None or second is None or first.budget != second.budget:
        return Tested(claim, "not enough data", None, 0)
    ours, theirs = first.robust_errors(), second.robust_errors()
    images = min(len(ours), len(theirs))
    difference = paired((ours[:images] - theirs[:images]).tolist())
    return Tested(claim, verdict(claim.relation, *difference[1:]), difference, images)


def verdict(relation: str, low: float, high: float) -> Verdict:
    """What a paired interval from `low` to `high`, in points, says of a claim."""
    if relation == "same":
        if low >= -SAME and high <= SAME:
            return "holds"
        return "does not hold" if high < -SAME or low > SAME else "not enough data"
    if relation == "higher":
        low, high = -high, -low
    if high < 0:
        return "holds"
    return "does not hold" if low > 0 else "not enough data"


def tested(study: Study) -> list[Tested]:
    """All claims of which the study has at least one row."""
    present = {row.policy for row in study.rows if row.paper}
    return [test(claim, study) for claim in CLAIMS if {claim.policy, claim.other} & present]
