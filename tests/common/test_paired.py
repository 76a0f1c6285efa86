"""Paired differences over seeds and images, against closed forms and scipy, and Holm's method."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from bnft.common.intervals import paired
from bnft.common.paired import PairedDifference, Resampled, Student, Wald, holm

DIGITS_SEEDS = (-6.5, -18.0, -6.0, -1.5, -3.0)  # BN PARAMS minus BN ONLY PARAMS on 200 digits, in points


def blocks(*percent: float, images: int = 200) -> NDArray[np.int8]:
    """A row for each seed, in which that many percent of the images differ, to the side of its sign."""
    table = np.zeros((len(percent), images), np.int8)
    for row, value in zip(table, percent, strict=True):
        row[: round(abs(value) * images / 100)] = np.sign(value)
    return table


def random_table(seeds: int, images: int, number: int) -> NDArray[np.int8]:
    return np.random.default_rng(number).integers(-1, 2, (seeds, images)).astype(np.int8)


def test_of_one_seed_it_is_the_paired_interval_over_images() -> None:
    table = random_table(1, 150, 0)
    found = PairedDifference.of(table)
    assert (found.value, *found.interval) == pytest.approx(paired(table[0].tolist()))
    assert (found.seeds, found.images) == (1, 150)


def test_students_interval_and_p_value_are_scipys() -> None:
    found, expected = Student.of(np.array(DIGITS_SEEDS)), stats.ttest_1samp(DIGITS_SEEDS, 0.0)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p_value(0.0) == pytest.approx(expected.pvalue)
    assert found.p_value(-3.0) == pytest.approx(stats.ttest_1samp(DIGITS_SEEDS, -3.0).pvalue)


def test_walds_interval_and_p_value() -> None:
    found = Wald(3.0, 1.5)
    assert found.interval() == pytest.approx((3 - 1.5 * 1.959964, 3 + 1.5 * 1.959964))
    assert found.p_value(0.0) == pytest.approx(2 * stats.norm.sf(2.0)) and found.p_value(3.0) == 1.0


def test_the_bootstrap_has_the_variance_of_seeds_and_that_of_images() -> None:
    """Of a sum of an effect of the seed and one of the image, the variance of a resampled mean is known."""
    seeds, images = np.array([0.0, 4.0, 5.0, 9.0, 12.0]), np.random.default_rng(0).normal(0, 40, 400)
    means = Resampled.of(seeds[:, None] + images).means
    assert means.mean() == pytest.approx(seeds.mean() + images.mean(), abs=0.2)
    assert means.var() == pytest.approx(seeds.var() / 5 + images.var() / 400, rel=0.1)


def test_images_that_are_alike_can_be_drawn_as_one() -> None:
    """One seed, of whose images a quarter errs: the number that errs in a resample is binomial."""
    found = Resampled.of(100.0 * np.array([[1.0] * 50 + [0.0] * 150]))
    assert found.interval() == pytest.approx(tuple(stats.binom.ppf([0.025, 0.975], 200, 0.25) / 2), abs=0.75)
    assert len(found.means) == 2000 and (np.diff(found.means) >= 0).all()


def test_five_seeds_that_differ_widely_leave_zero_in_the_interval() -> None:
    found = PairedDifference.of(blocks(*DIGITS_SEEDS))
    low, high = found.interval
    assert found.value == pytest.approx(-7.0)
    assert low == pytest.approx(-7 - 2.7764 * np.std(DIGITS_SEEDS, ddof=1) / 5**0.5, abs=0.01)
    assert low < -15 and high > 0
    assert found.p_value(0.0) > 0.05


def test_the_interval_is_never_narrower_than_any_of_its_parts() -> None:
    for table in (blocks(*DIGITS_SEEDS), blocks(5, 5, 5), random_table(3, 40, 1), np.zeros((4, 100), np.int8)):
        found = PairedDifference.of(table)
        lows, highs = zip(*(part.interval() for part in found.estimates), strict=True)
        assert len(lows) == 3 and found.interval == (min(lows), max(highs))


def test_seeds_that_all_agree_still_leave_the_doubt_of_images() -> None:
    low, high = PairedDifference.of(np.zeros((5, 200), np.int8)).interval
    assert low == pytest.approx(-high) and 0.5 < high < 1.5
    assert PairedDifference.of(blocks(-5, -5, -5)).interval == pytest.approx(
        paired(blocks(-5)[0].tolist())[1:], abs=0.5
    )


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_a_p_value_below_5_percent_and_an_interval_that_leaves_it_out_are_the_same(seeds: int) -> None:
    for number in range(5):
        found = PairedDifference.of(random_table(seeds, 120, number))
        low, high = found.interval
        for hypothesis in np.linspace(low - 5, high + 5, 50).tolist():
            assert (found.p_value(hypothesis) < 0.05) == (not low <= hypothesis <= high)


def test_the_p_value_of_several_hypotheses_is_the_largest() -> None:
    found = PairedDifference.of(blocks(2))
    assert found.p_value(-3.0, 3.0) == found.p_value(3.0) > found.p_value(-3.0)


def test_it_is_the_same_on_every_call() -> None:
    assert PairedDifference.of(random_table(4, 90, 3)).interval == PairedDifference.of(random_table(4, 90, 3)).interval


@pytest.mark.parametrize(
    ("p_values", "adjusted"),  # as of p.adjust(..., "holm") of R
    [
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        ([0.04, 0.001, 0.3], [0.08, 0.003, 0.3]),
        ([0.9, 0.6], [1.0, 1.0]),
        ([0.03], [0.03]),
        ([], []),
    ],
)
def test_holm(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)
