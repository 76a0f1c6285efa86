"""Figure 3, confidences and logits on clean images and on PGD examples, and robust error after each attack.

All of it is about the n images that were attacked, the first of the test images. PGD examples are of all of these, see
`evaluation.pgd.logits`. AutoAttack does not perturb an image that is misclassified already, or that no attack breaks.
Its images therefore cannot show how a model sees adversarial images in general.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bnft.common.errors import DamagedError
from bnft.evaluation.summary import ErrorRate
from bnft.report.distributions import BINS, common_edges, counted
from bnft.report.rows import Rate, Row, StoredResult
from bnft.runs import layout

Array = NDArray[np.float64]
Kind = Literal["clean", "adversarial", "fooled"]
KINDS: dict[Kind, str] = {
    "clean": "the attacked images before the attack",
    "adversarial": "PGD examples of the same images, whether they fool the model or not",
    "fooled": "the images with which the attack fooled the model, of images that were classified correctly before",
}
QUANTITIES = ("confidence", "logit")


@dataclass(frozen=True)
class Scores:
    """The scores of one run on the n attacked images.

    Attributes:
        seed: the seed of the run.
        clean: logits (n, classes) of the images without an attack.
        adversarial: logits (n, classes) of the images that the attack kept, see `evaluation.Outcomes`.
        pgd: logits (n, classes) on PGD examples; (0, classes) for older results, which have none.
        labels: labels (n,).
        fallen_at: -1 for a robust image, 0 for one misclassified without an attack, k for one that attack k broke.
    """

    seed: int
    clean: Array
    adversarial: Array
    pgd: Array
    labels: NDArray[np.int64]
    fallen_at: NDArray[np.int64]

    def logits(self, kind: Kind) -> Array:
        """The logits (images, classes) of one of KINDS."""
        if kind == "fooled":
            return self.adversarial[self.fallen_at > 0]
        return self.clean if kind == "clean" else self.pgd

    def values(self, quantity: str, kind: Kind) -> Array:
        """The confidence of each image, or all of its logits, as one axis."""
        logits = self.logits(kind)
        return confidence(logits) if quantity == "confidence" else logits.ravel()


def softmax(logits: NDArray[Any]) -> Array:
    """Probabilities (n, classes) of logits (n, classes)."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def confidence(logits: NDArray[Any]) -> Array:
    """The probability (n,) of the predicted class, for logits (n, classes)."""
    return softmax(logits).max(axis=1) if len(logits) else np.zeros(0)


def scores(result: StoredResult) -> Scores:
    """What a result's outcomes say of the attacked images. Raises DamagedError if they are not there or not whole."""
    kept, file = result.scores, result.folder.path / layout.OUTCOMES
    try:
        fallen_at, adversarial = kept["fallen_at"].astype(np.int64), kept["adversarial_logits"].astype(np.float64)
        images = len(fallen_at)
        clean, labels = kept["clean_logits"][:images].astype(np.float64), kept["labels"][:images].astype(np.int64)
    except KeyError as error:
        raise DamagedError(f"{file}: is damaged, it lacks {error.args[0]}") from None
    if not (clean.ndim == 2 and clean.shape == adversarial.shape and labels.shape == fallen_at.shape == (len(clean),)):
        raise DamagedError(f"{file}: is damaged, its logits, labels and outcomes are not of the same images")
    pgd = kept.get("pgd_logits", clean[:0]).astype(np.float64)
    if len(pgd) and pgd.shape != clean.shape:
        raise DamagedError(f"{file}: is damaged, its PGD examples are not of the same images")
    return Scores(result.seed, clean, adversarial, pgd, labels, fallen_at)


@dataclass(frozen=True)
class RowScores:
    """The scores of a row by seed, and notes on those that cannot be read."""

    scores: dict[int, Scores]
    notes: tuple[str, ...]

    def values(self, quantity: str, kind: Kind) -> Array:
        """One of QUANTITIES on one of KINDS of images, over all seeds, as one axis."""
        return np.concatenate([np.zeros(0), *(found.values(quantity, kind) for found in self.scores.values())])


def read(row: Row) -> RowScores:
    """The scores of all runs of a row. Never raises for what is missing or damaged."""
    found: dict[int, Scores] = {}
    notes: list[str] = []
    for result in sorted(row.results, key=lambda result: result.seed):
        try:
            found[result.seed] = scores(result)
        except DamagedError as error:
            notes.append(f"{result.run_folder.name}: no outcomes of images: {error}")
    if any(not len(one.pgd) for one in found.values()):
        notes.append(f"{row.first.run.title}: Figure 3 lacks PGD examples, which older results do not have")
    return RowScores(found, tuple(notes))


@dataclass(frozen=True)
class ScoreHistogram:
    """One row and kind of images: how many `values` lie in each bin, over all seeds, and their mean.

    Of a confidence there is one value an image, of logits one for each image and class.
    """

    row: str
    kind: Kind
    counts: tuple[int, ...]
    values: int
    mean: float | None


@dataclass(frozen=True)
class ScoreHistograms:
    """Figure 3: one of QUANTITIES, for all rows and KINDS on common `edges`; outermost bins take what lies beyond."""

    quantity: str
    edges: tuple[float, ...]
    histograms: tuple[ScoreHistogram, ...]


def score_histograms(rows: Mapping[str, RowScores], bins: int = BINS) -> list[ScoreHistograms]:
    """Figure 3 for rows by label: confidence, from 0 to 1, then logits; nothing of rows without scores."""
    found = []
    for quantity in QUANTITIES:
        values = {
            (label, kind): row.values(quantity, kind) for label, row in rows.items() if row.scores for kind in KINDS
        }
        if not values:
            continue
        logits = np.concatenate(list(values.values()))
        edges = np.linspace(0, 1, bins + 1) if quantity == "confidence" else common_edges(logits, bins)
        drawn = [
            ScoreHistogram(label, kind, counted(of[None], edges)[0], len(of), float(of.mean()) if len(of) else None)
            for (label, kind), of in values.items()
        ]
        found.append(ScoreHistograms(quantity, tuple(edges.tolist()), tuple(drawn)))
    return found


def distance(first: Array, second: Array) -> float | None:
    """The largest gap between two cumulative distributions (Kolmogorov-Smirnov), from 0, alike, to 1; None if empty."""
    if not len(first) or not len(second):
        return None
    first, second = np.sort(first), np.sort(second)
    places = np.concatenate([first, second])
    below = np.searchsorted(first, places, side="right") / len(first)
    return float(np.abs(below - np.searchsorted(second, places, side="right") / len(second)).max())


def cascade(row: Row) -> list[dict[str, Any]]:
    """Robust error after each attack, in percent: one dict a step, with a mean over seeds.

    Each has `step`, `attack`, `error`, `deviation` over seeds (None for one), `low` and `high` (Wilson, 95 %, as for
    `rows.Rate`), `images` and `seconds`. Step 0 is the error on the same images without an attack, left out where
    outcomes cannot be read. Seeds that went through fewer attacks than others end the list where they end.
    """
    steps = []
    before = [found.fallen_at == 0 for found in read(row).scores.values()]
    if before and all(map(len, before)):
        rates = [ErrorRate.of(int(wrong.sum()), len(wrong)) for wrong in before]
        steps.append(_step(0, "no attack", rates, 0.0))
    cascades = [stored.result.cascade for stored in row.results]
    for number, parts in enumerate(zip(*cascades, strict=False), start=1):
        spent = sum(part.seconds for part in parts) / len(parts)
        steps.append(_step(number, parts[0].attack, parts, spent))
    return steps


def _step(number: int, attack: str, rates: Sequence[ErrorRate], seconds: float) -> dict[str, Any]:
    rate = Rate.of(rates)
    low, high = rate.interval
    shown = {"error": rate.error, "deviation": rate.deviation, "low": low, "high": high, "images": rate.images}
    return {"step": number, "attack": attack, **shown, "seconds": seconds}
