"""The numbers of Figure 3 (confidences and logits on clean images and PGD examples) and of the cascade of attacks.

They are about the n attacked images, which are the first of the test images. There are PGD examples of all of them, see
`evaluation.pgd.logits`. AutoAttack does not perturb an image that is misclassified already, or that no attack breaks.
Its images therefore cannot show how a model responds to adversarial images in general.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bnft.common.errors import DamagedError
from bnft.evaluation.summary import ErrorRate
from bnft.report.distributions import BINS, common_edges, counted
from bnft.report.rows import Rate, Row
from bnft.report.stored import StoredResult
from bnft.runs import layout

Array = NDArray[np.float64]
Kind = Literal["clean", "adversarial", "fooled"]
KINDS: dict[Kind, str] = {
    "clean": "the attacked images, without an attack",
    "adversarial": "PGD examples of the same images, whether they fool the model or not",
    "fooled": "the adversarial images that fool the model, of images that are classified correctly without an attack",
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
        """Return the logits (images, classes) of one of KINDS."""
        if kind == "fooled":
            return self.adversarial[self.fallen_at > 0]
        return self.clean if kind == "clean" else self.pgd

    def values(self, quantity: str, kind: Kind) -> Array:
        """Return the confidence of each image, or the logits of all images and classes, as one axis."""
        logits = self.logits(kind)
        return confidence(logits) if quantity == "confidence" else logits.ravel()


def softmax(logits: NDArray[Any]) -> Array:
    """Return the probabilities (n, classes) of logits (n, classes)."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def confidence(logits: NDArray[Any]) -> Array:
    """Return the probability (n,) of the predicted class, for logits (n, classes)."""
    return softmax(logits).max(axis=1) if len(logits) else np.zeros(0)


def scores(result: StoredResult) -> Scores:
    """Return the scores of the attacked images. Raise DamagedError if they are missing or damaged."""
    kept, file = result.scores, result.folder.path / layout.OUTCOMES
    try:
        fallen_at, adversarial = kept["fallen_at"].astype(np.int64), kept["adversarial_logits"].astype(np.float64)
        images = len(fallen_at)
        clean, labels = kept["clean_logits"][:images].astype(np.float64), kept["labels"][:images].astype(np.int64)
    except KeyError as error:
        raise DamagedError(f"{file}: is damaged, {error.args[0]} is missing") from None
    if not (clean.ndim == 2 and clean.shape == adversarial.shape and labels.shape == fallen_at.shape == (len(clean),)):
        raise DamagedError(f"{file}: is damaged, its logits, labels and outcomes belong to different images")
    pgd = kept.get("pgd_logits", clean[:0]).astype(np.float64)
    if len(pgd) and pgd.shape != clean.shape:
        raise DamagedError(f"{file}: is damaged, its PGD examples belong to different images")
    return Scores(result.seed, clean, adversarial, pgd, labels, fallen_at)


@dataclass(frozen=True)
class RowScores:
    """The scores of a row by seed, and notes on those that cannot be read."""

    scores: dict[int, Scores]
    notes: tuple[str, ...]

    def values(self, quantity: str, kind: Kind) -> Array:
        """Return one of QUANTITIES on one of KINDS, over all seeds, as one axis."""
        return np.concatenate([np.zeros(0), *(of_seed.values(quantity, kind) for of_seed in self.scores.values())])


def read(row: Row) -> RowScores:
    """Read the scores of all runs of a row. Missing or damaged files give a note, not an error."""
    by_seed: dict[int, Scores] = {}
    notes: list[str] = []
    for result in sorted(row.results, key=lambda result: result.seed):
        try:
            by_seed[result.seed] = scores(result)
        except DamagedError as error:
            notes.append(f"{result.run_folder.name}: no outcomes of images: {error}")
    if any(not len(one.pgd) for one in by_seed.values()):
        notes.append(f"{row.first.run.title}: older results have no PGD examples, so Figure 3 shows none")
    return RowScores(by_seed, tuple(notes))


@dataclass(frozen=True)
class ScoreHistogram:
    """A histogram of one row and one kind of images, over all seeds.

    Attributes:
        row: the label of the row.
        kind: one of KINDS.
        counts: the number of values in each bin.
        values: the number of values: one per image for confidences, one per image and class for logits.
        mean: the mean of the values; None if there are none.
    """

    row: str
    kind: Kind
    counts: tuple[int, ...]
    values: int
    mean: float | None


@dataclass(frozen=True)
class ScoreHistograms:
    """Histograms of one of QUANTITIES, with common `edges`. The outermost bins also count values beyond them."""

    quantity: str
    edges: tuple[float, ...]
    histograms: tuple[ScoreHistogram, ...]


def score_histograms(rows: Mapping[str, RowScores], bins: int = BINS) -> list[ScoreHistograms]:
    """Compute the histograms of Figure 3 for rows by label. Rows without scores are left out."""
    figures = []
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
        figures.append(ScoreHistograms(quantity, tuple(edges.tolist()), tuple(drawn)))
    return figures


def distance(first: Array, second: Array) -> float | None:
    """Return the Kolmogorov-Smirnov distance of two samples, from 0 (equal) to 1; None if a sample is empty."""
    if not len(first) or not len(second):
        return None
    first, second = np.sort(first), np.sort(second)
    places = np.concatenate([first, second])
    below = np.searchsorted(first, places, side="right") / len(first)
    return float(np.abs(below - np.searchsorted(second, places, side="right") / len(second)).max())


def cascade(row: Row) -> list[dict[str, Any]]:
    """Return the robust error after each attack, in percent, as one dict per step.

    Each dict has `step`, `attack`, `error` (mean over seeds), `deviation` over seeds (None for one seed), `low` and
    `high` (95 % interval as for `rows.Rate`), `images` and `seconds`. Step 0 is the error without an attack. It is left
    out if outcomes cannot be read. The list ends with the seed that has the fewest attacks.
    """
    steps = []
    before = [of_seed.fallen_at == 0 for of_seed in read(row).scores.values()]
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
