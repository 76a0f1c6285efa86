"""Find rows that start from another run than the row of the same policy beside them.

`schedule.epochs=3`, for example, changes the row NORMAL but not the base of BN PARAMS, which has the schedule of its
policy. The two rows then have little to do with each other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bnft.common.errors import show
from bnft.runs import identity


@dataclass(frozen=True)
class Member:
    """A run of a table: the title of its row, its name, the name of its base, and its identity."""

    title: str
    name: str
    base: str | None
    identity: Mapping[str, Any]

    @property
    def policy(self) -> str:
        return self.name.rpartition("-")[0]


def unequal(members: Iterable[Member]) -> list[str]:
    """Return a sentence for each group of rows whose base differs from the row of its policy."""
    runs = {member.name: member for member in members}
    rows: dict[tuple[str, Any], Member] = {}
    for member in runs.values():
        rows.setdefault((member.policy, member.identity.get("seed")), member)
    found: dict[tuple[str, str], list[str]] = {}
    for member in runs.values():
        base = member.identity.get("base")
        if member.base is None or member.base in runs or not isinstance(base, Mapping):
            continue
        row = rows.get((member.base.rpartition("-")[0], base.get("seed")))
        if row is not None and (different := identity.differences(base, row.identity)):
            found.setdefault((row.title, _told(different, identity.differences(row.identity, base))), []).append(
                member.title
            )
    return [
        f"{', '.join(dict.fromkeys(titles))}: the base is another {row} than the row {row} {told}"
        for (row, told), titles in found.items()
    ]


def _told(of_base: Mapping[str, Any], of_row: Mapping[str, Any]) -> str:
    """Return how a base differs from a row, and what makes them equal if it is a matter of overrides."""
    text = (
        "(" + ", ".join(f"{key}={show(value)} instead of {show(of_row[key])}" for key, value in of_base.items()) + ")"
    )
    if not all(key.startswith("schedule.") and not isinstance(of_row[key], Mapping) for key in of_base):
        return f"{text}."
    return f"{text}; base_overrides=[{','.join(f'{key}={show(of_row[key])}' for key in of_base)}] makes them equal."
