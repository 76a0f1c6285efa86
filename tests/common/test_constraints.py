"""Rules for one value: what they allow, and how they are put in words."""

import math
from typing import Annotated, Any, Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from bnft.common.constraints import above, at_least, at_most, below, in_words, list_of, not_empty, number, one_of


def checked(annotation: Any, value: Any) -> Any:
    return TypeAdapter(annotation).validate_python(value)


@pytest.mark.parametrize(
    ("given", "value"),
    [(0.03, 0.03), ("0.03", 0.03), ("8/255", 8 / 255), (" 8 / 255 ", 8 / 255), ("3e-2", 0.03), (1, 1.0), ("1", 1.0)],
)
@pytest.mark.parametrize("kind", [float, Any])
def test_a_number_may_be_a_fraction(kind, given, value):
    found = checked(Annotated[kind, number, above(0)], given)
    assert found == value and type(found) is float


@pytest.mark.parametrize("given", ["a", "", "1/0", "1/2/3", "nan", "inf", math.nan, math.inf, "1e999", True, [1], {}])
@pytest.mark.parametrize("kind", [float, Any])
def test_what_is_not_a_finite_number_is_refused(kind, given):
    with pytest.raises(ValidationError, match=r"a number|finite"):
        checked(Annotated[kind, number], given)


@pytest.mark.parametrize(
    ("rule", "allowed", "refused", "words"),
    [
        (at_least(0), [0, 0.1, 7], [-1, -1e-9], "at least 0"),
        (above(0), [1e-9, 1], [0, -1], "above 0"),
        (below(1), [0, 0.999], [1, 2], "below 1"),
        (at_most(0.5), [0.5, -1], [0.51], "at most 0.5"),
        (one_of("Linf", "L2"), ["Linf", "L2"], ["L1", "linf", ""], "one of Linf, L2"),
        (list_of("a", "b"), [["a"], ["b", "a", "a"], []], [["a", "c"], "c"], "a list of a, b"),
        (not_empty, [[0], "a"], [[], ""], "not empty"),
    ],
)
def test_rules(rule, allowed, refused, words):
    assert rule.words == words
    for value in [*allowed, None]:
        assert checked(Annotated[Any, rule], value) == value
    for value in refused:
        with pytest.raises(ValidationError, match=words):
            checked(Annotated[Any, rule], value)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (Annotated[int, at_least(0)], "a whole number, at least 0"),
        (Annotated[float, number, above(0), at_most(1)], "a number, above 0, at most 1"),
        (Annotated[Any, number, above(0)], "a number, above 0"),
        (Annotated[str, one_of("eval", "train")], "one of eval, train"),
        (Literal["worst", "last"], "one of worst, last"),
        (bool, "true or false"),
        (int | None, "a whole number or null"),
        (dict[str, Any], "a mapping"),
        (Any, ""),
    ],
)
def test_rules_in_words(annotation, words):
    assert in_words(annotation) == words


@pytest.mark.parametrize(
    ("annotation", "parts"),
    [
        (Annotated[int | None, at_least(1)], ["a whole number", "null", "at least 1"]),
        (list[Annotated[int, at_least(1)]], ["a list", "each a whole number, at least 1"]),
        (Annotated[list[float], not_empty], ["a list", "each a number", "not empty"]),
    ],
)
def test_rules_of_parts_in_words(annotation, parts):
    assert all(part in in_words(annotation) for part in parts)
