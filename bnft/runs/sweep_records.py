"""Read the records of sweeps. They are numbered, so that their order does not depend on clocks."""

import json
import math
import re
from pathlib import Path
from typing import Any

from bnft.common.errors import DamagedError

SWEEP_KEYS = {"command", "runs", "bases"}
ENTRY_KEYS = {"runs": {"run", "evaluation"}, "bases": {"run"}, "arrays": {"name", "tasks"}}  # of the items of each list
NUMBER = re.compile(rb'\s*{\s*"number": (\d+)')  # at the beginning of a record


def read(file: Path) -> dict[str, Any]:
    """Return the record of a sweep. Raise DamagedError if it cannot be read."""
    try:
        sweep = json.loads(file.read_text())
    except (OSError, ValueError):
        sweep = None
    if not _is_record(sweep):
        raise DamagedError(f"{file}: is damaged, it must be the record of a sweep; remove this file (no run is lost)")
    assert isinstance(sweep, dict)
    return sweep


def number(file: Path) -> float:
    """Return the number of a sweep, from the first bytes of its record; 0 if it is an old record without a number.

    Return infinity if the file is not a record, so that a search for the newest sweep reports it first.
    """
    try:
        with file.open("rb", buffering=0) as opened:
            beginning = opened.read(64) or b""
    except OSError:
        return math.inf
    match = NUMBER.match(beginning)
    if match is not None:
        return int(match[1])
    return 0 if beginning.startswith(b"{") else math.inf


def _is_record(value: Any) -> bool:
    """Return whether a value is the record of a sweep, with all fields that are read."""
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
