"""The paper's claims (abstract and section 3.3), tested on the per-image outcomes of our own runs.

A claim compares two rows on the same images and the same seeds. `bnft.common.paired` computes the interval and the
p-value, and `bnft.report.verdicts` derives the verdict from them. The p-values of all claims of a study that can be
tested are adjusted together by Holm's method.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bnft.common.canonical import canonical
from bnft.common.paired import PairedDifference, holm
from bnft.report.per_image import Errors
from bnft.report.rows import Study
from bnft.report.stored import StoredResult
from bnft.report.verdicts import LARGE, MARGIN, Relation, Verdict, bounds, verdict
from bnft.studies import paper

Kind = Literal["robust", "clean"]
CONSTANT = "constant"  # instead of a policy: a classifier that always predicts the most frequent class


@dataclass(frozen=True)
class Claim:
    """A claim about the errors of two policies.

    Attributes:
        text: the claim in words.
        policy: the policy that the claim is about.
        relation: how its error relates to the error of `other`.
        other: the policy to compare with, or CONSTANT.
        kind: which error of `policy` is compared.
        other_kind: which error of `other` is compared; None for the same kind.
    """

    text: str
    policy: str
    relation: Relation
    other: str
    kind: Kind = "robust"
    other_kind: Kind | None = None

    @property
    def margin(self) -> float | None:
        """The difference in points below which errors count as equal; None unless the claim is that they are equal."""
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
    Claim("BN STATS (reset) does not change robust error", "bn_stats", "same", "normal"),
    Claim("BN STATS (no reset) does not change robust error", "bn_stats_no_reset", "same", "normal"),
    Claim("BN PARAMS lowers robust error", "bn_params", "lower", "normal"),
    Claim("BN PARAMS is less robust than ADV", "bn_params", "higher", "adv"),
    Claim("BN PARAMS is more robust than BN ONLY PARAMS", "bn_params", "lower", "bn_only_params"),
    Claim("ADV +BN ONLY is as robust as NORMAL +BN ONLY", "bn_only", "same", "normal_bn_only"),
    # BN PARAMS uses fragile features, ADV +BN ONLY random ones
    Claim("BN PARAMS is more robust than ADV +BN ONLY", "bn_params", "lower", "bn_only"),
    Claim("Logits and first conv add little to BN PARAMS", "bn_params_logits_conv1", "same", "bn_params"),
    Claim("Logits and first conv add little to ADV +BN ONLY", "bn_only_logits_conv1", "same", "bn_only"),
    Claim("Clean error rises slightly with BN STATS (reset)", "bn_stats", "slightly higher", "normal", "clean"),
    Claim(
        "Clean error rises slightly with BN STATS (no reset)", "bn_stats_no_reset", "slightly higher", "normal", "clean"
    ),
    Claim("Clean error rises much with BN PARAMS", "bn_params", "much higher", "normal", "clean"),
    Claim(
        "Clean error of BN ONLY PARAMS is near robust error",
        "bn_only_params",
        "nearly the same",
        "bn_only_params",
        "clean",
        "robust",
    ),
    Claim("Clean error of ADV +BN ONLY is far below guessing", "bn_only", "far lower", CONSTANT, "clean"),
)


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
    """Test all claims for which the study has at least one row."""
    present = {row.policy for row in study.rows if row.paper}
    sides = {claim: _sides(claim, study) for claim in CLAIMS if {claim.policy, claim.other} & present}
    computed = {claim: _difference(claim, pairs) for claim, pairs in sides.items()}
    differences = {claim: difference for claim, difference in computed.items() if difference is not None}
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
    """Return the results of equal seeds; none if a row is missing or the budgets differ."""
    first = study.paper_row(claim.policy)
    second = first if claim.other == CONSTANT else study.paper_row(claim.other)
    if first is None or second is None or (claim.kind == "robust" and first.budget != second.budget):
        return []
    theirs = {result.seed: result for result in second.results}
    ours = sorted(first.results, key=lambda result: result.seed)
    return [(result, theirs[result.seed]) for result in ours if result.seed in theirs]


def _difference(claim: Claim, sides: Sides) -> PairedDifference | None:
    """Return the difference over the seeds and images that both rows have; None if per-image errors are not known."""
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
    errors: Errors | None = getattr(result.per_image, kind)
    return errors


def _qualification(claim: Claim, sides: Sides) -> str:
    """Return what a verdict is restricted to: single networks, or a base that several seeds share."""
    if len(sides) == 1:
        return "for this network" if claim.other in (claim.policy, CONSTANT) else "for these two networks"
    for results in zip(*sides, strict=True):
        bases = [canonical(base) for result in results if (base := result.run.identity.get("base"))]
        if len(set(bases)) < len(bases):
            return "for this base"
    return ""


def notes(items: Sequence[Tested]) -> list[str]:
    """Return the notes below the table of claims, which explain how they were tested."""
    measured = [item for item in items if item.difference is not None]
    if not measured:
        return []
    lines = [
        "Brackets contain 95 % intervals of the paired difference in percentage points, not adjusted for the number of"
        f" claims. Verdicts are at the 5 % level, adjusted for {len(measured)} claims (Holm). Errors that differ by"
        f" less than {MARGIN:g} points count as equal. Slightly and near mean by less than {LARGE:g} points, much"
        " and far by more."
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


def verdict_text(item: Tested) -> str:
    """Return the verdict with its qualification."""
    return f"{item.verdict} {item.qualification}".strip()
