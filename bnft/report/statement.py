"""The outcome of a claim about distributions, and the thresholds behind its verdict.

Papers give no thresholds for such claims. Ours are the constants below, and "most layers" means more than half of them.
With several seeds, each layer counts with its mean over the seeds that both rows have, or over all seeds if they share
none. A claim about an average over layers holds only if the interval of the average leaves out zero. The verdicts
describe the given runs. They are not tests of significance.
"""

from dataclasses import dataclass
from typing import Any, Literal

from bnft.studies.study import Claim

COLLAPSED = 0.5  # a spread below this fraction of the other row's is a collapse

Verdict = Literal["holds", "holds in part", "does not hold", "not enough data", "not measured"]


@dataclass(frozen=True)
class Statement:
    """A claim about distributions, and whether it holds for our runs.

    Attributes:
        claim: the claim.
        measured: our measurements in words.
        verdict: whether it holds.
        measure: what `difference` is, with its unit.
        difference: our main number, of which zero means no difference.
        interval: its 95 % interval over layers, if it is an average over layers.
        margin: up to which difference values count as equal, in percent; None if the claim is not one of equality.
        images: the number of images; None for a claim about BN layers.
        details: a dict per layer with `layer` and our numbers. For histograms of scores, a dict per histogram with
            `quantity` and `kind`.
        true: the number of layers (or histograms) for which the claim is true.
        of: the number of all layers (or histograms).
        seeds: the number of seeds.
    """

    claim: Claim
    measured: str
    verdict: Verdict
    measure: str
    difference: float | None = None
    interval: tuple[float, float] | None = None
    margin: float | None = None
    images: int | None = None
    details: tuple[dict[str, Any], ...] = ()
    true: int | None = None
    of: int | None = None
    seeds: int = 0

    @property
    def text(self) -> str:
        return self.claim.text

    @property
    def published(self) -> float | None:
        return self.claim.published


def not_measured(claim: Claim, measure: str, rows: str, what: str = "records of BN layers") -> Statement:
    return Statement(claim, f"requires {what} of {rows}", "not measured", measure)
