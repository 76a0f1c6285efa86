"""Rows that start from another run than the row of the same policy beside them."""

from typing import Any

import pytest

from bnft.api import plan
from bnft.runs.bases import Member, unequal


def members(*line: str) -> list[Member]:
    planned = plan(line)
    return [Member(str(run.config["title"]), run.name, run.base_name, run.identity) for run in planned.runs]


def test_a_schedule_that_the_base_does_not_have_is_named_with_the_way_out() -> None:
    (text,) = unequal(members("policy=normal,bn_params,bn_stats", "schedule.lr=0.25"))
    assert text == (
        "BN PARAMS, BN STATS (reset): the base is another NORMAL than the row NORMAL (schedule.lr=0.3 instead of 0.25);"
        " base_overrides=[schedule.lr=0.25] makes them equal."
    )
    assert unequal(members("policy=normal,bn_params", "schedule.lr=0.25", "base_overrides=[schedule.lr=0.25]")) == []


@pytest.mark.parametrize("more", [("seed=0,1",), ("scale=toy",), ("threat.eps=0.1",)])
def test_a_base_that_is_a_row_needs_no_words(more: tuple[str, ...]) -> None:
    assert unequal(members("policy=normal,bn_params", *more)) == []


def test_without_a_row_of_its_policy_a_base_needs_no_words() -> None:
    assert unequal(members("policy=adv,bn_params", "schedule.lr=0.25")) == []


def test_other_differences_are_named_too() -> None:
    row: dict[str, Any] = {"seed": 0, "model": {"width": 4}}
    rows = [
        Member("NORMAL", "normal-0123456789", None, {**row, "model": {"width": 8}}),
        Member("BN PARAMS", "bn_params-0123456789", "normal-9876543210", {"seed": 0, "base": row}),
    ]
    assert unequal(rows) == ["BN PARAMS: the base is another NORMAL than the row NORMAL (model.width=4 instead of 8)."]
