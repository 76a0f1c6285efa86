"""The current time, in the format of all files."""

from datetime import UTC, datetime


def now() -> str:
    """Return the current time in UTC, in ISO 8601 format, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
