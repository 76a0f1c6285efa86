"""Confidence intervals for error rates on a finite number of images."""

import math
from collections.abc import Sequence

Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution, for 95 % intervals


def wilson(errors: float, images: int) -> tuple[float, float]:
    """Return the 95 % interval of an error rate, in percent (Wilson, 1927). `errors` can be a mean over seeds."""
    if images == 0:
        return 0.0, 100.0
    share = errors / images
    scale = 1 + Z**2 / images
    centre = share + Z**2 / (2 * images)
    half = Z * math.sqrt(share * (1 - share) / images + Z**2 / (4 * images**2))
    return 100 * max(0.0, (centre - half) / scale), 100 * min(1.0, (centre + half) / scale)


def unpaired(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float, float]:
    """Compare two error rates on different images.

    The interval combines the two Wilson intervals (Newcombe, 1998, method 10).

    Args:
        first: number of errors and number of images.
        second: number of errors and number of images.

    Returns:
        The first minus the second error rate, and the ends of its 95 % interval, in percentage points.
    """
    (one, low, high), (other, other_low, other_high) = (
        (100 * errors / images, *wilson(errors, images)) for errors, images in (first, second)
    )
    difference = one - other
    below, above = math.hypot(one - low, other_high - other), math.hypot(high - one, other - other_low)
    return difference, difference - below, difference + above


def paired(differences: Sequence[float]) -> tuple[float, float, float]:
    """Compare two error rates on the same images.

    The interval is that of `adjusted_wald`.

    Args:
        differences: one value per image: 1 if only the first model errs, -1 if only the second does, 0 otherwise, or
            the mean of these values over seeds.

    Returns:
        The first minus the second error rate, and the ends of its 95 % interval, in percentage points.
    """
    mean, error = adjusted_wald(differences)
    middle = 100 * sum(differences) / len(differences) if differences else 0.0
    return middle, max(-100.0, mean - Z * error), min(100.0, mean + Z * error)


def adjusted_wald(differences: Sequence[float]) -> tuple[float, float]:
    """Return the centre and the standard error, in percentage points, of the mean of paired `differences`.

    It is the adjusted Wald method for matched pairs (Agresti and Min, 2005). It adds half an image to each of the four
    outcomes, so that it is also valid if hardly any outcome differs. `differences` are as for `paired`.
    """
    total = len(differences) + 2
    mean = sum(differences) / total
    square = (sum(value * value for value in differences) + 1) / total
    return 100 * mean, 100 * math.sqrt(max(0.0, square - mean * mean) / total)
