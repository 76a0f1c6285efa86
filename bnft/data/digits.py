"""The 1,797 handwritten 8x8 digits that come inside scikit-learn: real data without a download."""

from typing import Annotated

import numpy as np

from bnft.common.constraints import above, below
from bnft.data.dataset import Arrays


def load(test_images: Annotated[int, above(0), below(1797)] = 500) -> Arrays:
    """The UCI optical digits (test part), as shipped by scikit-learn; grey values 0 to 16, one channel.

    The order is a fixed permutation; the last `test_images` of it are the test split (1,297 and 500 by default).
    """
    from sklearn.datasets import load_digits  # here, since it takes a second to import

    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.images))  # this legacy stream is frozen by NumPy's policy
    images = digits.images[order].astype(np.uint8)[..., np.newaxis]
    labels = digits.target[order].astype(np.int64)
    return Arrays(images[:-test_images], labels[:-test_images], images[-test_images:], labels[-test_images:], levels=16)
