"""Compose Hydra's overrides to one checked, resolved configuration."""

import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache, reduce
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from yaml.nodes import CollectionNode

from bnft.common.constraints import number
from bnft.common.errors import InputError, rejected
from bnft.config import folders, sources
from bnft.config.check import SCHEMA, check
from bnft.config.compat import apply_values, is_group, use_yaml_loader, yaml_loader
from bnft.config.messages import about_input, library_message, not_given
from bnft.config.schema import KINDS, Config
from bnft.evaluation.settings import COMMON

CONFIG_NAME = "config"
PLACES = ("store", "device", "threads", "wandb")  # these do not affect what is computed
INHERITED = (
    "model",
    "data",
    "scale",
    "threat",
    "recipe",
    "monitor",
    "seed",
    "precision",
    *PLACES,
)  # a base gets these overrides too
FREE = (
    "model",
    "data",
    "threat",
    "recipe",
    "schedule",
    "scale",
    "monitor",
    "seed",
)  # a row of the paper can differ in these

MAX_VALUES = 10_000  # in a configuration with expanded aliases and interpolations
CHOICES_KEPT = 1000  # cached configurations; many runs of a plan differ only in their seed
_SEED = re.compile(r"seed=\d+")
_INTERPOLATION = re.compile(r"\$\{([\w.]+)\}")
_FOLLOWS_SEED = re.compile(r"\$\{[^}]*\bseed\b")


def register() -> None:
    """Register the schema and the resolvers with Hydra. Can be called more than once."""
    ConfigStore.instance().store(name="schema", node=Config)
    resolvers: dict[str, Callable[..., Any]] = {
        "times": _times,
        "npz.num_classes": _npz_num_classes,
        "npz.channels": _npz_channels,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)
    use_yaml_loader(_bounded_loader)


@cache
def _bounded_loader() -> type:
    """Return OmegaConf's YAML loader, extended to refuse files that are too large with expanded aliases."""

    class Loader(yaml_loader()):  # type: ignore[misc]
        def get_single_node(self) -> Any:
            try:
                node = super().get_single_node()
                count = _nodes(node, {})
            except RecursionError:
                raise InputError(f"{self.name}: is nested too deeply") from None
            if count > MAX_VALUES:
                raise InputError(f"{self.name}: must have at most {MAX_VALUES:,} values with expanded aliases")
            return node

    return Loader


def _nodes(node: Any, known: dict[int, float]) -> float:
    """Count the YAML nodes in `node` with expanded aliases. `known` has the counts of other nodes."""
    if isinstance(node, (tuple, list)):
        return sum(_nodes(item, known) for item in node)
    if not isinstance(node, CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = math.inf  # if the node contains an alias of itself
        known[id(node)] = 1 + _nodes(node.value, known)
    return known[id(node)]


def _times(factor: Any, value: Any) -> Any:
    """Resolve `${times:0.25,${attack.eps}}`, or `${times:[0.5,1],${attack.eps}}` to a list.

    The numbers of a list are multiplied exactly before they are rounded, so that 0.75 times 8/255 is 6/255. An invalid
    value is returned unchanged, so that the check of eps fails.
    """
    try:
        if value is None:
            return None
        if isinstance(factor, Sequence) and not isinstance(factor, str):
            number._converted(value)
            exact = Fraction(str(value).replace(" ", ""))
            return OmegaConf.create([float(Fraction(str(one)) * exact) for one in factor])
        return number._converted(factor) * number._converted(value)
    except ValueError:
        return value


def _npz_num_classes(path: str) -> int:
    from bnft.data import npz  # here, because it imports PyTorch, which --help does not need

    return npz.num_classes(path)


def _npz_channels(path: str) -> int:
    from bnft.data import npz

    return npz.channels(path)


@dataclass(frozen=True)
class Composed:
    """A composed configuration.

    Attributes:
        policy: the name of the policy.
        overrides: the command line.
        config: the configuration as plain data. Every value has been checked and has its final type.
    """

    policy: str
    overrides: tuple[str, ...]
    config: dict[str, Any]


@cache
def policies() -> tuple[str, ...]:
    """Return the names of all policies."""
    return tuple(GlobalHydra.instance().config_loader().get_group_options("policy"))


def compose(overrides: Sequence[str]) -> Composed:
    """Compose, resolve and check a configuration. Writes nothing. Raises InputError if an override is invalid."""
    seeds = [line for line in overrides if _SEED.fullmatch(line)]
    rest = tuple(line for line in overrides if line not in seeds)
    with explained():
        if seeds and _is_free_of_seed(rest):
            policy, raw = _resolved(rest)
            raw = {**raw, "seed": int(seeds[-1].partition("=")[2])}
        else:
            policy, raw = _resolved(tuple(overrides))
    return Composed(policy, tuple(overrides), check(raw))


@contextmanager
def explained() -> Iterator[None]:
    """Turn errors of Hydra and OmegaConf about a user's input into InputError, with one line."""
    try:
        yield
    except Exception as error:
        if not about_input(error):
            raise
        raise InputError(library_message(error, SCHEMA)) from None


@contextmanager
def composing() -> Iterator[ConfigLoader]:
    """Use Hydra with bnft's configuration in this block, in a process that Hydra did not start.

    Afterwards the previous state of Hydra is restored, for programs that use Hydra themselves.
    """
    register()
    hydra, base = GlobalHydra.instance(), VersionBase.instance()
    before = hydra.hydra, base.getbase()
    hydra.clear()
    try:
        with explained():
            initialize_config_dir(str(folders.own()), job_name="bnft", version_base="1.3")
            yield hydra.config_loader()
    finally:
        hydra.hydra, base.version_base = before


def quoted(argument: str) -> str:
    """Add quotes around the items of `base_overrides=[a=1,b=2]`, which Hydra's grammar requires."""
    name, _, items = argument.partition("=")
    one_list = items.startswith("[") and items.endswith("]") and "],[" not in items
    if name.lstrip("+") != "base_overrides" or not one_list:
        return argument
    bare = re.split(r",(?![^\[\]{}()]*[\]})])", items[1:-1])  # at commas outside brackets
    wrapped = [item if item[:1] in ("'", '"') or "=" not in item else f"'{item}'" for item in map(str.strip, bare)]
    return f"{name}=[{','.join(wrapped)}]"


def for_hydra(argument: str) -> str:
    """Return an argument of the command line as Hydra expects it.

    `+scale=NAME` becomes `scale=NAME`. Hydra refuses the `+`, because data sets can bring a scale. `study=NAME` becomes
    `+study=NAME`. Hydra requires the `+`, because usually there is no study.
    """
    if argument.startswith("+scale="):
        argument = argument.removeprefix("+")
    elif argument.startswith(("study=", "sweep=")):
        argument = f"+{argument}"
    return quoted(argument)


def forget() -> None:
    """Clear all caches, so that the files of conf/ and of a user's own components are read again."""
    sources.forget()
    for function in (policies, _groups, _resolved, _is_free_of_seed):
        function.cache_clear()


@lru_cache(maxsize=CHOICES_KEPT)
def _resolved(overrides: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Return the policy and the resolved configuration of a command line, before its check."""
    choices, values = _sorted(overrides)
    policy, config = _groups(choices)
    config = copy.deepcopy(config)
    apply_values(values, config)
    _check_kind(config)
    _check_size(OmegaConf.to_container(config, resolve=False))
    raw = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(raw, dict)
    return policy, {str(key): value for key, value in raw.items()}


def _check_kind(config: DictConfig) -> None:
    """Raise InputError if there is a scale, which has numbers for kinds of schedules, and the schedule has no kind."""
    schedule = config.schedule
    if config.scale and isinstance(schedule, DictConfig) and not OmegaConf.is_interpolation(schedule, "kind"):
        kind = schedule.get("kind")
        if kind not in KINDS:
            allowed = f"one of {', '.join(KINDS)}, for which the scale has numbers; scale=none chooses no scale"
            raise rejected("schedule.kind", kind, allowed)


def _check_size(root: Any) -> None:
    """Raise InputError if a configuration is too large with expanded interpolations."""
    known: dict[str, int] = {}

    def size(value: Any) -> int:
        if isinstance(value, dict):
            return sum(map(size, value.values()))
        if isinstance(value, list):
            return sum(map(size, value))
        return 1 + sum(map(size_at, _INTERPOLATION.findall(value) if isinstance(value, str) else ()))

    def size_at(key: str) -> int:
        if key not in known:
            known[key] = 0  # if the value contains an interpolation of itself, which OmegaConf refuses
            known[key] = size(
                reduce(lambda value, part: value.get(part) if isinstance(value, dict) else None, key.split("."), root)
            )
        if known[key] > MAX_VALUES:
            raise InputError(f"{key}: must have at most {MAX_VALUES:,} values with expanded interpolations")
        return known[key]

    size(root)


@lru_cache(maxsize=CHOICES_KEPT)
def _is_free_of_seed(overrides: tuple[str, ...]) -> bool:
    """Return whether no interpolation depends on `seed`, so that runs with other seeds resolve in the same way."""
    choices, values = _sorted(overrides)
    _, config = _groups(choices)
    written = [OmegaConf.to_yaml(config), *(value.input_line or "" for value in values)]
    return not any(_FOLLOWS_SEED.search(text) for text in written)


def _sorted(overrides: tuple[str, ...]) -> tuple[tuple[str, ...], list[Override]]:
    """Return the overrides that choose groups, and those that set values."""
    parsed = {line: _parsed(line) for line in overrides}
    values = {line: override for line, override in parsed.items() if _is_value(override)}
    return tuple(line for line in overrides if line not in values), [
        values[line] for line in overrides if line in values
    ]


@cache
def _parsed(line: str) -> Override:
    (override,) = OverridesParser.create().parse_overrides([line])
    return override


def is_sweep(line: str) -> bool:
    """Return whether an override has several values. Raises InputError if it is not an override."""
    with explained():
        return _parsed(line).is_sweep_override()


def _is_value(override: Override) -> bool:
    """Return whether an override sets a value, rather than choosing from a group, by Hydra's own criterion."""
    return override.package is None and (not is_group(override.key_or_group) or isinstance(override.value(), dict))


@cache
def _groups(choices: tuple[str, ...]) -> tuple[str, DictConfig]:
    """Return the policy and the composed configuration of a choice of groups, before any value is overridden.

    Cached, because this is the slow part of Hydra, and many runs of a sweep choose the same groups.
    """
    config = hydra_compose(CONFIG_NAME, list(choices), return_hydra_config=True)
    policy = config.hydra.runtime.choices.get("policy")
    if policy is None:
        raise InputError(not_given("policy", f"one of {', '.join(policies())}"))
    if not re.fullmatch(r"\w[\w.+-]{0,99}", str(policy)):  # it becomes part of the names of folders
        raise rejected("policy", policy, "a file directly in conf/policy/, named by letters, digits, _ . + and - only")
    _check_scale(config.hydra.runtime.choices)
    OmegaConf.set_struct(config, False)
    OmegaConf.set_readonly(config, False)
    del config["hydra"]  # it has interpolations that only a job can resolve
    OmegaConf.set_struct(config, True)
    return str(policy), config


def _check_scale(choices: Mapping[str, Any]) -> None:
    """Raise InputError if the chosen scale does not exist. Hydra allows this, since most data sets bring no scale."""
    scale = choices.get("scale")
    if scale is not None and scale != choices.get("data"):
        options = GlobalHydra.instance().config_loader().get_group_options("scale")
        if scale not in options:
            raise rejected("scale", scale, f"one of {', '.join(options)}")


def base_overrides(composed: Composed, policy: str) -> list[str]:
    """Return the command line of the base of a run: inherited overrides, and those in `base_overrides`."""
    return [f"policy={policy}", *_kept(composed.overrides, INHERITED), *composed.config["base_overrides"]]


def pristine_overrides(composed: Composed, row: Sequence[str] = ()) -> list[str]:
    """Return the command line of a policy with the same data, model, schedule and seed, but without other overrides.

    Those of `row`, a row of a study, are kept.
    """
    kept = [line for line in composed.overrides if line in row or _group(line) in FREE]
    return [f"policy={composed.policy}", *kept]


def without_groups(overrides: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Return overrides without those of some groups or keys of the root."""
    return [line for line in overrides if _group(line) not in groups]


def own_line(composed: Composed) -> list[str]:
    """Return the command line of a run, without its sweep, the name of this, its store and its tracking."""
    left_out = ("sweep", "sweep_name", "store", "wandb", "preview")
    return without_groups(composed.overrides, left_out)


def quick_line(line: Sequence[str]) -> list[str]:
    """Return the command line of a run with `evaluation=quick` instead of its own evaluation."""
    common = {f"evaluation.{key}" for key in COMMON}
    kept = [part for part in line if _group(part) != "evaluation" or _parsed(part).key_or_group in common]
    return [*kept, "evaluation=quick"]


def _kept(overrides: Sequence[str], groups: Sequence[str]) -> list[str]:
    return [line for line in overrides if _group(line) in groups]


def _group(line: str) -> str:
    """Return the group or key of the root that an override changes."""
    return _parsed(line).key_or_group.split("/")[0].split(".")[0].split("@")[0]


def as_path(base: str) -> Path | None:
    """Return the folder or file that `base` names; None if it does not exist."""
    path = Path(base).expanduser()
    return path if path.exists() else None
