"""Errors of the libraries underneath, put into one line: the key, the value, and what is allowed."""

import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from pydantic import ValidationError

from bnft.errors import InputError, show
from bnft.rules import in_words


def pydantic_message(error: ValidationError, annotations: Mapping[str, Any], prefix: Sequence[str] = ()) -> str:
    """The first of pydantic's errors, in words; `annotations` are those of the keys under `prefix`."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join([*prefix, *(part for part in path if not part.isdigit())])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return unknown_key(key, first["input"], annotations if len(path) == 1 else _below(annotations, path[:-1]))
    if first["type"] == "missing":
        return f"{key}: must be given, {_allowed(annotations, path) or 'a value'}"
    words = _allowed(annotations, path)
    cause = first.get("ctx", {}).get("error")
    if cause is not None and str(cause) not in words:
        words = f"{words}, {cause}" if words else str(cause)
    return f"{key}={show(first['input'])}: must be {words or first['msg']}"


def unknown_key(key: str, value: object, allowed: Iterable[str]) -> str:
    """The refusal of a key that does not exist."""
    names = [name for name in allowed if not name.startswith("_")]
    group, _, name = key.rpartition(".")
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {'.'.join(filter(None, [group, close[0]]))}?)" if close else ""
    given = "" if value is None else f"={show(value)}"
    return f"{key}{given}: no such key{hint}; {group or 'the configuration'} has {', '.join(names)}"


def library_message(error: Exception, schema: Mapping[str, Any]) -> str:
    """An error of Hydra or OmegaConf in one line. `schema` has the annotations of the configuration's root."""
    deepest: BaseException = error
    while True:
        following = deepest.__cause__ or deepest.__context__
        if isinstance(deepest, InputError) or following is None:
            break
        if not isinstance(following, (HydraException, OmegaConfBaseException, InputError)):
            break
        deepest = following
    if isinstance(deepest, InputError):
        return str(deepest)
    text = _one_line(str(error))
    if not isinstance(deepest, OmegaConfBaseException) or not deepest.full_key:
        return text
    key = str(deepest.full_key)
    path = key.split(".")
    if "not in" in (deepest.msg or "") and "struct" in (deepest.msg or ""):
        return unknown_key(key, None, _below(schema, path[:-1]))
    if "Missing mandatory value" in (deepest.msg or ""):
        return f"{key}: must be given, {_allowed(schema, path) or 'a value'}"
    words = _allowed(schema, path)
    if words and deepest.value is not None:
        return f"{key}={show(deepest.value)}: must be {words}"
    if isinstance(deepest, InterpolationResolutionError):
        return f"{key}: {_one_line(deepest.msg or text)}"
    return f"{key}={show(deepest.value)}: {_one_line(deepest.msg or text)}"


def annotations_of(schema: type) -> dict[str, Any]:
    """The annotations of a dataclass, rules included."""
    hints = typing.get_type_hints(schema, include_extras=True)
    return {name: hint for name, hint in hints.items() if name in schema.__dataclass_fields__}  # type: ignore[attr-defined]


def _below(annotations: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    """The annotations of the keys under `path`; empty where that is not a typed group."""
    for part in path:
        inner = annotations.get(part)
        annotations = annotations_of(inner) if isinstance(inner, type) and is_dataclass(inner) else {}
    return annotations


def _allowed(annotations: Mapping[str, Any], path: Sequence[str]) -> str:
    names = [part for part in path if not part.isdigit()]
    return in_words(_below(annotations, names[:-1]).get(names[-1])) if names else ""


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("full_key:", "object_type=", "Set the")))
