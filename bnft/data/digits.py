"""The 1,797 handwritten 8x8 digits of scikit-learn: real data without a download."""

from typing import Annotated

import numpy as np

from bnft.common.constraints import above, below
from bnft.data.dataset import Arrays


def load(test_images: Annotated[int, above(0), below(1797)] = 500) -> Arrays:
    """Load the test part of the UCI optical digits, as included in scikit-learn. Grey values are from 0 to 16.

    Args:
        test_images: the size of the test split. It consists of the last images of a fixed permutation.
    """
    from sklearn.datasets import load_digits  # here, because the import takes a second

    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.images))  # NumPy never changes this stream
    images = digits.images[order].astype(np.uint8)[..., np.newaxis]
    labels = digits.target[order].astype(np.int64)
    return Arrays(images[:-test_images], labels[:-test_images], images[-test_images:], labels[-test_images:], levels=16)
