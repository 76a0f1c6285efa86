"""What names a run: the resolved scientific configuration, as canonical JSON, hashed.

Places, devices, launchers, logging and tracking change no number and have no part in it. A field that is absent, null
or an empty group hashes as if it had never existed, so an option that is added later, null by default, keeps old names.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from bnft.common.canonical import canonical, pruned

PROTOCOL = 3  # raised whenever a change of the program alters the numbers that a configuration gives
HASH_LENGTH = 10
SOURCE = "_source_"  # beside a component's `_target_`, for one that is not bnft's: the hash of what it computes with


def digest(value: Any) -> str:
    """The first 10 hexadecimal digits of the SHA-256 of the canonical form."""
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
) -> dict[str, Any]:
    """The identity of a run: what is hashed to name it.

    `data` holds the content hash, never a path; `base` is the identity of the run it starts from, or `{"sha256": ...}`
    of a file; `precision` is what was asked for.
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
    }
    hashed = pruned(identity)
    assert isinstance(hashed, dict)
    return hashed


def of_evaluation(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of an evaluation inside a run."""
    hashed = pruned({"protocol": PROTOCOL, **evaluation})
    assert isinstance(hashed, dict)
    return hashed


def without(identity: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    """The identity without some of its fields, in the bases too; but a base's seed stays if it is not the run's own."""
    kept = {key: value for key, value in identity.items() if key not in fields}
    base = kept.get("base")
    if isinstance(base, Mapping):
        own = base.get("seed") == identity.get("seed")
        kept["base"] = without(base, *(field for field in fields if field != "seed" or own))
    return kept


def without_source(identity: Any) -> Any:
    """The identity as it would be if the source of a person's own components had no part in it."""
    if isinstance(identity, Mapping):
        return {key: without_source(value) for key, value in identity.items() if key != SOURCE}
    return identity


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves in which two identities differ: dotted key to the value in `ours` (None where it has none)."""
    found: dict[str, Any] = {}
    for key in sorted({*ours, *theirs}):
        mine, other, path = ours.get(key), theirs.get(key), f"{prefix}{key}"
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            found.update(differences(mine, other, f"{path}."))
        elif mine != other:
            found[path] = mine
    return found


def same_hash(owner: object, run: str) -> bool:
    """Whether the run `owner` has the hash of the run `run`; its policy can be called otherwise now."""
    return str(owner).rpartition("-")[2] == run.rpartition("-")[2]
