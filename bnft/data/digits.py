"""The 1,797 handwritten 8x8 digits of scikit-learn: real data without a download."""

from typing import Annotated

import numpy as np

from bnft.common.compat import digits_file
from bnft.common.constraints import above, below
from bnft.data.dataset import Arrays


def load(test_images: Annotated[int, above(0), below(1797)] = 500) -> Arrays:
    """Load the test part of the UCI optical digits, as included in scikit-learn. Grey values are from 0 to 16.

    Args:
        test_images: the size of the test split. It consists of the last images of a fixed permutation.
    """
    table = np.loadtxt(digits_file(), delimiter=",", dtype=np.int64)  # 64 pixels and the label of each image
    order = np.random.RandomState(0).permutation(len(table))  # NumPy never changes this stream
    images = table[order, :-1].astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = table[order, -1]
    return Arrays(images[:-test_images], labels[:-test_images], images[-test_images:], labels[-test_images:], levels=16)
