"""What became of each image in one evaluation, in a few bytes each, and what is counted from it beside the errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnft.evaluation.settings import STANDS
from bnft.studies.paper import CLEAN_IMAGES

Errors = NDArray[np.bool_]  # whether each image is misclassified


@dataclass(frozen=True)
class PerImage:
    """The errors of one evaluation. Percentages are None where an older result lacks what they are counted from.

    Args:
        robust: of the attacked images, which are the first test images: misclassified, with an attack or without.
        clean: of all test images, without an attack; none in older results.
        constant: of all test images, by a classifier that always predicts the most frequent of the attacked classes.
        largest_class: how many of the attacked images the model takes for the class that it predicts most, in percent.
    """

    robust: Errors
    clean: Errors | None = None
    constant: Errors | None = None
    largest_class: float | None = None

    @classmethod
    def of(cls, outcomes: Mapping[str, NDArray[Any]]) -> "PerImage":
        """From the outcomes of an evaluation, see `evaluation.Outcomes`."""
        robust = outcomes["fallen_at"] != STANDS
        if not {"clean_logits", "labels"} <= outcomes.keys() or not len(robust):
            return cls(robust)
        labels, predictions = outcomes["labels"], outcomes["clean_logits"].argmax(axis=1)
        usual = np.bincount(labels[: len(robust)]).argmax()
        largest = np.bincount(predictions[: len(robust)]).max()
        return cls(robust, predictions != labels, labels != usual, 100 * float(largest) / len(robust))

    @property
    def constant_error(self) -> float | None:
        """The error of the constant classifier on the attacked images, which no attack changes."""
        return None if self.constant is None else _percent(self.constant[: len(self.robust)])

    @property
    def clean_error_900(self) -> float | None:
        """The clean error on the first 900 test images, most likely those of the paper."""
        enough = self.clean is not None and len(self.clean) >= CLEAN_IMAGES
        return _percent(self.clean[:CLEAN_IMAGES]) if self.clean is not None and enough else None

    @property
    def robust_error_correct(self) -> float | None:
        """The robust error among the attacked images that are classified correctly without an attack."""
        if self.clean is None:
            return None
        return _percent(self.robust[~self.clean[: len(self.robust)]])


def _percent(errors: Errors) -> float | None:
    return 100 * float(errors.mean()) if len(errors) else None
