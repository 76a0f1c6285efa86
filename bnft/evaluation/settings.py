"""The settings of an evaluation, and the codes of its outcomes. This module does not import PyTorch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from bnft.common.constraints import Strict, above, at_least, increasing, list_of, number, one_of

NORMS = ("Linf", "L2")
EVALUATIONS = ("autoattack", "quick", "pgd")
PREVIEWS = ("quick",)  # attacks that can show a number before AutoAttack's is known
COMMON = ("norm", "eps", "n_images", "batch_size", "seed")  # settings that every attack has
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
    then: Annotated[str | None, one_of("quick")] = None  # another attack on what AutoAttack has not broken
    iterations: Annotated[int | None, at_least(1)] = None  # of PGD
    step_size: Annotated[Any, number, above(0)] = None  # of PGD
    restarts: Annotated[int | None, at_least(1)] = None  # of PGD and quick
    budgets: Annotated[Any, increasing] = None  # of quick: several values of eps, or null

    @property
    def shown_attack(self) -> str:
        """The attack in labels. It is `quick, curve` for robust error over eps, which can differ from that by quick."""
        return self.attack if self.budgets is None else f"{self.attack}, curve"


def by(attack: str) -> str:
    """Return the text that follows the name of a row or a number by this attack; empty for AutoAttack.

    `attack` is an attack, or `Evaluation.shown_attack`.
    """
    return {"autoattack": "", "pgd": " (PGD)"}.get(attack, f" ({attack})")


def score_text(error: float, attack: str) -> str:
    """Return a robust error in percent as text. It says if the attack is weaker than AutoAttack: `≥ 62.5 (quick)`."""
    return f"{'≥ ' if by(attack) else ''}{error:.1f}{by(attack)}"


def quick_instead(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `evaluation=quick` with the budget, the images and the seed of another evaluation."""
    return vars(Evaluation(attack="quick", restarts=1, **{key: evaluation[key] for key in COMMON}))


def autoattack_alone(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an evaluation without its further attack (`then`)."""
    return {**evaluation, "then": None, "restarts": None}


def passes_per_image(
    attack: str, iterations: int | None = None, restarts: int | None = None, budgets: Sequence[float] | None = None
) -> float:
    """Return the approximate number of passes (forward and backward each count one) for one robust image."""
    if attack == "pgd":
        return 2.0 * (iterations or 1) * (restarts or 1)
    return 4400.0 if attack == "autoattack" else 250.0 * (restarts or 1) * len(budgets or [None])
