"""Differences of two errors on the same images and the same seeds: intervals over both, p-values, and Holm's method.

A p-value is that of the interval turned round: the smallest alpha for which the interval at level 1 - alpha leaves out
the hypothesis. So p < 0.05 and a 95 % interval that leaves the hypothesis out are the same statement.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bnft.common.intervals import adjusted_wald

ALPHA = 0.05  # intervals are at 1 - ALPHA
RESAMPLES = 2000  # of a bootstrap


class Estimate(Protocol):
    """A 95 % interval for a mean, and the p-values that fit it."""

    def interval(self) -> tuple[float, float]: ...

    def p_value(self, hypothesis: float) -> float: ...


@dataclass(frozen=True)
class Wald:
    """A mean that is normally distributed with a known standard error."""

    mean: float
    error: float

    def interval(self) -> tuple[float, float]:
        half = NormalDist().inv_cdf(1 - ALPHA / 2) * self.error
        return self.mean - half, self.mean + half

    def p_value(self, hypothesis: float) -> float:
        return 2 * NormalDist().cdf(-_standardised(self.mean - hypothesis, self.error))


@dataclass(frozen=True)
class Student:
    """The mean of a few numbers, one for each seed, with Student's t distribution."""

    mean: float
    error: float
    degrees: int

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Student":
        count = len(values)
        return cls(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(count), count - 1)

    def interval(self) -> tuple[float, float]:
        from scipy.special import stdtrit  # a fifth of a second, which tables of one seed do without

        half = float(stdtrit(self.degrees, 1 - ALPHA / 2)) * self.error
        return self.mean - half, self.mean + half

    def p_value(self, hypothesis: float) -> float:
        from scipy.special import stdtr

        return 2 * float(stdtr(self.degrees, -_standardised(self.mean - hypothesis, self.error)))


@dataclass(frozen=True)
class Resampled:
    """The means of bootstrap resamples, sorted. The interval is that of percentiles (Efron and Tibshirani, 1993)."""

    means: NDArray[np.float64]

    @classmethod
    def of(cls, differences: NDArray[np.float64]) -> "Resampled":
        """The hierarchical bootstrap of `differences`, of shape (seeds, images); the same on every call.

        Each resample draws as many seeds as there are, and as many images, both with replacement. All seeds share the
        images that were drawn, since they were tested on the same ones (the pigeonhole bootstrap; Owen, 2007).
        """
        random = np.random.default_rng(0)
        seeds, images = differences.shape
        patterns, counts = np.unique(differences, axis=1, return_counts=True)  # images that are alike, drawn as one
        drawn_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES)
        drawn_images = random.multinomial(images, counts / images, RESAMPLES)
        return cls(np.sort(((drawn_seeds @ patterns) * drawn_images).sum(axis=1) / (seeds * images)))

    def interval(self) -> tuple[float, float]:
        place = int(ALPHA / 2 * (len(self.means) + 1))
        return float(self.means[place - 1]), float(self.means[-place])

    def p_value(self, hypothesis: float) -> float:
        below = np.searchsorted(self.means, hypothesis, side="right")
        above = len(self.means) - np.searchsorted(self.means, hypothesis, side="left")
        return min(1.0, 2 * (1 + int(min(below, above))) / (len(self.means) + 1))


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference of two errors in percentage points, over `seeds` and `images` that both have.

    The interval is, on each side, the widest of its `estimates`, and a p-value is the largest.
    """

    value: float
    seeds: int
    images: int
    estimates: tuple[Estimate, ...]

    @classmethod
    def of(cls, differences: NDArray[Any]) -> "PairedDifference":
        """From the difference for each seed and image, -1, 0 or 1, of shape (seeds, images).

        Of one seed, the interval is over images (Agresti and Min, 2005). Of several, it is the widest of this one, of
        the hierarchical bootstrap over seeds and images, and of Student's t over seeds.
        """
        points = 100.0 * differences
        seeds, images = points.shape
        estimates: list[Estimate] = [Wald(*adjusted_wald(differences.mean(axis=0).tolist()))]
        if seeds > 1:
            estimates += [Resampled.of(points), Student.of(points.mean(axis=1))]
        return cls(float(points.mean()), seeds, images, tuple(estimates))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        lows, highs = zip(*(estimate.interval() for estimate in self.estimates), strict=True)
        return max(-100.0, min(lows)), min(100.0, max(highs))

    def p_value(self, *hypotheses: float) -> float:
        """The two-sided p-value of the hypotheses that the difference is one of these."""
        return max(estimate.p_value(one) for estimate in self.estimates for one in hypotheses)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of a family of tests, adjusted for their number (Holm, 1979), in the same order."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _standardised(distance: float, error: float) -> float:
    if error == 0:
        return math.inf if distance else 0.0
    return abs(distance) / error
