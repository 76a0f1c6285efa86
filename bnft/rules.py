"""Rules for single values, written once as annotations: `lr: Annotated[float, above(0)]`.

A rule checks a value and can say in words what it allows, so that a refusal always names the allowed values. The same
annotations serve the typed schema (`bnft.schema`) and the signatures of models, data sets, attacks and learning-rate
shapes (`bnft.components`).
"""

import math
import types
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Rule:
    """A check on a value that has the right type already; `words` completes "must be ..."."""

    words: str
    holds: Callable[[Any], bool]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, value: Any) -> Any:
        if value is not None and not self.holds(value):
            raise ValueError(self.words)
        return value


class _Number:
    """Takes 0.03, "0.03" and "8/255" alike and yields a finite float."""

    words = "a number"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._converted, handler(source))

    @staticmethod
    def _converted(value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        try:
            number = float(Fraction(value.replace(" ", ""))) if isinstance(value, str) else float(value)
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            raise ValueError("a number") from None
        if not math.isfinite(number):
            raise ValueError("a finite number")
        return number


number = _Number()


def at_least(least: float) -> Rule:
    return Rule(f"at least {least:g}", lambda value: value >= least)


def above(bound: float) -> Rule:
    return Rule(f"above {bound:g}", lambda value: value > bound)


def below(bound: float) -> Rule:
    return Rule(f"below {bound:g}", lambda value: value < bound)


def at_most(most: float) -> Rule:
    return Rule(f"at most {most:g}", lambda value: value <= most)


def one_of(*names: str) -> Rule:
    return Rule(f"one of {', '.join(names)}", lambda value: value in names)


not_empty = Rule("not empty", lambda value: len(value) > 0)

_TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a mapping"}


def in_words(annotation: Any) -> str:
    """What an annotation allows, to stand after "must be": `a whole number, at least 0`."""
    if get_origin(annotation) is Annotated:
        kind, *rules = get_args(annotation)
        words = [rule.words for rule in rules if hasattr(rule, "words")]
        if any(word.startswith("one of") for word in words):
            return " and ".join(words)
        return ", ".join(dict.fromkeys([*filter(None, [in_words(kind)]), *words]))
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        options = [in_words(option) if option is not type(None) else "null" for option in get_args(annotation)]
        return " or ".join(filter(None, options))
    if origin is Literal:
        return f"one of {', '.join(str(option) for option in get_args(annotation))}"
    if origin in (list, tuple):
        inner = get_args(annotation)
        return f"a list, each {in_words(inner[0])}" if inner and in_words(inner[0]) else "a list"
    if origin is dict:
        return "a mapping"
    return _TYPES.get(annotation, "")
