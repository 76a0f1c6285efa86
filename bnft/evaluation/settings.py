"""The settings of an evaluation, and the codes of its outcomes. This module does not import PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from bnft.common.constraints import Strict, above, at_least, increasing, list_of, number, one_of

NORMS = ("Linf", "L2")
EVALUATIONS = ("autoattack", "quick", "pgd")
VERSIONS = ("standard", "plus", "rand", "custom")
ATTACKS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
STANDS = -1  # the image is robust: no attack has broken it so far
CLEAN = 0  # the image is misclassified without an attack; k > 0: the k-th attack broke it


@dataclass
class Evaluation(Strict):
    """How robust error is measured. `eps` and `step_size` are in pixel units."""

    attack: Annotated[str, one_of(*EVALUATIONS)]
    norm: Annotated[str, one_of(*NORMS)]
    eps: Annotated[Any, number, above(0)]
    n_images: Annotated[int, at_least(1)]
    batch_size: Annotated[int, at_least(1)]
    seed: Annotated[int, at_least(0)] = 0
    version: Annotated[str | None, one_of(*VERSIONS)] = None  # of AutoAttack
    attacks: Annotated[list[str] | None, list_of(*ATTACKS)] = None  # of AutoAttack, with version=custom
    search: Annotated[str | None, one_of("fast")] = None  # of AutoAttack; null is the official search
    then: Annotated[str | None, one_of("quick")] = None  # another attack on what AutoAttack has not broken
    iterations: Annotated[int | None, at_least(1)] = None  # of PGD
    step_size: Annotated[Any, number, above(0)] = None  # of PGD
    restarts: Annotated[int | None, at_least(1)] = None  # of PGD and quick
    budgets: Annotated[Any, increasing] = None  # of quick: several values of eps, or null


def passes_per_image(
    attack: str, iterations: int | None = None, restarts: int | None = None, budgets: Sequence[float] | None = None
) -> float:
    """Return the approximate number of passes (forward and backward each count one) for one robust image."""
    if attack == "pgd":
        return 2.0 * (iterations or 1) * (restarts or 1)
    return 4400.0 if attack == "autoattack" else 250.0 * (restarts or 1) * len(budgets or [None])
