"""Images that fool one policy but not another, with their perturbations.

An image is robust if no attack fooled the model within the budget. The image that is stored for it is then the
clean image. So the store has the clean image of every pair without the data set: from the policy for which the image is
robust. The adversarial image is from the policy that it fools. In names, a robust image "stands" and a broken one
"falls".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnft.common.errors import DamagedError
from bnft.evaluation.settings import STANDS
from bnft.report.outcomes import Scores, scores, softmax
from bnft.report.rows import Row
from bnft.report.stored import StoredResult
from bnft.runs import layout

SHOWN = 6  # images per pair

MOST_PAIRS = 8


def pairs_of(titles: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of rows: that for which images are robust, and that which they fool. Both directions are pairs."""
    both = [pair for first, second in combinations(titles, 2) for pair in ((first, second), (second, first))]
    return both[:MOST_PAIRS]


@dataclass(frozen=True)
class View:
    """The predictions of one policy for an image. Confidences are probabilities from 0 to 1.

    Attributes:
        policy: the policy.
        fell_to: the attack that broke the image; "no attack" if it is misclassified without an attack; None if it is
            robust.
        clean_prediction: the predicted class without an attack.
        clean_confidence: its confidence.
        adversarial_prediction: the predicted class of the adversarial image; None unless an attack broke the image.
        adversarial_confidence: its confidence.
    """

    policy: str
    fell_to: str | None
    clean_prediction: int
    clean_confidence: float
    adversarial_prediction: int | None
    adversarial_confidence: float | None


@dataclass(frozen=True)
class Picture:
    """An image that is robust for one policy of a pair, and broken for the other. Images are uint8 (H, W, C).

    Attributes:
        index: its number in the test images.
        label: its class.
        clean: the clean image.
        adversarial: the image that fools the other policy.
        perturbation: the change: grey for none, black or white for the largest.
        largest: the largest change of a pixel, for images in [0, 1].
        views: a view per policy. Those of the pair come first.
    """

    index: int
    label: int
    clean: NDArray[np.uint8]
    adversarial: NDArray[np.uint8]
    perturbation: NDArray[np.uint8]
    largest: float
    views: tuple[View, ...]


@dataclass(frozen=True)
class Pair:
    """The images that are robust for one policy and broken for another.

    Attributes:
        stands: the policy for which they are robust.
        falls: the policy for which an attack broke them.
        count: the number of these images.
        images: the number of images that were attacked for both policies.
        pictures: some of these images, in the order of the test images. Each class appears once before any class
            appears twice.
    """

    stands: str
    falls: str
    count: int
    images: int
    pictures: tuple[Picture, ...]


def gallery(
    rows: Mapping[str, Row], pairs: Sequence[tuple[str, str]], shown: int = SHOWN
) -> tuple[list[Pair], list[str]]:
    """Return the pairs of images, and notes on files that cannot be read.

    Each row is represented by the run with the lowest seed that all rows share, or else with its own lowest seed. Pairs
    are left out if a row is missing, has no images, or was attacked within another budget.

    Args:
        rows: the rows by label.
        pairs: the pairs of labels: for which images are robust, and which they fool.
        shown: the number of images to show per pair.

    Raises:
        DamagedError: if the outcomes of a run are damaged.
    """
    notes: list[str] = []
    asked = {name for pair in pairs for name in pair}
    attacked: dict[str, _Attacked] = {}
    for name, result in _one_each({name: row for name, row in rows.items() if name in asked}).items():
        outcomes = result.outcomes()
        try:
            attacked[name] = _attacked(result, outcomes)
        except DamagedError as error:
            notes.append(f"{result.run_folder.name}: no images: {error}")
    complete = [(stands, falls) for stands, falls in pairs if {stands, falls} <= attacked.keys()]
    comparable = [(stands, falls) for stands, falls in complete if attacked[stands].budget == attacked[falls].budget]
    return [_pair(stands, falls, attacked, shown) for stands, falls in comparable], notes


@dataclass(frozen=True)
class _Attacked:
    """One run's scores, adversarial images (n, C, H, W), the names of its attacks, and its budget."""

    scores: Scores
    adversarial: NDArray[np.float32]
    attacks: tuple[str, ...]
    budget: tuple[str, float]

    def fell_to(self, index: int) -> str | None:
        fallen_at = int(self.scores.fallen_at[index])
        if fallen_at <= 0:
            return None if fallen_at == STANDS else "no attack"
        return self.attacks[fallen_at - 1] if fallen_at <= len(self.attacks) else f"attack {fallen_at}"

    def clean_is_kept(self) -> NDArray[np.bool_]:
        """Return a mask of the robust images whose stored image is the clean one, because both have the same scores.

        The stored image of a robust image can also be an adversarial one that did not fool the model when it was scored
        again.
        """
        clean, kept = self.scores.clean, self.scores.adversarial
        same = np.abs(kept - clean).max(axis=1) <= 1e-3 * (1 + np.abs(clean).max(axis=1))
        return (self.scores.fallen_at == STANDS) & same


def _one_each(rows: Mapping[str, Row]) -> dict[str, StoredResult]:
    """Return one result per row, of the same seed if all rows share one."""
    common = set.intersection(*(set(row.seeds) for row in rows.values())) if rows else set()
    chosen = {}
    for name, row in rows.items():
        seed = min(common or row.seeds)
        chosen[name] = next(result for result in row.results if result.seed == seed)
    return chosen


def _attacked(stored: StoredResult, outcomes: Mapping[str, NDArray[Any]]) -> _Attacked:
    """Return one run's images and scores. Raise DamagedError if the images are missing or do not fit the scores."""
    kept = scores(stored)
    adversarial = outcomes.get("adversarial")
    if adversarial is None:
        raise DamagedError(f"{stored.folder.path / layout.OUTCOMES}: was exported without its images")
    if adversarial.ndim != 4 or len(adversarial) != len(kept.fallen_at):
        raise DamagedError(f"{stored.folder.path / layout.OUTCOMES}: is damaged, its images do not match their scores")
    evaluation = stored.result.evaluation
    attacks = tuple(step.attack for step in stored.result.cascade)
    return _Attacked(kept, adversarial, attacks, (evaluation.norm, evaluation.eps))


def _pair(stands: str, falls: str, attacked: Mapping[str, _Attacked], shown: int) -> Pair:
    ours, theirs = attacked[stands], attacked[falls]
    images = min(len(ours.adversarial), len(theirs.adversarial))
    shared = ours.clean_is_kept()[:images] & (theirs.scores.fallen_at[:images] > 0)
    indices = _varied(np.flatnonzero(shared).tolist(), ours.scores.labels, shown)
    others = [name for name in attacked if name not in (stands, falls)]
    pictures = []
    for index in indices:
        clean, adversarial = ours.adversarial[index], theirs.adversarial[index]
        change = adversarial.astype(np.float64) - clean
        largest = float(np.abs(change).max())
        pictures.append(
            Picture(
                index,
                int(ours.scores.labels[index]),
                _pixels(clean),
                _pixels(adversarial),
                _pixels(0.5 + change / (2 * largest) if largest else np.full(change.shape, 0.5)),
                largest,
                tuple(
                    _view(name, attacked[name], index)
                    for name in (stands, falls, *others)
                    if index < len(attacked[name].adversarial)
                ),
            )
        )
    return Pair(stands, falls, int(shared.sum()), images, tuple(pictures))


def _varied(indices: Sequence[int], labels: NDArray[np.int64], count: int) -> list[int]:
    """Return at most `count` indices: the first of each class, then the second of each, and so on."""
    seen: dict[int, int] = {}
    turns = []
    for index in indices:
        label = int(labels[index])
        seen[label] = seen.get(label, -1) + 1
        turns.append((seen[label], index))
    return [index for _, index in sorted(turns)[:count]]


def _view(name: str, run: _Attacked, index: int) -> View:
    clean, adversarial = (softmax(logits[index][None])[0] for logits in (run.scores.clean, run.scores.adversarial))
    prediction, fell = int(clean.argmax()), run.scores.fallen_at[index] > 0
    return View(
        name,
        run.fell_to(index),
        prediction,
        float(clean[prediction]),
        int(adversarial.argmax()) if fell else None,
        float(adversarial.max()) if fell else None,
    )


def _pixels(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Convert an image (C, H, W) in [0, 1] to uint8 (H, W, C)."""
    return np.rint(255 * np.clip(image.transpose(1, 2, 0), 0, 1)).astype(np.uint8)
