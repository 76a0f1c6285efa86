"""Random draws: a stream of its own for each purpose, and always the same one."""

import pytest
import torch

from bnft.common.randomness import generator, global_seed, seed_for

CPU = torch.device("cpu")


def test_every_draw_has_a_stream_of_its_own():
    places = [
        (seed, purpose, epoch, step)
        for seed in (0, 1, 10)
        for purpose in ("order", "attack", "evaluation/1")
        for epoch in (0, 1, 11)
        for step in (0, 1, 11)
    ]
    assert len({seed_for(*place) for place in places}) == len(places)
    draws = {tuple(torch.rand(4, generator=generator(CPU, *place)).tolist()) for place in places}
    assert len(draws) == len(places)


def test_the_same_place_draws_the_same():
    first, again = (torch.rand(9, generator=generator(CPU, 3, "order", 2, 1)) for _ in range(2))
    assert torch.equal(first, again)


def test_the_streams_never_change():
    """Other seeds would give every run other numbers under its old name."""
    assert seed_for(0, "init") == 2559000112367765771
    assert seed_for(3, "order", epoch=2, step=1) == 3569082223683944638
    assert 0 <= seed_for(0, "init") < 2**63


def test_global_seed_depends_on_seed_and_purpose_and_puts_the_state_back():
    def drawn(seed: int, purpose: str) -> torch.Tensor:
        before = torch.get_rng_state()
        with global_seed(seed, purpose):
            values = torch.rand(5)
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(1)
        return values

    first = drawn(0, "init")
    assert torch.equal(drawn(0, "init"), first)
    assert not torch.equal(drawn(1, "init"), first)
    assert not torch.equal(drawn(0, "other"), first)


def test_global_seed_puts_the_state_back_after_an_exception():
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), global_seed(0, "init"):
        torch.rand(1 // 0)
    assert torch.equal(torch.get_rng_state(), before)
