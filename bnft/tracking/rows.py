"""Read the rows of a run that are tracked from its folder. There is one row per step, and a row never changes.

Step 0 describes the BN layers before training, and step e the end of epoch e. The following steps are the evaluations,
in the order in which they were first seen.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnft.batchnorm.record import QUANTITIES, BatchNormRecord
from bnft.common import files
from bnft.common.errors import DamagedError
from bnft.report.outcomes import confidence
from bnft.runs import layout
from bnft.runs.evaluation_folder import EvaluationFolder
from bnft.runs.result import Result
from bnft.runs.run_folder import RunFolder
from bnft.tracking import keys
from bnft.tracking.histograms import BATCHNORM, TEST, Histogram, histogram

EXAMPLES = 8  # pairs of images per evaluation
LOCAL = ("store", "wandb", "device", "threads", "preview")
"""Parts of the configuration that do not affect what is computed."""


@dataclass(frozen=True)
class Picture:
    """An image (H, W, C) of uint8, where C is 1 or 3, and its caption."""

    pixels: NDArray[np.uint8]
    caption: str


@dataclass(frozen=True)
class LoggedRow:
    """The values that are logged at one step, by the names in `keys`."""

    step: int
    values: dict[str, float | int | str]
    histograms: dict[str, Histogram] = field(default_factory=dict)
    pictures: dict[str, list[Picture]] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class Records:
    """The rows of a run so far.

    Args:
        folder: the folder of the run.
        order: the ids of the evaluations, in the order of their steps; see `order_of`.

    Raises:
        DamagedError: if its files are damaged.
    """

    def __init__(self, folder: RunFolder, order: Sequence[str] = ()) -> None:
        self.folder, self.order = folder, order
        self.trained = folder.trained or bool(
            folder.evaluations()
        )  # checked first, because the logs of a trained run are complete
        self.history = folder.history()
        self.batchnorm: BatchNormRecord | None = None
        if (folder.path / layout.BATCHNORM).exists():
            self.batchnorm = folder.batchnorm()

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.folder.config()

    @property
    def epochs(self) -> int:
        """The last epoch that has a row; -1 if not even the state before training has one."""
        if self.trained:
            return len(self.history)
        return min(len(self.history), self.batchnorm.epochs[-1]) if self.batchnorm and self.batchnorm.epochs else -1

    def __len__(self) -> int:
        """The number of rows, which have the steps 0, 1, 2 and so on."""
        return self.epochs + 1 + (len(self.order) if self.trained else 0)

    def row(self, step: int) -> LoggedRow:
        """Return the row of a step."""
        return self._epoch(step) if step <= self.epochs else self._evaluation(step)

    def _epoch(self, epoch: int) -> LoggedRow:
        values: dict[str, float | int | str] = {keys.EPOCH: epoch}
        if epoch:
            values |= trained_values(self.history[epoch - 1], bool(self.config["attack"]))
        histograms = {}
        if self.batchnorm is not None and epoch in self.batchnorm.epochs:
            place = self.batchnorm.epochs.index(epoch)
            for layer in self.batchnorm.layers:
                for quantity in QUANTITIES:
                    channels = self.batchnorm.values(layer, quantity)[place]
                    histograms[keys.bn(layer, quantity)] = histogram(channels, BATCHNORM[quantity])
                    if quantity == "m":
                        values[keys.mean_m(layer)] = float(channels.mean())
        return LoggedRow(epoch, values, histograms)

    def _evaluation(self, step: int) -> LoggedRow:
        folder = self.folder.evaluation(self.order[step - self.epochs - 1])
        result = folder.result()
        if result is None:
            raise DamagedError(f"{folder.path}: is missing, but it was tracked before")
        outcomes = folder.outcomes()
        pictures = examples(outcomes, [step.attack for step in result.cascade])
        return LoggedRow(
            step,
            {keys.EPOCH: self.epochs, **tested_values(result)},
            tested_histograms(outcomes),
            {keys.EXAMPLES: pictures} if pictures else {},
            {keys.CASCADE: cascade(result)},
        )


def order_of(known: Sequence[str], done: Sequence[EvaluationFolder]) -> list[str]:
    """Return the ids of the evaluations in the order of their steps: first the known ones, then new ones by time."""
    names = {folder.path.name: folder for folder in done}
    new = [folder for name, folder in names.items() if name not in known]
    new.sort(key=lambda folder: ((folder.path / layout.RESULT).stat().st_mtime_ns, folder.path.name))
    return [*known, *(folder.path.name for folder in new)]


def trained_values(line: Mapping[str, Any], adversarial: bool) -> dict[str, float | int | str]:
    """Return the values of one line of the history. In adversarial training, error and loss are those under PGD."""
    values: dict[str, float | int | str] = {
        keys.TRAIN_LOSS: line["loss"],
        keys.TRAIN_ERROR: line["error"],
        keys.TRAIN_CLEAN_ERROR: line["clean_error"],
        keys.TRAIN_LR: line["lr"],
        keys.TRAIN_SECONDS: line["seconds"],
    }
    if "monitor_robust_error" in line:
        values |= {
            keys.MONITOR_CLEAN_ERROR: line["monitor_clean_error"],
            keys.MONITOR_ROBUST_ERROR: line["monitor_robust_error"],
        }
    if adversarial:
        values |= {keys.TRAIN_ADVERSARIAL_ERROR: line["error"], keys.TRAIN_PGD_LOSS: line["loss"]}
    if line["seconds"]:
        values[keys.TRAIN_IMAGES_PER_SECOND] = line["images"] / line["seconds"]
    return values


def tested_values(result: Result) -> dict[str, float | int | str]:
    """Return the numbers of one evaluation."""
    clean, robust, how = result.clean, result.robust, result.evaluation
    values: dict[str, float | int | str] = {
        keys.TEST_CLEAN_ERROR: clean.error,
        keys.TEST_ROBUST_ERROR: robust.error,
        keys.TEST_CLEAN_LOW: clean.interval[0],
        keys.TEST_CLEAN_HIGH: clean.interval[1],
        keys.TEST_ROBUST_LOW: robust.interval[0],
        keys.TEST_ROBUST_HIGH: robust.interval[1],
        keys.TEST_EPS: how.eps,
        keys.TEST_NORM: how.norm,
        keys.TEST_ATTACK: how.shown_attack,
        keys.TEST_EVALUATION: how.id,
        keys.TEST_SECONDS: result.seconds,
        keys.TEST_WARNINGS: len(result.warnings),
    }
    values |= {keys.after(step.attack): step.error for step in result.cascade}
    if result.strongest is not None:
        values[keys.TEST_STRONGEST_ERROR] = result.strongest.error
    if result.pgd_loss is not None:
        values[keys.TEST_PGD_LOSS] = result.pgd_loss
    return values


def cascade(result: Result) -> list[dict[str, Any]]:
    """Return the robust error in percent after each attack."""
    return [
        {
            "attack": step.attack,
            "robust error": step.error,
            "low": step.interval[0],
            "high": step.interval[1],
            "seconds": step.seconds,
        }
        for step in result.cascade
    ]


def tested_histograms(outcomes: Mapping[str, NDArray[Any]]) -> dict[str, Histogram]:
    """Return histograms of the attacked images: confidence and logits, of the originals and the adversarial ones."""
    count = len(outcomes["fallen_at"])
    clean, adversarial = outcomes["clean_logits"][:count], outcomes["adversarial_logits"]
    arrays = {
        keys.CLEAN_CONFIDENCE: confidence(clean),
        keys.ADVERSARIAL_CONFIDENCE: confidence(adversarial),
        keys.CLEAN_LOGITS: clean,
        keys.ADVERSARIAL_LOGITS: adversarial,
    }
    return {key: histogram(values, TEST[key]) for key, values in arrays.items()}


def examples(outcomes: Mapping[str, NDArray[Any]], attacks: Sequence[str]) -> list[Picture]:
    """Return the first attacked images. Each original is followed by its adversarial version.

    Old records have no originals.
    """
    originals = outcomes.get("originals", np.empty(0))
    pictures = []
    for index in range(min(EXAMPLES, len(outcomes["fallen_at"]))):
        label, fallen_at = int(outcomes["labels"][index]), int(outcomes["fallen_at"][index])
        what = f"{index}: class {label}"
        if index < len(originals):
            predicted = int(outcomes["clean_logits"][index].argmax())
            pictures.append(Picture(_pixels(originals[index]), f"{what}, classified as {predicted}"))
        predicted = int(outcomes["adversarial_logits"][index].argmax())
        attack = attacks[fallen_at - 1] if 0 < fallen_at <= len(attacks) else "no attack"
        if fallen_at > 0:
            how = f"classified as {predicted} after {attack}"
        else:
            how = "robust" if fallen_at else "wrong without an attack"
        if "adversarial" in outcomes:  # an exported result has none
            pictures.append(Picture(_pixels(outcomes["adversarial"][index]), f"{what}, {how}"))
    return pictures


def _pixels(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Convert an image (C, H, W) in [0, 1] to (H, W, C), with one channel or three."""
    channels = image[:3] if len(image) >= 3 else image[:1]
    return np.asarray(np.rint(255 * np.clip(channels, 0, 1)).astype(np.uint8).transpose(1, 2, 0))


def described(folder: RunFolder, config: Mapping[str, Any], commit: str | None) -> dict[str, Any]:
    """Return the run's configuration, with the commit, versions, hardware and counts that are recorded so far."""
    result = {key: value for key, value in config.items() if key not in LOCAL}
    for name in (layout.MODEL, layout.CHECKPOINT):
        with suppress(DamagedError):
            kept = files.read_metadata(folder.path / name)
            result |= {key: kept[key] for key in ("versions", "hardware", "counts") if key in kept}
            break
    if commit:
        result["git_commit"] = commit
    return result
