"""The numbers of one evaluation, as they are written into its result. Without PyTorch."""

from dataclasses import dataclass

from bnft.common.intervals import wilson


@dataclass(frozen=True, kw_only=True)
class ErrorRate:
    """Errors among images. `error` is in percent, `interval` is its 95 % interval (Wilson)."""

    errors: int
    images: int
    error: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, errors: int, images: int) -> "ErrorRate":
        return cls(errors=errors, images=images, error=100 * errors / images, interval=wilson(errors, images))


@dataclass(frozen=True, kw_only=True)
class AttackSummary(ErrorRate):
    """The robust error after one attack of a cascade, and the seconds that the attack took."""

    attack: str
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CurvePoint(ErrorRate):
    """The robust error within one budget, `eps`."""

    eps: float


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Passes of single images through a model."""

    forward: int = 0
    backward: int = 0

    def __add__(self, other: "Passes") -> "Passes":
        return Passes(forward=self.forward + other.forward, backward=self.backward + other.backward)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The numbers of one evaluation.

    `clean` is the error without an attack, `robust` the one after all attacks, `cascade` the one after each of them.
    `strongest` is the error after a further attack, if the evaluation has one (`Evaluation.then`). It counts what
    either of the two has broken. `passes` are those of all attacks through the model; None if they are not known, as in
    older results. `curve` is the robust error over eps, if the evaluation has several budgets. Its first point is the
    error without an attack, at eps 0.
    `pgd_loss` is the mean cross-entropy on PGD examples, see `pgd.loss`; older results have none.
    """

    clean: ErrorRate
    robust: ErrorRate
    cascade: tuple[AttackSummary, ...]
    warnings: tuple[str, ...]
    seconds: float
    strongest: AttackSummary | None = None
    passes: Passes | None = None
    curve: tuple[CurvePoint, ...] | None = None
    pgd_loss: float | None = None
