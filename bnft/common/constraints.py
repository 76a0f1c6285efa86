"""Rules for single values, written as annotations: `lr: Annotated[float, above(0)]`.

A rule checks a value and describes the allowed values in words, so that an error message can always name them. The same
annotations are used in the typed schema (`bnft.config.schema`) and in the signatures of models, data sets, attacks and
learning-rate shapes (`bnft.config.components`).
"""

import math
import types
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Rule:
    """A check of a value that already has the right type.

    Attributes:
        words: the allowed values, to complete "must be ...".
        holds: the check.
        complete: whether `words` also name the type of the value.
    """

    words: str
    holds: Callable[[Any], bool]
    complete: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, value: Any) -> Any:
        if value is not None and not self.holds(value):
            raise ValueError(self.words)
        return value


class _Number:
    """Accepts numbers and text such as 0.03, "0.03" and "8/255", and converts them to a finite float."""

    words = "a number"
    complete = True

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._converted, handler(source))

    @staticmethod
    def _converted(value: Any) -> Any:
        if value is None:
            return value
        if isinstance(value, bool):  # float(True) is 1.0
            raise ValueError("a number")
        try:
            number = float(Fraction(value.replace(" ", ""))) if isinstance(value, str) else float(value)
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            raise ValueError("a number") from None
        if not math.isfinite(number):
            raise ValueError("finite")
        return number


class _Increasing:
    """Accepts a list of numbers above 0 in increasing order. The numbers are as in `_Number`."""

    words = "a list of numbers above 0 in increasing order"
    complete = True

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._converted, handler(source))

    def _converted(self, values: Any) -> Any:
        if values is None:
            return None
        if not isinstance(values, (list, tuple)):
            raise ValueError(self.words)
        try:
            numbers = [number._converted(value) for value in values]
            increases = all(one < other for one, other in pairwise([0.0, *numbers]))
        except (ValueError, TypeError):
            raise ValueError(self.words) from None
        if not increases:
            raise ValueError(self.words)
        return numbers


number = _Number()
increasing = _Increasing()


def at_least(least: float) -> Rule:
    return Rule(f"at least {least:g}", lambda value: value >= least)


def above(bound: float) -> Rule:
    return Rule(f"above {bound:g}", lambda value: value > bound)


def below(bound: float) -> Rule:
    return Rule(f"below {bound:g}", lambda value: value < bound)


def at_most(most: float) -> Rule:
    return Rule(f"at most {most:g}", lambda value: value <= most)


def one_of(*names: str) -> Rule:
    return Rule(f"one of {', '.join(names)}", lambda value: value in names, complete=True)


def list_of(*names: str) -> Rule:
    return Rule(f"a list of {', '.join(names)}", lambda values: all(value in names for value in values), complete=True)


not_empty = Rule("not empty", lambda value: len(value) > 0)

_TYPES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}


def in_words(annotation: Any) -> str:
    """Describe the values that an annotation allows, to complete "must be ...": `a whole number, at least 0`."""
    kind, *metadata = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    rules = [rule for rule in metadata if isinstance(rule, (Rule, _Number, _Increasing))]
    words = [rule.words for rule in rules]
    if not any(rule.complete for rule in rules):
        words.insert(0, " or ".join(filter(None, (_kind_in_words(option) for option in options))))
    text = ", ".join(filter(None, words))
    if type(None) not in options or not text:
        return text
    return f"{text}, or null" if "," in text else f"{text} or null"


def _kind_in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(str(option) for option in get_args(kind))}"
    if get_origin(kind) in (list, tuple):
        inner = in_words(get_args(kind)[0])
        return f"a list (each {inner})" if inner else "a list"
    return _TYPES.get(get_origin(kind) or kind, "")


class Strict:
    """A base class of dataclasses in which unknown keys and non-finite numbers are errors."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )
