"""The outcome of each image in one evaluation, in a few bytes per image, and further numbers that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnft.evaluation.settings import STANDS

FIRST_IMAGES = 900  # of `clean_error_900`; published errors of 900 images exist

Errors = NDArray[np.bool_]  # whether each image is misclassified


@dataclass(frozen=True)
class PerImage:
    """The errors of one evaluation. Percentages are None if an older result lacks the data for them.

    Attributes:
        robust: whether each attacked image is misclassified, with or without an attack. The attacked images are the
            first test images.
        clean: whether each test image is misclassified without an attack; None in older results.
        constant: the same for a classifier that always predicts the most frequent class of the attacked images.
        largest_class: the share of the class that the model predicts most often for the attacked images, in percent.
    """

    robust: Errors
    clean: Errors | None = None
    constant: Errors | None = None
    largest_class: float | None = None

    @classmethod
    def of(cls, outcomes: Mapping[str, NDArray[Any]]) -> "PerImage":
        """Compute the errors from the outcomes of an evaluation, see `evaluation.Outcomes`."""
        robust = outcomes["fallen_at"] != STANDS
        if not {"clean_logits", "labels"} <= outcomes.keys() or not len(robust):
            return cls(robust)
        labels, predictions = outcomes["labels"], outcomes["clean_logits"].argmax(axis=1)
        usual = np.bincount(labels[: len(robust)]).argmax()
        largest = np.bincount(predictions[: len(robust)]).max()
        return cls(robust, predictions != labels, labels != usual, 100 * float(largest) / len(robust))

    @property
    def constant_error(self) -> float | None:
        """The error of the constant classifier on the attacked images, in percent. No attack changes it."""
        return None if self.constant is None else _percent(self.constant[: len(self.robust)])

    @property
    def clean_error_900(self) -> float | None:
        """The clean error on the first 900 test images, in percent. Most likely, the paper uses these images."""
        enough = self.clean is not None and len(self.clean) >= FIRST_IMAGES
        return _percent(self.clean[:FIRST_IMAGES]) if self.clean is not None and enough else None

    @property
    def robust_error_correct(self) -> float | None:
        """The robust error among the attacked images that are classified correctly without an attack, in percent."""
        if self.clean is None:
            return None
        return _percent(self.robust[~self.clean[: len(self.robust)]])


def _percent(errors: Errors) -> float | None:
    return 100 * float(errors.mean()) if len(errors) else None
