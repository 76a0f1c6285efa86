"""The paper's claims (abstract and section 3.3), each tested on per-image outcomes of our own runs.

Two rows are compared on the same images and the same seeds; see `bnft.common.paired` for the interval and the p-value,
`bnft.report.verdicts` for what they say of a claim. The p-values of all claims of a study that can be tested are one
family, adjusted by Holm's method.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bnft.common.canonical import canonical
from bnft.common.paired import PairedDifference, holm
from bnft.report.per_image import Errors
from bnft.report.rows import StoredResult, Study
from bnft.report.verdicts import LARGE, MARGIN, Relation, Verdict, bounds, verdict
from bnft.studies import paper

Kind = Literal["robust", "clean"]
CONSTANT = "constant"  # in place of a policy: the classifier that always predicts the most frequent class


@dataclass(frozen=True)
class Claim:
    """That an error of `policy` is in some relation to that of `other`, a policy or CONSTANT.

    `kind` is the error of `policy`, and `other_kind` that of `other` where it is another one.
    """

    text: str
    policy: str
    relation: Relation
    other: str
    kind: Kind = "robust"
    other_kind: Kind | None = None

    @property
    def margin(self) -> float | None:
        """The points within which two rows count as the same, for a claim that they are."""
        return MARGIN if self.relation == "same" else None

    @property
    def paper_difference(self) -> float:
        """The difference in the paper's Table 2, in points."""
        other = self.other_kind or self.kind
        return _published(self.policy, self.kind) - _published(self.other, other)


def _published(policy: str, kind: Kind) -> float:
    if policy == CONSTANT:
        return paper.CONSTANT_ERROR
    row = paper.BY_POLICY[policy]
    return row.robust_error if kind == "robust" else row.clean_error


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
    Claim("Clean error rises slightly with BN STATS (reset)", "bn_stats", "slightly higher", "normal", "clean"),
    Claim(
        "Clean error rises slightly with BN STATS (no reset)", "bn_stats_no_reset", "slightly higher", "normal", "clean"
    ),
    Claim("Clean error rises much with BN PARAMS", "bn_params", "much higher", "normal", "clean"),
    Claim(
        "Clean error is nearly as high for BN ONLY PARAMS",
        "bn_only_params",
        "nearly the same",
        "bn_only_params",
        "clean",
        "robust",
    ),
    Claim("BN only, from scratch, is far from guessing", "bn_only", "far lower", CONSTANT, "clean"),
)


@dataclass(frozen=True)
class Tested:
    """A claim with its verdict.

    Args:
        claim: what is tested.
        verdict: one of `VERDICTS`.
        difference: ours, in points; None where rows are missing, share no seed or were attacked within other budgets.
        adjusted_p: the p-value of the claim, adjusted for the number of claims.
        qualification: what the verdict is restricted to, such as "for these two networks"; empty if nothing.
    """

    claim: Claim
    verdict: Verdict
    difference: PairedDifference | None = None
    adjusted_p: float | None = None
    qualification: str = ""


def tested(study: Study) -> list[Tested]:
    """All claims of which the study has at least one row."""
    present = {row.policy for row in study.rows if row.paper}
    sides = {claim: _sides(claim, study) for claim in CLAIMS if {claim.policy, claim.other} & present}
    found = {claim: _difference(claim, pairs) for claim, pairs in sides.items()}
    differences = {claim: difference for claim, difference in found.items() if difference is not None}
    p_values = [difference.p_value(*bounds(claim.relation)) for claim, difference in differences.items()]
    adjusted = dict(zip(differences, holm(p_values), strict=True))
    return [
        Tested(
            claim,
            verdict(claim.relation, differences[claim].interval, adjusted[claim]),
            differences[claim],
            adjusted[claim],
            _qualification(claim, sides[claim]),
        )
        if claim in differences
        else Tested(claim, "not measured")
        for claim in sides
    ]


Sides = list[tuple[StoredResult, StoredResult]]  # the results of both rows of a claim, by seed


def _sides(claim: Claim, study: Study) -> Sides:
    """What can be compared: the results of equal seeds; none if a row is missing or the budgets differ."""
    first = study.paper_row(claim.policy)
    second = first if claim.other == CONSTANT else study.paper_row(claim.other)
    if first is None or second is None or (claim.kind == "robust" and first.budget != second.budget):
        return []
    theirs = {result.seed: result for result in second.results}
    ours = sorted(first.results, key=lambda result: result.seed)
    return [(result, theirs[result.seed]) for result in ours if result.seed in theirs]


def _difference(claim: Claim, sides: Sides) -> PairedDifference | None:
    """Ours minus theirs, over the seeds and images that both have; None if errors of single images are not known."""
    ours = [_errors(first, claim.kind) for first, _ in sides]
    other: Kind | Literal["constant"] = "constant" if claim.other == CONSTANT else claim.other_kind or claim.kind
    theirs = [_errors(second, other) for _, second in sides]
    known = [errors for errors in (*ours, *theirs) if errors is not None]
    if not sides or len(known) < 2 * len(sides):
        return None
    images = min(map(len, known))
    table = np.array([errors[:images] for errors in known], np.int8)
    return PairedDifference.of(table[: len(sides)] - table[len(sides) :])


def _errors(result: StoredResult, kind: Kind | Literal["constant"]) -> Errors | None:
    found: Errors | None = getattr(result.per_image, kind)
    return found


def _qualification(claim: Claim, sides: Sides) -> str:
    """What a verdict is restricted to: single networks, or a base that several seeds share."""
    if len(sides) == 1:
        return "for this network" if claim.other in (claim.policy, CONSTANT) else "for these two networks"
    for results in zip(*sides, strict=True):
        bases = [canonical(base) for result in results if (base := result.run.identity.get("base"))]
        if len(set(bases)) < len(bases):
            return "for this base"
    return ""


def notes(found: Sequence[Tested]) -> list[str]:
    """How the claims were tested, for a reader of their table."""
    measured = [item for item in found if item.difference is not None]
    if not measured:
        return []
    lines = [
        "In brackets: 95 % intervals of the paired difference, in points, not adjusted. Verdicts at 5 %, adjusted for"
        f" {len(measured)} claims (Holm). The same: within {MARGIN:g} points of each other. Slightly, nearly: by less"
        f" than {LARGE:g} points; much, far: by more."
    ]
    seeds = [item.difference.seeds for item in measured if item.difference is not None]
    if max(seeds) > 1:
        lines.append(
            "Intervals of several seeds cover seeds and images: the widest of a hierarchical bootstrap, Student's t"
            " over seeds and the interval over images. Rows of one seed that start from one base are compared within"
            " the seed; they are no independent repetitions."
        )
    if min(seeds) == 1:
        lines.append("Intervals of one seed cover images alone: another seed can give another verdict.")
    return lines


def verdict_text(item: Tested) -> str:
    """The verdict with what it is restricted to."""
    return f"{item.verdict} {item.qualification}".strip()
