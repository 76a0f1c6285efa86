"""How robust error is measured: the settings of an evaluation, and the words for its outcomes. Without PyTorch."""

from dataclasses import dataclass
from typing import Annotated, Any

from bnft.common.constraints import Strict, above, at_least, list_of, number, one_of

NORMS = ("Linf", "L2")
VERSIONS = ("standard", "plus", "rand", "custom")
ATTACKS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
AUTOATTACK_PASSES = 4400  # about; of one image that no attack breaks, by the standard version

STANDS = -1  # no attack so far broke the image
CLEAN = 0  # it was misclassified without an attack; k > 0: the k-th attack broke it


@dataclass
class Evaluation(Strict):
    """How robust error is measured. `eps` and `step_size` are in pixel units."""

    attack: Annotated[str, one_of("autoattack", "pgd")]
    norm: Annotated[str, one_of(*NORMS)]
    eps: Annotated[Any, number, above(0)]
    n_images: Annotated[int, at_least(1)]
    batch_size: Annotated[int, at_least(1)]
    seed: Annotated[int, at_least(0)] = 0
    version: Annotated[str | None, one_of(*VERSIONS)] = None  # of AutoAttack
    attacks: Annotated[list[str] | None, list_of(*ATTACKS)] = None  # of AutoAttack, with version=custom
    search: Annotated[str | None, one_of("fast")] = None  # of AutoAttack; null is the official search
    iterations: Annotated[int | None, at_least(1)] = None  # of PGD
    step_size: Annotated[Any, number, above(0)] = None  # of PGD
    restarts: Annotated[int | None, at_least(1)] = None  # of PGD
