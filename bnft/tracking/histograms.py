"""Histograms with the same edges for all runs and epochs, so that they can be compared."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnft.tracking import keys

BATCHNORM: Mapping[str, NDArray[np.float64]] = {
    "gamma": np.linspace(-2, 4, 61),
    "beta": np.linspace(-4, 4, 65),
    "mean": np.linspace(-8, 8, 65),
    "variance": np.geomspace(1e-4, 1e4, 65),  # eight bins per decade
    "m": np.linspace(-6, 10, 65),
    "b": np.linspace(-8, 8, 65),
}
CONFIDENCE = np.linspace(0, 1, 51)
LOGITS = np.linspace(-20, 30, 51)
TEST: Mapping[str, NDArray[np.float64]] = {
    keys.CLEAN_CONFIDENCE: CONFIDENCE,
    keys.ADVERSARIAL_CONFIDENCE: CONFIDENCE,
    keys.CLEAN_LOGITS: LOGITS,
    keys.ADVERSARIAL_LOGITS: LOGITS,
}


@dataclass(frozen=True)
class Histogram:
    """A histogram: `counts` (bins,) of the values between `edges` (bins + 1,).

    The first and the last bin include the values outside the edges.
    """

    counts: tuple[int, ...]
    edges: tuple[float, ...]


def histogram(values: NDArray[np.floating], edges: NDArray[np.float64]) -> Histogram:
    """Return the histogram of an array of any shape. Every value is counted. NaN is counted as infinity."""
    numbers = np.nan_to_num(values.ravel().astype(np.float64), nan=np.inf, posinf=np.inf, neginf=-np.inf)
    counts, _ = np.histogram(np.clip(numbers, edges[0], edges[-1]), edges)
    return Histogram(tuple(counts.tolist()), tuple(edges.tolist()))
