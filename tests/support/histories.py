"""Histories of trainings, as a run writes them."""

from typing import Any


def history(epochs: int, every: int | None = None) -> list[dict[str, Any]]:
    """Return the history of a training, with monitored errors after every `every` epochs."""
    lines: list[dict[str, Any]] = [
        {"epoch": epoch, "loss": 1.0, "error": 2.0, "clean_error": 3.0, "lr": 0.1} for epoch in range(1, epochs + 1)
    ]
    for line in lines[every - 1 :: every] if every else ():
        line |= {"monitor_clean_error": 4.0, "monitor_robust_error": float(line["epoch"])}
    return lines
