"""The shapes of the learning rate over a training."""

import pytest

from bnft.training import shapes


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [(0, 1), (59, 1), (60, 0.1), (89, 0.1), (90, 0.01), (119, 0.01), (120, 0.001), (149, 0.001), (150, 0.001)],
)
def test_step_divides_by_ten_at_epochs_60_90_and_120_of_150(epoch, factor):
    assert shapes.step(epoch / 150) == pytest.approx(factor, rel=1e-12)


def test_step_takes_milestones_in_any_order_and_any_factor():
    assert [shapes.step(p, [0.5, 0.25], 0.5) for p in (0.2, 0.25, 0.5, 1.0)] == [1.0, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine(final):
    assert shapes.cosine(0.0, final) == 1
    assert shapes.cosine(0.5, final) == pytest.approx((1 + final) / 2)
    assert shapes.cosine(1.0, final) == pytest.approx(final)
    assert 0.99 < shapes.cosine(0.01, final) < 1, "it starts flat"


@pytest.mark.parametrize(("warmup", "start", "final"), [(0.25, 0.05, 0.0), (0.4, 0.0, 0.1)])
def test_one_cycle(warmup, start, final):
    def rate(progress: float) -> float:
        return shapes.one_cycle(progress, warmup, start, final)

    assert rate(0.0) == start
    assert rate(warmup / 2) == pytest.approx((start + 1) / 2)
    assert rate(warmup) == pytest.approx(1) == rate(warmup - 1e-9)
    assert rate((1 + warmup) / 2) == pytest.approx((1 + final) / 2)
    assert rate(1.0) == pytest.approx(final)
    assert max(rate(step / 100) for step in range(101)) <= 1 + 1e-12
