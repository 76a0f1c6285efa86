"""Components: the models, data sets, attacks and learning-rate shapes that a configuration names by `_target_`.

    _target_: resnet                 # a component of bnft, by its stable name
    _target_: mypackage.nets.MyNet   # a user's own component, by its import path

The signature of the target is its schema. The keys of a component are the parameters of its target, checked against
their annotations (see `bnft.common.constraints`). Parameters that the program supplies, such as an attack's model and
inputs, are not part of the configuration.
"""

import importlib
import importlib.util
import inspect
import json
import pkgutil
import typing
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from bnft.common.errors import InputError, rejected
from bnft.config import sources
from bnft.config.messages import annotations_of, pydantic_message
from bnft.config.names import stable

Checked = dict[str, Any]

_CLOSED = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False, protected_namespaces=())
_OPEN = ConfigDict(extra="allow", arbitrary_types_allowed=True, allow_inf_nan=False, protected_namespaces=())


GROUPS = {
    "model": ("bnft.models", ""),
    "data": ("bnft.data", "load"),
    "attack": ("bnft.attacks", ""),
    "schedule.shape": ("bnft.training.shapes", ""),
}
"""Where bnft's own components of each group are, and the name of their function.

They are functions of one module, or modules of a package. An empty name stands for the class or function in this module
that has the name of the component, in upper or lower case.
"""


def locate(key: str, target: object) -> Callable[..., Any]:
    """Import the class or function of a component.

    Args:
        key: the key of the component, such as `model`.
        target: the stable name of a component of bnft, or `package.module.name`.

    Raises:
        InputError: if it does not exist, or if its source has been edited since it was imported.
    """
    name = stable(target) if isinstance(target, str) else target
    if not isinstance(name, str) or "." not in name:
        return _of_bnft(key, name)
    sources.check_imported(key, name)
    module, _, name = name.rpartition(".")
    try:
        component = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        if isinstance(error, ImportError) and error.name and not f"{module}.".startswith(f"{error.name}."):
            raise  # the module exists, but one of its imports does not; a traceback shows which
        raise rejected(f"{key}._target_", target, f"a class or function that can be imported ({error})") from None
    if not callable(component):
        raise rejected(f"{key}._target_", target, f"a class or function, not a {type(component).__name__}")
    return typing.cast(Callable[..., Any], component)


def _of_bnft(key: str, name: object) -> Callable[..., Any]:
    """Return the component of bnft with this stable name."""
    if component := _component(key, str(name)):
        return component
    place, _ = GROUPS[key]
    home = importlib.import_module(place)
    modules = [part.name for part in pkgutil.iter_modules(home.__path__)] if hasattr(home, "__path__") else vars(home)
    names = ", ".join(name for name in modules if _component(key, name))
    raise rejected(f"{key}._target_", name, f"one of {names}, or a class or function as package.module.name")


def _component(key: str, name: str) -> Callable[..., Any] | None:
    place, entry = GROUPS[key]
    home = importlib.import_module(place)
    if hasattr(home, "__path__"):
        if importlib.util.find_spec(f"{place}.{name}") is None:
            return None
        home = importlib.import_module(f"{place}.{name}")
    if entry:
        return getattr(home, entry, None)
    for attribute, value in vars(home).items():
        if attribute.lower() == name and getattr(value, "__module__", "") == home.__name__:
            return typing.cast(Callable[..., Any], value)
    return None


def check(
    key: str,
    config: Mapping[str, Any],
    common: type | None = None,
    supplied: tuple[str, ...] = (),
    incomplete: bool = False,
) -> tuple[Checked, Checked]:
    """Check a component.

    Args:
        key: the key of the component, such as `model`.
        config: its keys and values, including `_target_`.
        common: a dataclass of keys that all components of the group have.
        supplied: parameters of the target that the program supplies.
        incomplete: whether keys can be missing or unknown. Unknown keys are not checked.

    Returns:
        The arguments of the target, including `_target_`, and the common keys of the group.

    Raises:
        InputError: if a key or value is invalid.
    """
    if not isinstance(config, Mapping) or "_target_" not in config:
        group = key.replace(".", "/")
        raise rejected(key, config, f"a group of keys with a _target_; {group}=NAME chooses one, --help lists them")
    target = locate(key, config["_target_"])
    shared = _fields(common) if common else {}
    try:
        model, annotations = _schema(target, common, supplied, incomplete)
    except ValueError as error:  # for classes and functions written in C
        raise rejected(f"{key}._target_", config["_target_"], f"one whose parameters can be read ({error})") from None
    values = {name: value for name, value in config.items() if name != "_target_"}
    try:  # as JSON, where pydantic's strict mode accepts a list for a tuple
        checked = model.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise InputError(pydantic_message(error, values, annotations, prefix=(key,))) from None
    typed = {name: getattr(checked, name) for name in values}
    arguments = {name: value for name, value in typed.items() if name not in shared}
    keys = {name: typed.get(name, default) for name, (_, default) in shared.items()}
    return {"_target_": stable(config["_target_"]), **arguments}, keys


@cache
def _schema(
    target: Callable[..., Any], common: type | None, supplied: tuple[str, ...], incomplete: bool
) -> tuple[type[BaseModel], dict[str, Any]]:
    """Return the keys of a component as a model of pydantic, and their annotations. Cached, because it is slow."""
    fields, open_ended = _parameters(target, supplied)
    allowed = {**(_fields(common) if common else {}), **fields}
    optional: dict[str, Any] = {name: (annotation, None) for name, (annotation, _) in allowed.items()}
    settings = _OPEN if open_ended or incomplete else _CLOSED
    model = create_model("Component", __config__=settings, **(optional if incomplete else allowed))
    return model, {name: annotation for name, (annotation, _) in allowed.items()}


def split(component: Mapping[str, Any], common: type) -> tuple[Checked, Checked]:
    """Split a checked component into its own arguments, including `_target_`, and the common keys of its group."""
    names = _fields(common)
    keys = {name: value for name, value in component.items() if name in names}
    return {name: value for name, value in component.items() if name not in names}, keys


def build(key: str, arguments: Checked) -> Callable[..., Any]:
    """Build a checked component: a callable that still takes the arguments that the program supplies."""
    target = locate(key, arguments["_target_"])
    return partial(target, **{name: value for name, value in arguments.items() if name != "_target_"})


def _parameters(target: Callable[..., Any], supplied: tuple[str, ...]) -> tuple[dict[str, Any], bool]:
    """Return the annotation and default of each parameter, and whether the target takes any other keywords."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError:  # annotations use names that are imported for type checkers only
        hints = {}
    fields: dict[str, Any] = {}
    open_ended = False
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name not in supplied:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hints.get(parameter.name, Any), default)
    return fields, open_ended


@cache
def _fields(common: type) -> dict[str, Any]:
    """Return the annotation and default of each key of a dataclass."""
    return {name: (hint, getattr(common, name, ...)) for name, hint in annotations_of(common).items()}
