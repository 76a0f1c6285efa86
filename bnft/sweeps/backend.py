"""What carries out a sweep: this machine (`local`) or a SLURM cluster (`slurm.launch`). Light: Hydra imports it for
every command.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bnft.runs.plan import Plan
    from bnft.sweeps.pool import Outcomes

Track = Callable[..., AbstractContextManager[None]]
"""What tracks runs for the length of a block; see `bnft.tracking.background.tracked`."""


class Backend(Protocol):
    """Carries out a plan as a whole, since its runs depend on each other."""

    @property
    def here(self) -> bool:
        """Whether runs find the devices of the machine that plans them."""

    def warm_up(self) -> None:
        """Begin with what takes time and can go on beside the planning."""

    def check(self) -> None:
        """Raise InputError for settings that cannot be; before anything is written."""

    def carry_out(self, planned: "Plan", sweep: str, track: Track) -> "Outcomes | None":
        """Launch the sweep of that name, which is recorded already; None if it goes on without this process."""
