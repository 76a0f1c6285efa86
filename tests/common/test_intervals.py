"""Intervals of rates and of their differences, checked against published tables."""

import math

import pytest

from bnft.common import intervals


@pytest.mark.parametrize(
    ("errors", "images", "low", "high"),
    [
        (0, 10, 0.0, 27.75),
        (10, 10, 72.25, 100.0),
        (5, 10, 23.66, 76.34),
        (267, 900, 26.77, 32.73),
        (705, 1000, 67.60, 73.24),
    ],
)
def test_wilson(errors, images, low, high):
    """The first three stand in many tables; the last two are BN PARAMS in the paper, about +-3.0 and +-2.8."""
    assert intervals.wilson(errors, images) == pytest.approx((low, high), abs=0.006)


@pytest.mark.parametrize(  # Newcombe (1998), table II, method 10
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 5.24, 33.39),
        ((9, 10), (3, 10), 17.05, 80.90),
        ((10, 10), (0, 20), 67.91, 100.0),
        ((0, 10), (0, 10), -27.75, 27.75),
    ],
)
def test_unpaired(first, second, low, high):
    expected = 100 * (first[0] / first[1] - second[0] / second[1])
    assert intervals.unpaired(first, second) == pytest.approx((expected, low, high), abs=0.006)
    assert intervals.unpaired(second, first) == pytest.approx((-expected, -high, -low), abs=0.006)


def test_wilson_of_nothing_excludes_nothing():
    assert intervals.wilson(0, 0) == (0.0, 100.0)


@pytest.mark.parametrize("images", [1, 3, 1000])
def test_wilson_is_symmetric_and_contains_the_rate(images):
    for errors in {0, 1, images // 2, images}:
        low, high = intervals.wilson(errors, images)
        assert 0 <= low <= 100 * errors / images + 1e-9 and 100 * errors / images - 1e-9 <= high <= 100
        assert intervals.wilson(images - errors, images) == pytest.approx((100 - high, 100 - low))


def agresti_min(first: int, second: int, neither_or_both: int) -> tuple[float, float]:
    """Agresti and Min (2005), in their own terms: half an image is added to each cell of the 2 x 2 table."""
    b, c = first + 0.5, second + 0.5
    n = first + second + neither_or_both + 2
    half = 1.959964 * math.sqrt((b + c) - (b - c) ** 2 / n) / n
    return 100 * ((b - c) / n - half), 100 * ((b - c) / n + half)


@pytest.mark.parametrize(("first", "second", "rest"), [(12, 5, 83), (0, 0, 50), (40, 0, 160), (3, 3, 4), (1, 0, 0)])
def test_paired(first, second, rest):
    differences = [1] * first + [0] * rest + [-1] * second
    middle, low, high = intervals.paired(differences)
    assert middle == pytest.approx(100 * (first - second) / len(differences))
    expected_low, expected_high = agresti_min(first, second, rest)
    assert (low, high) == pytest.approx((max(-100, expected_low), min(100, expected_high)), abs=1e-4)
    assert low < middle < high or (middle, high) == (100, 100)
    assert intervals.paired([-value for value in differences]) == pytest.approx((-middle, -high, -low))


def test_paired_differences_stay_within_all_images():
    middle, low, high = intervals.paired([1.0] * 30)
    assert middle == 100 == high and 80 < low < 100


def test_paired_without_images_excludes_hardly_anything():
    middle, low, high = intervals.paired([])
    assert middle == 0 and low < -95 and high > 95


def test_paired_over_seeds_is_narrower_than_with_one():
    """Means over seeds vary less than single outcomes with the same mean."""
    one, several = intervals.paired([1, 0] * 50), intervals.paired([0.5] * 100)
    assert one[0] == several[0] == 50
    assert several[2] - several[1] < one[2] - one[1]
