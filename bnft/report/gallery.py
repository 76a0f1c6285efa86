"""Images that fool one policy and not another, with what makes them do so.

That an image stands means that the attacks found nothing within the budget that changes its class. Since the
adversarial image that is kept for it then is the image itself, the clean image of every pair is found in the store,
without the data set: it stands for one policy, and its adversarial image fools the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnft.common.errors import DamagedError
from bnft.evaluation.settings import STANDS
from bnft.report.outcomes import Scores, scores, softmax
from bnft.report.rows import Row, StoredResult
from bnft.runs import layout

SHOWN = 6  # images of a pair

PAIRS = (  # the policy that stands, the policy that falls
    ("adv", "bn_params"),
    ("bn_params", "adv"),
    ("bn_params", "normal"),
    ("normal", "bn_params"),
    ("bn_params", "bn_stats"),
    ("bn_stats", "bn_params"),
    ("bn_stats", "normal"),
    ("normal", "bn_stats"),
)


@dataclass(frozen=True)
class View:
    """What one policy makes of an image. Confidences are probabilities from 0 to 1.

    `fell_to` is the attack that it fell to, "no attack" where the clean image is misclassified already, None where it
    stands; only where it fell to an attack is there an adversarial prediction.
    """

    policy: str
    fell_to: str | None
    clean_prediction: int
    clean_confidence: float
    adversarial_prediction: int | None
    adversarial_confidence: float | None


@dataclass(frozen=True)
class Picture:
    """An image, number `index` of the test images, which `stands` classifies correctly under attack, and `falls` not.

    Images are uint8 of shape (H, W, C). `adversarial` is the one that fools `falls`; `perturbation` is grey where
    nothing changed, and black or white at the largest change, `largest`, in pixel units (a share of the range).
    `views` has one view for every policy that was asked for, the pair's own first.
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
    """The images of `images` that both attacked on which `stands` stands, and `falls` fell to an attack: `count`.

    `pictures` are a few of them: in the order of the test images, but at most one of each class before there is a
    second of any.
    """

    stands: str
    falls: str
    count: int
    images: int
    pictures: tuple[Picture, ...]


def gallery(
    rows: Mapping[str, Row], pairs: Sequence[tuple[str, str]] = PAIRS, shown: int = SHOWN
) -> tuple[list[Pair], list[str]]:
    """The pairs of `rows` (by policy, or any other name that `pairs` uses), and notes on what cannot be read.

    Of each row one run is shown, of the lowest seed that all rows have, or else the row's lowest. Left out are pairs of
    which a row is missing or has no images, or whose rows were attacked within different budgets. Raises DamagedError
    for images that are not whole.
    """
    notes: list[str] = []
    asked = {name for pair in pairs for name in pair}
    found: dict[str, _Attacked] = {}
    for name, result in _one_each({name: row for name, row in rows.items() if name in asked}).items():
        outcomes = result.outcomes()
        try:
            found[name] = _attacked(result, outcomes)
        except DamagedError as error:
            notes.append(f"{result.run_folder.name}: no images: {error}")
    able = [(stands, falls) for stands, falls in pairs if {stands, falls} <= found.keys()]
    alike = [(stands, falls) for stands, falls in able if found[stands].budget == found[falls].budget]
    return [_pair(stands, falls, found, shown) for stands, falls in alike], notes


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
        """Of which images that stand the image itself is kept: those that score as the image itself does.

        An adversarial image that did not fool the model when it was scored again was kept too, though its image stands.
        """
        clean, kept = self.scores.clean, self.scores.adversarial
        same = np.abs(kept - clean).max(axis=1) <= 1e-3 * (1 + np.abs(clean).max(axis=1))
        return (self.scores.fallen_at == STANDS) & same


def _one_each(rows: Mapping[str, Row]) -> dict[str, StoredResult]:
    """One result of each row, of one seed if there is a seed that all have."""
    common = set.intersection(*(set(row.seeds) for row in rows.values())) if rows else set()
    chosen = {}
    for name, row in rows.items():
        seed = min(common or row.seeds)
        chosen[name] = next(result for result in row.results if result.seed == seed)
    return chosen


def _attacked(stored: StoredResult, outcomes: Mapping[str, NDArray[Any]]) -> _Attacked:
    """Raises DamagedError if the images are not among the outcomes, or do not fit them."""
    found = scores(stored)
    adversarial = outcomes.get("adversarial")
    if adversarial is None:
        raise DamagedError(f"{stored.folder.path / layout.OUTCOMES}: was exported without its images")
    if adversarial.ndim != 4 or len(adversarial) != len(found.fallen_at):
        raise DamagedError(f"{stored.folder.path / layout.OUTCOMES}: is damaged, images do not match their scores")
    evaluation = stored.result.evaluation
    attacks = tuple(step.attack for step in stored.result.cascade)
    return _Attacked(found, adversarial, attacks, (evaluation.norm, evaluation.eps))


def _pair(stands: str, falls: str, found: Mapping[str, _Attacked], shown: int) -> Pair:
    ours, theirs = found[stands], found[falls]
    images = min(len(ours.adversarial), len(theirs.adversarial))
    fits = ours.clean_is_kept()[:images] & (theirs.scores.fallen_at[:images] > 0)
    indices = _varied(np.flatnonzero(fits).tolist(), ours.scores.labels, shown)
    others = [name for name in found if name not in (stands, falls)]
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
                    _view(name, found[name], index)
                    for name in (stands, falls, *others)
                    if index < len(found[name].adversarial)
                ),
            )
        )
    return Pair(stands, falls, int(fits.sum()), images, tuple(pictures))


def _varied(indices: Sequence[int], labels: NDArray[np.int64], count: int) -> list[int]:
    """At most `count` of the indices: the first of each class, then the second of each, and so on."""
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
    """An image (C, H, W) in [0, 1] as uint8 of shape (H, W, C)."""
    return np.rint(255 * np.clip(image.transpose(1, 2, 0), 0, 1)).astype(np.uint8)
