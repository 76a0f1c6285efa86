"""The identity of a run: its resolved scientific configuration, whose hash is part of the run's name.

The hash is of canonical JSON. Paths, devices, launchers, logging and tracking change no number, so they are not part of
the identity. A field that is null or an empty group is left out. An option that is added later, and is null by default,
therefore does not change the names of existing runs.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from bnft.common.canonical import canonical, pruned

PROTOCOL = 3  # increased whenever a change of the program changes the numbers of a configuration
HASH_LENGTH = 10
SOURCE = "_source_"  # field beside `_target_` with the hash of a component's source, if it is outside bnft


def digest(value: Any) -> str:
    """Return the first 10 hexadecimal digits of the SHA-256 of the canonical form."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:HASH_LENGTH]


def of_run(
    *,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    freeze_policy: Mapping[str, Any],
    attack: Mapping[str, Any] | None,
    schedule: Mapping[str, Any],
    precision: str,
    seed: int,
    base: Mapping[str, Any] | None,
    monitor: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the identity of a run.

    Args:
        model: the configuration of the model, with the hash of its source.
        data: the hash of the content, and how images are preprocessed. It has no path.
        freeze_policy: the configuration of the freeze policy.
        attack: the configuration of the training attack, with the hash of its source.
        schedule: the configuration of the schedule.
        precision: the configured precision.
        seed: the seed.
        base: the identity of the base, or `{"sha256": ...}` if it is a file.
        monitor: the configuration of monitoring; None without it.
    """
    policy = {**freeze_policy, "parameters": sorted(set(freeze_policy["parameters"]))}
    identity = {
        "protocol": PROTOCOL,
        "model": model,
        "data": data,
        "freeze_policy": policy,
        "attack": attack,
        "schedule": schedule,
        "precision": precision,
        "seed": seed,
        "base": base,
        "monitor": monitor,
    }
    hashed = pruned(identity)
    assert isinstance(hashed, dict)
    return hashed


def parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `of_run` that a configuration determines, without the content of data and sources."""
    attack, monitor = config["attack"], config["monitor"]
    keys = ("augmentation", "fill", "interpolation", "mean", "std")
    return {
        "model": config["model"],
        "data": {key: config["data"][key] for key in keys},
        "freeze_policy": config["freeze_policy"],
        "attack": {key: value for key, value in attack.items() if key != "examples"} if attack else None,
        "schedule": {key: value for key, value in config["schedule"].items() if key != "kind"},
        "precision": config["precision"],
        "seed": config["seed"],
        "monitor": monitor if monitor["every"] is not None else None,
    }


def of_evaluation(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of an evaluation, which is unique within a run."""
    hashed = pruned({"protocol": PROTOCOL, **evaluation})
    assert isinstance(hashed, dict)
    return hashed


def evaluation_id(evaluation: Mapping[str, Any]) -> str:
    """Return the id of an evaluation, which is the name of its folder within a run."""
    return f"{evaluation['attack']}-{digest(of_evaluation(evaluation))}"


def without(identity: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    """Return an identity without some fields. They are removed from its bases too.

    The seed of a base is kept if it differs from the run's own seed.
    """
    kept = {key: value for key, value in identity.items() if key not in fields}
    base = kept.get("base")
    if isinstance(base, Mapping):
        own = base.get("seed") == identity.get("seed")
        kept["base"] = without(base, *(field for field in fields if field != "seed" or own))
    return kept


def without_evaluation(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides of a run, by dotted key, without those of its evaluation."""
    return {key: value for key, value in overrides.items() if not key.startswith("evaluation.")}


def without_source(identity: Any) -> Any:
    """Return an identity without the hashes of the source of a user's own components."""
    if isinstance(identity, Mapping):
        return {key: without_source(value) for key, value in identity.items() if key != SOURCE}
    return identity


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of `ours` that differ from `theirs`, by dotted key. A value that is not in `ours` is None."""
    different: dict[str, Any] = {}
    for key in sorted({*ours, *theirs}):
        mine, other, path = ours.get(key), theirs.get(key), f"{prefix}{key}"
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            different.update(differences(mine, other, f"{path}."))
        elif mine != other:
            different[path] = mine
    return different


def same_hash(owner: object, run: str) -> bool:
    """Return whether two names of runs have the same hash. The policy may have been renamed."""
    return str(owner).rpartition("-")[2] == run.rpartition("-")[2]
