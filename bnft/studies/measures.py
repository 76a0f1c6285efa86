"""What the claims of a study can be about, and the relations between two rows that they can state."""

from collections.abc import Mapping
from dataclasses import dataclass

CONSTANT = "constant"  # instead of a row: a classifier that always predicts the most frequent class
MARGIN = 3.0  # points; errors that differ by less count as equal

ERROR_RELATIONS = ("lower", "far lower", "same", "nearly the same", "slightly higher", "higher", "much higher")


@dataclass(frozen=True)
class Measure:
    """What a claim is about.

    Attributes:
        text: what it measures, in words.
        relations: the relations that a claim about it can state.
        margin: the margin of the relation `same`, if the claim gives none; None if there is no such relation.
    """

    text: str
    relations: tuple[str, ...]
    margin: float | None = None


ERRORS: Mapping[str, Measure] = {
    "clean_error": Measure("clean error in percent", ERROR_RELATIONS, MARGIN),
    "robust_error": Measure("robust error in percent", ERROR_RELATIONS, MARGIN),
}
"""Measures of single images. These claims are tested on the same images and the same seeds."""

_CONCENTRATION = ("lower in most layers", "higher in most layers")

DISTRIBUTIONS: Mapping[str, Measure] = {
    "mean_abs_gamma": Measure("mean |γ| and the standard deviation of γ, per BN layer", _CONCENTRATION),
    "mean_abs_gamma_minus_1": Measure("mean |γ − 1| and the standard deviation of γ, per BN layer", _CONCENTRATION),
    "mean_abs_beta": Measure("mean |β| and the standard deviation of β, per BN layer", _CONCENTRATION),
    "variance_range": Measure("interquartile range of the running variance, per BN layer", ("collapsed",)),
    "mean_m": Measure(
        "mean of the normalized weight m (Equation 1), averaged over BN layers",
        ("lower", "higher", *_CONCENTRATION),
    ),
    "scores": Measure(
        "Kolmogorov-Smirnov distance between confidences and logits of two rows: closer to `to` than to `than`",
        ("closer",),
    ),
    "pgd_loss": Measure("cross-entropy on PGD examples; margin in percent of `than`", ("same",), 10.0),
}
"""Measures of distributions. These claims are described by numbers. They are not tested for significance."""

MEASURES: Mapping[str, Measure] = {**ERRORS, **DISTRIBUTIONS}
