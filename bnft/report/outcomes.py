"""The numbers of Figure 3 (confidences and logits on clean images and PGD examples) and of the cascade of attacks.

They are about the n attacked images, which are the first of the test images. There are PGD examples of all of them, see
`evaluation.pgd.logits`. AutoAttack does not perturb an image that is misclassified already, or that no attack breaks.
Its images therefore cannot show how a model responds to adversarial images in general.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from bnft.common.errors import DamagedError
from bnft.evaluation.summary import ErrorRate
from bnft.report.distributions import BINS, common_edges, counted
from bnft.report.rows import Rate, Row
from bnft.report.stored import StoredResult
from bnft.runs import layout

Array = NDArray[np.float64]
Name = TypeVar("Name")  # of a row
Kind = Literal["clean", "adversarial", "fooled"]
KINDS: dict[Kind, str] = {
    "clean": "the attacked images, without an attack",
    "adversarial": "PGD examples of the same images, whether they fool the model or not",
    "fooled": "the adversarial images that fool the model, of images that are classified correctly without an attack",
}
QUANTITIES = ("confidence", "logit")
DRAWN = ("odds", "logit")  # the quantities of Figure 3: most confidences are too close to 1 to be told apart
MOST_ODDS = 8.0  # the rest is beyond the precision of fp32


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
        """Return one of QUANTITIES or DRAWN: a value of each image, or the logits of all images and classes."""
        logits = self.logits(kind)
        if quantity == "logit":
            return logits.ravel()
        return confidence(logits) if quantity == "confidence" else odds(logits)


def softmax(logits: NDArray[Any]) -> Array:
    """Return the probabilities (n, classes) of logits (n, classes)."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def confidence(logits: NDArray[Any]) -> Array:
    """Return the probability (n,) of the predicted class, for logits (n, classes)."""
    return softmax(logits).max(axis=1) if len(logits) else np.zeros(0)


def odds(logits: NDArray[Any]) -> Array:
    """Return log10(confidence / (1 - confidence)) for logits (n, classes).

    It is 0 for a confidence of 0.5, and about 1, 2 and 3 for 0.9, 0.99 and 0.999.
    """
    if not len(logits):
        return np.zeros(0)
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    powers[np.arange(len(powers)), powers.argmax(axis=1)] = 0
    rest = powers.sum(axis=1)  # relative to the power of the predicted class
    return -np.log10(np.maximum(rest, np.finfo(np.float64).tiny))


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
        """Return one of QUANTITIES or DRAWN on one of KINDS, over all seeds, as one axis."""
        return np.concatenate([np.zeros(0), *(of_seed.values(quantity, kind) for of_seed in self.scores.values())])

    def alone(self) -> "dict[str, RowScores]":
        """Return the scores of each seed alone."""
        return {str(seed): RowScores({seed: found}, ()) for seed, found in self.scores.items()}


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
class ScoreHistogram(Generic[Name]):
    """A histogram of one row and one kind of images, over all seeds.

    Attributes:
        row: the name of the row.
        kind: one of KINDS.
        counts: the number of values in each bin.
        values: the number of values: one per image for confidences, one per image and class for logits.
    """

    row: Name
    kind: Kind
    counts: tuple[int, ...]
    values: int


@dataclass(frozen=True)
class ScoreHistograms(Generic[Name]):
    """Histograms of one of DRAWN, with common `edges`. The outermost bins also count values beyond them."""

    quantity: str
    edges: tuple[float, ...]
    histograms: tuple[ScoreHistogram[Name], ...]


def score_histograms(
    rows: Mapping[Name, RowScores], bins: int = BINS, within: Sequence[RowScores] | None = None
) -> list[ScoreHistograms[Name]]:
    """Compute the histograms of Figure 3. Rows without scores are left out.

    Args:
        rows: the rows by name.
        bins: the number of bins.
        within: the rows whose values determine the edges; None for all rows.
    """
    known = {name: row for name, row in rows.items() if row.scores}
    figures = []
    for quantity in DRAWN if known else ():
        leading = known.values() if within is None else within
        every = np.concatenate([row.values(quantity, kind) for row in leading for kind in KINDS])
        edges = common_edges(every, bins)
        if quantity == "odds" and edges[-1] > MOST_ODDS > edges[0]:
            edges = np.linspace(edges[0], MOST_ODDS, bins + 1)
        drawn = []
        for name, row in known.items():
            for kind in KINDS:
                values = row.values(quantity, kind)
                drawn.append(ScoreHistogram(name, kind, counted(values[None], edges)[0], len(values)))
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
