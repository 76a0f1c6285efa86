"""The records of sweeps: what was asked for together, in an order that does not depend on clocks."""

import json
import math
import re
from pathlib import Path
from typing import Any

from bnft.common.errors import DamagedError

SWEEP_KEYS = {"command", "runs", "bases"}
ENTRY_KEYS = {"runs": {"run", "evaluation"}, "bases": {"run"}, "arrays": {"name", "tasks"}}  # of each in these lists
NUMBER = re.compile(rb'\s*{\s*"number": (\d+)')  # at the beginning of a sweep's record


def read(file: Path) -> dict[str, Any]:
    """The record of a sweep. Raises DamagedError if it cannot be read."""
    try:
        sweep = json.loads(file.read_text())
    except (OSError, ValueError):
        sweep = None
    if not _is_record(sweep):
        raise DamagedError(f"{file}: is damaged, it must be the record of a sweep; remove this file, the runs stay")
    assert isinstance(sweep, dict)
    return sweep


def number(file: Path) -> float:
    """The number of a sweep, from the first bytes of its record. 0 if it was recorded before there were numbers.

    Infinity if there is no record in the file, so that whoever looks for the newest sweep comes upon it first.
    """
    try:
        with file.open("rb", buffering=0) as opened:
            beginning = opened.read(64) or b""
    except OSError:
        return math.inf
    found = NUMBER.match(beginning)
    if found is not None:
        return int(found[1])
    return 0 if beginning.startswith(b"{") else math.inf


def _is_record(value: Any) -> bool:
    """Whether this is the record of a sweep, with everything that is read of it."""
    return (
        isinstance(value, dict)
        and value.keys() >= SWEEP_KEYS
        and all(isinstance(value.get(part, []), list) for part in ENTRY_KEYS)
        and all(
            isinstance(entry, dict) and entry.keys() >= keys
            for part, keys in ENTRY_KEYS.items()
            for entry in value.get(part, [])
        )
    )
