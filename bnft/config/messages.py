"""Turn errors of pydantic, Hydra and OmegaConf into one line with the key, the value and the allowed values."""

import itertools
import re
import traceback
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from omegaconf.errors import ValidationError as OmegaConfValidationError
from pydantic import ValidationError
from typing_extensions import is_typeddict
from yaml import YAMLError

from bnft.common.constraints import in_words
from bnft.common.ending import trouble
from bnft.common.errors import did_you_mean, show
from bnft.config.compat import failed_part, file_in_hand, override_in_hand
from bnft.config.names import RENAMED

Annotations = Mapping[str, Any]

LIBRARY_ERRORS = (HydraException, OmegaConfBaseException, YAMLError)


def pydantic_message(
    error: ValidationError, values: Mapping[str, Any], annotations: Annotations, prefix: Sequence[str] = ()
) -> str:
    """Return the message of pydantic's first error.

    Args:
        error: the error.
        values: the checked values.
        annotations: the annotations of their keys.
        prefix: the key of the group that contains them.
    """
    first = error.errors(include_url=False)[0]
    path, value = _place(first["loc"], values)
    if first["type"] == "missing":
        path.append(str(first["loc"][-1]))
    key, words = ".".join([*prefix, *path]), _allowed(annotations, path)
    if first["type"] == "missing":
        return not_given(key, words)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return unknown_key(key, value, _below(annotations, path[:-1]))
    more = "finite" if first["type"] == "finite_number" else str(first.get("ctx", {}).get("error", ""))
    if more not in words:
        words = ", ".join(filter(None, [words, more]))
    return f"{key}={show(value)}: must be {words or first['msg']}"


def unknown_key(key: str, value: object, allowed: Iterable[str], written: str = "") -> str:
    """Return the message for a key that does not exist. `written` is its override, if there is one."""
    if key in RENAMED:
        return f"{show(written) or f'{key}={show(value)}'}: {key} is now {RENAMED[key]} ({RENAMED[key]}=VALUE)"
    names = [name for name in allowed if not name.startswith("_")]
    group, _, name = key.rpartition(".")
    hint = did_you_mean(name, names, f"{group}." if group else "")
    existing = f"; {group or 'the configuration'} has {', '.join(names)}" if names else ""
    return f"{show(written) or f'{key}={show(value)}'}: no such key{hint}{existing}"


def not_given(key: str, words: str = "") -> str:
    """Return the message for a key without a value."""
    return f"{key}: must be given{f', {words}' if words else ''} ({key}=VALUE)"


def about_input(error: BaseException) -> bool:
    """Return whether an error is about a user's input.

    For some overrides, such as `attack=null`, Hydra raises ValueError, TypeError or RuntimeError. These count only if
    Hydra had not called any code of bnft. OmegaConf wraps errors inside a resolver of bnft. These are bugs of bnft,
    unless `trouble` returns a message for them.
    """
    if trouble(error):
        return True
    if isinstance(error, LIBRARY_ERRORS):
        inner = list(_causes(error))[1:]
        refused = any(trouble(cause) or isinstance(cause, YAMLError) for cause in inner)
        return refused or not any(module.startswith("bnft.") for cause in inner for module in _modules(cause))
    called = list(itertools.dropwhile(lambda module: not module.startswith("hydra."), _modules(error)))
    ours = [module for module in called if module.startswith(("bnft.", "hydra_plugins."))]
    # The sweeper of bnft calls Hydra to set up the launcher. Errors in there are Hydra's.
    return bool(called) and (not ours or (set(ours) == {"hydra_plugins.bnft"} and called[-1].startswith("hydra.")))


def library_message(error: Exception, schema: Annotations) -> str:
    """Return the message of an error of Hydra or OmegaConf. `schema` has the annotations of the root."""
    causes = list(_causes(error))
    for cause in causes:
        if message := trouble(cause):  # for example from a resolver of bnft
            return message
    if isinstance(error, OverrideParseException):
        reason = next((line for line in error.message.splitlines() if not line.startswith("Error parsing")), "")
        return f"{show(error.override)}: must be KEY=VALUE, with quotes around special characters ({reason})"
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option}: must be one of {', '.join(error.options)}"
    override = override_in_hand(error)
    for cause in causes:
        if isinstance(cause, OmegaConfBaseException) and cause.full_key and cause.parent_node is not None:
            return _omegaconf_message(cause, schema, override.input_line or "" if override else "")
    text = _one_line(str(error))
    if part := failed_part(error):
        return f"hydra.{part}: cannot be set up ({text}); hydra/{part}=NAME chooses one, --help lists them"
    if override:
        return f"{show(override.input_line)}: cannot be used here, see --help ({text})"
    return text if isinstance(error, LIBRARY_ERRORS) else f"{file_in_hand(error) or 'command line'}: {text}"


def _omegaconf_message(error: OmegaConfBaseException, schema: Annotations, written: str) -> str:
    """Return the message of an error at one key. `written` is the override that caused it, if there is one."""
    key, text = str(error.full_key), _one_line(str(error.msg))
    parent = OmegaConf.to_container(error.parent_node, resolve=False)
    siblings = parent if isinstance(parent, dict) else {}
    typed = OmegaConf.get_type(error.parent_node)  # for the keys of a launcher, which are not in `schema`
    words = _allowed(schema, key.split(".")) or _allowed(_annotations(typed), [str(error.key)])
    if isinstance(error, (ConfigKeyError, ConfigAttributeError)):
        if key == "policy":
            return "policy: its file must begin with the line `# @package _global_` and have keys below it"
        return unknown_key(key, None, map(str, siblings) if "." in key else [*schema, "policy"], written)
    if isinstance(error, MissingMandatoryValue):
        return not_given(key, words)
    if isinstance(error, InterpolationToMissingValueError):
        return not_given(text.split()[-1])
    if missing := re.match(r"Interpolation key '(scale\.[\w.]+)' not found", text):
        return f"{missing[1]}: must be given in the file of the scale, because {key} refers to it"
    if isinstance(error, InterpolationResolutionError):
        return f"{key}={show(siblings.get(error.key))}: must be {words or 'a value that can be resolved'} ({text})"
    if isinstance(error, OmegaConfValidationError) and words:
        return f"{key}={show(error.value)}: must be {words}"
    return f"{written or key}: {text}"


def annotations_of(schema: type) -> dict[str, Any]:
    """Return the annotations of a dataclass, including rules."""
    hints = typing.get_type_hints(schema, include_extras=True)
    names = {field.name for field in fields(schema)}
    return {name: hint for name, hint in hints.items() if name in names}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _modules(error: BaseException) -> Iterator[str]:
    """Yield the modules in the traceback of an error, from where it was caught to where it was raised."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield frame.f_globals.get("__name__", "")


def _place(location: Sequence[int | str], values: Any) -> tuple[list[str], Any]:
    """Return path and value of the innermost named key at the location of an error of pydantic."""
    path = []
    for part in location:
        if not isinstance(values, Mapping) or part not in values:
            break
        path.append(str(part))
        values = values[part]
    return path, values


def _below(annotations: Annotations, path: Sequence[str]) -> Annotations:
    """Return the annotations of the keys under `path`; empty if it is not a typed group."""
    for part in path:
        annotations = _annotations(annotations.get(part))
    return annotations


def _annotations(kind: Any) -> Annotations:
    """Return the annotations of a group, which is a dataclass or a TypedDict, or one of these or None."""
    for option in typing.get_args(kind) or (kind,):
        if is_typeddict(option):
            return typing.get_type_hints(option, include_extras=True)
        if isinstance(option, type) and is_dataclass(option):
            return annotations_of(option)
    return {}


def _allowed(annotations: Annotations, path: Sequence[str]) -> str:
    return in_words(_below(annotations, path[:-1]).get(path[-1])) if path else ""


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.partition("Config search path:")[0].splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("full_key:", "object_type=", "reference_")))
