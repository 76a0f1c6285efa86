"""JSON in canonical form, for hashing."""

import json
from collections.abc import Mapping
from typing import Any


def canonical(value: Any) -> str:
    """Return `value` as JSON in canonical form: with sorted keys, without spaces, nulls and empty groups."""
    return json.dumps(pruned(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def pruned(value: Any) -> Any:
    """Return `value` without nulls and empty groups."""
    if isinstance(value, Mapping):
        kept = {str(key): pruned(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not None and item != {}}
    if isinstance(value, (list, tuple)):
        return [pruned(item) for item in value]
    return value
