"""The interface of backends, which carry out a sweep: this machine (`local`) or a SLURM cluster (`slurm.launch`).

Hydra imports this module for every command, so it must import quickly.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bnft.runs.plan import Plan
    from bnft.sweeps.pool import Outcomes

Track = Callable[..., AbstractContextManager[None]]
"""A context manager that tracks runs in a block; see `bnft.tracking.background.tracked`."""


class Backend(Protocol):
    """Carries out all runs of a plan together, because they depend on each other."""

    @property
    def here(self) -> bool:
        """Whether runs work on the machine that plans them, and therefore have its devices."""

    def warm_up(self) -> None:
        """Start slow preparations, which continue during the planning."""

    def check(self) -> None:
        """Raise InputError if a setting is invalid. Called before anything is written."""

    def carry_out(self, planned: "Plan", sweep: str, track: Track) -> "Outcomes | None":
        """Launch a recorded sweep.

        Args:
            planned: its plan.
            sweep: its name.
            track: tracks its runs.

        Returns:
            The outcome of each task. None if the sweep continues without this process.
        """
